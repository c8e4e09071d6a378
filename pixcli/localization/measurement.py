"""What a query shows of points of the map, measured against their references."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap
from numpy.lib.recfunctions import structured_to_unstructured

from pixcli import _core
from pixcli.adjustment.linearisation import Views, linearise
from pixcli.adjustment.planes import Surfaces, determinant, induced_affine, planes_from_normals
from pixcli.adjustment.surface import SurfaceLimits, SurfacePatches, measure_shifts
from pixcli.adjustment.surface_references import MEASURED_SUPPORT, template_sizes
from pixcli.alignment.scale_space import (
    Boxes,
    boxes_between,
    build_level,
    level_of,
    level_shape,
    pitch_of,
    step_of,
)
from pixcli.alignment.sources import PERSPECTIVE
from pixcli.localization.map import LocalizationMap
from pixcli.localization.pose import Sightings
from pixcli.progress import Progress

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


class QueryPixels:
    """The grey pixels (h, w) of a query, and of its scale space the tiles that were needed so far."""

    def __init__(self, pixels: npt.NDArray[np.float32]) -> None:
        self.size = np.array([pixels.shape[1], pixels.shape[0]], float)
        self.seconds = 0.0
        """That the scale space took."""
        self._levels = {0: pixels}
        self._done: dict[int, npt.NDArray[np.bool_]] = {}

    def cut(self, boxes: Boxes, room: int = 0) -> tuple[npt.NDArray[np.uint8], Int64]:
        """The 8-bit samples of boxes, one behind the other, and where each starts.

        Args:
            room: for so many samples more, behind them.
        """
        start = np.concatenate([[0], np.cumsum(boxes.shape.prod(1, dtype=np.int64))])
        box = np.concatenate([boxes.corner, boxes.shape[:, ::-1]], 1)
        samples = np.empty(start[-1] + room, np.uint8)
        for level in np.unique(boxes.level).tolist():
            rows = np.flatnonzero((boxes.level == level) & (boxes.shape[:, 0] > 0))
            if len(rows):
                _core.cut_patches(self._level(level, box[rows]), box[rows], start[rows], samples)
        return samples, start

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
    pixels: QueryPixels,
    limits: SurfaceLimits,
    start: Float64 | None = None,
) -> tuple[Bool, Sightings]:
    """Which points of the map (k,) a query is found to show, and where, by the warps of their planes.

    Args:
        rows, observation: (k,) points, and the reference that each is compared with.
        start: (k, 2) where they are looked for; None: where they project to.
    """
    pairs = _pair(known, rows, observation, camera, cam_from_world, pixels, limits.max_shift, start)
    patches = SurfacePatches(
        pairs.samples,
        pairs.starts,
        pairs.boxes,
        {MEASURED_SUPPORT[1]: (pairs.view, pairs.reference, pairs.spacing)},
    )
    every = np.ones(len(rows), bool)
    shifts = measure_shifts(
        pairs.surfaces, pairs.planes, patches, [MEASURED_SUPPORT], every, limits, Progress()
    )
    found = shifts.accepted
    covariance = shifts.covariance[found] + _own_covariance(known, rows[found], pairs.views[found])
    return found, Sightings(known.references.point[rows[found]], shifts.xy[found], covariance)


def align_points(
    known: LocalizationMap,
    rows: Int64,
    observation: Int64,
    camera: pycolmap.Camera,
    cam_from_world: pycolmap.Rigid3d,
    pixels: QueryPixels,
    limits: SurfaceLimits,
    start: Float64,
) -> tuple[Bool, Sightings]:
    """measure_points by six parameters, which know nothing of a surface but where they begin.

    That is the warp of the plane that the map has, or of one that faces the reference's camera.
    """
    pairs = _pair(known, rows, observation, camera, cam_from_world, pixels, limits.max_shift, start)
    k, reference = len(rows), known.references.view[observation]
    warps = np.zeros((k, 1, 8))
    warps[:, 0, :2], warps[:, 0, 2:6] = start, pairs.affine.reshape(k, 4)
    aligned = _core.align_patches(
        buffer=pairs.samples,
        offset=pairs.starts[:-1],
        size=np.ascontiguousarray(pairs.boxes.shape[:, ::-1]),
        origin=pairs.boxes.geometry,
        radius=MEASURED_SUPPORT[0],
        window=limits.window,
        template_patch=pairs.reference,
        template_xy=np.stack([reference["x"], reference["y"]], 1),
        template_spacing=pairs.spacing,
        perspective_deviation=np.full(k, PERSPECTIVE / pixels.size.max()),
        job_ptr=np.arange(k + 1),
        job_patch=pairs.view,
        starts=np.nan_to_num(warps),
        max_iterations=limits.max_iterations,
        max_excursion=3 * limits.max_shift,
        step_tolerance=_STEP_TOLERANCE,
        translation=False,
        num_threads=limits.num_threads,
    )
    warp = structured_to_unstructured(aligned["warp"])
    xy, maps = warp[:, :2], warp[:, 2:6].reshape(-1, 2, 2)
    xx, xy_, yy = (aligned[name] for name in ("cov_xx", "cov_xy", "cov_yy"))
    with np.errstate(all="ignore"):
        found = (aligned["outcome"] == 0) & np.isfinite(pairs.affine).all((1, 2))
        found &= aligned["correlation"] >= np.maximum(limits.min_correlation, aligned["initial_correlation"])
        found &= np.linalg.norm(xy - start, axis=1) <= limits.max_shift
        found &= np.sqrt((xx + yy) / 2) <= limits.max_deviation
        change = determinant(maps) / determinant(pairs.affine)
        found &= (change < _MAX_CHANGE) & (change > 1 / _MAX_CHANGE)
    covariance = np.stack([xx, xy_, yy], 1)[found] + _own_covariance(known, rows[found], pairs.views[found])
    return found, Sightings(known.references.point[rows[found]], xy[found], covariance)


@dataclass(frozen=True)
class _Pairs:
    """k points as a query sees them, and as a reference does."""

    surfaces: Surfaces
    planes: Float64
    """(k, 3)"""
    views: Views
    """(k,) of the query."""
    affine: Float64
    """(k, 2, 2) the warp of the reference's pixels; NaN where there is none."""
    samples: npt.NDArray[np.uint8]
    starts: Int64
    boxes: Boxes
    """Those of the query, then the templates."""
    view: Int32
    reference: Int32
    """(k,) boxes."""
    spacing: Float64
    """(k,) of nodes, in pixels of the reference."""


def _pair(
    known: LocalizationMap,
    rows: Int64,
    observation: Int64,
    camera: pycolmap.Camera,
    cam_from_world: pycolmap.Rigid3d,
    pixels: QueryPixels,
    max_shift: float,
    start: Float64 | None,
) -> _Pairs:
    references, k = known.references, len(rows)
    points = references.point[rows]
    views = linearise(camera, cam_from_world.rotation.matrix(), cam_from_world.translation, points)
    if start is not None:
        views["x"], views["y"] = start.T
    query, reference = np.arange(k, dtype=np.int32), np.arange(k, 2 * k, dtype=np.int32)
    surfaces = Surfaces(
        np.concatenate([references.view[observation], views]),
        np.zeros(2 * k, np.int32),
        pixels.size[None],
        query,
        np.arange(k + 1),
        reference,
    )
    planes = planes_from_normals(surfaces, references.normal[rows])
    affine, xy = induced_affine(surfaces, planes)
    ratio = np.sqrt(determinant(affine))
    ratio = np.where((ratio < _MAX_RATIO) & (ratio > 1 / _MAX_RATIO), ratio, np.nan)
    # The coarser of the two has its nodes a step apart, as far as there are templates.
    levels = np.array(references.levels)
    wanted = np.nan_to_num(4 * np.log2(np.maximum(1, 1 / ratio)))
    chosen = np.abs(wanted[:, None] - levels).argmin(1)
    spacing = step_of(levels[chosen])
    level = level_of(np.nan_to_num(spacing * ratio, nan=1))
    extent = _SLACK * MEASURED_SUPPORT[0] * spacing[:, None] * np.abs(affine).sum(2)
    extent += max_shift + pitch_of(level)[:, None]
    centre = np.where(np.isfinite(ratio)[:, None], xy, np.nan)
    boxes = boxes_between(centre - extent, centre + extent, level, pixels.size)
    edges = template_sizes(references.levels)[chosen]
    samples, starts = pixels.cut(boxes, int((edges**2).sum()))
    template_starts = starts[-1] + _copy_templates(known, observation, chosen, samples[starts[-1] :])
    return _Pairs(
        surfaces,
        planes,
        views,
        affine,
        samples,
        np.concatenate([starts[:-1], template_starts, [len(samples)]]),
        Boxes(
            np.concatenate([boxes.level, levels[chosen].astype(np.int32)]),
            np.concatenate([boxes.corner, references.corner[observation, chosen]]),
            np.concatenate([boxes.shape, np.repeat(edges[:, None], 2, 1)]),
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
    known: LocalizationMap, observation: Int64, chosen: Int64, samples: npt.NDArray[np.uint8]
) -> Int64:
    """Put each observation's template of its chosen level into samples; where it starts there."""
    sizes = template_sizes(known.references.levels) ** 2
    starts, end, first = np.empty(len(chosen), np.int64), 0, 0
    for index, size in enumerate(sizes.tolist()):
        rows = np.flatnonzero(chosen == index)
        starts[rows] = end + size * np.arange(len(rows))
        part = samples[end : end + size * len(rows)].reshape(len(rows), size)
        part[:] = known.references.template[observation[rows], first : first + size]
        end, first = end + part.size, first + size
    return starts
