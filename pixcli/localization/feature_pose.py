"""The pose of a query from what it costs where its points project to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixcli.localization.minimization import Damping, Equations, Minimum, Verdict, minimize
from pixcli.localization.rig_state import RefinedIntrinsics, RefinedPose, RigState, finite

Float64 = npt.NDArray[np.float64]

Evaluate = Callable[[Float64], Float64]
"""(n, 6) cost at positions (n, 2) in an image, its gradient x y and its Hessian xx xy yy by the pixel."""

_DAMPING = Damping(1e-4)
_PIXEL_STEP = 0.05  # that gradients by the pixel change over
_LEAST_CURVATURE = 1e-9  # relative; with less the pose is no minimum of the cost as it is
_SETTLED = 1e-4  # pixels that a last step moves projections by: features tell no less


@dataclass(frozen=True)
class Observed:
    """n points and what it costs where one sensor sees them."""

    points: Float64
    """(n, 3)"""
    evaluate: Evaluate
    curvature: Callable[[Float64], Float64] | None = None
    """(n, 2, 2) change of the gradient at positions (n, 2); None: by differences."""


@dataclass(frozen=True)
class CostedPose(RefinedPose):
    """A pose from what its points cost."""

    pixel_deviation: float
    """Pixels along an axis that projections deviate by, as the covariance predicts; root mean square."""


def refine_costed_pose(
    state: RigState,
    observed: Sequence[Observed],
    refined: RefinedIntrinsics,
    max_iterations: int,
    function_tolerance: float,
) -> CostedPose | None:
    """Move the pose, and intrinsics on request, to the least cost; None if that does not determine them.

    Args:
        max_iterations: 0 only tells what the pose that is given costs, and how certain it is.
        function_tolerance: stop where no step promises a larger relative decrease of the cost.
    """
    found = minimize(_Costed(observed, refined, function_tolerance), state, max_iterations, _DAMPING)
    covariance = None if found is None else _covariance(found, observed)
    if found is None or covariance is None:
        return None
    count = len(found.residuals)
    flat = found.equations.jacobian.reshape(-1, len(covariance))
    variance = ((flat @ covariance) * flat).sum(axis=1)
    return CostedPose(
        found.state,
        covariance[:6, :6],
        found.start_cost / count,
        found.cost / count,
        float(np.sqrt(variance.mean())),
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


class _Costed:
    """What points cost where they project to: as residuals (n, 6), see Evaluate."""

    def __init__(
        self, observed: Sequence[Observed], refined: RefinedIntrinsics, function_tolerance: float
    ) -> None:
        self._observed, self._refined, self._tolerance = observed, refined, function_tolerance
        self._points = [part.points for part in observed]

    def residuals(self, state: RigState) -> Float64:
        parts = zip(self._observed, state.project(self._points), strict=True)
        return np.concatenate([part.evaluate(xy) for part, xy in parts])

    def cost(self, residuals: Float64) -> float:
        total = float(residuals[:, 0].sum())
        return total if np.isfinite(total) else np.inf

    def equations(self, state: RigState, residuals: Float64) -> Equations:
        jacobian = np.concatenate(state.jacobians(self._points, self._refined))
        hessian = residuals[:, [3, 4, 4, 5]].reshape(-1, 2, 2)
        gradient = _gradients(jacobian, residuals).sum(axis=0)
        return Equations(jacobian, _by_parameters(jacobian, hessian), gradient)

    def moved(self, state: RigState, step: Float64) -> RigState:
        return state.moved(step, self._refined)

    def verdict(self, equations: Equations, step: Float64, cost: float) -> Verdict:
        promised = -equations.gradient @ step - step @ equations.hessian @ step / 2
        if not promised > self._tolerance * cost:
            return "stop"
        return "stop" if np.sqrt(np.mean((equations.jacobian @ step) ** 2)) < _SETTLED else "take"


def _gradients(jacobian: Float64, residuals: Float64) -> Float64:
    """(n, k) of each point's cost."""
    return np.asarray((residuals[:, None, 1:3] @ jacobian)[:, 0])


def _curvature(state: RigState, observed: Sequence[Observed]) -> Float64:
    """(n, 2, 2) change of each point's gradient by the pixel."""
    parts = []
    for part, xy in zip(observed, state.project([part.points for part in observed]), strict=True):
        if part.curvature is not None:
            parts.append(finite(part.curvature(xy)))
            continue
        change = [
            (part.evaluate(xy + axis) - part.evaluate(xy - axis))[:, 1:3] / (2 * _PIXEL_STEP)
            for axis in _PIXEL_STEP * np.eye(2)
        ]
        parts.append(finite(np.stack(change, axis=2)))
    return np.concatenate(parts)


def _by_parameters(jacobian: Float64, curvature: Float64) -> Float64:
    """(k, k) sum of the curvatures (n, 2, 2) by the pixel."""
    flat = jacobian.reshape(-1, jacobian.shape[2])
    return np.asarray(flat.T @ (curvature @ jacobian).reshape(flat.shape))


def _covariance(found: Minimum, observed: Sequence[Observed]) -> Float64 | None:
    """From how the gradients of single points scatter: whatever the cost is, and however it is scaled.

    The change of the gradient is the whole one: that of Gauss-Newton is too large where the loss flattens.
    """
    jacobian, h = found.equations.jacobian, found.equations.hessian
    count = len(jacobian)
    spare = count - len(h) / 2  # two equations a point
    if spare <= 0:
        return None
    whole = _by_parameters(jacobian, _curvature(found.state, observed))
    if not np.linalg.eigvalsh(_scaled(whole, h)).min() > _LEAST_CURVATURE:
        whole = h
    try:
        inverse = np.linalg.inv(whole)
    except np.linalg.LinAlgError:
        return None
    gradients = _gradients(jacobian, found.residuals)
    covariance = inverse @ (gradients.T @ gradients) @ inverse * (count / spare)
    return covariance if np.isfinite(covariance).all() else None


def _scaled(matrix: Float64, by: Float64) -> Float64:
    """A matrix as it is where `by` has ones on its diagonal; finite in any case."""
    size = np.sqrt(np.maximum(np.diag(by), np.finfo(float).tiny))
    return finite((matrix + matrix.T) / 2 / np.outer(size, size))
