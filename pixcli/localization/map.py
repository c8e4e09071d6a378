"""What the surface strategy knows of a model: its points as small planes, and what they look like."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.io.references import rows_among
from pixcli.io.surface_references import SurfaceReferences, read_surface_references
from pixcli.options import DenseFeaturesOptions, KeypointAdjustmentOptions
from pixcli.progress import Progress
from pixcli.sampling.model_images import image_files
from pixcli.sampling.sources import Source, source_of
from pixcli.surfaces.appearance import make_surface_references
from pixcli.surfaces.planes import determinant
from pixcli.surfaces.visibility import BORDER_MARGIN, MAX_SCALE_RATIO, MAX_VIEW_ANGLE, MIN_FACING_COSINE

import pycolmap

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_SCALE_WEIGHT = 0.7  # radians that a factor e of scale counts for, in choosing an observation
_SAME_PLACE = 0.01  # pixels that a projection may differ by in the same model
_SAME_POINT = 5.0  # pixels that measuring may have moved the points of a model by, in the median
_MAX_MISSING = 0.5  # of the points: models may be filtered after their references were made
_CELLS = 16  # along an image's longer side, that points are spread over


@dataclass(frozen=True)
class LocalizationMap:
    """Points of a model with their references, p and n of them; large arrays are memory-mapped."""

    references: SurfaceReferences
    source: Literal["file", "images"]
    """Whether they were read from a file, or made from the model's images."""
    sources: tuple[Source, ...]
    """What makes the maps that each model's templates are from."""

    @property
    def point_ids(self) -> Int64:
        """(p,) ascending."""
        return self.references.point_id

    def rows_of(self, point_ids: npt.NDArray[np.int64]) -> Int64:
        """The row of each point, -1 for those that have no references."""
        return rows_among(self.point_ids, point_ids)

    @cached_property
    def has_surface(self) -> npt.NDArray[np.bool_]:
        """(p,)"""
        return np.isfinite(self.references.normal[:, 0])

    @cached_property
    def _ray(self) -> npt.NDArray[np.float32]:
        """(n, 3) unit vectors from each observation's camera to its point."""
        return self.references.view["rotation"][:, 2].astype(np.float32)

    @cached_property
    def _log_scale(self) -> npt.NDArray[np.float32]:
        """(n,) logarithm of the pixels that a unit of the world covers."""
        view = self.references.view
        return log_scale(view["jacobian"], view["distance"]).astype(np.float32)

    @cached_property
    def _by_image(self) -> tuple[Int64, Int64]:
        """Points ordered by the images that see them, and where those of each image start; one at the end."""
        references = self.references
        point = np.repeat(np.arange(len(references.point_id)), np.diff(references.ptr))
        order = np.argsort(references.image_id, kind="stable")
        images = np.arange(references.image_id.max(initial=-1) + 2)
        return point[order], np.searchsorted(references.image_id[order], images)

    def covisible(self, rows: Int64) -> Int64:
        """Points of the images that see any of these, ascending."""
        point, ptr = self._by_image
        _, observation = self._observations(rows)
        images = np.unique(self.references.image_id[observation])
        seen = np.zeros(len(self.references.point_id), bool)
        for image in images.tolist():
            seen[point[ptr[image] : ptr[image + 1]]] = True
        return np.flatnonzero(seen)

    def _observations(self, rows: Int64) -> tuple[Int64, Int64]:
        """All observations of some points: which of `rows` each is of, and the observation."""
        ptr = self.references.ptr
        first, count = ptr[rows], ptr[rows + 1] - ptr[rows]
        owner = np.repeat(np.arange(len(rows)), count)
        start = np.cumsum(count) - count
        return owner, first[owner] + np.arange(len(owner)) - start[owner]

    def _nearest(self, rows: Int64, centre: Float64, scale: Float64) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """The observation of each point that sees it most as a camera does, and whether it is near enough.

        Args:
            centre: (3,) of the camera.
            scale: (k,) logarithm of the pixels that a unit of the world covers at each point.
        """
        points = self.references.point[rows]
        ray = points - centre
        ray /= np.linalg.norm(ray, axis=1)[:, None]
        owner, observation = self._observations(rows)
        cosine = (ray.astype(np.float32)[owner] * self._ray[observation]).sum(1)
        angle = np.arccos(np.clip(cosine, -1, 1))
        ratio = np.abs(scale.astype(np.float32)[owner] - self._log_scale[observation])
        best = _first_lowest(angle + _SCALE_WEIGHT * ratio, owner, len(rows))
        near = (angle[best] < MAX_VIEW_ANGLE) & (ratio[best] < np.log(MAX_SCALE_RATIO))
        return observation[best], near

    def nearest_to(
        self, rows: Int64, camera: pycolmap.Camera, cam_from_world: pycolmap.Rigid3d
    ) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """The observation of each point that sees it most as a camera does, and whether it is near enough."""
        centre = cam_from_world.inverse().translation
        distance = np.linalg.norm(self.references.point[rows] - centre, axis=1)
        return self._nearest(rows, centre, np.log(camera.mean_focal_length() / distance))

    def visible(
        self,
        camera: pycolmap.Camera,
        cam_from_world: pycolmap.Rigid3d,
        seen: Int64,
        max_points: int,
        max_deviation: float,
    ) -> tuple[Int64, Int64]:
        """Points that a camera should see, spread over its image, and the observation nearest to it of each.

        Args:
            seen: points that it does see: others are of images that see them too.
            max_points: so many at most.
            max_deviation: of a point's own observations from it, in pixels.
        """
        references = self.references
        rows = self.covisible(seen)
        rows = rows[self.has_surface[rows] & (references.deviation[rows] < max_deviation)]
        rotation, translation = cam_from_world.rotation.matrix(), cam_from_world.translation
        centre = -rotation.T @ translation
        points = references.point[rows]
        xy = np.asarray(camera.img_from_cam(points @ rotation.T + translation), float).reshape(-1, 2)
        size = np.array([camera.width, camera.height], float)
        with np.errstate(invalid="ignore"):
            inside = (xy > BORDER_MARGIN).all(1) & (xy < size - BORDER_MARGIN).all(1)
        ray = centre - points
        distance = np.linalg.norm(ray, axis=1)
        facing = (ray * references.normal[rows]).sum(1) > MIN_FACING_COSINE * distance
        keep = np.flatnonzero(inside & facing)
        rows, xy = rows[keep], xy[keep]
        scale = np.log(camera.mean_focal_length() / distance[keep])
        observation, near = self._nearest(rows, centre, scale)
        rows, observation, xy = rows[near], observation[near], xy[near]
        chosen = _spread(xy, size, references.deviation[rows], max_points)
        return rows[chosen], observation[chosen]


def log_scale(jacobian: Float64, distance: Float64) -> Float64:
    """(n,) logarithm of the pixels that a unit of the world covers, for views of these."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(np.sqrt(np.abs(determinant(jacobian))) / distance))


def _first_lowest(values: npt.NDArray[np.float32], owner: Int64, count: int) -> Int64:
    """The row with the lowest value of each owner; owners are 0, 1, ... in order, and each has a row."""
    start = np.searchsorted(owner, np.arange(count))
    lowest = np.minimum.reduceat(values, start) if count else values
    rows = np.flatnonzero(values == lowest[owner])
    return np.asarray(rows[np.searchsorted(owner[rows], np.arange(count))])


def _spread(xy: Float64, size: Float64, rank: Float64, max_points: int) -> Int64:
    """Rows of at most so many points, as many in each cell of the image as there are; low ranks first."""
    if len(xy) <= max_points:
        return np.arange(len(xy))
    cell = (xy * (_CELLS / size.max())).astype(int)
    key = cell[:, 1] * (_CELLS + 1) + cell[:, 0]
    order = np.lexsort((rank, key))
    first = np.searchsorted(key[order], key[order])
    turn = np.arange(len(order)) - first  # of each point in its cell
    return np.sort(order[np.argsort(turn, kind="stable")[:max_points]])


def read_map(
    reconstruction: pycolmap.Reconstruction, path: Path, features: DenseFeaturesOptions | None = None
) -> LocalizationMap:
    """The map of a model from its file of references.

    Raises:
        UserError: they are damaged, of another model, or of other features.
    """
    references, sources = read_surface_references(path), _sources(features or DenseFeaturesOptions())
    for asked, found in zip_longest((source.identity for source in sources), references.made_with):
        if asked != found:
            raise UserError(
                f"{path}: the references are of {_named(references.made_with)}, but those of "
                f"{_named([source.identity for source in sources])} are asked for; set the options of "
                "DenseFeatures as they were, or make the references again"
            )
    _check_belongs(reconstruction, references, path)
    return LocalizationMap(references, "file", sources)


def make_map(
    reconstruction: pycolmap.Reconstruction,
    image_path: Path,
    features: DenseFeaturesOptions,
    progress: Progress,
) -> LocalizationMap:
    """The map of a model measured now, at its poses.

    With features.use_cache its references are kept in cache_path, or are those that lie there already.
    """
    files = image_files(reconstruction, image_path)
    if features.use_cache:
        path = Path(features.cache_path)
        if path.exists() and not features.overwrite_cache:
            return read_map(reconstruction, path, features)
        make_surface_references(reconstruction, files, features, path, progress)
        return LocalizationMap(read_surface_references(path), "images", _sources(features))
    with tempfile.TemporaryDirectory(prefix="pixcli-") as folder:
        path = Path(folder) / "references.h5"
        make_surface_references(reconstruction, files, features, path, progress)
        # Mapped: it outlives its name.
        return LocalizationMap(read_surface_references(path), "images", _sources(features))


def _sources(features: DenseFeaturesOptions) -> tuple[Source, ...]:
    return tuple(source_of(model, [], features, KeypointAdjustmentOptions()) for model in features.models)


def _named(identities: Sequence[Mapping[str, Any]]) -> str:
    """Models and their options, as one reads them."""
    return " + ".join(
        " ".join([str(one["model"]), *(f"{key}={value}" for key, value in one.items() if key != "model")])
        for one in identities
    )


def _check_belongs(
    reconstruction: pycolmap.Reconstruction, references: SurfaceReferences, path: Path
) -> None:
    """Raises UserError unless the model sees the points where its references were cut.

    One observation of each image tells of poses and cameras, and points must be those of the model.
    """
    remedy = "make them again from this model, or name the model that they were made of"
    points3D = reconstruction.points3D
    ids = references.point_id.tolist()
    missing = sum(point_id not in points3D for point_id in ids)
    if missing > _MAX_MISSING * len(ids) or not ids:
        raise UserError(f"{path}: {missing} of {len(ids)} points are not in the model; {remedy}")
    point = np.repeat(np.arange(len(ids)), np.diff(references.ptr))
    images, first = np.unique(references.image_id, return_index=True)
    for image_id, row in zip(images.tolist(), first.tolist(), strict=True):
        if image_id not in reconstruction.images or not reconstruction.images[image_id].has_pose:
            raise UserError(f"{path}: the model has no image {image_id} with a pose; {remedy}")
        image = reconstruction.images[image_id]
        xy = image.camera.img_from_cam(image.cam_from_world() * references.point[point[row]])
        view = references.view[row]
        off = np.inf if xy is None else float(np.hypot(xy[0] - view["x"], xy[1] - view["y"]))
        if not off < _SAME_PLACE:
            raise UserError(f"{path}: the pose or camera of {image.name} is not that of the model; {remedy}")
    sample = np.linspace(0, len(ids) - 1, min(len(ids), 1000)).astype(int)
    sample = np.array([row for row in sample.tolist() if ids[row] in points3D])
    xyz = np.array([points3D[ids[row]].xyz for row in sample.tolist()])
    moved = np.linalg.norm(xyz - references.point[sample], axis=1)
    pixels = moved * np.exp(
        log_scale(*(references.view[references.ptr[sample]][n] for n in ("jacobian", "distance")))
    )
    if not np.median(pixels) < _SAME_POINT:
        raise UserError(f"{path}: points lie elsewhere than those of the model; {remedy}")
