"""What is rendered agrees with the stated geometry."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pixcli.options import SyntheticOptions
from pixcli.options.synthetic import CameraModel
from pixcli.synthetic.dataset import generate_dataset
from pixcli.synthetic.render import RayGrid, render
from pixcli.synthetic.scene import Body, Scene, View
from pixcli.synthetic.surfaces import Rectangle
from pixcli.synthetic.textures import build_pyramid

import pycolmap

WAVES = 12.0  # brightness along the wall, radians per metre: some 40 pixels a wave


@pytest.fixture(scope="module")
def camera():
    params = [300.0, 302.0, 161.0, 118.5, -0.12, 0.034, 0.0007, -0.0004]
    return pycolmap.Camera(camera_id=1, model="OPENCV", width=320, height=240, params=params)


@pytest.fixture(scope="module")
def wall(camera):
    """A wall of 10 x 10 m with a pattern of waves, 4 m below a tilted camera."""
    density = 300.0
    v, u = (np.mgrid[0:3000, 0:3000] + 0.5) / density
    pixels = pattern(u, v)[..., None].repeat(3, axis=2).round().astype(np.uint8)
    body = Body(Rectangle(10.0, 10.0), build_pyramid(pixels, density), np.eye(3), np.zeros(3))
    tilt = pycolmap.Rotation3d(np.array([0.25, 0.2, 0.1])).matrix()
    rotation = tilt @ np.diag([1.0, -1.0, -1.0])
    view = View("0.png", 1, rotation, -rotation @ np.array([0.3, -0.2, 4.0]), np.array([0.0, 0.0, 1.0]))
    return Scene([body], {1: camera}, [view])


def pattern(u, v):
    return 110 + 50 * np.sin(WAVES * u) + 40 * np.cos(WAVES * v)


def pixel_rays(camera):
    y, x = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    rays = camera.cam_from_img(np.stack([x.ravel(), y.ravel()], axis=1))
    return np.concatenate([rays, np.ones((len(rays), 1))], axis=1)


def test_depth_of_a_plane_is_exact(wall, camera):
    view = wall.views[0]
    _, depth = render(wall, view, RayGrid.of_camera(camera), 1)
    expected = -view.center[2] / (pixel_rays(camera) @ view.rotation)[:, 2]
    assert np.allclose(depth.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("per_side", [2, 3])
def test_a_pattern_appears_where_it_is(wall, camera, per_side):
    view = wall.views[0]
    colour, depth = render(wall, view, RayGrid.of_camera(camera), per_side)
    points = (pixel_rays(camera) * depth.reshape(-1, 1) - view.translation) @ view.rotation
    light = 1.1  # straight from above
    expected = light * pattern(points[:, 0] + 5, 5 - points[:, 1]).reshape(depth.shape)
    down, right = np.gradient(expected)
    inner = (slice(2, -2), slice(2, -2))
    columns = np.stack([image[inner].ravel() for image in (right, down, expected)], axis=1)
    grey = colour[..., 0][inner].ravel()
    shift_x, shift_y, gain = np.linalg.lstsq(columns, grey, rcond=None)[0]
    assert abs(shift_x) < 2e-3  # pixels
    assert abs(shift_y) < 2e-3
    assert gain == pytest.approx(1, abs=0.01)
    assert np.abs(grey - expected[inner].ravel()).max() < 3


def test_rays_inside_pixels_are_those_of_the_camera(camera):
    pixels = np.array([0, 319, 5000, 320 * 240 - 1])
    rays = RayGrid.of_camera(camera).samples(pixels, 3)
    offsets = np.array([-1, 0, 1]) / 3
    for k, pixel in enumerate(pixels):
        y, x = np.meshgrid(pixel // 320 + 0.5 + offsets, pixel % 320 + 0.5 + offsets, indexing="ij")
        ahead = np.concatenate([rays[:, k].T, np.ones((9, 1))], axis=1)
        assert np.abs(camera.img_from_cam(ahead) - np.stack([x.ravel(), y.ravel()], axis=1)).max() < 1e-5


@pytest.mark.parametrize("scene", ["court", "relief", "mixed"])
def test_views_warped_by_depth_look_alike(scene, tmp_path):
    options = SyntheticOptions(
        scene=scene,
        width=256,
        height=192,
        num_images=4,
        surface_spacing=0.1,
        noise=0,
        illumination=0,
        format="png",
        seed=1,
    )
    path = tmp_path / "scene"
    generate_dataset(path, options)
    truth = pycolmap.Reconstruction(path / "gt")
    first, second = (truth.find_image_with_name(f"000{k}.png") for k in (1, 2))

    def load(image):
        grey = np.asarray(Image.open(path / "images" / image.name).convert("L"), float)
        with np.load(path / "depth" / f"{image.name[:4]}.npz") as file:
            return ndimage.gaussian_filter(grey, 1.5), file["depth"]

    (grey, depth), (other_grey, other_depth) = load(first), load(second)
    solid = depth.ravel() > 0
    in_camera = (pixel_rays(truth.cameras[first.camera_id]) * depth.reshape(-1, 1))[solid]
    in_other = second.cam_from_world() * (first.cam_from_world().inverse() * in_camera)
    at = (truth.cameras[second.camera_id].img_from_cam(in_other) - 0.5).T[::-1]
    seen = ndimage.map_coordinates(other_depth, at, order=1, mode="constant")
    same = np.abs(seen - in_other[:, 2]) < 0.003 * in_other[:, 2]
    warped = ndimage.map_coordinates(other_grey, at, order=3)
    assert same.mean() > 0.2
    assert np.corrcoef(warped[same], grey.ravel()[solid][same])[0, 1] > 0.93


@pytest.mark.parametrize("model", get_args(CameraModel))
def test_every_camera_model_renders(model, tmp_path):
    options = SyntheticOptions(
        camera_model=model, width=64, height=48, num_images=2, num_cameras=1, samples=1
    )
    generate_dataset(tmp_path / "scene", options)
    camera = pycolmap.Reconstruction(tmp_path / "scene" / "gt").cameras[1]
    assert camera.model.name == model
    with np.load(tmp_path / "scene" / "depth" / "0000.npz") as file:
        assert (file["depth"] > 0).mean() > 0.5
    if len(camera.extra_params_idxs()):  # distorted: the corner's ray is not that of a pinhole
        corner = np.array([1.0, 1.0])
        pinhole = (corner - [camera.principal_point_x, camera.principal_point_y]) / camera.mean_focal_length()
        assert np.abs(camera.cam_from_img(corner) - pinhole).max() > 0.002
