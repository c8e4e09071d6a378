"""The patches that surfaces are measured on: how large they are, and how many are in memory at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress
from pixcli.sampling.scale_space import Boxes, boxes_between
from pixcli.sampling.sources import Source, source_of
from pixcli.sampling.streaming import Estimate, ImageFile
from pixcli.surfaces.planes import Float64, Int32, Int64, Surfaces, determinant, induced_affine
from pixcli.system import available_memory

Support = tuple[int, float]
"""Radius in nodes, step in pixels."""

_PART_BYTES = 150_000_000  # of patches that are in memory at a time
_SAMPLE = 500  # points that tell how much memory the patches of a pair take
_WARP_SLACK = 1.4  # how much larger than at first a warped support may become inside its patch
_MAX_RATIO = 4.0  # of the magnifications of two views that are compared


@dataclass(frozen=True)
class SurfacePatches:
    """The patches that surfaces are measured on, of the scale space or of feature maps."""

    samples: npt.NDArray[Any]
    starts: Int64
    boxes: Boxes
    by_step: dict[float, tuple[Int32, Int32, Float64]]
    """For each step of a support, (n,): patch of the view, patch of the reference, spacing of the nodes."""
    gains: npt.NDArray[np.float32] | None = None
    """Of feature maps kept in integers."""
    comparison: str | None = None
    """How features are compared; None: patches are grey."""


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
    source = _source(images, features)
    boxes, image, by_step = _plan_boxes(surfaces, planes, supports, max_shift, source)
    store = source.items(boxes, image).fill(progress)
    store.close()
    arrays = source.arrays(store, boxes, source.support(1, 1).output)
    starts = np.append(arrays["offset"], len(arrays["buffer"]))
    return SurfacePatches(
        arrays["buffer"], starts, boxes, by_step, arrays.get("gains"), arrays.get("comparison")
    )


def surface_parts(
    surfaces: Surfaces,
    planes: Float64,
    supports: Sequence[Support],
    max_shift: float,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
) -> list[slice]:
    """All points, in slices whose patches are in memory one after the other."""
    source = _source(images, features)
    per_pair, _ = _cost_of_pairs(surfaces, planes, supports, max_shift, source)
    return surfaces.parts(max(1, int(_part_bytes(source) / per_pair)))


def estimate_surface_patches(
    surfaces: Surfaces,
    planes: Float64,
    supports: Sequence[Support],
    max_shift: float,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    num_pairs: int,
) -> Estimate:
    """What the patches of so many pairs take, judging by those of the surfaces."""
    source = _source(images, features)
    per_pair, decoding = _cost_of_pairs(surfaces, planes, supports, max_shift, source)
    return Estimate(decoding + int(min(num_pairs * per_pair, max(_part_bytes(source), per_pair))), 0)


def _source(images: Sequence[ImageFile], features: DenseFeaturesOptions) -> Source:
    # Boxes differ from round to round: a cache of them would serve no later run.
    return source_of(features.models[0], images, replace(features, use_cache=False))


def _part_bytes(source: Source) -> float:
    """Grey images are quickly decoded again for each part, feature maps are not: few parts for these."""
    return _PART_BYTES if source.comparison is None else max(_PART_BYTES, (available_memory() or 0) / 4)


def _cost_of_pairs(
    surfaces: Surfaces, planes: Float64, supports: Sequence[Support], max_shift: float, source: Source
) -> tuple[float, int]:
    """Bytes that the patches of a pair take, and that making them takes, judging by the first points."""
    few = slice(0, min(len(planes), _SAMPLE))
    part = surfaces.part(few)
    boxes, image, _ = _plan_boxes(part, planes[few], supports, max_shift, source)
    items = source.items(boxes, image)
    patches = items.contents.num_bytes
    return max(patches, 1) / max(len(part.pair_view), 1), items.estimate().memory - patches


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
