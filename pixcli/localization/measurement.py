"""What a query shows of points of the map, measured against their references."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.recfunctions import structured_to_unstructured

from pixcli import _core
from pixcli.geometry.linearisation import Views, linearise
from pixcli.localization.map import LocalizationMap
from pixcli.localization.pixels import Pixels, read_pixels
from pixcli.localization.pose import Sightings
from pixcli.sampling.scale_space import Boxes, boxes_between, build_level, level_shape
from pixcli.sampling.sources import GreySource, Source, Templates
from pixcli.sampling.streaming import ImageFile
from pixcli.surfaces.appearance import MEASURED_SUPPORT, template_edges
from pixcli.surfaces.measuring import SurfaceLimits, measure_shifts
from pixcli.surfaces.plane_patches import SurfacePatches
from pixcli.surfaces.planes import Surfaces, determinant, induced_affine, planes_from_normals

import pycolmap

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_TILE = 192  # samples along a side of what is made of a level at a time; no patch is larger
_MOST = 0.4  # of a level's tiles; to make more of them singly takes longer than to make all
_FLOOR = 0.02  # pixels: what no covariance predicts
_SLACK = 1.2  # how much larger than its linear map a warped support may be
_MAX_RATIO = 3.0  # of the magnifications of query and reference
_STEP_TOLERANCE = 0.008  # pixels
_MAX_CHANGE = 2.0  # of the area of a warp, by its alignment


Cut = tuple[npt.NDArray[Any], Int64, npt.NDArray[np.float32] | None]
"""Samples of boxes, one behind the other, where each starts and where the last ends, and gains of bytes."""


class QueryImage(Protocol):
    """A query as one model of the chain sees it."""

    source: Source
    size: Float64
    seconds: float
    """That its scale space or its maps took."""

    def cut(self, boxes: Boxes, room: int = 0) -> Cut:
        """The samples of boxes.

        Args:
            room: for so many samples more, behind them.
        """
        ...


def query_images(known: LocalizationMap, pixels: Pixels, camera: pycolmap.Camera) -> list[QueryImage]:
    """A query as each model of the map's chain sees it; UserError if it cannot be read."""
    images: list[QueryImage] = []
    read: dict[bool, npt.NDArray[np.float32]] = {}
    for source in known.sources:
        if source.color not in read:
            read[source.color] = read_pixels(pixels, camera, color=source.color)
        kind = QueryPixels if isinstance(source, GreySource) else QueryMaps
        images.append(kind(read[source.color], source))
    return images


class QueryMaps:
    """A query, (h, w) or (h, w, 3), and what a feature model makes of it around boxes that are asked for."""

    def __init__(self, pixels: npt.NDArray[np.float32], source: Source) -> None:
        height, width = pixels.shape[:2]
        self.source = source.of_images([ImageFile("query", Path(), (width, height))])
        self.size = np.array([width, height], float)
        self.seconds = 0.0
        self._pixels = pixels

    def cut(self, boxes: Boxes, room: int = 0) -> Cut:
        begin = time.perf_counter()
        source, output = self.source, self.source.support(*MEASURED_SUPPORT).output
        store = source.items(boxes, np.zeros(len(boxes.level), np.int32)).of_pixels(self._pixels)
        arrays = source.arrays(store, boxes, output)
        samples = arrays["buffer"]
        starts = np.append(arrays["offset"], len(samples))
        self.seconds += time.perf_counter() - begin
        return np.pad(samples, ((0, room), (0, 0))), starts, arrays["gains"]


class QueryPixels:
    """The grey pixels (h, w) of a query, and of its scale space the tiles that were needed so far."""

    def __init__(self, pixels: npt.NDArray[np.float32], source: Source) -> None:
        self.source = source
        self.size = np.array([pixels.shape[1], pixels.shape[0]], float)
        self.seconds = 0.0
        self._levels = {0: pixels}
        self._done: dict[int, npt.NDArray[np.bool_]] = {}

    def cut(self, boxes: Boxes, room: int = 0) -> Cut:
        start = np.concatenate([[0], np.cumsum(boxes.shape.prod(1, dtype=np.int64))])
        box = np.concatenate([boxes.corner, boxes.shape[:, ::-1]], 1)
        samples = np.empty(start[-1] + room, np.uint8)
        for level in np.unique(boxes.level).tolist():
            rows = np.flatnonzero((boxes.level == level) & (boxes.shape[:, 0] > 0))
            if len(rows):
                _core.cut_patches(self._level(level, box[rows]), box[rows], start[rows], samples)
        return samples, start, None

    def _level(self, level: int, box: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """A level that is there within boxes (n, 4): column and row, width and height."""
        if level == 0:
            return self._levels[0]
        begin = time.perf_counter()
        if level not in self._levels:
            shape = level_shape(self._levels[0].shape, level)
            self._levels[level] = np.empty(shape, np.float32)
            self._done[level] = np.zeros([-(-edge // _TILE) for edge in shape], bool)
        samples, done = self._levels[level], self._done[level]
        if done.all():
            return samples
        needed = np.zeros_like(done)
        first, last = box[:, :2] // _TILE, (box[:, :2] + box[:, 2:] - 1) // _TILE
        for rows in (first[:, 1], last[:, 1]):  # no box is larger than a tile
            for columns in (first[:, 0], last[:, 0]):
                needed[rows, columns] = True
        missing = needed & ~done
        if missing.sum() > _MOST * done.size:
            samples[:] = build_level(self._levels[0], level)
            done[:] = True
        else:
            for row, column in np.argwhere(missing).tolist():
                part = _tile(row, samples.shape[0]), _tile(column, samples.shape[1])
                samples[part] = build_level(self._levels[0], level, part)
            done |= missing
        self.seconds += time.perf_counter() - begin
        return samples


def _tile(index: int, edge: int) -> slice:
    return slice(index * _TILE, min((index + 1) * _TILE, edge))


def measure_points(
    known: LocalizationMap,
    rows: Int64,
    observation: Int64,
    camera: pycolmap.Camera,
    cam_from_world: pycolmap.Rigid3d,
    images: Sequence[QueryImage],
    limits: SurfaceLimits,
    start: Float64 | None = None,
) -> tuple[Bool, Sightings]:
    """Which points of the map (k,) a query is found to show, and where, by the warps of their planes.

    Args:
        rows, observation: (k,) points, and the reference that each is compared with.
        images: the query, for each model of the map's chain: later ones measure what is left.
        start: (k, 2) where they are looked for; None: where they project to.

    Returns:
        (k,) whether each is found, and those that are, in their order.
    """
    return _by_models(_by_planes, known, rows, observation, camera, cam_from_world, images, limits, start)


def align_points(
    known: LocalizationMap,
    rows: Int64,
    observation: Int64,
    camera: pycolmap.Camera,
    cam_from_world: pycolmap.Rigid3d,
    images: Sequence[QueryImage],
    limits: SurfaceLimits,
    start: Float64,
) -> tuple[Bool, Sightings]:
    """measure_points by six parameters, which know nothing of a surface but where they begin.

    That is the warp of the plane that the map has, or of one that faces the reference's camera.
    """
    return _by_models(_by_warps, known, rows, observation, camera, cam_from_world, images, limits, start)


Measured = tuple[Bool, Float64, Float64]
"""(k,) what was found, (k, 2) where, and (k, 3) with which covariance."""


def _by_models(
    measure: Callable[["_Pairs", SurfaceLimits], Measured],
    known: LocalizationMap,
    rows: Int64,
    observation: Int64,
    camera: pycolmap.Camera,
    cam_from_world: pycolmap.Rigid3d,
    images: Sequence[QueryImage],
    limits: SurfaceLimits,
    start: Float64 | None,
) -> tuple[Bool, Sightings]:
    k = len(rows)
    points = known.references.point[rows]
    views = linearise(camera, cam_from_world.rotation.matrix(), cam_from_world.translation, points)
    own = _own_covariance(known, rows, views)
    if start is not None:
        views["x"], views["y"] = start.T
    found, xy, covariance = np.zeros(k, bool), np.zeros((k, 2)), np.zeros((k, 3))
    for model, image in enumerate(images):
        left = np.flatnonzero(~found)
        if not len(left):
            break
        pairs = _pair(known, model, rows[left], observation[left], views[left], image, limits.max_shift)
        found[left], xy[left], covariance[left] = measure(pairs, limits)
    return found, Sightings(points[found], xy[found], covariance[found] + own[found])


def _by_planes(pairs: "_Pairs", limits: SurfaceLimits) -> Measured:
    patches = SurfacePatches(
        pairs.samples,
        pairs.starts,
        pairs.boxes,
        {MEASURED_SUPPORT[1]: (pairs.view, pairs.reference, pairs.spacing)},
        pairs.gains,
        pairs.source.comparison,
    )
    every = np.ones(len(pairs.view), bool)
    shifts = measure_shifts(pairs.surfaces, pairs.planes, patches, [MEASURED_SUPPORT], every, limits)
    return shifts.accepted, shifts.xy, shifts.covariance


def _by_warps(pairs: "_Pairs", limits: SurfaceLimits) -> Measured:
    k, views = len(pairs.view), pairs.surfaces.views
    arrays: dict[str, Any] = {
        "buffer": pairs.samples,
        "offset": pairs.starts[:-1],
        "size": np.ascontiguousarray(pairs.boxes.shape[:, ::-1]),
        "origin": pairs.boxes.geometry,
    }
    if pairs.source.comparison is not None:
        arrays |= {"gains": pairs.gains, "comparison": pairs.source.comparison}
    templates = Templates(
        patch=pairs.reference,
        xy=np.stack([views["x"], views["y"]], 1)[:k],
        spacing=pairs.spacing,
        image_edge=np.full(k, pairs.surfaces.image_size.max()),
        job_ptr=np.arange(k + 1),
        job_patch=pairs.view,
    )
    start = np.stack([views["x"], views["y"]], 1)[k:]
    warps = np.zeros((k, 1, 8))
    warps[:, 0, :2], warps[:, 0, 2:6] = start, pairs.affine.reshape(k, 4)
    aligned = pairs.source.align(
        arrays,
        pairs.source.support(*MEASURED_SUPPORT),
        templates,
        np.nan_to_num(warps),
        max_iterations=limits.max_iterations,
        max_excursion=3 * limits.max_shift,
        step_tolerance=_STEP_TOLERANCE,
        translation=False,
        num_threads=limits.num_threads,
    )
    warp = structured_to_unstructured(aligned["warp"])
    xy, maps = warp[:, :2], warp[:, 2:6].reshape(-1, 2, 2)
    covariance = np.stack([aligned[name] for name in ("cov_xx", "cov_xy", "cov_yy")], 1)
    with np.errstate(all="ignore"):
        found = (aligned["outcome"] == _core.Outcome.CONVERGED) & np.isfinite(pairs.affine).all((1, 2))
        found &= aligned["correlation"] >= np.maximum(limits.min_correlation, aligned["initial_correlation"])
        found &= np.linalg.norm(xy - start, axis=1) <= limits.max_shift
        found &= np.sqrt((covariance[:, 0] + covariance[:, 2]) / 2) <= limits.max_deviation
        change = determinant(maps) / determinant(pairs.affine)
        found &= (change < _MAX_CHANGE) & (change > 1 / _MAX_CHANGE)
    return found, xy, covariance


@dataclass(frozen=True)
class _Pairs:
    """k points as a query sees them, and as a reference does: on maps of one model."""

    source: Source
    surfaces: Surfaces
    """Views are those of the references, then those of the query."""
    planes: Float64
    """(k, 3)"""
    affine: Float64
    """(k, 2, 2) the warp of the reference's pixels; NaN where there is none."""
    samples: npt.NDArray[Any]
    starts: Int64
    gains: npt.NDArray[np.float32] | None
    boxes: Boxes
    """Those of the query, then the templates."""
    view: Int32
    reference: Int32
    """(k,) boxes."""
    spacing: Float64
    """(k,) of nodes, in pixels of the reference."""


def _pair(
    known: LocalizationMap,
    model: int,
    rows: Int64,
    observation: Int64,
    views: Views,
    image: QueryImage,
    max_shift: float,
) -> _Pairs:
    references, templates, k = known.references, known.references.templates[model], len(rows)
    query, reference = np.arange(k, dtype=np.int32), np.arange(k, 2 * k, dtype=np.int32)
    surfaces = Surfaces(
        np.concatenate([references.view[observation], views]),
        np.zeros(2 * k, np.int32),
        image.size[None],
        query,
        np.arange(k + 1),
        reference,
    )
    planes = planes_from_normals(surfaces, references.normal[rows])
    affine, xy = induced_affine(surfaces, planes)
    ratio = np.sqrt(determinant(affine))
    ratio = np.where((ratio < _MAX_RATIO) & (ratio > 1 / _MAX_RATIO), ratio, np.nan)
    # The coarser of the two has its nodes a step apart, as far as there are templates.
    source = image.source
    support = source.support(*MEASURED_SUPPORT)
    levels = templates.level[observation]
    spacings = source.spacing_of(support, levels)
    wanted = support.step * np.nan_to_num(np.maximum(1, 1 / ratio), nan=1)
    chosen = np.abs(np.log(spacings / wanted[:, None])).argmin(1)
    every = np.arange(k)
    spacing, template_level = spacings[every, chosen], levels[every, chosen]
    level = source.level_of(support, np.nan_to_num(spacing * ratio, nan=1), np.zeros(k, np.int32))
    pitch = source.pitch_of(level)
    extent = _SLACK * support.radius * spacing[:, None] * np.abs(affine).sum(2)
    extent += max_shift + pitch[:, None]
    centre = np.where(np.isfinite(ratio)[:, None], xy, np.nan)
    boxes = boxes_between(centre - extent, centre + extent, level, image.size, pitch)
    edges = template_edges(source, template_level)
    samples, starts, gains = image.cut(boxes, int((edges**2).sum()))
    sizes = template_edges(source, templates.level[0]) ** 2
    tail = samples[starts[-1] :]
    template_starts = starts[-1] + _copy_templates(templates.sample, sizes, observation, chosen, tail)
    if gains is not None:
        gains = np.concatenate([gains, templates.gain[observation, chosen]])
    return _Pairs(
        source,
        surfaces,
        planes,
        affine,
        samples,
        np.concatenate([starts[:-1], template_starts, [len(samples)]]),
        gains,
        Boxes(
            np.concatenate([boxes.level, template_level]),
            np.concatenate([boxes.corner, templates.corner[observation, chosen]]),
            np.concatenate([boxes.shape, np.repeat(edges[:, None], 2, 1)]),
            np.concatenate([pitch, source.pitch_of(template_level)]),
        ),
        query,
        reference,
        spacing,
    )


def _own_covariance(known: LocalizationMap, rows: Int64, views: Views) -> Float64:
    """(k, 3) of points where they are seen: how far off the map may have them, and what nothing predicts."""
    references = known.references
    jacobian = views["jacobian"] @ views["rotation"][:, :2] / views["distance"][:, None, None]
    own = jacobian @ references.covariance[rows] @ jacobian.transpose(0, 2, 1)
    alike = references.deviation[rows] ** 2 + _FLOOR**2
    return np.stack([own[:, 0, 0] + alike, own[:, 0, 1], own[:, 1, 1] + alike], 1)


def _copy_templates(
    template: npt.NDArray[Any],
    sizes: npt.NDArray[np.integer[Any]],
    observation: Int64,
    chosen: Int64,
    samples: npt.NDArray[Any],
) -> Int64:
    """Put each observation's template of its chosen level into samples; where it starts there."""
    starts, end, first = np.empty(len(chosen), np.int64), 0, 0
    for index, size in enumerate(sizes.tolist()):
        rows = np.flatnonzero(chosen == index)
        starts[rows] = end + size * np.arange(len(rows))
        part = samples[end : end + size * len(rows)].reshape(len(rows), size, *samples.shape[1:])
        part[:] = template[observation[rows], first : first + size]
        end, first = end + size * len(rows), first + size
    return starts
