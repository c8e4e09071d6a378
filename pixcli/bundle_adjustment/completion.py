"""Guided completion: which points should be seen in which images that have no observation of them.

They are measured like any others, by measure_surfaces of pixcli.surfaces.measuring, on a small support and
with the strict limits below.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from pixcli.geometry.linearisation import linearise
from pixcli.surfaces.measuring import SurfaceLimits
from pixcli.surfaces.planes import Float64, Surfaces, magnifications, normals_of
from pixcli.surfaces.visibility import BORDER_MARGIN, MAX_SCALE_RATIO, MAX_VIEW_ANGLE, MIN_FACING_COSINE

import pycolmap

COMPLETION_SUPPORT = (5, 1.0)  # a larger one has a bias common to an image, which no threshold removes
COMPLETION_LIMITS = SurfaceLimits(min_correlation=0.9, max_shift=2.0, max_deviation=0.05)


@dataclass(frozen=True)
class ImagePose:
    """A registered image."""

    camera: pycolmap.Camera
    rotation: Float64
    """(3, 3) cam_from_world"""
    translation: Float64
    """(3,)"""


def find_candidates(
    surfaces: Surfaces,
    planes: Float64,
    points: Float64,
    accepted: npt.NDArray[np.bool_],
    poses: Sequence[ImagePose | None],
) -> Surfaces:
    """Pairs of the same points with images that should see them but are in none of their pairs.

    Args:
        planes, points: (P, 3) refined, the points where `surfaces` has them.
        accepted: (n,) pairs that were measured; points without any have no candidates.
        poses: of each image; None: it is not to be measured in.
    """
    point, image = surfaces.point, surfaces.image[surfaces.pair_view]
    num_points, num_images = len(points), len(poses)
    shape = (num_images, num_points)
    has_pair = csr_matrix((np.ones(len(point), bool), (image, point)), shape)
    measured = csr_matrix((np.ones(accepted.sum(), bool), (image[accepted], point[accepted])), shape)
    normals = normals_of(surfaces, planes)
    found_points, found_views, found_images = [], [], []
    for k, pose in enumerate(poses):
        if pose is None:
            continue
        # Points of images that share points with this one.
        neighbors = (measured @ has_pair[k].T).toarray().ravel()
        shared = np.zeros(num_points, bool)
        shared[measured[np.flatnonzero(neighbors)].indices] = True
        shared[has_pair[k].indices] = False
        rows = np.flatnonzero(shared)
        to_camera = -pose.rotation.T @ pose.translation - points[rows]
        cosine = (to_camera * normals[rows]).sum(1) / np.linalg.norm(to_camera, axis=1)
        rows = rows[cosine > MIN_FACING_COSINE]
        in_camera = points[rows] @ pose.rotation.T + pose.translation
        xy = np.asarray(pose.camera.img_from_cam(in_camera), float).reshape(-1, 2)
        inside = (xy > BORDER_MARGIN).all(1) & (xy < surfaces.image_size[k] - BORDER_MARGIN).all(1)
        rows = rows[inside]
        found_points.append(rows)
        found_views.append(linearise(pose.camera, pose.rotation, pose.translation, points[rows]))
        found_images.append(np.full(len(rows), k, np.int32))
    candidate_point = np.concatenate(found_points)
    order = np.argsort(candidate_point, kind="stable")
    references = surfaces.reference
    candidates = Surfaces(
        np.concatenate([surfaces.views[references], np.concatenate(found_views)[order]]),
        np.concatenate([surfaces.image[references], np.concatenate(found_images)[order]]),
        surfaces.image_size,
        np.arange(num_points, dtype=np.int32),
        np.searchsorted(candidate_point[order], np.arange(num_points + 1)).astype(np.int64),
        np.arange(num_points, num_points + len(order), dtype=np.int32),
    )
    return candidates.pairs(_has_similar_view(candidates, surfaces, planes, accepted))


def _has_similar_view(
    candidates: Surfaces, surfaces: Surfaces, planes: Float64, accepted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Whether an accepted view sees the point of each candidate from about there and at about its scale."""
    seen = np.flatnonzero(accepted)
    ptr = np.searchsorted(surfaces.point[seen], np.arange(len(planes) + 1))
    count = np.diff(ptr)[candidates.point]
    candidate = np.repeat(np.arange(len(count)), count)
    first = np.cumsum(count) - count
    other = seen[ptr[candidates.point[candidate]] + np.arange(len(candidate)) - first[candidate]]
    ray = candidates.views["rotation"][candidates.pair_view, 2][candidate]
    cosine = (ray * surfaces.views["rotation"][surfaces.pair_view, 2][other]).sum(1)
    scale = magnifications(candidates, planes)
    other_scale = magnifications(surfaces, planes)
    similar = cosine > np.cos(MAX_VIEW_ANGLE)
    similar &= np.abs(np.log(scale[candidate] / other_scale[other])) < np.log(MAX_SCALE_RATIO)
    return np.asarray(np.bincount(candidate, similar, len(count)) > 0)
