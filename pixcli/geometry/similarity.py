"""Similarities between two versions of a model."""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import pycolmap

Float64 = NDArray[np.float64]

_ITERATIONS = 20


def frame_centres(model: pycolmap.Reconstruction, frame_ids: list[int]) -> Float64:
    """(n, 3) where frames are in the world."""
    poses = [model.frames[frame_id].rig_from_world for frame_id in frame_ids]
    return np.array([pose.inverse().translation for pose in poses], np.float64).reshape(-1, 3)


def align(source: pycolmap.Reconstruction, target: pycolmap.Reconstruction) -> pycolmap.Sim3d:
    """target_from_source of two versions of a model, by the cameras and points that are in both.

    Robust: what moved far weighs little. With the points it is well-defined for two cameras, or many in line.
    """
    frames = sorted(
        frame_id
        for frame_id, frame in source.frames.items()
        if frame.has_pose and frame_id in target.frames and target.frames[frame_id].has_pose
    )
    points = sorted(source.point3D_ids() & target.point3D_ids())
    groups = [
        (frame_centres(source, frames), frame_centres(target, frames)),
        (
            np.array([source.points3D[point_id].xyz for point_id in points]).reshape(-1, 3),
            np.array([target.points3D[point_id].xyz for point_id in points]).reshape(-1, 3),
        ),
    ]
    old, new = (np.concatenate(parts) for parts in zip(*groups, strict=True))
    group = np.repeat([0, 1], [len(frames), len(points)])
    if len(old) < 3 or np.array_equal(old, new):
        return pycolmap.Sim3d()
    weights = np.ones(len(old))
    target_from_source = pycolmap.Sim3d()
    for _ in range(_ITERATIONS):
        target_from_source = weighted_similarity(old, new, weights)
        squared = np.square(np.asarray(target_from_source * old) - new).sum(axis=1)
        # Cauchy's weights; cameras and points scatter each by as much as their median says.
        typical = np.array([np.median(squared[group == k]) if (group == k).any() else 1 for k in (0, 1)])
        weights = 1 / np.maximum(typical[group] + squared, 1e-30)
        weights /= weights.sum()
    return target_from_source


def weighted_similarity(source: Float64, target: Float64, weights: Float64) -> pycolmap.Sim3d:
    """target_from_source with the least weighted squared distances of (n, 3) to (n, 3), by weights (n,)."""
    weights = weights / weights.sum()
    from_mean, to_mean = weights @ source, weights @ target
    x, y = source - from_mean, target - to_mean
    with warnings.catch_warnings():  # places in a line leave the turn about it open: any will do
        warnings.simplefilter("ignore", UserWarning)
        rotation = Rotation.align_vectors(y, x, weights)[0].as_matrix()
    scale = float(weights @ (y * (x @ rotation.T)).sum(axis=1) / (weights @ np.square(x).sum(axis=1)))
    return pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation), to_mean - scale * rotation @ from_mean)
