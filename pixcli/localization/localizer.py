"""Localization of single queries, for users' own programs and for batches."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from pixcli.errors import UserError
from pixcli.io.images import read_image
from pixcli.localization.first_pose import Matches, find_first_pose
from pixcli.localization.map import LocalizationMap, make_map, read_map
from pixcli.localization.measurement import QueryPixels
from pixcli.localization.pose import Sensor
from pixcli.localization.result import LocalizationResult, Step, failed
from pixcli.localization.surface import QueryView, localize_by_surfaces
from pixcli.options import AbsolutePoseOptions, DenseFeaturesOptions, LocalizationOptions
from pixcli.progress import Progress

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

Pixels = Path | str | npt.NDArray[np.generic]
"""A file, or grey (h, w) or RGB (h, w, 3) pixels from 0 to 255."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class QueryLocalizer:
    """Localizes queries against one model; loads once, then serves any number of threads.

    localizer = QueryLocalizer(model, references="map.h5")
    result = localizer.localize(keypoints, point2D_idxs, point3D_ids, camera, image="query.jpg")
    """

    map: LocalizationMap
    """What queries are compared with."""

    def __init__(
        self,
        reconstruction: pycolmap.Reconstruction,
        options: LocalizationOptions | None = None,
        *,
        references: Path | str | None = None,
        image_path: Path | str | None = None,
        absolute_pose: AbsolutePoseOptions | None = None,
        features: DenseFeaturesOptions | None = None,
        random_seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Read the map's references, or make them from the images of the model.

        Args:
            references: file that featuremetric_bundle_adjuster or an earlier localization wrote.
            image_path: folder of the model's images; the references are made from them if none are given.
            features: use_cache and cache_path keep references that are made.

        Raises:
            UserError: the references cannot be read or made, or are of another model.
        """
        self.options = options or LocalizationOptions()
        self._absolute_pose = absolute_pose or AbsolutePoseOptions()
        self._random_seed = random_seed
        self._point_ids, self._points = _points_of(reconstruction)
        if references is not None:
            self.map = read_map(reconstruction, Path(references))
        elif image_path is not None:
            self.map = make_map(
                reconstruction, Path(image_path), features or DenseFeaturesOptions(), progress or Progress()
            )
        else:
            raise UserError("a localizer takes references, or the image_path of the model to make them from")

    def localize(
        self,
        keypoints: npt.ArrayLike,
        point2D_idxs: npt.ArrayLike,
        point3D_ids: npt.ArrayLike,
        camera: pycolmap.Camera,
        *,
        image: Pixels,
    ) -> LocalizationResult:
        """Pose of one query from its matches with points of the model. Never raises for a bad query.

        Args:
            keypoints: (k, 2 or more) all keypoints of the query, COLMAP pixels.
            point2D_idxs, point3D_ids: (m,) the matches: rows of keypoints, ids of points.
            camera: its focal length is estimated unless has_prior_focal_length says that it is known.
        """
        steps: list[Step] = []
        try:
            xy, ids = _matched(keypoints, point2D_idxs, point3D_ids)
            _check(camera)
            return self._localize(xy, ids, camera, image, steps)
        except UserError as error:
            return failed(str(error), camera, np.size(point3D_ids), steps)

    def _localize(
        self, xy: Float64, ids: Int64, camera: pycolmap.Camera, image: Pixels, steps: list[Step]
    ) -> LocalizationResult:
        row = np.minimum(np.searchsorted(self._point_ids, ids), len(self._point_ids) - 1)
        known = self._point_ids[row] == ids  # points may have been deleted since they were matched
        matches = Matches(Sensor(camera, pycolmap.Rigid3d()), xy[known], self._points[row[known]])
        with _timed("first pose", steps):
            first = find_first_pose([matches], self._absolute_pose, self._random_seed)
        if isinstance(first, str):
            raise UserError(first)
        with _timed("image", steps):
            pixels = QueryPixels(_grey(image, (camera.width, camera.height)))
        view = QueryView(matches, self.map.rows_of(ids[known]), pixels)
        refined = localize_by_surfaces(self.map, [view], first, self.options, self._absolute_pose.max_error)
        steps += [*refined.steps, Step("scale space", pixels.seconds)]
        inliers, keypoints = np.zeros(len(ids), bool), np.array(xy)
        inliers[known], keypoints[known] = refined.inliers[0], refined.keypoints[0]
        return LocalizationResult(
            success=True,
            reason="",
            camera=refined.sensors[0].camera,
            cam_from_world=refined.rig_from_world,
            covariance=refined.covariance,
            inliers=inliers,
            keypoints=keypoints,
            undone=refined.undone,
            steps=steps,
        )


@contextmanager
def _timed(name: str, steps: list[Step]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    steps.append(Step(name, time.perf_counter() - start))


def _points_of(reconstruction: pycolmap.Reconstruction) -> tuple[Int64, Float64]:
    """The ids of all points, ascending, and (p, 3) where they are."""
    ids = np.array(sorted(reconstruction.points3D), np.int64)
    if not len(ids):
        raise UserError("the model has no 3D points: there is nothing to localize against")
    return ids, np.array([reconstruction.points3D[i].xyz for i in ids.tolist()])


def _matched(
    keypoints: npt.ArrayLike, point2D_idxs: npt.ArrayLike, point3D_ids: npt.ArrayLike
) -> tuple[Float64, Int64]:
    """(m, 2) keypoints and (m,) ids of points; UserError unless they are that."""
    xy, rows, ids = np.asarray(keypoints, float), np.asarray(point2D_idxs), np.asarray(point3D_ids)
    if xy.size == 0:
        raise UserError("it has no keypoints")
    if rows.size == 0 and ids.size == 0:
        raise UserError("it has no matches with points of the model")
    if xy.ndim != 2 or xy.shape[1] < 2:
        raise UserError(f"its keypoints have the shape {xy.shape}, but a row each with x and y is needed")
    if rows.ndim != 1 or rows.shape != ids.shape or not all(a.dtype.kind in "iu" for a in (rows, ids)):
        raise UserError("its matches are no rows of keypoints with as many ids of points")
    if rows.min() < 0 or rows.max() >= len(xy):
        raise UserError(f"a match names keypoint {rows.max()}, but there are {len(xy)}")
    xy = xy[rows, :2]
    if not np.isfinite(xy).all():
        raise UserError("a matched keypoint is not finite")
    return xy, ids.astype(np.int64)


def _check(camera: pycolmap.Camera) -> None:
    if not (camera.verify_params() and np.isfinite(camera.params).all() and camera.mean_focal_length() > 0):
        raise UserError("its camera has no usable intrinsics")


def _grey(image: Pixels, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(h, w) pixels of a query."""
    if isinstance(image, (str, Path)):
        return read_image(Path(image), expected_size=size)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        pixels = pixels.astype(np.float32) @ _LUMA
    if pixels.shape != (size[1], size[0]):
        raise UserError(f"its image has the shape {pixels.shape}, but its camera is {size[0]}x{size[1]}")
    return np.ascontiguousarray(pixels, np.float32)
