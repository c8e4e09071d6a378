"""References of the surface strategy: what each point of a model looks like, measured at its poses.

A query is measured against the templates of these references by measure_shifts, as the model's own images are
here: structure and query then have the same biases, which cancel in the query's pose.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.geometry.linearisation import Views
from pixcli.geometry.observations import points_of, read_observations
from pixcli.geometry.point_fit import linear_fit
from pixcli.io.surface_references import SurfaceReferences, Templates, write_surface_references
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress
from pixcli.sampling.scale_space import Boxes
from pixcli.sampling.sources import Source, source_of
from pixcli.sampling.streaming import ImageFile
from pixcli.surfaces.building import surfaces_of
from pixcli.surfaces.measuring import SurfaceLimits, align_surfaces
from pixcli.surfaces.plane_patches import Support
from pixcli.surfaces.planes import Float64, Int32, Surfaces, normals_of

import pycolmap

MEASURED_SUPPORT: Support = (5, 1.0)
"""Of structure and queries alike: see above."""
_SPACINGS = np.array([1, np.sqrt(2), 2])
"""Of nodes, for queries up to twice as coarse as a reference, in steps of the support."""

_PART_BYTES = 200_000_000  # of templates in memory at a time
_SAMPLE_BYTES = 16  # of usual features, about
_GATE = 2.0  # pixels; observations further from their point take no part in its surface
_SCALES = (1.0, 0.25, 0.1)  # pixels; of the Cauchy losses that points are found with, one after the other
_DAMPING = 1e-9  # of the points' normal equations, where rays are parallel
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
    features = replace(features, use_cache=False)
    observations = read_observations(model)
    points = points_of(model, observations)
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
    sources = [source_of(model, images, features) for model in features.models]
    templates = [_templates(source, views, surfaces.image) for source in sources]
    image_size = surfaces.image_size[surfaces.image]
    for k, source in enumerate(sources):
        if k:  # of a chain: what the first model sees whole is not lost for what a later one does not
            templates[k] = _moved_inside(source, templates[k], image_size)
        agree &= _inside(source, templates[k], image_size)
    agree &= (np.bincount(point[agree], minlength=len(points)) >= 2)[point]
    count = np.bincount(point[agree], minlength=len(points))
    kept = count > 0
    templates = [Templates(**{k: v[agree] for k, v in vars(own).items()}) for own in templates]
    deviation = _deviations(point[agree], residual[agree], len(points))
    references = SurfaceReferences(
        point_id=observations.point_ids[kept],
        point=points[kept],
        normal=np.where(found[:, None], normals_of(surfaces, fits.planes), np.nan)[kept],
        deviation=deviation[kept],
        covariance=(deviation[:, None, None] ** 2 * covariance)[kept],
        ptr=np.concatenate([[0], np.cumsum(count[kept])]),
        image_id=observations.image_ids[agree].astype(np.int32),
        view=views[agree],
        templates=tuple(templates),
        made_with=tuple(source.identity for source in sources),
    )
    samples = [
        _samples(source, own, surfaces.image[agree], progress)
        for source, own in zip(sources, templates, strict=True)
    ]
    write_surface_references(path, references, samples)


def triangulate(
    surfaces: Surfaces, points: Float64, xy: Float64, used: Bool
) -> tuple[Float64, Float64, Float64]:
    """Points (P, 3) near those given that project to xy (n, 2) best.

    Also their (P, 3, 3) covariance for projections that are a pixel off, and the (n,) residuals in pixels.
    Cauchy losses from wide to tight; projections are linear over the few pixels that points move by.
    """
    views = surfaces.views
    jacobian = views["jacobian"] @ views["rotation"][:, :2] / views["distance"][:, None, None]
    residual = _seen(views) - xy
    used = used & np.isfinite(residual).all(1) & np.isfinite(jacobian).all((1, 2))
    jacobian, residual = np.where(used[:, None, None], jacobian, 0), np.where(used[:, None], residual, 0)
    step, normal = linear_fit(residual, jacobian, surfaces.ptr, _SCALES, damping=_DAMPING)
    left = residual + np.einsum("nij,nj->ni", jacobian, step[surfaces.point])
    distance = np.where(used, np.linalg.norm(left, axis=1), np.inf)
    return points + step, np.asarray(np.linalg.inv(normal), float), np.asarray(distance, float)


def template_edges(source: Source, level: npt.ArrayLike) -> Int32:
    """Samples along a side of the square templates of levels; the same for each of a column of Templates."""
    support = source.support(*MEASURED_SUPPORT)
    level = np.asarray(level, np.int32)
    reach = 2 * support.radius * source.spacing_of(support, level) / source.pitch_of(level)
    return np.asarray(np.ceil(reach - 1e-9) + 4, np.int32)


def _templates(source: Source, views: Views, image: Int32) -> Templates:
    """Where the templates of views lie; without their samples."""
    support = source.support(*MEASURED_SUPPORT)
    wanted = np.tile(support.step * _SPACINGS, len(views))
    level = source.level_of(support, wanted, np.repeat(image, len(_SPACINGS))).reshape(len(views), -1)
    low = _seen(views)[:, None] - (support.radius * source.spacing_of(support, level))[:, :, None]
    with np.errstate(invalid="ignore"):
        corner = np.floor(low / source.pitch_of(level)[:, :, None] - 0.5) - 1
    corner = np.nan_to_num(corner, nan=-1).astype(np.int32)
    none = np.empty((len(views), 0, 0), np.float32)
    return Templates(level.astype(np.int32), corner, none, none)


def _moved_inside(source: Source, templates: Templates, image_size: Float64) -> Templates:
    """The templates moved to lie within the image: those that leave it then do not cover their support."""
    level = templates.level
    limit = np.floor(image_size[:, None] / source.pitch_of(level)[:, :, None])
    last = np.maximum(limit - template_edges(source, level)[:, :, None], 0)
    return replace(templates, corner=np.clip(templates.corner, 0, last).astype(np.int32))


def _inside(source: Source, templates: Templates, image_size: Float64) -> Bool:
    """(n,) whether the templates of all levels are within the image."""
    level, corner = templates.level, templates.corner
    limit = np.floor(image_size[:, None] / source.pitch_of(level)[:, :, None])
    beyond = corner + template_edges(source, level)[:, :, None]
    return np.asarray(((corner >= 0) & (beyond <= limit)).all((1, 2)))


def _samples(
    source: Source, templates: Templates, image: Int32, progress: Progress
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.float32]]]:
    """The samples (rows, S) or (rows, S, C) of all templates and their gains, in parts."""
    output, count = source.support(*MEASURED_SUPPORT).output, templates.level.shape[1]
    edges = template_edges(source, templates.level)
    step = max(_PART_BYTES // (_SAMPLE_BYTES * int((edges[:1].astype(int) ** 2).sum() or 1)), 1)
    for start in range(0, len(image), step):
        order = np.argsort(image[start : start + step], kind="stable")
        rows, n = start + order, len(order)
        level, shape = templates.level[rows].ravel(), np.repeat(edges[rows].reshape(-1, 1), 2, 1)
        boxes = Boxes(level, templates.corner[rows].reshape(-1, 2), shape, source.pitch_of(level))
        store = source.items(boxes, np.repeat(image[rows], count)).fill(progress)
        store.close()
        arrays = source.arrays(store, boxes, output)
        samples = arrays["buffer"].reshape(n, -1, *arrays["buffer"].shape[1:])
        gains = arrays.get("gains")
        gains = np.empty((n, 0, 0), np.float32) if gains is None else gains.reshape(n, count, -1)
        back = np.argsort(order)
        yield samples[back], gains[back]


def _seen(views: Views) -> Float64:
    return np.stack([views["x"], views["y"]], 1)


def _deviations(point: npt.NDArray[np.int64], residual: Float64, num_points: int) -> Float64:
    """(P,) pixels, of an observation from its point along an axis; the usual one where there are only few."""
    squares = np.bincount(point, residual**2, num_points)
    free = np.maximum(2 * np.bincount(point, minlength=num_points) - 3, 0)
    return np.asarray(np.sqrt((squares + 2 * _USUAL_DEVIATION**2) / (free + 2)))
