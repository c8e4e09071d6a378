"""Localized queries become images of the model."""

from collections.abc import Iterable
from copy import copy

import numpy as np
import numpy.typing as npt
import pycolmap

from pixcli.localization.batch import Localized
from pixcli.localization.queries import DatabaseQueries


def register_queries(
    model: pycolmap.Reconstruction, queries: DatabaseQueries, batch: Iterable[Localized]
) -> None:
    """Add the queries that succeeded, with the inliers of their matches as observations of their points.

    An image has the keypoints of the database, in their order; those that are observations are where they
    were measured. Images and cameras have the database's ids where these are free. A query whose intrinsics
    were refined gets a camera of its own.
    """
    for localized in batch:
        result = localized.result
        if not result.success or result.cam_from_world is None:
            continue
        image_id = queries.ids[localized.name]
        keypoints = queries.reader.keypoints(image_id)
        chosen = _unique_inliers(model, localized)
        keypoints[localized.point2D_idxs[chosen]] = result.keypoints[chosen]
        image = pycolmap.Image(
            name=localized.name,
            keypoints=keypoints,
            camera_id=_camera_id(model, result.camera, queries.reader.images[image_id].camera_id),
            image_id=_free(image_id, {*model.images, *model.frames}),
        )
        model.add_image_with_trivial_frame(image, result.cam_from_world)
        for row in chosen.tolist():
            element = pycolmap.TrackElement(image.image_id, int(localized.point2D_idxs[row]))
            model.add_observation(int(localized.point3D_ids[row]), element)
    model.update_point_3d_errors()


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


def _camera_id(model: pycolmap.Reconstruction, camera: pycolmap.Camera, wanted: int) -> int:
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
