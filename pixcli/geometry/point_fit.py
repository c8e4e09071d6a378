"""Points where they fit their observations best, poses and cameras held: what the observations cost there.

Two sets of poses can be compared by it: each gets the points that suit it, so what remains is due to poses.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixcli.geometry.linearisation import linearise
from pixcli.geometry.observations import Observations, reprojection_errors

import pycolmap

Float64 = NDArray[np.float64]

_WIDEST = 1.0  # pixels; the scale of the loss that points start with, if theirs is smaller
_NARROWING = 4.0
_STEPS = 4  # for each scale
_BEHIND = 1e4  # pixels; the reprojection error of a point behind the camera
_DAMPING = 1e-4  # of the trace of the normal equations: depths that rays do not tell stay


def fit_points(
    model: pycolmap.Reconstruction,
    observations: Observations,
    points: Float64,
    used: NDArray[np.bool_],
    scale: float,
) -> tuple[Float64, Float64]:
    """Minimise Cauchy's loss of the reprojection errors, each point on its own.

    Args:
        observations: n of p points, of images that have a pose in the model; xy is what is fitted to.
        points: (p, 3) where to start.
        used: (n,) observations that take part.
        scale: of the loss, in pixels.

    Returns:
        (p, 3) the points, and (n,) reprojection errors there in pixels, large behind a camera.
    """
    scales = [scale]
    while scales[-1] < _WIDEST:
        scales.append(min(scales[-1] * _NARROWING, _WIDEST))
    half = max(len(scales) // 2, 1)
    best, errors = points, _errors(model, observations, points)
    lowest = _loss_of_points(observations, errors, used, scale)
    # Linearised twice: what is far away moves by many pixels at first.
    for steps in (scales[::-1][:half], scales[::-1][half - 1 :]):
        points = _fit_linearised(model, observations, best, used, steps)
        moved = _errors(model, observations, points)
        loss = _loss_of_points(observations, moved, used, scale)
        better = loss < lowest
        best, lowest = np.where(better[:, None], points, best), np.minimum(loss, lowest)
        errors = np.where(better[observations.point_index], moved, errors)
    return best, errors


def cauchy(errors: Float64, scale: float) -> Float64:
    """Half of Cauchy's loss of errors in pixels, in pixels squared."""
    return np.asarray(0.5 * scale**2 * np.log1p(np.square(errors / scale)))


def _fit_linearised(
    model: pycolmap.Reconstruction,
    observations: Observations,
    points: Float64,
    used: NDArray[np.bool_],
    scales: Sequence[float],
) -> Float64:
    """The points at the optimum for a projection that is linear around where they are."""
    residual = reprojection_errors(model, observations, points)
    slope = np.zeros((len(residual), 2, 3))
    for image_id, members in observations.by_image.items():
        image = model.images[image_id]
        pose = image.cam_from_world().matrix()
        here = points[observations.point_index[members]]
        views = linearise(image.camera, pose[:, :3], pose[:, 3], here)
        slope[members] = views["jacobian"] @ views["rotation"][:, :2] / views["distance"][:, None, None]
    usable = used & np.isfinite(residual).all(axis=1) & np.isfinite(slope).all(axis=(1, 2))
    residual[~usable], slope[~usable] = 0, 0
    return points + linear_fit(residual, slope, observations.ptr, scales, damping=_DAMPING)[0]


def linear_fit(
    residual: Float64, slope: Float64, ptr: NDArray[np.int64], scales: Sequence[float], *, damping: float
) -> tuple[Float64, Float64]:
    """Minimise Cauchy's loss where projections are linear in the points, each point on its own.

    Args:
        residual: (n, 2) projections minus observations of p points in pixels, by point; zero to take no part.
        slope: (n, 2, 3) derivatives of the projections by the points; likewise.
        ptr: (p + 1,) the rows of point k are ptr[k]:ptr[k + 1].
        scales: of the losses in pixels, one after the other.
        damping: of the normal equations, relative to their trace: directions that rays do not tell stay.

    Returns:
        (p, 3) steps from where the projections are, and (p, 3, 3) the last normal equations, damped.
    """
    begins, point = ptr[:-1], np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    step = np.zeros((len(begins), 3))
    gram = slope.transpose(0, 2, 1) @ slope
    matrix = np.zeros((len(begins), 3, 3))
    for scale in (scale for scale in scales for _ in range(_STEPS)):
        now = residual + np.einsum("nij,nj->ni", slope, step[point])
        weight = 1 / (1 + np.square(now / scale).sum(axis=1))
        matrix = np.add.reduceat(gram * weight[:, None, None], begins)
        vector = np.add.reduceat(np.einsum("nki,nk->ni", slope, now * weight[:, None]), begins)
        damped = damping * np.trace(matrix, axis1=1, axis2=2) + 1e-30
        matrix = matrix + damped[:, None, None] * np.eye(3)
        step -= np.linalg.solve(matrix, vector[..., None])[..., 0]
    return step, matrix


def _errors(model: pycolmap.Reconstruction, observations: Observations, points: Float64) -> Float64:
    errors = np.linalg.norm(reprojection_errors(model, observations, points), axis=1)
    return np.where(np.isfinite(errors), errors, _BEHIND)


def _loss_of_points(
    observations: Observations, errors: Float64, used: NDArray[np.bool_], scale: float
) -> Float64:
    loss = np.where(used, cauchy(errors, scale), 0)
    return np.asarray(np.bincount(observations.point_index, loss, len(observations.point_ids)), np.float64)
