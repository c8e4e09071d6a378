"""The fit of COLMAP's projection, over the extent of supports, for cameras of all kinds."""

import numpy as np
import pytest

from pixcli.geometry.linearisation import linearise
from pixcli.surfaces.planes import Surfaces, induced_affine

import pycolmap

EXTRA = {  # extra parameters of strong, usual lenses
    "PINHOLE": [],
    "SIMPLE_RADIAL": [-0.15],
    "OPENCV": [-0.12, 0.03, 7e-4, -4e-4],
    "FULL_OPENCV": [-0.12, 0.03, 7e-4, -4e-4, 0.01, 0.02, -0.01, 0.005],
    "OPENCV_FISHEYE": [-0.02, 0.01, -0.003, 0.001],
    "SIMPLE_RADIAL_FISHEYE": [-0.02],
    "THIN_PRISM_FISHEYE": [-0.02, 0.01, 7e-4, -4e-4, 0.001, 0.001, 1e-4, 1e-4],
    "FOV": [0.4],
    "EQUIRECTANGULAR": [],
}


def make_camera(model):
    # A panorama has few pixels for its angle; its poles are left out below.
    width, height = (4096, 2048) if model == "EQUIRECTANGULAR" else (1024, 768)
    camera = pycolmap.Camera.create_from_model_name(1, model, 850.0, width, height)
    if EXTRA[model]:
        params = camera.params.copy()
        params[camera.extra_params_idxs()] = EXTRA[model]
        camera.params = params
    return camera


def two_views(camera, seed):
    """Points near the image's area, planes through them, and a second camera turned and moved."""
    rng = np.random.default_rng(seed)
    margin = np.array([40, 400 if camera.model.name == "EQUIRECTANGULAR" else 40])
    xy = margin + rng.uniform(0, 1, (200, 2)) * ([camera.width, camera.height] - 2 * margin)
    rays = camera.cam_ray_from_img(xy)
    points = rays * rng.uniform(4, 8, (200, 1))
    normals = -rays + rng.normal(0, 0.35, rays.shape)
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    rotation = pycolmap.Rotation3d(np.array([0.05, -0.12, 0.1])).matrix()
    return points, normals, rotation, np.array([0.8, 0.2, 0.1])


@pytest.mark.parametrize(("radius", "tolerance"), [(7, 0.003), (14, 0.01)])
@pytest.mark.parametrize("model", EXTRA)
def test_plane_induced_warps_agree_with_exact_projection(model, radius, tolerance):
    camera = make_camera(model)
    points, normals, rotation, translation = two_views(camera, 3)
    reference = linearise(camera, np.eye(3), np.zeros(3), points)
    view = linearise(camera, rotation, translation, points)
    offsets = np.array([[x, y] for x in (-radius, 0, radius) for y in (-radius, 0, radius)], float)
    errors = []
    for offset in offsets:
        seen = np.stack([reference["x"], reference["y"]], 1)
        rays = camera.cam_ray_from_img(seen + offset)
        depth = (points * normals).sum(1) / (rays * normals).sum(1)
        exact = camera.img_from_cam(rays * depth[:, None] @ rotation.T + translation)
        errors.append(np.linalg.norm(warped(reference, view, normals, offset) - exact, axis=1))
    errors = np.array(errors)
    visible = np.isfinite(errors).all(0)
    assert visible.sum() > 100
    assert np.percentile(errors[:, visible].max(0), 95) < tolerance


def warped(reference, view, normals, offset):
    """What native code does: tangents of the reference, a homography, pixels of the view."""
    tangents = np.linalg.solve(reference["jacobian"], np.broadcast_to(offset, (len(view), 2))[..., None])[
        ..., 0
    ]
    for _ in range(2):
        rest = offset - np.einsum("nab,nb->na", reference["curvature"], products(tangents))
        tangents = np.linalg.solve(reference["jacobian"], rest[..., None])[..., 0]
    rays = np.concatenate([tangents, np.ones((len(view), 1))], 1)
    local = np.einsum("nab,nb->na", reference["rotation"], normals)
    depth = reference["distance"] * local[:, 2] / (rays * local).sum(1)
    rotation = view["rotation"] @ reference["rotation"].transpose(0, 2, 1)
    move = np.einsum(
        "nab,nb->na", rotation, rays * depth[:, None] - [0, 0, 1] * reference["distance"][:, None]
    )
    in_view = move + [0, 0, 1] * view["distance"][:, None]
    n = in_view[:, :2] / in_view[:, 2:]
    xy = np.stack([view["x"], view["y"]], 1) + np.einsum("nab,nb->na", view["jacobian"], n)
    return xy + np.einsum("nab,nb->na", view["curvature"], products(n))


def products(m):
    return np.stack([m[:, 0] ** 2, m[:, 0] * m[:, 1], m[:, 1] ** 2], 1)


def test_the_affine_part_is_the_derivative_of_the_warp():
    camera = make_camera("OPENCV")
    points, normals, rotation, translation = two_views(camera, 5)
    reference = linearise(camera, np.eye(3), np.zeros(3), points)
    view = linearise(camera, rotation, translation, points)
    n = len(points)
    surfaces = Surfaces(
        np.concatenate([reference, view]),
        np.repeat([0, 1], n).astype(np.int32),
        np.array([[camera.width, camera.height]] * 2, float),
        np.arange(n, dtype=np.int32),
        np.arange(n + 1),
        np.arange(n, 2 * n, dtype=np.int32),
    )
    local = np.einsum("nab,nb->na", reference["rotation"], normals)
    planes = np.c_[np.zeros(n), local[:, :2] / local[:, 2:]]
    affine, xy = induced_affine(surfaces, planes)
    for axis in np.eye(2):
        numeric = warped(reference, view, normals, axis) - warped(reference, view, normals, -axis)
        np.testing.assert_allclose(affine @ axis, numeric / 2, atol=2e-5)
    np.testing.assert_allclose(xy, np.stack([view["x"], view["y"]], 1))


def test_a_point_behind_the_camera_has_no_linearisation():
    views = linearise(make_camera("PINHOLE"), np.eye(3), np.zeros(3), np.array([[0, 0, -2.0], [0.1, 0, 2.0]]))
    assert np.isnan(views["x"]).tolist() == [True, False]
    assert np.isnan(views["jacobian"]).all((1, 2)).tolist() == [True, False]
