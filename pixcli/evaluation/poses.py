"""Errors of camera poses against those of a reference model."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.geometry.similarity import weighted_similarity

import pycolmap

Array = npt.NDArray[np.float64]

_SHORT = 0.01
"""Pairs with a baseline below this part of the scene's extent have no direction worth comparing."""


@dataclass(frozen=True)
class AlignedErrors:
    """Of the n images that both models have, after a similarity that aligns the camera centres."""

    names: list[str]
    centres: Array
    """(n,) distances in the reference's unit."""
    rotations: Array
    """(n,) angles in degrees."""


def aligned_errors(
    reference: pycolmap.Reconstruction, estimate: pycolmap.Reconstruction, robust: bool = False
) -> AlignedErrors:
    """Pose errors after alignment; `robust` weights cameras so that a few wrong ones do not drag it.

    Raises:
        UserError: fewer than three images are common, or their centres lie in line.
    """
    true, found = _poses(reference), _poses(estimate)
    names = sorted(true.keys() & found.keys())
    target, source = (np.array([_centre(poses[name]) for name in names]) for poses in (true, found))
    align = similarity(source, target)
    if robust and len(names) > 3:
        align = _robust_alignment(source, target, align)
    rotation = align.rotation.matrix()
    turned = [true[name][:, :3] @ rotation @ found[name][:, :3].T for name in names]
    distances = np.linalg.norm(target - np.asarray(align * source), axis=1)
    return AlignedErrors(names, distances, _angles(np.array(turned)))


def similarity(source: Array, target: Array) -> pycolmap.Sim3d:
    """target_from_source of camera centres (n, 3), by least squares.

    Raises:
        UserError: they are fewer than three, or lie in line.
    """
    target_from_source = pycolmap.estimate_sim3d(source, target) if len(source) >= 3 else None
    if target_from_source is None:
        raise UserError(f"{len(source)} images do not fix an alignment: at least 3 must not be in line")
    return target_from_source


def pair_errors(reference: pycolmap.Reconstruction, estimate: pycolmap.Reconstruction) -> tuple[Array, Array]:
    """Errors of relative poses, which need no alignment.

    Returns:
        For each pair of the reference's images, the angle of the relative rotation's error and that between
        the directions of translation, in degrees; infinite where an image is missing. The direction is NaN
        where the baseline is shorter than 1 % of the extent of all cameras.
    """
    true, found = _poses(reference), _poses(estimate)
    names = sorted(true)
    first, second = np.triu_indices(len(names), 1)
    centres = np.array([_centre(true[name]) for name in names])
    known = np.array([name in found for name in names])
    both = known[first] & known[second]
    rotations, directions = np.full((2, len(first)), np.inf)
    i, j = first[both], second[both]
    true_poses = np.array([true[name] for name in names])
    poses = np.array([found.get(name, true[name]) for name in names])
    relative_true, relative = (_relative(each, i, j) for each in (true_poses, poses))
    rotations[both] = _angles(relative_true[:, :, :3] @ relative[:, :, :3].transpose(0, 2, 1))
    a, b = relative_true[:, :, 3], relative[:, :, 3]
    sine = np.linalg.norm(np.cross(a, b), axis=1)
    directions[both] = np.degrees(np.arctan2(sine, (a * b).sum(axis=1)))
    baseline = np.linalg.norm(centres[first] - centres[second], axis=1)
    directions[baseline <= _SHORT * np.ptp(centres, axis=0).max()] = np.nan
    return rotations, directions


def area_under_curve(errors: Array, thresholds: Array, floor: float = 0.0) -> Array:
    """Area under the recall curve of errors up to each threshold, from 0 to 1 (trapezoids).

    Args:
        errors: failures must be there, as infinity.
        floor: errors below count as zero; the ETH3D tables of Pixel-Perfect SfM take 1 mm.
    """
    errors = np.sort(errors)
    recall = np.arange(1, len(errors) + 1) / max(len(errors), 1)
    if floor > 0:
        below = np.searchsorted(errors, floor, side="right")
        share = below / max(len(errors), 1)
        x, y = np.r_[0.0, floor, errors[below:]], np.r_[share, share, recall[below:]]
    else:
        x, y = np.r_[0.0, errors], np.r_[0.0, recall]
    areas = []
    for threshold in thresholds:
        inside = np.searchsorted(x, threshold, side="right")
        areas.append(np.trapezoid(np.r_[y[:inside], y[inside - 1]], np.r_[x[:inside], threshold]) / threshold)
    return np.array(areas)


def _poses(model: pycolmap.Reconstruction) -> dict[str, Array]:
    return {
        image.name: np.asarray(image.cam_from_world().matrix())
        for image in model.images.values()
        if image.has_pose
    }


def _centre(cam_from_world: Array) -> Array:
    return np.asarray(-cam_from_world[:, :3].T @ cam_from_world[:, 3])


def _relative(cam_from_world: Array, i: npt.NDArray[np.int64], j: npt.NDArray[np.int64]) -> Array:
    """(p, 3, 4) cam_j_from_cam_i."""
    rotation = cam_from_world[j, :, :3] @ cam_from_world[i, :, :3].transpose(0, 2, 1)
    translation = cam_from_world[j, :, 3] - (rotation @ cam_from_world[i, :, 3:])[..., 0]
    return np.concatenate([rotation, translation[..., None]], axis=2)


def _angles(rotations: Array) -> Array:
    """Angles (n,) in degrees of rotations (n, 3, 3), exact also where they are tiny."""
    skew = rotations - rotations.transpose(0, 2, 1)
    sine = np.sqrt(skew[:, 2, 1] ** 2 + skew[:, 0, 2] ** 2 + skew[:, 1, 0] ** 2) / 2
    return np.asarray(np.degrees(np.arctan2(sine, (np.trace(rotations, axis1=1, axis2=2) - 1) / 2)))


def _robust_alignment(source: Array, target: Array, align: pycolmap.Sim3d) -> pycolmap.Sim3d:
    """Towards the least sum of distances, by reweighting."""
    for _ in range(50):
        distance = np.linalg.norm(target - np.asarray(align * source), axis=1)
        weights = 1 / np.maximum(distance, 1e-6 * np.ptp(target, axis=0).max())
        align = weighted_similarity(source, target, weights)
    return align
