"""References of the surface strategy: what each point of a model looks like, measured at its poses.

A query is measured against the templates of these references by measure_shifts, as the model's own images are
here: structure and query then have the same biases, which cancel in the query's pose.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from pixcli.adjustment.linearisation import Views
from pixcli.adjustment.observations import read_observations
from pixcli.adjustment.planes import Float64, Int32, Surfaces, normals_of
from pixcli.adjustment.surface import Support, SurfaceLimits, align_surfaces
from pixcli.adjustment.surface_rounds import points_of_model, surfaces_of
from pixcli.alignment.scale_space import Boxes, box_items, pitch_of, step_of
from pixcli.features.streaming import ImageFile
from pixcli.io.surface_references import SurfaceReferences, write_surface_references
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress

MEASURED_SUPPORT: Support = (5, 1.0)
"""Of structure and queries alike: see above."""
REFERENCE_LEVELS = (0, 2, 4)
"""Of the scale space, for queries up to twice as coarse as a reference."""

_MAX_TEMPLATES = 200_000  # in memory at a time: some 200 MB
_GATE = 2.0  # pixels; observations further from their point take no part in its surface
_SCALES = (1.0, 0.25, 0.1)  # pixels; of the Cauchy losses that points are found with, one after the other
_ITERATIONS = 4
_INLIER = 0.5  # pixels
_USUAL_DEVIATION = 0.05  # pixels, of a measured observation from its point

Bool = npt.NDArray[np.bool_]


def make_surface_references(
    model: pycolmap.Reconstruction,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    path: Path,
    progress: Progress,
) -> None:
    """Measure the points of a model in its images, at its poses, and write what they look like.

    Args:
        images: the registered images, by ascending id.
    """
    # Queries are measured on intensities, so points are too.
    features = replace(features, model="image", model_path="", color=False, use_cache=False)
    observations = read_observations(model)
    points = points_of_model(model, observations)
    surfaces = surfaces_of(model, observations, points, images)
    residual = np.linalg.norm(_seen(surfaces.views) - observations.xy, axis=1)
    gate = max(_GATE, 4 * float(np.nanmedian(residual)) + 1)  # wider where a detector scatters by pixels
    limits = SurfaceLimits(max_shift=max(3.0, gate))
    planes = np.zeros((len(points), 3))
    fits, shifts = align_surfaces(
        surfaces, planes, residual < gate, [MEASURED_SUPPORT], limits, images, features, progress
    )
    found, point = fits.accepted, observations.point_index
    xy = np.where(shifts.accepted[:, None], shifts.xy, observations.xy)
    used = shifts.accepted | ~found[point]  # points without a surface keep their keypoints
    points, covariance, residual = triangulate(surfaces, points, xy, used)
    agree = used & (residual < np.where(found, _INLIER, gate)[point])
    views = surfaces_of(model, observations, points, images).views
    corner = _corners(views)
    agree &= _inside(corner, surfaces.image_size[surfaces.image])
    agree &= (np.bincount(point[agree], minlength=len(points)) >= 2)[point]
    count = np.bincount(point[agree], minlength=len(points))
    kept = count > 0
    corner = corner[agree]
    deviation = _deviations(point[agree], residual[agree], len(points))
    references = SurfaceReferences(
        levels=REFERENCE_LEVELS,
        point_id=observations.point_ids[kept],
        point=points[kept],
        normal=np.where(found[:, None], normals_of(surfaces, fits.planes), np.nan)[kept],
        deviation=deviation[kept],
        covariance=(deviation[:, None, None] ** 2 * covariance)[kept],
        ptr=np.concatenate([[0], np.cumsum(count[kept])]),
        image_id=observations.image_ids[agree].astype(np.int32),
        view=views[agree],
        corner=corner,
        template=np.empty((0, int(sum(template_sizes(REFERENCE_LEVELS) ** 2))), np.uint8),
    )
    templates = _templates(corner, surfaces.image[agree], images, features, progress)
    write_surface_references(path, references, templates)


def triangulate(
    surfaces: Surfaces, points: Float64, xy: Float64, used: Bool
) -> tuple[Float64, Float64, Float64]:
    """Points (P, 3) near those given that project to xy (n, 2) best.

    Also their (P, 3, 3) covariance for projections that are a pixel off, and the (n,) residuals in pixels.
    Cauchy losses from wide to tight; projections are linear over the few pixels that points move by.
    """
    views, start, point = surfaces.views, surfaces.ptr[:-1], surfaces.point
    jacobian = views["jacobian"] @ views["rotation"][:, :2] / views["distance"][:, None, None]
    offset = xy - _seen(views)
    used = used & np.isfinite(offset).all(1) & np.isfinite(jacobian).all((1, 2))
    jacobian, offset = np.where(used[:, None, None], jacobian, 0), np.where(used[:, None], offset, 0)
    damping = 1e-9 * np.add.reduceat((jacobian**2).sum((1, 2)), start) + 1e-30  # where rays are parallel
    move = np.zeros_like(points)
    for scale in _SCALES:
        for _ in range(_ITERATIONS):
            left = offset - np.einsum("nij,nj->ni", jacobian, move[point])
            weighted = jacobian / (1 + (left**2).sum(1) / scale**2)[:, None, None]
            h = np.add.reduceat(np.einsum("nki,nkj->nij", weighted, jacobian), start)
            b = np.add.reduceat(np.einsum("nki,nk->ni", weighted, left), start)
            h += damping[:, None, None] * np.eye(3)
            move += np.linalg.solve(h, b[:, :, None])[:, :, 0]
    left = offset - np.einsum("nij,nj->ni", jacobian, move[point])
    return points + move, np.linalg.inv(h), np.where(used, np.linalg.norm(left, axis=1), np.inf)


def template_sizes(levels: Sequence[int]) -> Int32:
    """Samples along a side of the square template of each level."""
    reach = 2 * MEASURED_SUPPORT[0] * step_of(levels) / pitch_of(levels)
    return np.asarray(np.ceil(reach - 1e-9) + 4, np.int32)


def _corners(views: Views) -> Int32:
    """(n, levels, 2) first samples of the templates around where views see their points."""
    levels = np.array(REFERENCE_LEVELS)
    low = _seen(views)[:, None] - (MEASURED_SUPPORT[0] * step_of(levels))[:, None]
    with np.errstate(invalid="ignore"):
        corner = np.floor(low / pitch_of(levels)[:, None] - 0.5) - 1
    return np.asarray(np.nan_to_num(corner, nan=-1), np.int32)


def _inside(corner: Int32, image_size: Float64) -> Bool:
    """(n,) whether the templates of all levels are within the image."""
    levels = np.array(REFERENCE_LEVELS)
    limit = np.floor(image_size[:, None] / pitch_of(levels)[:, None])
    beyond = corner + template_sizes(REFERENCE_LEVELS)[:, None]
    return np.asarray(((corner >= 0) & (beyond <= limit)).all((1, 2)))


def _templates(
    corner: Int32,
    image: Int32,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    progress: Progress,
) -> Iterator[npt.NDArray[np.uint8]]:
    """The templates (rows, S) of all observations, in parts."""
    count = len(REFERENCE_LEVELS)
    level = np.array(REFERENCE_LEVELS, np.int32)
    shape = np.repeat(template_sizes(REFERENCE_LEVELS)[:, None], 2, 1)
    for start in range(0, len(corner), _MAX_TEMPLATES):
        rows = slice(start, start + _MAX_TEMPLATES)
        order = np.argsort(image[rows], kind="stable")
        n = len(order)
        boxes = Boxes(np.tile(level, n), corner[rows][order].reshape(-1, 2), np.tile(shape, (n, 1)))
        store = box_items(boxes, np.repeat(image[rows][order], count), images, features).fill(progress)
        store.close()
        samples = store.flat(0)[0].reshape(n, -1)
        part = np.empty_like(samples)
        part[order] = samples
        yield part


def _seen(views: Views) -> Float64:
    return np.stack([views["x"], views["y"]], 1)


def _deviations(point: npt.NDArray[np.int64], residual: Float64, num_points: int) -> Float64:
    """(P,) pixels, of an observation from its point along an axis; the usual one where there are only few."""
    squares = np.bincount(point, residual**2, num_points)
    free = np.maximum(2 * np.bincount(point, minlength=num_points) - 3, 0)
    return np.asarray(np.sqrt((squares + 2 * _USUAL_DEVIATION**2) / (free + 2)))
