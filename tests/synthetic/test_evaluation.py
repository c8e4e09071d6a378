"""Errors that are put in come out."""

import copy
import dataclasses

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.evaluation.robust_adjustment import adjust_robustly
from pixcli.io.database import read_match_graph
from pixcli.synthetic.baseline import map_database
from pixcli.synthetic.evaluation import center_errors, keypoint_errors, surface_errors

import pycolmap


def with_positions(graph, xy, edges):
    keypoints = [rows.astype(np.float64) for rows in graph.keypoints]
    for k, rows in enumerate(keypoints):
        rows[:, :2] = xy[graph.offsets[k] : graph.offsets[k + 1]]
    return dataclasses.replace(graph, keypoints=keypoints, edges=edges)


@pytest.fixture(scope="module")
def exact_graph(small_scene):
    """The matches of an image pair with exact keypoints: pixel centres of one image, carried to the other."""
    graph = read_match_graph(small_scene.database_path, "inlier")
    edges = graph.edges[graph.pair_ptr[0] : graph.pair_ptr[1]]
    edges = edges[np.unique(edges[:, 0], return_index=True)[1]]
    first, second = (small_scene.truth.find_image_with_name(graph.images[k].name) for k in graph.pairs[0])
    with np.load(small_scene.path / "depth" / f"{first.name[:4]}.npz") as file:
        depth = file["depth"]
    here = np.floor(graph.xy[edges[:, 0]]) + 0.5
    z = depth[here[:, 1].astype(int), here[:, 0].astype(int)].astype(float)
    rays = small_scene.truth.cameras[first.camera_id].cam_from_img(here)
    points = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * z[:, None]
    in_second = second.cam_from_world() * (first.cam_from_world().inverse() * points)
    there = small_scene.truth.cameras[second.camera_id].img_from_cam(in_second)
    xy = graph.xy.copy()
    xy[edges[:, 0]], xy[edges[:, 1]] = here, there
    return with_positions(graph, xy, edges[z > 0])


def test_exact_keypoints_have_no_error(small_scene, exact_graph):
    errors = keypoint_errors(small_scene.truth, exact_graph, small_scene.path / "depth")
    assert np.isfinite(errors).sum() > 100
    there, back = errors
    assert np.nanpercentile(there, 95) < 1e-3  # depth is exact at pixel centres
    assert np.nanmedian(back) < 5e-3  # and interpolated elsewhere


def test_an_offset_of_keypoints_is_measured(small_scene, exact_graph):
    xy = exact_graph.xy.copy()
    xy[exact_graph.edges[:, 1]] += (0.3, 0.4)
    shifted = with_positions(exact_graph, xy, exact_graph.edges)
    errors = keypoint_errors(small_scene.truth, shifted, small_scene.path / "depth")
    assert np.nanmedian(errors[0]) == pytest.approx(0.5, abs=1e-3)


def test_sift_is_good_to_a_fraction_of_a_pixel(small_scene):
    graph = read_match_graph(small_scene.database_path, "inlier")
    errors = keypoint_errors(small_scene.truth, graph, small_scene.path / "depth")
    right = errors[errors < 4]
    assert len(right) > 1000
    assert len(right) > 0.98 * np.isfinite(errors).sum()
    assert 0.05 < np.median(right) < 0.4


@pytest.fixture
def true_model(small_scene):
    """The true model with points from its surface."""
    model = copy.deepcopy(small_scene.truth)
    with np.load(small_scene.path / "surface.npz") as surface:
        for point in surface["points"][::200].astype(float):
            model.add_point3D(point, pycolmap.Track())
    return model


def test_a_similarity_is_no_error(small_scene, true_model):
    rotation = pycolmap.Rotation3d(np.array([0.4, -0.2, 0.9]))
    true_model.transform(pycolmap.Sim3d(0.3, rotation, np.array([1.0, 2.0, 3.0])))
    assert center_errors(small_scene.truth, true_model).max() < 1e-9
    errors = surface_errors(small_scene.truth, true_model, small_scene.path / "surface.npz")
    assert errors.max() < 1e-5  # the samples are float32


def test_points_off_the_surface_are_measured(small_scene, true_model):
    with np.load(small_scene.path / "surface.npz") as surface:
        normals = surface["normals"][::200].astype(float)
    for (_, point), normal in zip(sorted(true_model.points3D.items()), normals, strict=True):
        point.xyz = point.xyz + 0.004 * normal
    errors = surface_errors(small_scene.truth, true_model, small_scene.path / "surface.npz")
    assert np.median(errors) == pytest.approx(0.004, rel=1e-3)


def test_a_moved_camera_is_measured(small_scene, true_model):
    frame = true_model.frames[true_model.find_image_with_name("0002.jpg").frame_id]
    pose = frame.rig_from_world
    away = pose.rotation * np.array([0.0, 0.0, 0.02])
    frame.rig_from_world = pycolmap.Rigid3d(pose.rotation, pose.translation - away)
    errors = center_errors(small_scene.truth, true_model)
    assert errors.argmax() == 2
    assert 0.002 < errors[2] < 0.02  # the alignment takes a part


def test_mapping_the_scene_comes_close_to_the_truth(small_scene):
    model = map_database(small_scene.database_path, small_scene.path / "images")
    adjust_robustly(model)
    assert model.num_reg_images() == 4
    assert center_errors(small_scene.truth, model).max() < 0.02
    assert np.median(surface_errors(small_scene.truth, model, small_scene.path / "surface.npz")) < 0.01


def test_a_model_of_other_images_is_refused(true_model):
    with pytest.raises(UserError, match="is not in the true model"):
        center_errors(pycolmap.Reconstruction(), true_model)
