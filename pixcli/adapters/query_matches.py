"""Queries from a COLMAP database, or from hloc's files."""

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pixcli.errors import UserError
from pixcli.io.database_reader import DatabaseReader
from pixcli.io.hloc import FeatureFile, MatchFile, read_pairs, read_queries
from pixcli.io.image_list import read_image_list
from pixcli.localization.queries import Queries, Query

import pycolmap

_NONE = np.empty(0, np.int64)


class DatabaseQueries(Queries):
    """Images of a COLMAP database that a model has not registered.

    Matched are the points that verified matches with registered images lead to, as in colmap
    image_registrator. A query has the model's camera, where the model has the database's one. Images of a rig
    whose sensors' poses are known are localized as one.

    Args:
        image_list_path: the queries; None: all images of the database that the model has not registered.
    """

    def __init__(
        self, path: Path, model: pycolmap.Reconstruction, image_list_path: Path | None = None
    ) -> None:
        super().__init__()
        self._path, self._model = path, model
        self._map = _MapPoints(model)
        with ExitStack() as stack:
            self.reader = stack.enter_context(DatabaseReader(path))
            self.ids = {image.name: image_id for image_id, image in self.reader.images.items()}
            if image_list_path is not None:
                self.names = read_image_list(image_list_path, sorted(self.ids))
            else:
                self.names = sorted(set(self.ids) - set(self._map.image_ids))
            self._rigged = self._find_rigged()
            first: dict[Hashable, int] = {}
            for place, name in enumerate(self.names):
                first.setdefault(self.frame_of(name), place)
            self.names = sorted(self.names, key=lambda name: first[self.frame_of(name)])
            if not self.names:
                raise UserError(
                    f"nothing to localize: {image_list_path} names no image"
                    if image_list_path is not None
                    else f"nothing to localize: the model has registered all {len(self.ids)} images of {path}"
                )
            if not set(self.ids) & set(self._map.image_ids):
                raise UserError(
                    f"{path} has none of the model's images, so nothing is matched with its points: "
                    "give the database that the model was made from, with the queries added"
                )
            self._stack = stack.pop_all()

    def read(self, name: str) -> Query:
        image_id = self.ids[name]
        camera = self.cameras[self.reader.images[image_id].camera_id]
        if name in self._map.image_ids:
            return Query(name, camera, reason="the model has registered it already")
        keypoints = self.reader.keypoints(image_id)
        matches = []
        for other_id in self.reader.partners(image_id):
            other = self.reader.images[other_id].name
            if other in self._map.image_ids:
                rows = self.reader.matches(image_id, other_id)
                matches.append((rows, self._map.points_of(other, rows[:, 1], str(self._path))))
        return replace(_query(name, camera, keypoints, matches), cam_from_rig=self.place_of(name))

    def frame_of(self, name: str) -> Hashable:
        return self._rigged[name][0] if name in self._rigged else name

    def rig_of(self, name: str) -> int | None:
        """The database's rig that took this image together with others, which are queries as well."""
        return self.reader.frames[self._rigged[name][0]].rig_id if name in self._rigged else None

    def place_of(self, name: str) -> pycolmap.Rigid3d:
        """cam_from_rig of an image that a rig took together with others; of any other the identity."""
        return self._rigged[name][1] if name in self._rigged else pycolmap.Rigid3d()

    def _find_rigged(self) -> dict[str, tuple[int, pycolmap.Rigid3d]]:
        """The frame of each query that a rig took together with others, and the camera's place in the rig."""
        rigs = {**self.reader.rigs, **self._model.rigs}
        found: dict[str, tuple[int, pycolmap.Rigid3d]] = {}
        for frame_id, frame in self.reader.frames.items():
            ids = [data.id for data in frame.image_ids if data.id in self.reader.images]
            names = {self.reader.images[image_id].name for image_id in ids} & set(self.names)
            places = {name: self._place_in(rigs.get(frame.rig_id), name) for name in sorted(names)}
            if len(names) > 1 and all(place is not None for place in places.values()):
                found |= {name: (frame_id, place) for name, place in places.items() if place is not None}
        return found

    def _place_in(self, rig: pycolmap.Rig | None, name: str) -> pycolmap.Rigid3d | None:
        sensor = self.reader.cameras[self.reader.images[self.ids[name]].camera_id].sensor_id
        if rig is None or not rig.has_sensor(sensor):
            return None
        if rig.is_ref_sensor(sensor):
            return pycolmap.Rigid3d()
        return rig.sensor_from_rig(sensor) if rig.has_sensor_from_rig(sensor) else None

    @cached_property
    def cameras(self) -> dict[int, pycolmap.Camera]:
        """The camera of each of the database's: the model's, which is refined, or else the database's own."""
        cameras = dict(self.reader.cameras)
        for name, image_id in sorted(self._map.image_ids.items()):
            if name in self.ids:
                camera_id = self.reader.images[self.ids[name]].camera_id
                refined = self._model.cameras[self._model.images[image_id].camera_id]
                if cameras[camera_id] is self.reader.cameras[camera_id] and _same_kind(
                    refined, cameras[camera_id]
                ):
                    cameras[camera_id] = copy(refined)
                    cameras[camera_id].has_prior_focal_length = True  # which models do not tell
        return cameras


class HlocQueries(Queries):
    """Queries of hloc's files.

    Args:
        queries_path: names with intrinsics.
        pairs_path: which images of the model each query is matched with.
        cluster: tell apart the places that a query's pairs show.
    """

    def __init__(
        self,
        queries_path: Path,
        features_path: Path,
        matches_path: Path,
        pairs_path: Path,
        model: pycolmap.Reconstruction,
        cluster: bool = False,
    ) -> None:
        super().__init__()
        self._matches_path, self._cluster = matches_path, cluster
        self._map = _MapPoints(model)
        self._cameras = read_queries(queries_path)
        self.names = list(self._cameras)
        self._pairs = read_pairs(pairs_path, self._cameras, self._map.image_ids)
        if not self._pairs:
            raise UserError(f"{pairs_path} has no pair of any query of {queries_path}: check both")
        with ExitStack() as stack:
            self._features = stack.enter_context(FeatureFile(features_path))
            self._matches = stack.enter_context(MatchFile(matches_path))
            self._stack = stack.pop_all()

    def read(self, name: str) -> Query:
        camera = self._cameras[name]
        if camera is None:
            return Query(name, pycolmap.Camera(), reason="the list of queries has no intrinsics of it")
        if name in self._map.image_ids:
            return Query(name, camera, reason="the model has registered it already")
        if name not in self._pairs:
            return Query(name, camera, reason="it is in no pair")
        keypoints = self._features.read(name).xy
        matches, known = [], 0
        for other in self._pairs[name]:
            if other not in self._map.image_ids:
                continue
            known += 1
            found = self._matches.read(name, other)
            if found is not None:
                rows = found[0]
                matches.append((rows, self._map.points_of(other, rows[:, 1], str(self._matches_path))))
        if not matches:
            partners = f"{len(self._pairs[name])} images that it is paired with"
            reason = f"no matches with the {partners}" if known else f"the model has none of the {partners}"
            return Query(name, camera, keypoints, reason=reason)
        return _query(name, camera, keypoints, matches, self._cluster)


class _MapPoints:
    """The points that keypoints of a model's registered images are observations of."""

    def __init__(self, model: pycolmap.Reconstruction) -> None:
        self._model = model
        self.image_ids = {model.images[image_id].name: image_id for image_id in model.reg_image_ids()}
        """Of the registered images, by name."""
        self._points: dict[str, npt.NDArray[np.int64]] = {}

    def points_of(self, name: str, rows: npt.NDArray[np.int64], source: str) -> npt.NDArray[np.int64]:
        """(m,) ids of the points of keypoints (rows) of an image, -1 for those that have none."""
        if name not in self._points:
            points2D = self._model.images[self.image_ids[name]].points2D
            ids = [point.point3D_id if point.has_point3D() else -1 for point in points2D]
            self._points[name] = np.array(ids, np.int64)
        points = self._points[name]
        if len(rows) and rows.max() >= len(points):
            raise UserError(
                f"{source} matches keypoint {rows.max()} of {name}, but the model has {len(points)} of it: "
                "it was made from other features"
            )
        return points[rows]


def _query(
    name: str,
    camera: pycolmap.Camera,
    keypoints: npt.NDArray[np.float64],
    matches: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    cluster: bool = False,
) -> Query:
    """Of matched keypoints (m, 2) and their points (m,) for each image of the model: every pair once."""
    rows = np.concatenate([rows[:, 0] for rows, _ in matches] or [_NONE])
    points = np.concatenate([points for _, points in matches] or [_NONE])
    image = np.repeat(np.arange(len(matches)), [len(points) for _, points in matches])
    known = points >= 0
    rows, points, image = rows[known], points[known], image[known]
    if len(rows) and rows.max() >= len(keypoints):
        raise UserError(
            f"matches name keypoint {rows.max()} of {name}, which has {len(keypoints)}: "
            "they were made from other features"
        )
    _, first = np.unique(np.stack([rows, points], axis=1), axis=0, return_index=True)
    place = _places(points, image)[first] if cluster else np.zeros(len(first), np.int64)
    reason = "" if len(keypoints) else "it has no keypoints"
    if not reason and not len(first):
        reason = "none of its matches leads to a point of the model"
    return Query(name, camera, keypoints, rows[first], points[first], place, reason=reason)


def _places(points: npt.NDArray[np.int64], image: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(m,) the connected component of each match: images are connected by the points that they share."""
    if not len(points):
        return _NONE
    _, point = np.unique(points, return_inverse=True)
    count = int(image.max()) + 1
    graph = coo_array(
        (np.ones(len(point)), (image, count + point)), shape=(count + int(point.max()) + 1,) * 2
    )
    labels = connected_components(graph, directed=False)[1]
    return np.asarray(labels[image], np.int64)


def _same_kind(a: pycolmap.Camera, b: pycolmap.Camera) -> bool:
    return bool((a.model, a.width, a.height) == (b.model, b.width, b.height))
