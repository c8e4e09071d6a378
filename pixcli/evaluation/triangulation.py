"""How good the points of a model are: held-out reprojection, and the random part of pose errors."""

import numpy as np
import numpy.typing as npt

from pixcli.evaluation.poses import aligned_errors
from pixcli.evaluation.robust_adjustment import adjust_robustly

import pycolmap

Array = npt.NDArray[np.float64]


def held_out_errors(
    reference: pycolmap.Reconstruction,
    model: pycolmap.Reconstruction,
    max_observations: int = 40000,
    seed: int = 0,
) -> Array:
    """Reprojection errors (pixels) at the poses and cameras of a reference, of observations left out in turn.

    Every point with three views or more is computed from all of its observations but one (least squares of
    undistorted pixels), and projected into the view of that one. Infinite where it ends up behind it.
    """
    views, xy = {}, {}
    for image in model.images.values():
        true = reference.find_image_with_name(image.name)
        if true is None or not true.has_pose:
            continue
        camera = true.camera
        views[image.image_id] = (np.asarray(true.cam_from_world().matrix()), camera.mean_focal_length())
        if image.num_points2D():
            points = np.array([point.xy for point in image.points2D])
            xy[image.image_id] = np.asarray(camera.cam_from_img(points))
    tracks = [
        (point.xyz, [(e.image_id, e.point2D_idx) for e in point.track.elements if e.image_id in views])
        for _, point in sorted(model.points3D.items())
    ]
    tracks = [track for track in tracks if len(track[1]) >= 3]
    order = np.random.default_rng(seed).permutation(len(tracks))
    errors: list[Array] = []
    done = 0
    for start in range(0, len(order), 1000):
        batch = [tracks[k] for k in order[start : start + 1000]]
        problems = [
            (xyz, track[:k] + track[k + 1 :], track[k]) for xyz, track in batch for k in range(len(track))
        ]
        index = np.repeat(np.arange(len(problems)), [len(rest) for _, rest, _ in problems])
        rows = [observation for _, rest, _ in problems for observation in rest]
        out = [left for _, _, left in problems]
        xyz = _triangulated(np.array([xyz for xyz, _, _ in problems]), index, *_gather(rows, views, xy))
        poses, focal, observed = _gather(out, views, xy)
        residual, depth, _ = _residuals(xyz, poses, observed)
        error = np.linalg.norm(residual, axis=1) * focal
        errors.append(np.where(depth > 0, error, np.inf))
        done += len(out)
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
    aligned = pycolmap.Reconstruction(model)
    align = pycolmap.align_reconstructions_via_proj_centers(aligned, reference, 1e9)
    if align is not None:
        aligned.transform(align)
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


def _gather(
    rows: list[tuple[int, int]], views: dict[int, tuple[Array, float]], xy: dict[int, Array]
) -> tuple[Array, Array, Array]:
    """Poses (m, 3, 4), focal lengths (m,) and undistorted positions (m, 2) of observations."""
    return (
        np.array([views[image_id][0] for image_id, _ in rows]),
        np.array([views[image_id][1] for image_id, _ in rows]),
        np.array([xy[image_id][k] for image_id, k in rows]),
    )


def _residuals(xyz: Array, poses: Array, xy: Array) -> tuple[Array, Array, Array]:
    """Residuals (m, 2) on the unit plane, depths (m,) and derivatives (m, 2, 3) of points (m, 3)."""
    in_camera = np.einsum("mij,mj->mi", poses[:, :, :3], xyz) + poses[:, :, 3]
    depth = np.where(np.abs(in_camera[:, 2]) < 1e-9, 1e-9, in_camera[:, 2])
    plane = in_camera[:, :2] / depth[:, None]
    jacobian = (poses[:, :2, :3] - plane[:, :, None] * poses[:, 2:, :3]) / depth[:, None, None]
    return plane - xy, in_camera[:, 2], jacobian


def _triangulated(xyz: Array, index: npt.NDArray[np.int64], poses: Array, focal: Array, xy: Array) -> Array:
    """Points (p, 3) of least squares, from where they are; observations (m,) belong to point `index`."""
    for _ in range(10):
        residual, _, jacobian = _residuals(xyz[index], poses, xy)
        residual, jacobian = residual * focal[:, None], jacobian * focal[:, None, None]
        weight = 1 / (1 + (residual**2).sum(axis=1))  # Cauchy's, of one pixel: wrong matches have little say
        normal, gradient = np.zeros((len(xyz), 3, 3)), np.zeros((len(xyz), 3))
        np.add.at(normal, index, np.einsum("m,mki,mkj->mij", weight, jacobian, jacobian))
        np.add.at(gradient, index, np.einsum("m,mki,mk->mi", weight, jacobian, residual))
        normal += 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(3) + 1e-30 * np.eye(3)
        xyz = xyz - np.linalg.solve(normal, gradient[..., None])[..., 0]
    return xyz
