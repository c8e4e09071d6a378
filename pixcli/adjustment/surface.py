"""The surface step: poses fixed, each point becomes a small plane, and each view is measured against it.

Depth and normal of a point are refined until the plane-induced warps of its reference's patch agree in all
views; then each view's own shift against that warp is measured, with its covariance. What is compared is a
*pair*: a point in one view, against the point's reference view. See core/surface_kernel.h for the geometry.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.recfunctions import structured_to_unstructured

from pixcli import _core
from pixcli.adjustment.planes import MAX_SLOPE, Float64, Int32, Int64, Surfaces, determinant, induced_affine
from pixcli.alignment.result import Status
from pixcli.alignment.scale_space import Boxes, boxes_between
from pixcli.alignment.sources import Source, source_of
from pixcli.features.streaming import ImageFile
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress, Update

Bool = npt.NDArray[np.bool_]
Support = tuple[int, float]
"""Radius in nodes, step in pixels."""

REFINE_SUPPORT = (5, 1.0)  # a small one: points are rarely as flat as a larger one extends
SUPPORTS = ((5, 1.0), (7, 1.0))
"""To choose from for each shift; larger ones bias camera centres."""

_MAX_PAIRS = 100_000  # whose patches are in memory at a time: some 150 MB
_WARP_SLACK = 1.4  # how much larger than at first a warped support may become inside its patch
_MAX_RATIO = 4.0  # of the magnifications of two views that are compared
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
class SurfacePatches:
    """The patches that surfaces are measured on, of the scale space or of feature maps."""

    samples: npt.NDArray[Any]
    starts: Int64
    boxes: Boxes
    by_step: dict[float, tuple[Int32, Int32, Float64]]
    """For each step of a support, (n,): patch of the view, patch of the reference, spacing of the nodes."""
    gains: npt.NDArray[np.float32] | None = None
    """Of feature maps kept in bytes."""
    comparison: str | None = None
    """How features are compared; None: patches are grey."""


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
    for points in surfaces.parts(_MAX_PAIRS):
        part, pairs = surfaces.part(points), slice(surfaces.ptr[points.start], surfaces.ptr[points.stop])
        plane = planes[points]
        patches = cut_surface_patches(
            part, plane, [REFINE_SUPPORT, *narrow], limits.max_shift, images, features, progress
        )
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
    for points in surfaces.parts(_MAX_PAIRS):
        part, plane = surfaces.part(points), planes[points]
        patches = cut_surface_patches(part, plane, supports, limits.max_shift, images, features, progress)
        measured = np.ones(len(part.pair_view), bool)
        shifts.append(measure_shifts(part, plane, patches, supports, measured, limits, progress))
    return _joined(Shifts, shifts)


def _joined(kind: type[_Result], parts: Sequence[_Result]) -> _Result:
    names = [field.name for field in fields(kind)]
    return kind(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def cut_surface_patches(
    surfaces: Surfaces,
    planes: Float64,
    supports: Sequence[Support],
    max_shift: float,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    progress: Progress,
) -> SurfacePatches:
    """The patches that these supports need around where the planes project to, and max_shift beyond."""
    # Boxes differ from round to round: a cache of them would serve no later run.
    source = source_of(features.models[0], images, replace(features, use_cache=False))
    boxes, image, by_step = _plan_boxes(surfaces, planes, supports, max_shift, source)
    store = source.items(boxes, image).fill(progress)
    store.close()
    arrays = source.arrays(store, boxes, source.support(1, 1).output)
    starts = np.append(arrays["offset"], len(arrays["buffer"]))
    return SurfacePatches(
        arrays["buffer"], starts, boxes, by_step, arrays.get("gains"), arrays.get("comparison")
    )


def _plan_boxes(
    surfaces: Surfaces, planes: Float64, supports: Sequence[Support], max_shift: float, source: Source
) -> tuple[Boxes, Int32, dict[float, tuple[Int32, Int32, Float64]]]:
    """Boxes ordered by image, the image of each, and SurfacePatches.by_step."""
    affine, xy = induced_affine(surfaces, planes)
    reference = surfaces.reference[surfaces.point]
    xy_reference = np.stack([surfaces.views["x"][reference], surfaces.views["y"][reference]], 1)
    ratio = np.sqrt(determinant(affine))
    comparable = (ratio < _MAX_RATIO) & (ratio > 1 / _MAX_RATIO)
    view, level, low, high = [], [], [], []
    steps = sorted({step for _, step in supports})
    spacings = []
    for step in steps:
        radius = max(r for r, s in supports if s == step)
        # The coarser of the two views has its nodes a step apart; the other's then lie further apart.
        support = source.support(radius, step)
        wanted = support.step * np.maximum(1, np.where(comparable, 1 / ratio, 1))
        reference_level = source.level_of(support, wanted, surfaces.image[reference])
        spacing = source.spacing_of(support, reference_level)
        wanted = spacing * np.where(comparable, ratio, 1)
        view_level = source.level_of(support, wanted, surfaces.image[surfaces.pair_view])
        reach = (radius * spacing)[:, None] * np.ones(2)
        extent = _WARP_SLACK * radius * spacing[:, None] * np.abs(affine).sum(2)
        extent += max_shift + source.pitch_of(view_level)[:, None]
        centre = np.where(comparable[:, None], xy, np.nan)  # a box of size 0 otherwise
        view += [surfaces.pair_view, reference]
        level += [view_level, reference_level]
        low += [centre - extent, xy_reference - reach]
        high += [centre + extent, xy_reference + reach]
        spacings.append(spacing)
    # One box serves all that is asked of a level around a point in an image.
    rows = np.concatenate(view).astype(np.int64)
    key = (surfaces.image[rows] * np.int64(len(surfaces.views)) + rows) * 256 + np.concatenate(level)
    unique, patch_of = np.unique(key, return_inverse=True)
    lowest, highest = np.full((len(unique), 2), np.inf), np.full((len(unique), 2), -np.inf)
    np.fmin.at(lowest, patch_of, np.concatenate(low))
    np.fmax.at(highest, patch_of, np.concatenate(high))
    image = (unique // 256 // max(len(surfaces.views), 1)).astype(np.int32)
    nothing = ~(np.isfinite(lowest) & np.isfinite(highest))
    lowest[nothing] = highest[nothing] = np.nan
    of_box = (unique % 256).astype(np.int32)
    boxes = boxes_between(lowest, highest, of_box, surfaces.image_size[image], source.pitch_of(of_box))
    patch = patch_of.reshape(len(steps), 2, -1).astype(np.int32)
    by_step = {step: (patch[k, 0], patch[k, 1], spacings[k]) for k, step in enumerate(steps)}
    return boxes, image, by_step


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
        fits = _core.refine_surfaces(**arguments, progress=update)
    refined = structured_to_unstructured(fits["plane"])
    correlation = np.stack([fits["initial_correlation"], fits["correlation"]], 1)
    accepted = (fits["outcome"] == 0) & (fits["shift"] <= limits.max_shift)
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
    progress: Progress,
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
    with progress.phase("measure", len(planes) * len(supports)) as update:
        for k, support in enumerate(supports):
            order, arguments = _native_arguments(surfaces, planes, patches, support, part, limits)
            ordered = _core.measure_shifts(**arguments, progress=_offset(update, k * len(planes)))
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
) -> tuple[Int64, dict[str, Any]]:
    """For a native loop over some of the pairs: their order, so that they share templates, and the rest."""
    view_patch, reference_patch, spacing = patches.by_step[support[1]]
    rows, point = np.flatnonzero(part), surfaces.point[part]
    order = np.lexsort((reference_patch[rows], point))
    rows = rows[order]
    return order, {
        "buffer": patches.samples,
        "offset": patches.starts[:-1],
        "size": np.ascontiguousarray(patches.boxes.shape[:, ::-1]),
        "origin": patches.boxes.geometry,
        "radius": support[0],
        "window": limits.window,
        "views": surfaces.views,
        "reference": surfaces.reference,
        "ptr": np.searchsorted(point, np.arange(len(planes) + 1)).astype(np.int64),
        "view": surfaces.pair_view[rows],
        "patch": view_patch[rows],
        "reference_patch": reference_patch[rows],
        "spacing": spacing[rows],
        "planes": np.ascontiguousarray(planes),
        "max_iterations": limits.max_iterations,
        "max_shift": limits.max_shift,
        "step_tolerance": _STEP_TOLERANCE,
        "num_threads": limits.num_threads,
        "gains": patches.gains,
        "comparison": patches.comparison,
    }


def _judge(shifts: npt.NDArray[Any], limits: SurfaceLimits) -> npt.NDArray[np.uint8]:
    """MOVED where a shift is to be trusted, else the reason why not."""
    status = np.full(len(shifts), Status.MOVED, np.uint8)
    for reason, where in (
        (Status.WEAK_TEXTURE, ~(_deviation_of(shifts) <= limits.max_deviation)),
        (Status.WORSE_SCORE, shifts["correlation"] < shifts["initial_correlation"] - _MAX_WORSENING),
        (Status.OUT_OF_BOUND, ~(np.hypot(shifts["dx"], shifts["dy"]) <= limits.max_shift)),
        (Status.LOW_CORRELATION, ~(shifts["correlation"] >= limits.min_correlation)),
        (Status.LOW_CORRELATION, shifts["outcome"] == _core.OUTCOME_DIVERGED),
        (Status.WEAK_TEXTURE, shifts["outcome"] == _core.OUTCOME_FLAT),
        (Status.OUT_OF_IMAGE, shifts["outcome"] == _core.OUTCOME_OUTSIDE),
    ):
        status[where] = reason
    return status


def _deviation_of(shifts: npt.NDArray[Any]) -> Float64:
    return _worst_deviation(shifts["cov_xx"], shifts["cov_xy"], shifts["cov_yy"])


def _worst_deviation(xx: Float64, xy: Float64, yy: Float64) -> Float64:
    return np.asarray(np.sqrt(np.maximum((xx + yy) / 2 + np.hypot((xx - yy) / 2, xy), 0)))


def _offset(update: Update, offset: int) -> Update:
    return lambda done: update(offset + done)
