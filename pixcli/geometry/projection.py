"""Derivatives of projections, and the warps between views that follow from them."""

import numpy as np
from numpy.typing import NDArray

from pixcli.geometry.observations import Observations

import pycolmap

Array = NDArray[np.float64]


def facing_warps(here: Array, there: Array, ray: Array) -> Array:
    """(n, 2, 2) pixels of a view for a pixel of the reference view, by the plane across its ray.

    Args:
        here, there: (n, 2, 3) derivatives of the pixel by the point, in the view and in the reference view.
        ray: (n, 3) unit rays of the reference view.
    """
    # Two directions across the ray, the first also across the axis that the ray is least along.
    axis = np.eye(3)[np.abs(ray).argmin(axis=1)]
    first = np.cross(ray, axis)
    plane = np.stack([first, np.cross(ray, first)], axis=-1)
    here, there = here @ plane, there @ plane
    with np.errstate(invalid="ignore", divide="ignore"):
        (a, b), (c, d) = there.transpose(1, 2, 0)
        inverse = np.array([[d, -b], [-c, a]]) / (a * d - b * c)
    return np.asarray(here @ inverse.transpose(2, 0, 1))


def projection_derivatives(
    reconstruction: pycolmap.Reconstruction, observations: Observations, xyz: Array
) -> tuple[Array, Array]:
    """(n, 2, 3) derivatives of the pixel by the point, and (n, 3) unit rays to it, in the world."""
    n = len(observations.image_ids)
    derivatives, rays = np.full((n, 2, 3), np.nan), np.empty((n, 3))
    for image_id, members in observations.by_image.items():
        image = reconstruction.images[image_id]
        points = xyz[observations.point_index[members]]
        ray = points - image.projection_center()
        rays[members] = ray / np.linalg.norm(ray, axis=1, keepdims=True)
        derivatives[members] = derivatives_by_point(image.camera, image.cam_from_world(), points)
    return derivatives, rays


def derivatives_by_point(camera: pycolmap.Camera, cam_from_world: pycolmap.Rigid3d, points: Array) -> Array:
    """(n, 2, 3) derivatives of the pixel by points (n, 3) of the world; NaN where these do not project."""
    step = 1e-5 * np.linalg.norm(np.asarray(cam_from_world * points), axis=1, keepdims=True)
    offsets = np.stack([np.eye(3), -np.eye(3)])[:, :, None] * step
    moved = np.asarray(cam_from_world * (points + offsets).reshape(-1, 3))
    ahead, behind = np.asarray(camera.img_from_cam(moved), float).reshape(2, 3, len(points), 2)
    difference = ahead - behind
    if camera.is_spherical():  # over the seam
        difference[..., 0] -= camera.width * np.round(difference[..., 0] / camera.width)
    return np.ascontiguousarray((difference / (2 * step)).transpose(1, 2, 0))
