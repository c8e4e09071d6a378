"""How good the points of a model are: held-out reprojection, and the random part of pose errors."""

import numpy as np
import numpy.typing as npt

from pixcli.evaluation.poses import aligned_errors
from pixcli.evaluation.robust_adjustment import adjust_robustly
from pixcli.geometry.observations import Observations, reprojection_errors
from pixcli.geometry.point_fit import fit_points

import pycolmap

Array = npt.NDArray[np.float64]

_SCALES = (10.0, 1.0)  # pixels, of Cauchy's loss: wrong matches have little say in the end


def held_out_errors(
    reference: pycolmap.Reconstruction,
    model: pycolmap.Reconstruction,
    max_observations: int = 40000,
    seed: int = 0,
) -> Array:
    """Reprojection errors (pixels) at the poses and cameras of a reference, of observations left out in turn.

    Every point with three views or more is fitted to all of its observations but one, with Cauchy's loss of
    one pixel, and projected into the view of that one. Infinite where it ends up behind it.
    """
    model = _aligned(model, reference)
    views = {}
    for image_id, image in model.images.items():
        true = reference.find_image_with_name(image.name)
        if true is not None and true.has_pose:
            views[image_id] = (true.image_id, np.array([point.xy for point in image.points2D]))
    tracks = [
        (point.xyz, [(e.image_id, e.point2D_idx) for e in point.track.elements if e.image_id in views])
        for _, point in sorted(model.points3D.items())
    ]
    tracks = [track for track in tracks if len(track[1]) >= 3]
    order = np.random.default_rng(seed).permutation(len(tracks))
    errors: list[Array] = []
    done = 0
    for start in range(0, len(order), 1000):
        # Each point as often as it has observations: one of them is left out each time.
        whole = [tracks[k] for k in order[start : start + 1000]]
        problems = [(xyz, track) for xyz, track in whole for _ in track]
        rows = [row for _, track in problems for row in track]
        ptr = np.cumsum([0, *(len(track) for _, track in problems)])
        left_out = ptr[:-1] + np.concatenate([np.arange(len(track)) for _, track in whole])
        observations = Observations(
            np.arange(len(problems)),
            ptr,
            np.array([views[image_id][0] for image_id, _ in rows]),
            np.array([keypoint for _, keypoint in rows]),
            np.array([views[image_id][1][keypoint] for image_id, keypoint in rows]),
        )
        used = np.ones(len(rows), bool)
        used[left_out] = False
        xyz = np.array([xyz for xyz, _ in problems])
        for scale in _SCALES:
            xyz, _ = fit_points(reference, observations, xyz, used, scale)
        error = np.linalg.norm(reprojection_errors(reference, observations, xyz)[left_out], axis=1)
        errors.append(np.where(np.isfinite(error), error, np.inf))
        done += len(left_out)
        if done >= max_observations:
            break
    return np.concatenate(errors) if errors else np.empty(0)


def noise_floor(
    reference: pycolmap.Reconstruction,
    model: pycolmap.Reconstruction,
    splits: int = 4,
    scale: float = 0.1,
    seed: int = 0,
) -> float:
    """The random part of the camera centres' error, in the reference's unit, from points split into halves.

    Each half alone adjusts all poses (intrinsics fixed, Cauchy loss of this scale in pixels). Half of how
    much the two differ is what the noise of the keypoints alone makes of the whole model. An error to the
    reference far above it is systematic, or the reference's own.
    """
    aligned = _aligned(model, reference)
    differences = []
    for split in range(splits):
        chosen = np.random.default_rng((seed, split)).random(aligned.num_points3D()) < 0.5
        halves = []
        for keep in (True, False):
            half = pycolmap.Reconstruction(aligned)
            for point_id, first in zip(sorted(aligned.point3D_ids()), chosen.tolist(), strict=True):
                if first != keep:
                    half.delete_point3D(point_id)
            adjust_robustly(half, (scale,))
            halves.append(half)
        differences.append(aligned_errors(*halves).centres.mean())
    return 0.5 * float(np.mean(differences))


def _aligned(model: pycolmap.Reconstruction, reference: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """A copy of a model in the frame of a reference, by the camera centres; as it is if they fix none."""
    aligned = pycolmap.Reconstruction(model)
    align = pycolmap.align_reconstructions_via_proj_centers(aligned, reference, 1e9)
    if align is not None:
        aligned.transform(align)
    return aligned
