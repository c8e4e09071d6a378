"""Residual fields tell a lens model that is too simple from one that fits."""

import numpy as np
import pytest

from pixcli.bundle_adjustment.field_causes import explain_fields
from pixcli.bundle_adjustment.geometric import adjust_geometrically
from pixcli.bundle_adjustment.problem import Constants
from pixcli.bundle_adjustment.residual_field import NEXT_MODEL, _means, residual_fields
from pixcli.bundle_adjustment.residual_figure import draw_residual_fields
from pixcli.geometry.observations import read_observations
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjusterOptions,
)

import pycolmap

NOISE = 0.1  # pixels


@pytest.fixture(scope="module")
def distorted() -> pycolmap.Reconstruction:
    """A model with radial distortion and noise, and some wrong observations."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 1, 8, 600
    options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
    options.camera_params = [1280, 512, 384, 0.02]
    model = pycolmap.synthesize_dataset(options)
    rng = np.random.default_rng(0)
    for _, image in sorted(model.images.items()):
        for point2D in image.points2D:
            point2D.xy = point2D.xy + rng.normal(0, NOISE, 2)
            if rng.uniform() < 0.02:
                point2D.xy = point2D.xy + rng.normal(0, 5, 2)
    return model


def fitted(model: pycolmap.Reconstruction, camera_model: str | None = None):
    """The field after adjusting all that the camera model has."""
    model = pycolmap.Reconstruction(model)
    for camera_id, camera in model.cameras.items():
        if camera_model is not None:
            focal, x, y, _ = camera.params
            params = [focal, x, y]
            model.cameras[camera_id] = pycolmap.Camera(
                camera_id=camera_id, model=camera_model, width=1024, height=768, params=params
            )
    ceres = BundleAdjustmentCeresOptions(function_tolerance=1e-7)
    adjust_geometrically(model, [1.0, 0.25], BundleAdjustmentOptions(), ceres)
    observations = read_observations(model)
    every = np.ones(len(observations.xy), bool)

    def explain(following):
        options = FeaturemetricBundleAdjusterOptions(bundle_adjustment_ceres=ceres)
        return explain_fields(model, observations, every, options, Constants(), following)

    (field,) = residual_fields(model, observations, every, explain)
    return field


def test_a_missing_distortion_is_detected(distorted, caplog):
    field = fitted(distorted, "SIMPLE_PINHOLE")
    assert field.significant
    assert field.too_simple
    assert not field.held
    assert field.next_model == "SIMPLE_RADIAL"
    assert field.p_value < 1e-6
    assert "camera models are too simple (SIMPLE_PINHOLE, try SIMPLE_RADIAL)" in caplog.text
    assert len(caplog.records) == 1
    assert field.systematic > 0.02


def test_a_principal_point_that_is_held_is_named(distorted, caplog):
    """It is where nothing looks for it: the next camera model would not help."""
    moved = pycolmap.Reconstruction(distorted)
    for camera in moved.cameras.values():
        camera.params = [camera.params[0], camera.params[1] + 25, camera.params[2] - 15, camera.params[3]]
    field = fitted(moved)
    assert field.significant
    assert field.held
    assert not field.too_simple
    assert "parameters of their lenses are held that would explain it" in caplog.text


def test_a_model_that_fits_is_not_blamed(distorted):
    field = fitted(distorted)
    assert not field.too_simple
    assert field.systematic < 0.01
    assert field.noise == pytest.approx(NOISE, rel=0.15)
    assert field.images == 8


def test_standard_errors_are_calibrated():
    """Means that are zero by construction are within their errors, also if images have errors in common."""
    rng = np.random.default_rng(0)
    cell = rng.integers(0, 50, 40000)
    image = rng.integers(0, 20, 40000)
    for common in (0, 0.3):
        offset = rng.normal(0, common, (20, 50, 2)) if common else np.zeros((20, 50, 2))
        residual = rng.normal(0, 1, (40000, 2)) + offset[image, cell]
        mean, error = _means(residual, cell, np.bincount(cell), image, 20)
        assert 0.7 < np.square(mean / error).mean() < 1.2


def test_every_next_model_exists_and_the_chains_end():
    for name, following in NEXT_MODEL.items():
        seen = [name]
        while following in NEXT_MODEL:
            assert following not in seen
            seen.append(following)
            following = NEXT_MODEL[following]
        assert {*seen, following} <= set(pycolmap.CameraModelId.__members__)
        fewer, more = (
            len(pycolmap.Camera.create_from_model_name(1, model, 500, 640, 480).params)
            for model in (name, NEXT_MODEL[name])
        )
        assert more > fewer


def test_the_picture_shows_systematic_fields_in_red(distorted):
    wrong, right = fitted(distorted, "SIMPLE_PINHOLE"), fitted(distorted)
    red = [
        int(((picture[..., 0] > 180) & (picture[..., 1] < 60)).sum())
        for picture in (draw_residual_fields([wrong]), draw_residual_fields([right]))
    ]
    assert red[0] > 1000
    assert red[1] < 0.2 * red[0]
    both = draw_residual_fields([right, wrong])
    assert both.shape[1] == 2 * draw_residual_fields([wrong]).shape[1]
    assert draw_residual_fields([]).ndim == 3
