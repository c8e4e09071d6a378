"""Errors against the exact truth of a synthetic scene: keypoints, camera centres, points."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pixcli.errors import UserError
from pixcli.evaluation.poses import similarity
from pixcli.geometry.match_graph import MatchGraph

import pycolmap

Array = NDArray[np.float64]


def keypoint_errors(truth: pycolmap.Reconstruction, graph: MatchGraph, depth_path: Path) -> Array:
    """Two-view error of every match in both directions, in pixels: (2, m), wrong matches included.

    A keypoint is lifted to its surface by the depth map of its image and projected into the other image: the
    error is the distance to the keypoint matched there. NaN where a keypoint lies next to a depth edge.
    """
    images = [_image(truth, record.name) for record in graph.images]
    points, valid = np.empty((len(graph.xy), 3)), np.empty(len(graph.xy), bool)
    for k, image in enumerate(images):
        mine = slice(int(graph.offsets[k]), int(graph.offsets[k + 1]))
        depth = np.load(depth_path / f"{Path(image.name).stem}.npz")["depth"]
        in_camera, valid[mine] = _lift(truth.cameras[image.camera_id], depth, graph.xy[mine])
        points[mine] = image.cam_from_world().inverse() * in_camera
    errors = np.full((2, len(graph.edges)), np.nan)
    usable = valid[graph.edges].all(axis=1)
    for row, (source, target) in zip(errors, (graph.edges.T, graph.edges.T[::-1]), strict=True):
        for k, image in enumerate(images):
            here = usable & (graph.image_index[target] == k)
            in_camera = image.cam_from_world() * points[source[here]]
            projected = truth.cameras[image.camera_id].img_from_cam(in_camera)
            row[here] = np.linalg.norm(projected - graph.xy[target[here]], axis=1)
    return errors


def center_errors(truth: pycolmap.Reconstruction, estimate: pycolmap.Reconstruction) -> Array:
    """Distances of the camera centres from the true ones after a similarity alignment, in the truth's unit.

    One for each registered image (n,), in the order of their names.
    """
    names = sorted(image.name for image in estimate.images.values() if image.has_pose)
    centers, true_centers = _centers(estimate, names), _centers(truth, names)
    aligned = similarity(centers, true_centers) * centers
    return np.asarray(np.linalg.norm(aligned - true_centers, axis=1))


def surface_errors(
    truth: pycolmap.Reconstruction, estimate: pycolmap.Reconstruction, surface_path: Path
) -> Array:
    """Distances of the estimate's points from the true surface, in the truth's unit: (points,).

    The estimate is aligned by its camera centres. The distance is that to the tangent plane of the nearest
    surface sample, or to the sample itself where it is farther than three sample spacings.
    """
    names = [image.name for image in estimate.images.values() if image.has_pose]
    tgt_from_src = similarity(_centers(estimate, names), _centers(truth, names))
    points = tgt_from_src * np.array([point.xyz for point in estimate.points3D.values()])
    with np.load(surface_path) as surface:
        samples, normals = surface["points"].astype(float), surface["normals"].astype(float)
    tree = cKDTree(samples)
    some = samples[:: max(1, len(samples) // 2000)]
    spacing = np.median(tree.query(some, k=2)[0][:, 1])
    distance, nearest = tree.query(points)
    to_plane = np.abs(((points - samples[nearest]) * normals[nearest]).sum(axis=1))
    return np.asarray(np.where(distance < 3 * spacing, to_plane, distance))


def _image(model: pycolmap.Reconstruction, name: str) -> pycolmap.Image:
    image = model.find_image_with_name(name)
    if image is None:
        raise UserError(f"image {name} is not in the true model: was the database made from other images?")
    return image


def _centers(model: pycolmap.Reconstruction, names: Sequence[str]) -> Array:
    return np.array([_image(model, name).projection_center() for name in names])


def _lift(camera: pycolmap.Camera, depth: NDArray[np.float32], xy: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Points (n, 3) in camera coordinates of keypoints (n, 2), and where (n,) the depth is reliable.

    Inverse depth is interpolated bilinearly, which is exact on planes but for lens distortion. Not reliable:
    near the border, and where the 4 x 4 depths around are not all there or differ by more than 2 %.
    """
    height, width = depth.shape
    x, y = np.nan_to_num(xy, nan=-9).T - 0.5
    inside = (x >= 1) & (y >= 1) & (x < width - 2) & (y < height - 2)
    x, y = np.where(inside, x, 1), np.where(inside, y, 1)
    column, row = x.astype(int), y.astype(int)
    around = np.stack([depth[row + i, column + j] for i in range(-1, 3) for j in range(-1, 3)]).astype(float)
    low, high = around.min(axis=0), around.max(axis=0)
    valid = inside & (low > 0) & (high - low < 0.02 * low)
    inverse = 1 / np.maximum(around.reshape(4, 4, -1)[1:3, 1:3], 1e-9)
    fx, fy = x - column, y - row
    top, bottom = (inverse[k, 0] * (1 - fx) + inverse[k, 1] * fx for k in (0, 1))
    z = 1 / (top * (1 - fy) + bottom * fy)
    rays = np.concatenate([camera.cam_from_img(np.nan_to_num(xy)), np.ones((len(xy), 1))], axis=1)
    return rays * z[:, None], np.asarray(valid, bool)
