"""Localized queries become images of the model."""

from collections.abc import Iterable, Sequence
from copy import copy
from itertools import groupby

import numpy as np
import numpy.typing as npt

from pixcli.adapters.query_matches import DatabaseQueries
from pixcli.localization.batch import Localized

import pycolmap


def register_queries(
    model: pycolmap.Reconstruction, queries: DatabaseQueries, batch: Iterable[Localized]
) -> None:
    """Add the queries that succeeded, with the inliers of their matches as observations of their points.

    An image has the keypoints of the database, in their order; those that are observations are where they
    were measured. Images and cameras have the database's ids where these are free. A query whose intrinsics
    were refined gets a camera of its own. Images that a rig of the model took at a time become one frame.
    """
    for _, frame in groupby(batch, lambda localized: queries.frame_of(localized.name)):
        members = [localized for localized in frame if localized.result.success]
        images = [_image(model, queries, localized) for localized in members]
        if len(members) > 1 and _is_rig(model, queries.rig_of(members[0].name), images):
            _add_frame(model, queries, members, images)
        else:
            for localized, image in zip(members, images, strict=True):
                image.camera_id = _trivial_camera(model, localized.result.camera, image.camera_id)
                model.add_image_with_trivial_frame(image, localized.result.cam_from_world)
        for localized, image in zip(members, images, strict=True):
            for row in _unique_inliers(model, localized).tolist():
                element = pycolmap.TrackElement(image.image_id, int(localized.point2D_idxs[row]))
                model.add_observation(int(localized.point3D_ids[row]), element)
    model.update_point_3d_errors()


def _image(model: pycolmap.Reconstruction, queries: DatabaseQueries, localized: Localized) -> pycolmap.Image:
    image_id = queries.ids[localized.name]
    keypoints = queries.reader.keypoints(image_id)
    chosen = _unique_inliers(model, localized)
    keypoints[localized.point2D_idxs[chosen]] = localized.result.keypoints[chosen]
    return pycolmap.Image(
        name=localized.name,
        keypoints=keypoints,
        camera_id=queries.reader.images[image_id].camera_id,
        image_id=_free(image_id, {*model.images, *model.frames}),
    )


def _is_rig(model: pycolmap.Reconstruction, rig_id: int | None, images: Sequence[pycolmap.Image]) -> bool:
    """Whether the model has the rig of these images."""
    cameras = [image.camera_id for image in images]
    return rig_id in model.rigs and all(
        camera_id in model.cameras and model.rigs[rig_id].has_sensor(model.cameras[camera_id].sensor_id)
        for camera_id in cameras
    )


def _add_frame(
    model: pycolmap.Reconstruction,
    queries: DatabaseQueries,
    members: Sequence[Localized],
    images: Sequence[pycolmap.Image],
) -> None:
    """The images of a rig that the model has, as one frame."""
    frame = pycolmap.Frame(frame_id=_free(images[0].image_id, {*model.images, *model.frames}))
    frame.rig_id = queries.rig_of(members[0].name)
    for image in images:
        image.frame_id = frame.frame_id
        sensor = model.cameras[image.camera_id].sensor_id
        frame.add_data_id(pycolmap.data_t(sensor, image.image_id))
    place = queries.place_of(members[0].name)
    frame.rig_from_world = place.inverse() * members[0].result.cam_from_world
    model.add_frame(frame)
    for image in images:
        model.add_image(image)
    model.register_frame(frame.frame_id)


def _unique_inliers(model: pycolmap.Reconstruction, localized: Localized) -> npt.NDArray[np.int64]:
    """Inliers, best first, of which no two have the same keypoint or the same point."""
    result = localized.result
    rows = np.flatnonzero(result.inliers)
    xyz = np.array([model.points3D[point].xyz for point in localized.point3D_ids[rows].tolist()])
    projected = np.asarray(result.camera.img_from_cam(result.cam_from_world * xyz.reshape(-1, 3)))
    errors = np.linalg.norm(projected - result.keypoints[rows], axis=1)
    rows = rows[np.argsort(errors, kind="stable")]
    for ids in (localized.point2D_idxs, localized.point3D_ids):
        rows = rows[np.sort(np.unique(ids[rows], return_index=True)[1])]
    return rows


def _trivial_camera(model: pycolmap.Reconstruction, camera: pycolmap.Camera, wanted: int) -> int:
    """A camera of the model that is this one and a rig of its own; added if there is none."""
    for camera_id in sorted(model.cameras):
        other = model.cameras[camera_id]
        same = (other.model, other.width, other.height) == (camera.model, camera.width, camera.height)
        alone = camera_id in model.rigs and model.rigs[camera_id].num_sensors() == 1
        if same and alone and np.array_equal(other.params, camera.params):
            return int(camera_id)
    camera = copy(camera)
    camera.camera_id = _free(wanted, {*model.cameras, *model.rigs})
    model.add_camera_with_trivial_rig(camera)
    return int(camera.camera_id)


def _free(wanted: int, taken: set[int]) -> int:
    return wanted if wanted not in taken else max(taken) + 1
