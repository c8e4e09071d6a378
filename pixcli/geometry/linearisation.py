"""COLMAP's projection near points, as arrays: what the native surface step knows of a camera.

The local frame of an observation has its origin in the camera's centre and its third axis on the ray to the
point. Rays close to it have the tangents (m1, m2); where they are seen is a quadratic of them, fitted to
COLMAP's own projection over the extent of a support. No camera model is treated on its own.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli import _core

import pycolmap

Float64 = npt.NDArray[np.float64]
Views = npt.NDArray[Any]
"""Of _core.surface_view_dtype; NaN where a point is not seen."""

_FIT_RADIUS = 6.0  # pixels, that the fit is exact at
_FIRST_STEP = 1e-5  # radians, to find how many pixels a tangent is


def linearise(camera: pycolmap.Camera, rotation: Float64, translation: Float64, points: Float64) -> Views:
    """The projection of points (n, 3) of the world into one image.

    Args:
        rotation, translation: (3, 3) and (3,), cam_from_world.
    """
    local = points @ rotation.T + translation
    views = np.full(len(points), np.nan, _core.surface_view_dtype)
    views["distance"] = distance = np.linalg.norm(local, axis=1)
    frames = _frames(local / distance[:, None])
    views["rotation"] = (frames.reshape(-1, 3) @ rotation).reshape(-1, 3, 3)

    def seen(m1: npt.ArrayLike, m2: npt.ArrayLike) -> Float64:
        tangents = np.ones((len(points), 3))
        tangents[:, 0], tangents[:, 1] = m1, m2
        rays = np.einsum("nk,nkc->nc", tangents, frames)
        return np.asarray(camera.img_from_cam(rays, check_cheirality=True), float).reshape(-1, 2)

    centre = seen(0, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        first = np.stack([seen(_FIRST_STEP, 0) - centre, seen(0, _FIRST_STEP) - centre], 2) / _FIRST_STEP
        area = first[:, 0, 0] * first[:, 1, 1] - first[:, 0, 1] * first[:, 1, 0]
        step = _FIT_RADIUS / np.sqrt(np.abs(area))
        step[~np.isfinite(step)] = _FIRST_STEP
        a, b, c, d = seen(step, 0), seen(-step, 0), seen(0, step), seen(0, -step)
        mixed = seen(step, step) - seen(step, -step) - seen(-step, step) + seen(-step, -step)
        s = step[:, None]
        views["x"], views["y"] = centre.T
        views["jacobian"] = np.stack([(a - b) / (2 * s), (c - d) / (2 * s)], 2)
        second = [(a + b) / 2 - centre, mixed / 4, (c + d) / 2 - centre]
        views["curvature"] = np.stack([value / s**2 for value in second], 2)
    return views


def _frames(axis: Float64) -> Float64:
    """(n, 3, 3) rows: two tangents, right-handed with the unit vectors `axis` (n, 3)."""
    # The coordinate axis that is furthest from it, to be well defined for every direction.
    helper = np.eye(3)[np.abs(axis).argmin(1)]
    first = np.cross(helper, axis)
    first /= np.linalg.norm(first, axis=1)[:, None]
    return np.stack([first, np.cross(axis, first), axis], 1)
