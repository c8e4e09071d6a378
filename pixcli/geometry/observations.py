"""The observations of a model as arrays, and where its points project to."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

import pycolmap


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
    images, keypoints, ids, xy = [], [], [], []
    for image_id in sorted(reconstruction.reg_image_ids()):
        image = reconstruction.images[image_id]
        seen = image.get_observation_points2D()
        images.append(np.full(len(seen), image_id, np.int64))
        keypoints.append(np.array(image.get_observation_point2D_idxs(), np.int64))
        ids.append(np.array([point2D.point3D_id for point2D in seen], np.int64))
        xy.append(np.array([point2D.xy for point2D in seen], np.float64).reshape(-1, 2))
    of_point, places = np.concatenate(ids), np.concatenate(xy)
    point_ids, point, length = np.unique(of_point, return_inverse=True, return_counts=True)
    order = np.argsort(point, kind="stable")  # images and keypoints ascend already
    long = length >= max(min_track_length, 1)
    order = order[long[point[order]]]
    return Observations(
        point_ids[long],
        np.concatenate([[0], np.cumsum(length[long], dtype=np.int64)]).astype(np.int64),
        np.concatenate(images)[order],
        np.concatenate(keypoints)[order],
        places[order],
    )


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
