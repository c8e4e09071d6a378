"""Lenses become others, priors know what is usual, and options know COLMAP's camera models."""

from dataclasses import replace

import numpy as np
import pytest

from pixcli.calibration.lens_priors import PRINCIPAL_POINT, FocalPrior, lens_prior
from pixcli.calibration.lenses import LADDER, Rung, converted, is_sound, ladder_of
from pixcli.errors import UserError
from pixcli.options import CalibrationOptions
from pixcli.options.calibration import CAMERA_MODELS
from pixcli.options.fields import build

import pycolmap


def simple_radial() -> pycolmap.Camera:
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_RADIAL", 800, 800, 600)
    camera.params = [800, 410, 293, -0.09]
    return camera


@pytest.mark.parametrize("model", LADDER)
def test_a_richer_lens_projects_as_the_simple_one_did(model):
    camera = simple_radial()
    richer = converted(camera, model)
    assert richer.model.name == model
    assert richer.camera_id == camera.camera_id
    x, y = np.meshgrid(np.linspace(0, 800, 9), np.linspace(0, 600, 9))
    seen = np.stack([x.ravel(), y.ravel()], 1)
    rays = np.column_stack([camera.cam_from_img(seen), np.ones(len(seen))])
    np.testing.assert_allclose(richer.img_from_cam(rays), seen, atol=0.01)
    assert is_sound(richer)


def test_a_simpler_lens_comes_as_near_as_it_can():
    plain = converted(simple_radial(), "SIMPLE_PINHOLE")
    np.testing.assert_allclose(plain.params[1:], [410, 293], atol=0.5)


def test_a_lens_that_folds_the_image_is_not_sound():
    camera = simple_radial()
    camera.params = [800, 410, 293, -2.0]
    assert not is_sound(camera)
    camera.params = [800, 900, 293, 0.0]
    assert not is_sound(camera)


def test_a_ladder_begins_with_the_camera_and_holds_what_may_be_chosen():
    camera = simple_radial()
    centred, *free = ladder_of(camera, None)
    assert centred == Rung("SIMPLE_RADIAL", centred=True)
    assert free == [Rung(name) for name in LADDER]
    _, *free = ladder_of(camera, ("OPENCV", "RADIAL"))
    assert [rung.model for rung in free] == ["SIMPLE_RADIAL", "RADIAL", "OPENCV"]
    rich = converted(camera, "OPENCV")
    assert Rung("RADIAL") not in ladder_of(rich, None)


@pytest.mark.parametrize("model", CAMERA_MODELS)
def test_every_camera_model_has_a_prior_that_its_lens_without_distortion_suits(model):
    camera = pycolmap.Camera.create_from_model_name(1, model, 800, 800, 600)
    mean, variance = lens_prior(camera, FocalPrior.of(camera))
    np.testing.assert_allclose(mean, camera.params)
    assert np.linalg.eigvalsh(variance).min() > 0
    centre = camera.principal_point_idxs()
    np.testing.assert_allclose(np.sqrt(np.diag(variance))[centre], PRINCIPAL_POINT * 800)


def test_a_principal_point_that_is_held_stays_where_it_is():
    camera = simple_radial()
    mean, variance = lens_prior(camera, replace(FocalPrior.of(camera), centred=True))
    np.testing.assert_allclose(mean[1:3], [410, 293])
    assert np.sqrt(np.diag(variance))[1:3].max() < 1e-3


def test_camera_models_are_those_of_colmap():
    known = set(pycolmap.CameraModelId.__members__) - {"INVALID", "EQUIRECTANGULAR"}
    assert set(CAMERA_MODELS) == known


@pytest.mark.parametrize("values", [{"model": "OPNCV"}, {"candidates": "RADIAL,OPNCV"}])
def test_an_unknown_camera_model_is_answered_with_the_nearest(values):
    with pytest.raises(UserError, match=r"OPNCV is no camera model .* nearest: OPENCV"):
        build(CalibrationOptions, {f"Calibration.{key}": value for key, value in values.items()})
