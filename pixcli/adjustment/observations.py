"""The observations of a model as arrays, and where its points project to."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pycolmap
from numpy.typing import NDArray


@dataclass(frozen=True)
class Observations:
    """The observations of p points, n in all; those of a point lie together, by image and keypoint."""

    point_ids: NDArray[np.int64]
    """(p,) ascending."""
    ptr: NDArray[np.int64]
    """(p + 1,) the observations of point k are ptr[k]:ptr[k + 1]."""
    image_ids: NDArray[np.int64]
    """(n,)"""
    keypoints: NDArray[np.int64]
    """(n,) rows among the keypoints of the image."""
    xy: NDArray[np.float64]
    """(n, 2) where the keypoints are, in COLMAP pixels."""

    @cached_property
    def point_index(self) -> NDArray[np.int64]:
        """(n,) rows of point_ids."""
        return np.repeat(np.arange(len(self.point_ids)), np.diff(self.ptr))

    @cached_property
    def by_image(self) -> dict[int, NDArray[np.int64]]:
        """Rows of the observations in each image, images ascending."""
        order = np.argsort(self.image_ids, kind="stable")
        images, starts = np.unique(self.image_ids[order], return_index=True)
        ptr = np.append(starts, len(order))
        return {image: order[i:j] for image, i, j in zip(images.tolist(), ptr[:-1], ptr[1:], strict=True)}


def read_observations(reconstruction: pycolmap.Reconstruction, min_track_length: int = 2) -> Observations:
    """The observations of all points that have at least this many, in images that have a pose."""
    posed = {image_id for image_id, image in reconstruction.images.items() if image.has_pose}
    point_ids, lengths, rows = [], [], []
    for point_id, point in sorted(reconstruction.points3D.items()):
        elements = ((element.image_id, element.point2D_idx) for element in point.track.elements)
        track = sorted(element for element in elements if element[0] in posed)
        if len(track) >= max(min_track_length, 1):
            point_ids.append(point_id)
            lengths.append(len(track))
            rows.extend(track)
    image_ids, keypoints = np.array(rows, np.int64).reshape(-1, 2).T.copy()
    ptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    observations = Observations(
        np.array(point_ids, np.int64), ptr, image_ids, keypoints, np.empty((len(rows), 2))
    )
    for image_id, members in observations.by_image.items():
        points2D = reconstruction.images[image_id].points2D
        observations.xy[members] = [points2D[row].xy for row in keypoints[members].tolist()]
    return observations


def project(
    reconstruction: pycolmap.Reconstruction,
    observations: Observations,
    points: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """(n, 2) where the points project to in the images of their observations; NaN behind the camera.

    Args:
        points: (p, 3) where they are; None: as the model has them.
    """
    if points is None:
        points = points_of(reconstruction, observations)
    projected = np.full((len(observations.image_ids), 2), np.nan)
    for image_id, members in observations.by_image.items():
        image = reconstruction.images[image_id]
        in_camera = image.cam_from_world() * points[observations.point_index[members]]
        projected[members] = image.camera.img_from_cam(np.asarray(in_camera))
    return projected


def reprojection_errors(
    reconstruction: pycolmap.Reconstruction,
    observations: Observations,
    points: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """(n, 2) projections, as project() has them, minus observations: across the seam of spherical images."""
    errors = project(reconstruction, observations, points) - observations.xy
    for image_id, members in observations.by_image.items():
        camera = reconstruction.images[image_id].camera
        if camera.is_spherical():
            errors[members, 0] -= camera.width * np.round(errors[members, 0] / camera.width)
    return errors


def points_of(reconstruction: pycolmap.Reconstruction, observations: Observations) -> NDArray[np.float64]:
    """(p, 3) where the model has the points of the observations."""
    points3D = reconstruction.points3D
    xyz = [points3D[point_id].xyz for point_id in observations.point_ids.tolist()]
    return np.array(xyz, np.float64).reshape(-1, 3)
