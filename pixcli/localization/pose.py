"""The pose of a query from measured projections of known points: robust, weighted, with its covariance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixcli.localization.minimization import Damping, Equations, Minimum, Verdict, minimize
from pixcli.localization.rig_state import RefinedIntrinsics, RefinedPose, RigState, Sensor, finite

Float64 = npt.NDArray[np.float64]

_ITERATIONS = 10  # for each scale of the loss
_DAMPING = Damping(
    1e-9, least_after_rejection=1.0
)  # a full step may be too long where the loss is not convex
_MIN_SIGHTINGS = 4
_SETTLED = 1e-4  # of a parameter's standard deviation
_MEDIAN = 2 * float(np.log(2))  # of squared lengths along two axes, in variances
_HALVINGS = 12
_ROUGHLY = 0.3  # deviation of intrinsics that nothing tells of, of the focal length or of 1
_EXPECTED = 5  # sightings
_CLUSTERS = 8  # along each side of an image, whose errors may have a common part


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
class SightedPose(RefinedPose):
    """A pose from sightings; its costs are of the last loss."""

    residuals: list[Float64]
    """(n,) for each sensor, in standard deviations; infinite behind the camera."""


def covariance_of(
    state: RigState, sightings: Sequence[Sightings], scale: float, refined: RefinedIntrinsics
) -> Float64 | None:
    """(6, 6) of a pose as it is; None if the sightings do not determine it.

    Args:
        scale: of the Cauchy loss that it was found with, in standard deviations of the sightings.
        refined: intrinsics that are only roughly known.
    """
    problem = _Sighted(state, sightings, scale, refined, 0.0)
    found = minimize(problem, state, 0, _DAMPING)
    return None if found is None else _covariance(found, sightings, scale, _roughly_known(state, refined))


def refine_pose(
    state: RigState, sightings: Sequence[Sightings], scales: Sequence[float], refined: RefinedIntrinsics
) -> SightedPose | None:
    """The pose, and on request intrinsics, under Cauchy losses of these scales.

    They are in standard deviations of the sightings. Where residuals are larger than those, as with cameras
    that do not quite fit, all sightings deviate by as much more: the most precise of them must not decide
    alone, nor be taken for outliers. Every sensor's camera is refined on its own. None if the sightings do
    not determine all of it.
    """
    if sum(len(seen.xy) for seen in sightings) < _MIN_SIGHTINGS:
        return None
    now, found = state, None
    for scale in scales:
        problem = _Sighted(now, sightings, scale, refined, _common_variance(now, sightings))
        found = minimize(problem, now, _ITERATIONS, _DAMPING)
        if found is None:
            return None
        now = found.state
    if found is None:
        return None
    covariance = _covariance(found, sightings, scale, _roughly_known(state, refined))
    if covariance is None:
        return None
    squares = np.split((found.residuals**2).sum(1), np.cumsum([len(s.xy) for s in sightings])[:-1])
    before = problem.cost(problem.residuals(state))
    return SightedPose(now, covariance, before, found.cost, [np.sqrt(s) for s in squares])


class _Sighted:
    """Whitened residuals of all sensors' sightings, stacked (n, 2), under a Cauchy loss.

    Their Jacobian stays that of the start: projections move too little for it to change.

    Args:
        variance: of every sighting along each axis, beyond its own.
    """

    def __init__(
        self,
        start: RigState,
        sightings: Sequence[Sightings],
        scale: float,
        refined: RefinedIntrinsics,
        variance: float,
    ) -> None:
        self._sightings, self._scale, self._refined = sightings, scale, refined
        common = np.array([variance, 0, variance])
        self._whitening = [_whitening(seen.covariance + common) for seen in sightings]
        blocks = start.jacobians([seen.points for seen in sightings], refined)
        self._jacobian = np.concatenate([w @ block for w, block in zip(self._whitening, blocks, strict=True)])

    def residuals(self, state: RigState) -> Float64:
        parts = zip(self._whitening, _offsets(state, self._sightings), strict=True)
        return np.concatenate([np.einsum("nij,nj->ni", w, offsets) for w, offsets in parts])

    def cost(self, residuals: Float64) -> float:
        return _cost(residuals, self._scale)

    def equations(self, _state: RigState, residuals: Float64) -> Equations:
        flat = self._jacobian.reshape(-1, self._jacobian.shape[2])
        weighted = flat * np.repeat(_weights(residuals, self._scale), 2)[:, None]
        return Equations(self._jacobian, weighted.T @ flat, weighted.T @ finite(residuals).ravel())

    def moved(self, state: RigState, step: Float64) -> RigState:
        return state.moved(step, self._refined)

    def verdict(self, equations: Equations, step: Float64, _cost: float) -> Verdict:
        size = np.sqrt(step @ equations.hessian @ step / len(step))
        return "take as last" if size < _SETTLED else "take"


def _covariance(
    found: Minimum, sightings: Sequence[Sightings], scale: float, known: Float64
) -> Float64 | None:
    """(6, 6) as if all errors were independent, and what the errors of neighbours have in common.

    The latter is seen in the gradients that clusters of neighbours add up to.

    Args:
        known: inverse variances that the refined intrinsics have without any sighting.
    """
    h = found.equations.hessian.copy()
    np.einsum("ii->i", h)[6:] += known
    try:
        inverse = np.linalg.inv(h)
    except np.linalg.LinAlgError:
        return None
    weight, residuals = _weights(found.residuals, scale), finite(found.residuals)
    gradient = np.einsum("n,nik,ni->nk", weight, found.equations.jacobian, residuals)
    cluster = np.concatenate(
        [_clusters(s, seen) for s, seen in zip(found.state.sensors, sightings, strict=True)]
    )
    sums = np.zeros((cluster.max() + 1, len(h)))
    np.add.at(sums, cluster, gradient)
    # What the residuals are in units of what was expected of them; that itself counts as some of them, as
    # few can agree by chance.
    squares = weight @ (residuals**2).sum(1) + 2 * _EXPECTED
    squares /= 2 * weight.sum() - len(h) + 2 * _EXPECTED
    return np.asarray((inverse * squares + inverse @ (sums.T @ sums) @ inverse)[:6, :6])


def _roughly_known(state: RigState, refined: RefinedIntrinsics) -> Float64:
    """Inverse variances of all refined intrinsics that hold without any sighting."""
    known = []
    for sensor in state.sensors:
        for index in refined.indices(sensor.camera):
            in_pixels = index not in sensor.camera.extra_params_idxs()
            known.append(1 / (_ROUGHLY * (sensor.camera.mean_focal_length() if in_pixels else 1)) ** 2)
    return np.array(known)


def _offsets(state: RigState, sightings: Sequence[Sightings]) -> list[Float64]:
    """(n, 2) from where each sensor sees its points to their projections."""
    projected = state.project([seen.points for seen in sightings])
    return [xy - seen.xy for xy, seen in zip(projected, sightings, strict=True)]


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


def _common_variance(state: RigState, sightings: Sequence[Sightings]) -> float:
    """What is to be added to all variances for the median of the offsets to be as expected."""
    offsets = np.concatenate(_offsets(state, sightings))
    covariance = np.concatenate([seen.covariance for seen in sightings])
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


def _cost(residuals: Float64, scale: float) -> float:
    if not len(residuals):
        return 0.0
    squares = np.minimum((residuals**2).sum(1), 1e12)  # infinite behind a camera
    return float(scale**2 * np.log1p(squares / scale**2).mean())


def _clusters(sensor: Sensor, seen: Sightings) -> npt.NDArray[np.int64]:
    size = np.array([sensor.camera.width, sensor.camera.height], float)
    cell = np.clip(seen.xy / size * _CLUSTERS, 0, _CLUSTERS - 1).astype(int)
    return np.asarray(cell[:, 1] * _CLUSTERS + cell[:, 0])
