"""The pose of a query from what it costs where its points project to, by Levenberg-Marquardt."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pixcli.localization.pose import RefinedIntrinsics, Sensor, by_pose, finite, project

import pycolmap

Float64 = npt.NDArray[np.float64]

Evaluate = Callable[[Float64], Float64]
"""(n, 6) cost at positions (n, 2) in an image, its gradient x y and its Hessian xx xy yy by the pixel."""

_STEP = 1e-5  # of a parameter, that derivatives are taken over
_PIXEL_STEP = 0.05  # that gradients by the pixel change over
_LEAST_CURVATURE = 1e-9  # relative; with less the pose is no minimum of the cost as it is
_SETTLED = 1e-4  # pixels that a last step moves projections by: features tell no less
_MIN_FACTOR, _MAX_FACTOR = 1e-9, 1e6  # of the damping


@dataclass(frozen=True)
class Observed:
    """n points and what it costs where one sensor sees them."""

    points: Float64
    """(n, 3)"""
    evaluate: Evaluate
    curvature: Callable[[Float64], Float64] | None = None
    """(n, 2, 2) change of the gradient at positions (n, 2); None: by differences."""


@dataclass(frozen=True)
class CostedPose:
    """A pose and what it costs."""

    rig_from_world: pycolmap.Rigid3d
    sensors: list[Sensor]
    """With what was refined of their cameras."""
    covariance: Float64
    """(6, 6), see LocalizationResult."""
    pixel_deviation: float
    """Pixels along an axis that projections deviate by, as the covariance predicts; root mean square."""
    cost_before: float
    """Mean of a point."""
    cost_after: float


def refine_costed_pose(
    rig_from_world: pycolmap.Rigid3d,
    sensors: Sequence[Sensor],
    observed: Sequence[Observed],
    intrinsics: RefinedIntrinsics,
    max_iterations: int,
    function_tolerance: float,
) -> CostedPose | None:
    """Move the pose, and intrinsics on request, to the least cost; None if that does not determine them.

    Args:
        max_iterations: 0 only tells what the pose that is given costs, and how certain it is.
        function_tolerance: stop where no step promises a larger relative decrease of the cost.
    """
    state = _State(rig_from_world, list(sensors))
    costs = state.evaluate(observed)
    count = sum(len(part.points) for part in observed)
    before = now = _total(costs)
    if count == 0 or not np.isfinite(before):
        return None
    jacobian = state.jacobian(observed, intrinsics)
    h, gradients = _equations(jacobian, costs)
    factor = 1e-4
    for _ in range(max_iterations):
        gradient = gradients.sum(axis=0)
        damped = h + factor * np.diag(np.diag(h))
        try:
            step = -np.linalg.solve(damped, gradient)
        except np.linalg.LinAlgError:
            return None
        if not -gradient @ step - step @ h @ step / 2 > function_tolerance * now:
            break
        if np.sqrt(np.mean((jacobian @ step) ** 2)) < _SETTLED:
            break
        candidate = state.moved(step, intrinsics)
        candidate_costs = candidate.evaluate(observed)
        if (total := _total(candidate_costs)) < now:
            state, costs, now = candidate, candidate_costs, total
            jacobian = state.jacobian(observed, intrinsics)
            h, gradients = _equations(jacobian, costs)
            factor = max(factor / 10, _MIN_FACTOR)
        elif (factor := factor * 10) > _MAX_FACTOR:
            break
    covariance = _covariance(jacobian, state.curvature(observed), h, gradients)
    if covariance is None:
        return None
    flat = jacobian.reshape(-1, len(covariance))
    variance = ((flat @ covariance) * flat).sum(axis=1)
    return CostedPose(
        state.rig_from_world,
        state.sensors,
        covariance[:6, :6],
        float(np.sqrt(variance.mean())),
        before / count,
        now / count,
    )


def observed_at(points: Float64, xy: Float64) -> Observed:
    """Points (n, 3) that cost half of Cauchy's loss, of one pixel, of their distances to xy (n, 2)."""

    def residual_of(at: Float64) -> tuple[Float64, Float64]:
        residual = (at - xy).T
        return residual, 1 / (1 + residual[0] ** 2 + residual[1] ** 2)

    def evaluate(at: Float64) -> Float64:
        (x, y), weight = residual_of(at)
        costs = np.zeros((len(xy), 6))
        costs[:, 0], costs[:, 1], costs[:, 2] = -0.5 * np.log(weight), weight * x, weight * y
        costs[:, 3] = costs[:, 5] = weight
        return costs

    def curvature(at: Float64) -> Float64:
        (x, y), weight = residual_of(at)
        flattening = 2 * weight**2
        result = np.empty((len(xy), 2, 2))
        result[:, 0, 0], result[:, 1, 1] = weight - flattening * x * x, weight - flattening * y * y
        result[:, 0, 1] = result[:, 1, 0] = -flattening * x * y
        return result

    return Observed(points, evaluate, curvature)


@dataclass(frozen=True)
class _State:
    rig_from_world: pycolmap.Rigid3d
    sensors: list[Sensor]

    def evaluate(self, observed: Sequence[Observed]) -> Float64:
        """(n, 6) of all sensors."""
        parts = [
            part.evaluate(project(sensor, self.rig_from_world, part.points))
            for sensor, part in zip(self.sensors, observed, strict=True)
        ]
        return np.concatenate(parts)

    def jacobian(self, observed: Sequence[Observed], intrinsics: RefinedIntrinsics) -> Float64:
        """(n, 2, k) of the projections by w and v of the pose, then by the intrinsics of each camera."""
        total = 6 + sum(len(intrinsics.indices(sensor.camera)) for sensor in self.sensors)
        blocks, first = [], 6
        for sensor, part in zip(self.sensors, observed, strict=True):
            block = np.zeros((len(part.points), 2, total))
            block[:, :, :6] = by_pose(sensor, self.rig_from_world, part.points)
            for column, index in enumerate(intrinsics.indices(sensor.camera), first):
                ahead, behind, size = _varied(sensor, index)
                seen = [project(varied, self.rig_from_world, part.points) for varied in (ahead, behind)]
                block[:, :, column] = (seen[0] - seen[1]) / (2 * size)
            first += len(intrinsics.indices(sensor.camera))
            blocks.append(finite(block))
        return np.concatenate(blocks)

    def curvature(self, observed: Sequence[Observed]) -> Float64:
        """(n, 2, 2) change of each point's gradient by the pixel."""
        parts = []
        for sensor, part in zip(self.sensors, observed, strict=True):
            xy = project(sensor, self.rig_from_world, part.points)
            if part.curvature is not None:
                parts.append(finite(part.curvature(xy)))
                continue
            change = [
                (part.evaluate(xy + axis) - part.evaluate(xy - axis))[:, 1:3] / (2 * _PIXEL_STEP)
                for axis in _PIXEL_STEP * np.eye(2)
            ]
            parts.append(finite(np.stack(change, axis=2)))
        return np.concatenate(parts)

    def moved(self, step: Float64, intrinsics: RefinedIntrinsics) -> "_State":
        old = self.rig_from_world
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(step[:3]) * old.rotation, old.translation + step[3:6])
        sensors, first = [], 6
        for sensor in self.sensors:
            indices = intrinsics.indices(sensor.camera)
            sensors.append(_with_params(sensor, indices, step[first : first + len(indices)]))
            first += len(indices)
        return _State(pose, sensors)


def _total(costs: Float64) -> float:
    total = float(costs[:, 0].sum())
    return total if np.isfinite(total) else np.inf


def _equations(jacobian: Float64, costs: Float64) -> tuple[Float64, Float64]:
    """The Hessian (k, k), and the gradient of each point (n, k)."""
    hessian = costs[:, [3, 4, 4, 5]].reshape(-1, 2, 2)
    return _by_parameters(jacobian, hessian), (costs[:, None, 1:3] @ jacobian)[:, 0]


def _by_parameters(jacobian: Float64, curvature: Float64) -> Float64:
    """(k, k) sum of the curvatures (n, 2, 2) by the pixel."""
    flat = jacobian.reshape(-1, jacobian.shape[2])
    return np.asarray(flat.T @ (curvature @ jacobian).reshape(flat.shape))


def _covariance(jacobian: Float64, curvature: Float64, h: Float64, gradients: Float64) -> Float64 | None:
    """From how the gradients of single points scatter: whatever the cost is, and however it is scaled.

    The change of the gradient is the whole one: that of Gauss-Newton is too large where the loss flattens.
    """
    count = len(gradients)
    spare = count - len(h) / 2  # two equations a point
    if spare <= 0:
        return None
    whole = _by_parameters(jacobian, curvature)
    if not np.linalg.eigvalsh(_scaled(whole, h)).min() > _LEAST_CURVATURE:
        whole = h
    try:
        inverse = np.linalg.inv(whole)
    except np.linalg.LinAlgError:
        return None
    covariance = inverse @ (gradients.T @ gradients) @ inverse * (count / spare)
    return covariance if np.isfinite(covariance).all() else None


def _scaled(matrix: Float64, by: Float64) -> Float64:
    """A matrix as it is where `by` has ones on its diagonal; finite in any case."""
    size = np.sqrt(np.maximum(np.diag(by), np.finfo(float).tiny))
    return finite((matrix + matrix.T) / 2 / np.outer(size, size))


def _varied(sensor: Sensor, index: int) -> tuple[Sensor, Sensor, float]:
    size = _STEP * max(abs(float(sensor.camera.params[index])), 1.0)
    return (
        _with_params(sensor, [index], np.array([size])),
        _with_params(sensor, [index], np.array([-size])),
        size,
    )


def _with_params(sensor: Sensor, indices: Sequence[int], step: Float64) -> Sensor:
    if not indices:
        return sensor
    camera, params = copy(sensor.camera), np.array(sensor.camera.params)
    params[list(indices)] += step
    camera.params = params
    return replace(sensor, camera=camera)
