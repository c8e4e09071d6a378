"""The surface step: poses fixed, each point becomes a small plane, and each view is measured against it.

Depth and normal of a point are refined until the plane-induced warps of its reference's patch agree in all
views; then each view's own shift against that warp is measured, with its covariance. What is compared is a
*pair*: a point in one view, against the point's reference view. See core/surface_kernel.h for the geometry.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.recfunctions import structured_to_unstructured

from pixcli import _core
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress, Update
from pixcli.sampling.status import Status
from pixcli.sampling.streaming import ImageFile
from pixcli.surfaces.plane_patches import Support, SurfacePatches, cut_surface_patches, surface_parts
from pixcli.surfaces.planes import MAX_SLOPE, Float64, Int32, Int64, Surfaces

Bool = npt.NDArray[np.bool_]
REFINE_SUPPORT = (5, 1.0)  # a small one: points are rarely as flat as a larger one extends
SUPPORTS = ((5, 1.0), (7, 1.0))
"""To choose from for each shift; larger ones bias camera centres."""

_STEP_TOLERANCE = 0.004  # pixels
_MAX_WORSENING = 0.003  # of a correlation: the robust optimum is not quite its largest value


@dataclass(frozen=True)
class SurfaceLimits:
    """What a refined surface and a measured shift must fulfil to be accepted."""

    window: float = 0.45
    """Sigma of the Gaussian window over a support, in radii."""
    min_surface_correlation: float = 0.75
    min_correlation: float = 0.8
    max_shift: float = 3.0
    """Pixels, of a view against its warp and of a point in any view."""
    max_deviation: float = 0.5
    """Pixels, predicted standard deviation of a shift along its worst direction."""
    extent_deviation: float = 0.3
    """What the extent of a support adds to it when supports compete, in units of the extent squared over the
    image's longer side."""
    max_iterations: int = 15
    num_threads: int = -1


@dataclass(frozen=True)
class SurfaceFits:
    """Depth and normal of P points."""

    planes: Float64
    """(P, 3) inverse depth against that of the point on the reference's ray minus 1, and its two slopes."""
    accepted: Bool
    """(P,) where not, the plane is that from before."""
    correlation: Float64
    """(P, 2) mean over the views, before and after."""
    depth_deviation: Float64
    """(P,) predicted standard deviation of the depth, relative to it."""
    num_views: Int32
    """(P,) that took part."""


@dataclass(frozen=True)
class Shifts:
    """n pairs measured against the warps of their planes; to be trusted where `accepted`."""

    xy: Float64
    """(n, 2) COLMAP pixels: where the view shows what the reference has at the point."""
    predicted: Float64
    """(n, 2) where the plane's centre projects to; NaN if it does not."""
    covariance: Float64
    """(n, 3) xx, xy, yy in pixels squared."""
    correlation: Float64
    """(n,)"""
    status: npt.NDArray[np.uint8]
    """(n,) values of Status; ROOT for the pair of a reference with itself, which defines the point."""
    support: npt.NDArray[np.int8]
    """(n,) the support that was chosen; -1 where none was accepted."""
    score: Float64
    """(n,) what supports compete by: deviation and what their extent adds, in pixels; infinite where none was
    accepted."""

    @property
    def accepted(self) -> Bool:
        """(n,) measured or a reference: xy is an observation of the point."""
        return np.asarray((self.status == Status.MOVED) | (self.status == Status.ROOT))

    @property
    def deviation(self) -> Float64:
        """(n,) predicted standard deviation along the worst direction, in pixels."""
        return _worst_deviation(*self.covariance.T)


_NativeArguments = tuple[_core.PatchArrays, _core.Support, _core.SurfaceArrays, Float64, _core.SurfaceLimits]
_Result = TypeVar("_Result", SurfaceFits, Shifts)


def align_surfaces(
    surfaces: Surfaces,
    planes: Float64,
    used: Bool,
    supports: Sequence[Support],
    limits: SurfaceLimits,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    progress: Progress,
) -> tuple[SurfaceFits, Shifts]:
    """The whole step: refine_surfaces, then measure_shifts of all pairs whose surface was accepted.

    Works on parts of the points, so that patches take a bounded memory. The last, widest support is tried,
    and its patches are cut, only where the smaller ones leave it a chance.

    Args:
        used: (n,) the pairs that refine surfaces; shifts are measured of all.
        supports: from the smallest.
    """
    fits, shifts = [], []
    narrow, widest = supports[:-1] or supports, supports[-1]
    cut = [REFINE_SUPPORT, *narrow]
    for points in surface_parts(surfaces, planes, cut, limits.max_shift, images, features):
        part, pairs = surfaces.part(points), slice(surfaces.ptr[points.start], surfaces.ptr[points.stop])
        plane = planes[points]
        patches = cut_surface_patches(part, plane, cut, limits.max_shift, images, features, progress)
        fit = refine_surfaces(part, plane, patches, REFINE_SUPPORT, used[pairs], limits, progress)
        fits.append(fit)
        measured = fit.accepted[part.point]
        shifts.append(measure_shifts(part, fit.planes, patches, narrow, measured, limits, progress))
    fit, best = _joined(SurfaceFits, fits), _joined(Shifts, shifts)
    if len(supports) == 1:
        return fit, best
    longer = surfaces.image_size[surfaces.image[surfaces.reference]].max(1)[surfaces.point]
    rest = fit.accepted[surfaces.point] & (best.status != Status.OUT_OF_IMAGE)
    rest &= best.score > _extent_deviation(widest, longer, limits)
    wide = measure_surfaces(surfaces.pairs(rest), fit.planes, [widest], limits, images, features, progress)
    better = wide.score < best.score[rest]
    rows = np.flatnonzero(rest)[better]
    for field in fields(Shifts):
        getattr(best, field.name)[rows] = getattr(wide, field.name)[better]
    best.support[rows] = len(narrow)
    for model in features.models[1:]:  # of a chain, on what was not accepted so far
        rest = fit.accepted[surfaces.point] & ~best.accepted
        left, other = surfaces.pairs(rest), features.of_model(model)
        again = measure_surfaces(left, fit.planes, [REFINE_SUPPORT], limits, images, other, progress)
        rows = np.flatnonzero(rest)[again.accepted]
        for field in fields(Shifts):
            getattr(best, field.name)[rows] = getattr(again, field.name)[again.accepted]
    return fit, best


def measure_surfaces(
    surfaces: Surfaces,
    planes: Float64,
    supports: Sequence[Support],
    limits: SurfaceLimits,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    progress: Progress,
) -> Shifts:
    """measure_shifts of all pairs against the planes (P, 3) given, part by part: for guided completion."""
    shifts = []
    for points in surface_parts(surfaces, planes, supports, limits.max_shift, images, features):
        part, plane = surfaces.part(points), planes[points]
        patches = cut_surface_patches(part, plane, supports, limits.max_shift, images, features, progress)
        measured = np.ones(len(part.pair_view), bool)
        shifts.append(measure_shifts(part, plane, patches, supports, measured, limits, progress))
    return _joined(Shifts, shifts)


def _joined(kind: type[_Result], parts: Sequence[_Result]) -> _Result:
    names = [field.name for field in fields(kind)]
    return kind(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def refine_surfaces(
    surfaces: Surfaces,
    planes: Float64,
    patches: SurfacePatches,
    support: Support,
    used: Bool,
    limits: SurfaceLimits,
    progress: Progress,
) -> SurfaceFits:
    """Depth and normal of each point, from the planes (P, 3) given.

    Args:
        used: (n,) the pairs that take part.
    """
    part = used & (surfaces.pair_view != surfaces.reference[surfaces.point])
    _, arguments = _native_arguments(surfaces, planes, patches, support, part, limits)
    with progress.phase("surface", len(planes)) as update:
        fits = _core.refine_surfaces(*arguments, num_threads=limits.num_threads, progress=update)
    refined = structured_to_unstructured(fits["plane"])
    correlation = np.stack([fits["initial_correlation"], fits["correlation"]], 1)
    accepted = (fits["outcome"] == _core.Outcome.CONVERGED) & (fits["shift"] <= limits.max_shift)
    accepted &= correlation[:, 1] > limits.min_surface_correlation
    accepted &= correlation[:, 1] >= correlation[:, 0] - _MAX_WORSENING
    accepted &= np.hypot(refined[:, 1], refined[:, 2]) < MAX_SLOPE * (1 + refined[:, 0])
    return SurfaceFits(
        np.where(accepted[:, None], refined, planes),
        accepted,
        correlation,
        fits["depth_deviation"],
        fits["num_views"],
    )


def measure_shifts(
    surfaces: Surfaces,
    planes: Float64,
    patches: SurfacePatches,
    supports: Sequence[Support],
    measured: Bool,
    limits: SurfaceLimits,
    progress: Progress | None = None,
) -> Shifts:
    """Where each pair's view shows what the reference has at the point, on the support that knows best.

    Args:
        measured: (n,) the pairs to measure; others are INVALID.
    """
    n = len(surfaces.pair_view)
    reference = surfaces.reference[surfaces.point]
    is_reference = measured & (surfaces.pair_view == reference)
    part = measured & ~is_reference
    longer = surfaces.image_size[surfaces.image[reference[part]]].max(1)
    best = np.full(part.sum(), np.inf)
    chosen = np.full(len(best), -1, np.int8)
    result: npt.NDArray[Any] | None = None
    total = len(planes) * len(supports)
    with progress.phase("measure", total) if progress else nullcontext() as update:
        for k, support in enumerate(supports):
            order, arguments = _native_arguments(surfaces, planes, patches, support, part, limits)
            offset = update and _offset(update, k * len(planes))
            ordered = _core.measure_shifts(*arguments, num_threads=limits.num_threads, progress=offset)
            shifts = np.empty_like(ordered)
            shifts[order] = ordered
            status = _judge(shifts, limits)
            if result is None:
                result, reason = shifts.copy(), status.copy()
            deviation = np.hypot(_deviation_of(shifts), _extent_deviation(support, longer, limits))
            better = (status == Status.MOVED) & (deviation < best)
            best[better], chosen[better] = deviation[better], k
            result[better], reason[better] = shifts[better], status[better]
    assert result is not None, "at least one support"
    out = Shifts(
        np.full((n, 2), np.nan),
        np.full((n, 2), np.nan),
        np.full((n, 3), np.nan),
        np.full(n, np.nan),
        np.full(n, Status.INVALID, np.uint8),
        np.full(n, -1, np.int8),
        np.full(n, np.inf),
    )
    out.predicted[part] = structured_to_unstructured(result[["x", "y"]])
    out.xy[part] = out.predicted[part] + structured_to_unstructured(result[["dx", "dy"]])
    out.covariance[part] = structured_to_unstructured(result[["cov_xx", "cov_xy", "cov_yy"]])
    out.correlation[part], out.status[part], out.support[part] = result["correlation"], reason, chosen
    out.score[part] = best
    root = surfaces.views[surfaces.pair_view[is_reference]]
    out.xy[is_reference] = out.predicted[is_reference] = np.stack([root["x"], root["y"]], 1)
    out.correlation[is_reference], out.status[is_reference], out.score[is_reference] = 1, Status.ROOT, 0
    return out


def _extent_deviation(support: Support, longer_side: Float64, limits: SurfaceLimits) -> Float64:
    """What the extent of a support adds to the deviation of shifts, in pixels."""
    radius, step = support
    return limits.extent_deviation * (radius * step) ** 2 / longer_side


def _native_arguments(
    surfaces: Surfaces,
    planes: Float64,
    patches: SurfacePatches,
    support: Support,
    part: Bool,
    limits: SurfaceLimits,
) -> tuple[Int64, _NativeArguments]:
    """For a native loop over some of the pairs: their order, so that they share templates, and the rest."""
    view_patch, reference_patch, spacing = patches.by_step[support[1]]
    rows, point = np.flatnonzero(part), surfaces.point[part]
    order = np.lexsort((reference_patch[rows], point))
    rows = rows[order]
    native = _core.PatchArrays(
        patches.samples,
        patches.starts[:-1],
        patches.boxes.shape[:, ::-1],
        patches.boxes.geometry,
        gains=patches.gains,
        comparison=patches.comparison,
    )
    pairs = _core.SurfaceArrays(
        views=surfaces.views,
        reference=surfaces.reference,
        ptr=np.searchsorted(point, np.arange(len(planes) + 1)),
        view=surfaces.pair_view[rows],
        patch=view_patch[rows],
        reference_patch=reference_patch[rows],
        spacing=spacing[rows],
    )
    native_limits = _core.SurfaceLimits(
        max_iterations=limits.max_iterations, max_shift=limits.max_shift, step_tolerance=_STEP_TOLERANCE
    )
    return order, (native, _core.Support(support[0], limits.window), pairs, planes, native_limits)


def _judge(shifts: npt.NDArray[Any], limits: SurfaceLimits) -> npt.NDArray[np.uint8]:
    """MOVED where a shift is to be trusted, else the reason why not."""
    status = np.full(len(shifts), Status.MOVED, np.uint8)
    for reason, where in (
        (Status.WEAK_TEXTURE, ~(_deviation_of(shifts) <= limits.max_deviation)),
        (Status.WORSE_SCORE, shifts["correlation"] < shifts["initial_correlation"] - _MAX_WORSENING),
        (Status.OUT_OF_BOUND, ~(np.hypot(shifts["dx"], shifts["dy"]) <= limits.max_shift)),
        (Status.LOW_CORRELATION, ~(shifts["correlation"] >= limits.min_correlation)),
        (Status.LOW_CORRELATION, shifts["outcome"] == _core.Outcome.DIVERGED),
        (Status.WEAK_TEXTURE, shifts["outcome"] == _core.Outcome.FLAT),
        (Status.OUT_OF_IMAGE, shifts["outcome"] == _core.Outcome.OUTSIDE),
    ):
        status[where] = reason
    return status


def _deviation_of(shifts: npt.NDArray[Any]) -> Float64:
    return _worst_deviation(shifts["cov_xx"], shifts["cov_xy"], shifts["cov_yy"])


def _worst_deviation(xx: Float64, xy: Float64, yy: Float64) -> Float64:
    return np.asarray(np.sqrt(np.maximum((xx + yy) / 2 + np.hypot((xx - yy) / 2, xy), 0)))


def _offset(update: Update, offset: int) -> Update:
    return lambda done: update(offset + done)
