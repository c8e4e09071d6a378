"""Localization of single queries, for users' own programs and for batches."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.io.references import rows_among
from pixcli.localization.feature_map import NO_REFERENCES, FeatureMap, open_feature_map
from pixcli.localization.feature_refinement import FeatureView, refine_by_features
from pixcli.localization.first_pose import FirstPose, Matches, find_first_pose
from pixcli.localization.localized import LocalizationResult, Step, failed
from pixcli.localization.map import LocalizationMap, make_map, read_map
from pixcli.localization.measurement import query_images
from pixcli.localization.pixels import Pixels
from pixcli.localization.query_pose import QueryPose
from pixcli.localization.rig_state import RefinedIntrinsics, Sensor
from pixcli.localization.surface_refinement import QueryView, localize_by_surfaces
from pixcli.options.localization import LocalizeOptions
from pixcli.progress import Progress

import pycolmap

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class SensorQuery:
    """What one camera of a rig shows."""

    keypoints: npt.ArrayLike
    """(k, 2 or more) all keypoints, COLMAP pixels."""
    point2D_idxs: npt.ArrayLike
    """(m,) rows of keypoints that match points of the model."""
    point3D_ids: npt.ArrayLike
    """(m,) these points."""
    camera: pycolmap.Camera
    image: Pixels
    cam_from_rig: pycolmap.Rigid3d = field(default_factory=pycolmap.Rigid3d)


class QueryLocalizer:
    """Localizes queries against one model; loads once, then serves any number of threads.

    localizer = QueryLocalizer(model, references="map.h5")
    result = localizer.localize(keypoints, point2D_idxs, point3D_ids, camera, image="query.jpg")
    """

    map: LocalizationMap | FeatureMap | None
    """What queries are compared with; None where their first poses are not refined."""

    def __init__(
        self,
        reconstruction: pycolmap.Reconstruction,
        options: LocalizeOptions = LocalizeOptions(),
        *,
        references: Path | str | LocalizationMap | FeatureMap | None = None,
        image_path: Path | str | None = None,
        random_seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Read the map's references, or make them from the images of the model.

        Args:
            options: dense_features.use_cache and cache_path keep references that are made.
            references: file that featuremetric_bundle_adjuster or an earlier localization wrote, or the map
                of another localizer of the same strategy.
            image_path: folder of the model's images; the references are made from them if none are given, and
                kept in the file if there is none yet.

        Raises:
            UserError: the references cannot be read or made, or are of another model.
        """
        self._options, self._random_seed = options, random_seed
        self._point_ids, self._points = _points_of(reconstruction)
        if not options.refines:
            log.info("first poses are not refined: both query adjustments are off")
            self.map = None
        elif isinstance(references, (LocalizationMap, FeatureMap)):
            self.map = references
        else:
            references_path = None if references is None else Path(references)
            images = None if image_path is None else Path(image_path)
            open_map = _open_surface_map if options.localization.strategy == "surface" else open_feature_map
            self.map = open_map(reconstruction, references_path, images, options, progress or Progress())

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
        return self.localize_rig([SensorQuery(keypoints, point2D_idxs, point3D_ids, camera, image)])[0]

    def localize_rig(self, sensors: Sequence[SensorQuery]) -> list[LocalizationResult]:
        """Poses of the cameras of a rig, localized and refined as one. Never raises for a bad query.

        Cameras without matches get their poses from the others. One whose image or intrinsics cannot be used
        fails, and the others are localized without it.
        """
        steps: list[Step] = []
        try:
            _of_each(sensors, lambda sensor: _check(sensor.camera))
            return self._localize(sensors, steps)
        except _UnusableSensorsError as error:
            usable = [sensor for k, sensor in enumerate(sensors) if k not in error.reasons]
            others = iter(self.localize_rig(usable) if usable else ())
            return [
                failed(error.reasons[k], sensor.camera, np.size(sensor.point3D_ids), steps)
                if k in error.reasons
                else next(others)
                for k, sensor in enumerate(sensors)
            ]
        except UserError as error:
            return [
                failed(str(error), sensor.camera, np.size(sensor.point3D_ids), steps) for sensor in sensors
            ]

    def _localize(self, queries: Sequence[SensorQuery], steps: list[Step]) -> list[LocalizationResult]:
        found = [_matched(query) for query in queries]
        if not any(len(ids) for _, ids in found):
            _raise_unmatched(queries)
        matches, knowns = [], []
        for query, (xy, ids) in zip(queries, found, strict=True):
            row = rows_among(self._point_ids, ids)
            known = row >= 0  # points may have been deleted since they were matched
            sensor = Sensor(query.camera, query.cam_from_rig)
            matches.append(Matches(sensor, xy[known], self._points[row[known]]))
            knowns.append(known)
        with _timed("first pose", steps):
            how = self._options.localization
            unknown = RefinedIntrinsics(
                how.refine_focal_length, how.refine_principal_point, how.refine_extra_params
            )
            first = find_first_pose(matches, self._options.absolute_pose, self._random_seed, unknown)
        if isinstance(first, str):
            raise UserError(first)
        point_ids = [ids[known] for (_, ids), known in zip(found, knowns, strict=True)]
        refined = self._refine(queries, matches, point_ids, first, steps)
        results = []
        for k, ((xy, _), known) in enumerate(zip(found, knowns, strict=True)):
            inliers, keypoints = np.zeros(len(known), bool), np.array(xy)
            inliers[known], keypoints[known] = refined.inliers[k], refined.keypoints[k]
            sensor = refined.state.sensors[k]
            turn = np.kron(np.eye(2), sensor.cam_from_rig.rotation.matrix())
            results.append(
                LocalizationResult(
                    success=True,
                    reason="",
                    camera=sensor.camera,
                    cam_from_world=sensor.cam_from_rig * refined.state.rig_from_world,
                    covariance=turn @ refined.covariance @ turn.T,
                    inliers=inliers,
                    keypoints=keypoints,
                    undone="; ".join(refined.undone),
                    steps=steps,
                )
            )
        return results

    def _refine(
        self,
        queries: Sequence[SensorQuery],
        matches: Sequence[Matches],
        ids: Sequence[Int64],
        first: FirstPose,
        steps: list[Step],
    ) -> QueryPose:
        if self.map is None:
            return first.pose
        if isinstance(self.map, FeatureMap):
            with _timed("image", steps):
                known = self.map
                images = _of_each(queries, lambda query: known.image(query.image, query.camera))
            parts = [FeatureView(*part) for part in zip(matches, ids, images, strict=True)]
            refined = refine_by_features(self.map, parts, first, self._options, self._random_seed)
            steps += refined.steps
            return refined
        with _timed("image", steps):
            surface_map = self.map
            seen = _of_each(queries, lambda query: query_images(surface_map, query.image, query.camera))
        views = [
            QueryView(part, self.map.rows_of(points), image)
            for part, points, image in zip(matches, ids, seen, strict=True)
        ]
        max_error = self._options.absolute_pose.max_error
        refined = localize_by_surfaces(self.map, views, first, self._options.localization, max_error)
        seconds = sum(image.seconds for of_query in seen for image in of_query)
        steps += [*refined.steps, Step("scale space", seconds)]
        return refined


def _open_surface_map(
    reconstruction: pycolmap.Reconstruction,
    references_path: Path | None,
    image_path: Path | None,
    options: LocalizeOptions,
    progress: Progress,
) -> LocalizationMap:
    """That of a file; where there is none, made from the model's images and written there."""
    features = options.dense_features
    if references_path is not None and (image_path is None or references_path.exists()):
        return read_map(reconstruction, references_path, features)
    if image_path is None:
        raise UserError(NO_REFERENCES)
    if references_path is not None:
        features = replace(features, use_cache=True, cache_path=str(references_path))
    return make_map(reconstruction, image_path, features, progress)


class _UnusableSensorsError(UserError):
    """Some of a query's sensors cannot take part; `reasons` has why, by their place among the sensors."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons = reasons


def _of_each(queries: Sequence[SensorQuery], function: Callable[[SensorQuery], _Result]) -> list[_Result]:
    """What a function gives of each; _UnusableSensorsError if that is a UserError for some."""
    results, reasons = [], {}
    for k, query in enumerate(queries):
        try:
            results.append(function(query))
        except UserError as error:
            reasons[k] = str(error)
    if reasons:
        raise _UnusableSensorsError(reasons)
    return results


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


def _matched(query: SensorQuery) -> tuple[Float64, Int64]:
    """(m, 2) keypoints and (m,) ids of points; UserError unless they are that."""
    xy, rows, ids = (
        np.asarray(query.keypoints, float),
        *map(np.asarray, (query.point2D_idxs, query.point3D_ids)),
    )
    if rows.size == 0 and ids.size == 0:
        return np.empty((0, 2)), np.empty(0, np.int64)
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


def _raise_unmatched(queries: Sequence[SensorQuery]) -> NoReturn:
    if not any(np.size(query.keypoints) for query in queries):
        raise UserError("it has no keypoints")
    raise UserError("it has no matches with points of the model")


def _check(camera: pycolmap.Camera) -> None:
    if not (camera.verify_params() and np.isfinite(camera.params).all() and camera.mean_focal_length() > 0):
        raise UserError("its camera has no usable intrinsics")
