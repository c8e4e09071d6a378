"""The pose of a query from measured projections of known points: robust, weighted, with its covariance.

A query is one image, or several of a rig: *sensors*, whose poses in the frame of the rig are known. The pose
is that of the rig; for a single image the two are the same.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pixcli.geometry.projection import derivatives_by_point

import pycolmap

Float64 = npt.NDArray[np.float64]

_ITERATIONS = 10  # for each scale of the loss
_DAMPING = 1e-9
_MIN_SIGHTINGS = 4
_SETTLED = 1e-4  # of a parameter's standard deviation
_MEDIAN = 2 * float(np.log(2))  # of squared lengths along two axes, in variances
_HALVINGS = 12
_ROUGHLY = 0.3  # deviation of intrinsics that nothing tells of, of the focal length or of 1
_EXPECTED = 5  # sightings
_CLUSTERS = 8  # along each side of an image, whose errors may have a common part


@dataclass(frozen=True)
class Sensor:
    """A camera of a query."""

    camera: pycolmap.Camera
    cam_from_rig: pycolmap.Rigid3d


@dataclass(frozen=True)
class Sightings:
    """n points and where one sensor sees them."""

    points: Float64
    """(n, 3) of the world."""
    xy: Float64
    """(n, 2) COLMAP pixels."""
    covariance: Float64
    """(n, 3) xx, xy, yy of what remains when the pose is right, in pixels squared."""

    def of(self, rows: npt.NDArray[np.bool_]) -> "Sightings":
        """Some of them."""
        return Sightings(self.points[rows], self.xy[rows], self.covariance[rows])


@dataclass(frozen=True)
class RefinedPose:
    """A pose and what it costs."""

    rig_from_world: pycolmap.Rigid3d
    cameras: list[pycolmap.Camera]
    """With what was refined of them."""
    covariance: Float64
    """(6, 6), see LocalizationResult."""
    residuals: list[Float64]
    """(n,) for each sensor, in standard deviations; infinite behind the camera."""
    cost_before: float
    """Mean of the last loss, for the pose before."""
    cost_after: float


@dataclass(frozen=True)
class RefinedIntrinsics:
    """What of the cameras is refined beside the pose."""

    focal_length: bool = False
    principal_point: bool = False
    extra_params: bool = False

    def indices(self, camera: pycolmap.Camera) -> list[int]:
        """Rows of camera.params."""
        return sorted(
            [*camera.focal_length_idxs()] * self.focal_length
            + [*camera.principal_point_idxs()] * self.principal_point
            + [*camera.extra_params_idxs()] * self.extra_params
        )


def covariance_of(
    rig_from_world: pycolmap.Rigid3d,
    sensors: Sequence[Sensor],
    sightings: Sequence[Sightings],
    scale: float,
    refined: RefinedIntrinsics,
) -> Float64 | None:
    """(6, 6) of a pose as it is; None if the sightings do not determine it.

    Args:
        scale: of the Cauchy loss that it was found with, in standard deviations of the sightings.
        refined: intrinsics that are only roughly known.
    """
    problem = _Problem(sensors, sightings, refined)
    state = _State(rig_from_world, [sensor.camera for sensor in sensors])
    return problem.covariance(problem.jacobian(state), problem.residuals(state), scale)


def refine_pose(
    rig_from_world: pycolmap.Rigid3d,
    sensors: Sequence[Sensor],
    sightings: Sequence[Sightings],
    scales: Sequence[float],
    refined: RefinedIntrinsics,
) -> RefinedPose | None:
    """The pose, and on request intrinsics, under Cauchy losses of these scales.

    They are in standard deviations of the sightings. Where residuals are larger than those, as with cameras
    that do not quite fit, all sightings deviate by as much more: the most precise of them must not decide
    alone, nor be taken for outliers. Every sensor's camera is refined on its own. None if the sightings do
    not determine all of it.
    """
    if sum(len(seen.xy) for seen in sightings) < _MIN_SIGHTINGS:
        return None
    problem = _Problem(sensors, sightings, refined)
    before = state = _State(rig_from_world, [sensor.camera for sensor in sensors])
    for scale in scales:
        problem.widen(state)
        jacobian = problem.jacobian(state)
        residuals = problem.residuals(state)
        cost = _cost(residuals, scale)
        for _ in range(_ITERATIONS):
            h, b = problem.equations(jacobian, residuals, scale)
            try:
                step = np.asarray(np.linalg.solve(h + _DAMPING * np.diag(np.diag(h)), b), float)
            except np.linalg.LinAlgError:
                return None
            size = float(np.sqrt(step @ h @ step / len(step)))
            # A full step may be too long where the loss is not convex.
            for _ in range(4):
                candidate = problem.moved(state, step)
                candidate_residuals = problem.residuals(candidate)
                candidate_cost = _cost(candidate_residuals, scale)
                if candidate_cost <= cost:
                    break
                step /= 4
            else:
                break
            state, residuals, cost = candidate, candidate_residuals, candidate_cost
            if size < _SETTLED:
                break
    covariance = problem.covariance(jacobian, residuals, scale)
    if covariance is None:
        return None
    squares = np.split((residuals**2).sum(1), np.cumsum([len(s.xy) for s in sightings])[:-1])
    return RefinedPose(
        state.rig_from_world,
        state.cameras,
        covariance,
        [np.sqrt(s) for s in squares],
        _cost(problem.residuals(before), scale),
        cost,
    )


@dataclass(frozen=True)
class _State:
    rig_from_world: pycolmap.Rigid3d
    cameras: list[pycolmap.Camera]


class _Problem:
    """Whitened residuals of all sensors' sightings, stacked (n, 2), and their derivatives (n, 2, k).

    The parameters are w and v of the pose, then those of each camera in turn.
    """

    def __init__(
        self, sensors: Sequence[Sensor], sightings: Sequence[Sightings], refined: RefinedIntrinsics
    ) -> None:
        self.sensors, self.sightings = sensors, sightings
        self.intrinsics = [refined.indices(sensor.camera) for sensor in sensors]
        self.whitening = [_whitening(seen.covariance) for seen in sightings]

    def widen(self, state: _State) -> None:
        """Weigh sightings as if all had that variance beyond their own which their residuals show."""
        offsets = [self._offsets(state, k) for k in range(len(self.sensors))]
        variance = _common_variance(
            np.concatenate(offsets), np.concatenate([seen.covariance for seen in self.sightings])
        )
        common = np.array([variance, 0, variance])
        self.whitening = [_whitening(seen.covariance + common) for seen in self.sightings]

    def residuals(self, state: _State) -> Float64:
        return np.concatenate([self._residuals(state, k) for k in range(len(self.sensors))])

    def _residuals(self, state: _State, k: int) -> Float64:
        return np.asarray(np.einsum("nij,nj->ni", self.whitening[k], self._offsets(state, k)))

    def _offsets(self, state: _State, k: int) -> Float64:
        return _project(state.cameras[k], self._in_camera(state, k)) - self.sightings[k].xy

    def _in_camera(self, state: _State, k: int) -> Float64:
        return _in_camera(self.sensors[k], state.rig_from_world, self.sightings[k].points)

    def jacobian(self, state: _State) -> Float64:
        total = 6 + sum(map(len, self.intrinsics))
        blocks, first = [], 6
        for k, sensor in enumerate(self.sensors):
            camera, in_camera = state.cameras[k], self._in_camera(state, k)
            block = np.zeros((len(in_camera), 2, total))
            block[:, :, :6] = by_pose(
                replace(sensor, camera=camera), state.rig_from_world, self.sightings[k].points
            )
            for column, index in enumerate(self.intrinsics[k], first):
                block[:, :, column] = _by_parameter(camera, index, in_camera)
            first += len(self.intrinsics[k])
            blocks.append(self.whitening[k] @ finite(block))
        return np.concatenate(blocks)

    def equations(self, jacobian: Float64, residuals: Float64, scale: float) -> tuple[Float64, Float64]:
        weight = _weights(residuals, scale)
        flat = jacobian.reshape(-1, jacobian.shape[2])
        weighted = flat * np.repeat(weight, 2)[:, None]
        return weighted.T @ flat, -weighted.T @ finite(residuals).ravel()

    def moved(self, state: _State, step: Float64) -> _State:
        old = state.rig_from_world
        turn = pycolmap.Rotation3d(step[:3])
        pose = pycolmap.Rigid3d(turn * old.rotation, old.translation + step[3:6])
        cameras, first = [], 6
        for camera, indices in zip(state.cameras, self.intrinsics, strict=True):
            cameras.append(_with_params(camera, indices, step[first : first + len(indices)]))
            first += len(indices)
        return _State(pose, cameras)

    def _roughly_known(self) -> Float64:
        """Inverse squared deviations of all refined intrinsics that hold without any sighting."""
        known = []
        for sensor, indices in zip(self.sensors, self.intrinsics, strict=True):
            camera = sensor.camera
            for index in indices:
                in_pixels = index not in camera.extra_params_idxs()
                known.append(1 / (_ROUGHLY * (camera.mean_focal_length() if in_pixels else 1)) ** 2)
        return np.array(known)

    def covariance(self, jacobian: Float64, residuals: Float64, scale: float) -> Float64 | None:
        """(6, 6) as if all errors were independent, and what the errors of neighbours have in common.

        The latter is seen in the gradients that clusters of neighbours add up to.
        """
        h, _ = self.equations(jacobian, residuals, scale)
        np.einsum("ii->i", h)[6:] += self._roughly_known()
        try:
            inverse = np.linalg.inv(h)
        except np.linalg.LinAlgError:
            return None
        weight = _weights(residuals, scale)
        gradient = np.einsum("n,nik,ni->nk", weight, jacobian, finite(residuals))
        cluster = np.concatenate([_clusters(s, q) for s, q in zip(self.sensors, self.sightings, strict=True)])
        sums = np.zeros((cluster.max() + 1, len(h)))
        np.add.at(sums, cluster, gradient)
        # What the residuals are in units of what was expected of them; that itself counts as some of them, as
        # few can agree by chance.
        squares = weight @ (finite(residuals) ** 2).sum(1) + 2 * _EXPECTED
        squares /= 2 * weight.sum() - len(h) + 2 * _EXPECTED
        return np.asarray((inverse * squares + inverse @ (sums.T @ sums) @ inverse)[:6, :6])


def _whitening(covariance: Float64) -> Float64:
    """(n, 2, 2) W with W C Wᵀ = 1, for covariances C (n, 3)."""
    xx, xy, yy = covariance.T
    out = np.zeros((len(covariance), 2, 2))
    out[:, 0, 0] = 1 / np.sqrt(xx)
    left = np.sqrt(yy - xy**2 / xx)
    out[:, 1, 0], out[:, 1, 1] = -xy / xx / left, 1 / left
    return out


def _weights(residuals: Float64, scale: float) -> Float64:
    return np.asarray(1 / (1 + (residuals**2).sum(1) / scale**2))


def _common_variance(offsets: Float64, covariance: Float64) -> float:
    """What is to be added to covariances (n, 3) for the median of the offsets (n, 2) to be as expected."""
    x, y = offsets[np.isfinite(offsets).all(1)].T
    xx, xy, yy = covariance[np.isfinite(offsets).all(1)].T

    def excess(variance: float) -> bool:
        a, b = xx + variance, yy + variance
        return bool(np.median((b * x**2 - 2 * xy * x * y + a * y**2) / (a * b - xy**2)) > _MEDIAN)

    if not len(x) or not excess(0.0):
        return 0.0
    low, high = 0.0, float(np.median(x**2 + y**2)) / _MEDIAN
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) else (low, middle)
    return high


def finite(values: Float64) -> Float64:
    """The values, 0 where they are not finite."""
    return np.where(np.isfinite(values), values, 0)


def _cost(residuals: Float64, scale: float) -> float:
    if not len(residuals):
        return 0.0
    squares = np.minimum((residuals**2).sum(1), 1e12)  # infinite behind a camera
    return float(scale**2 * np.log1p(squares / scale**2).mean())


def project(sensor: Sensor, rig_from_world: pycolmap.Rigid3d, points: Float64) -> Float64:
    """(n, 2) where a sensor sees points (n, 3) of the world; infinite behind it."""
    return _project(sensor.camera, _in_camera(sensor, rig_from_world, points))


def pixel_deviation(
    rig_from_world: pycolmap.Rigid3d,
    sensors: Sequence[Sensor],
    points: Sequence[Float64],
    covariance: Float64,
) -> float:
    """Pixels along an axis that projections deviate by if the pose does as a covariance says.

    Root mean square of the points (n, 3) that each sensor sees.
    """
    rows = np.concatenate(
        [by_pose(sensor, rig_from_world, xyz) for sensor, xyz in zip(sensors, points, strict=True)]
    ).reshape(-1, 6)
    return float(np.sqrt(np.nanmean(((rows @ covariance) * rows).sum(1))))


def difference(old: pycolmap.Rigid3d, new: pycolmap.Rigid3d) -> Float64:
    """(6,) w and v that take a pose to another one, see LocalizationResult."""
    turn = (new.rotation * old.rotation.inverse()).quat  # x y z w
    angle = 2 * np.arctan2(np.linalg.norm(turn[:3]), abs(turn[3])) * np.copysign(1, turn[3])
    axis = turn[:3] / max(float(np.linalg.norm(turn[:3])), 1e-300)
    return np.concatenate([angle * axis, new.translation - old.translation])


def _in_camera(sensor: Sensor, rig_from_world: pycolmap.Rigid3d, points: Float64) -> Float64:
    pose = sensor.cam_from_rig * rig_from_world
    return np.asarray(points @ pose.rotation.matrix().T + pose.translation)


def _project(camera: pycolmap.Camera, in_camera: Float64) -> Float64:
    xy = np.asarray(camera.img_from_cam(in_camera), float).reshape(-1, 2)
    return np.where(np.isfinite(xy), xy, np.inf)


def by_pose(sensor: Sensor, rig_from_world: pycolmap.Rigid3d, points: Float64) -> Float64:
    """(n, 2, 6) derivatives of projections by w and v of the pose; NaN where points are not seen."""
    in_rig = points @ rig_from_world.rotation.matrix().T + rig_from_world.translation
    by_rig = derivatives_by_point(sensor.camera, sensor.cam_from_rig, in_rig)
    turned = (in_rig - rig_from_world.translation)[:, None]
    result = np.empty((*by_rig.shape[:2], 6))
    # exp([w]) y is y + w x y: the derivative of b . (w x y) by w is y x b.
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        result[:, :, k] = turned[:, :, i] * by_rig[:, :, j] - turned[:, :, j] * by_rig[:, :, i]
    result[:, :, 3:] = by_rig
    return result


def _by_parameter(camera: pycolmap.Camera, index: int, in_camera: Float64) -> Float64:
    step = 1e-6 * max(abs(float(camera.params[index])), 1.0)
    ahead = _with_params(camera, [index], np.array([step]))
    behind = _with_params(camera, [index], np.array([-step]))
    return np.asarray((_project(ahead, in_camera) - _project(behind, in_camera)) / (2 * step))


def _with_params(camera: pycolmap.Camera, indices: Sequence[int], step: Float64) -> pycolmap.Camera:
    if not indices:
        return camera
    out, params = deepcopy(camera), np.array(camera.params)
    params[list(indices)] += step
    out.params = params
    return out


def _clusters(sensor: Sensor, seen: Sightings) -> npt.NDArray[np.int64]:
    size = np.array([sensor.camera.width, sensor.camera.height], float)
    cell = np.clip(seen.xy / size * _CLUSTERS, 0, _CLUSTERS - 1).astype(int)
    return np.asarray(cell[:, 1] * _CLUSTERS + cell[:, 0])
