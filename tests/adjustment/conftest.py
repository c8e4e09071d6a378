from dataclasses import dataclass

import numpy as np
import pytest

from pixcli.adjustment.completion import ImagePose
from pixcli.adjustment.linearisation import linearise
from pixcli.adjustment.planes import Surfaces, choose_references
from pixcli.features.streaming import ImageFile


@dataclass(frozen=True)
class TrueSurface:
    """Points of the small scene's surface, exact, in all views that see them; true poses."""

    surfaces: Surfaces
    points: np.ndarray
    normals: np.ndarray
    poses: list[ImagePose]
    files: list[ImageFile]

    def moved(self, points):
        """The same with other points: what the views see of them."""
        old = self.surfaces
        views = views_of(self.poses, points, old.image, old.point)
        return Surfaces(views, old.image, old.image_size, old.reference, old.ptr, old.pair_view)

    def exact_xy(self, points):
        """(n, 2) where each pair's view sees these points."""
        views = self.moved(points).views[self.surfaces.pair_view]
        return np.stack([views["x"], views["y"]], 1)


def views_of(poses, points, image, point):
    views = None
    for k, pose in enumerate(poses):
        rows = image == k
        here = linearise(pose.camera, pose.rotation, pose.translation, points[point[rows]])
        if views is None:
            views = np.empty(len(image), here.dtype)
        views[rows] = here
    return views


@pytest.fixture(scope="session")
def true_surface(small_scene):
    """Surface samples that three or more images see, away from occlusions."""
    truth = small_scene.truth
    images = sorted(truth.images.values(), key=lambda image: image.name)
    poses = []
    for image in images:
        pose = image.cam_from_world()
        poses.append(ImagePose(truth.cameras[image.camera_id], pose.rotation.matrix(), pose.translation))
    files = [
        ImageFile(i.name, small_scene.path / "images" / i.name, (p.camera.width, p.camera.height))
        for i, p in zip(images, poses, strict=True)
    ]
    with np.load(small_scene.path / "surface.npz") as file:
        pick = np.random.default_rng(0).choice(len(file["points"]), 1500, replace=False)
        points, normals = file["points"][pick].astype(float), file["normals"][pick].astype(float)
    seen = np.zeros((len(points), len(poses)), bool)
    for k, (image, pose) in enumerate(zip(images, poses, strict=True)):
        depth = np.load(small_scene.path / "depth" / f"{image.name[:4]}.npz")["depth"]
        in_camera = points @ pose.rotation.T + pose.translation
        column, row = np.asarray(pose.camera.img_from_cam(in_camera)).T
        inside = (column > 25) & (row > 25) & (column < 375) & (row < 275)
        rows = np.flatnonzero(inside)
        # The whole patch of the depth map must be about as far away: no edge of an occluding body.
        around = np.stack(
            [
                depth[row[rows].astype(int) + r, column[rows].astype(int) + c]
                for r in (-8, 0, 8)
                for c in (-8, 0, 8)
            ],
            1,
        )
        seen[rows, k] = (np.abs(around - in_camera[rows, 2:]) < 0.05 * in_camera[rows, 2:]).all(1)
    keep = seen.sum(1) >= 3
    points, normals, seen = points[keep], normals[keep], seen[keep]
    point, image = np.nonzero(seen)
    ptr = np.concatenate([[0], np.cumsum(seen.sum(1))]).astype(np.int64)
    image = image.astype(np.int32)
    views = views_of(poses, points, image, point)
    size = np.array([file.size for file in files], float)
    surfaces = Surfaces(
        views, image, size, choose_references(views, ptr), ptr, np.arange(len(image), dtype=np.int32)
    )
    return TrueSurface(surfaces, points, normals, poses, files)
