"""The lens that made the observations is found, and no other."""

import logging

import numpy as np
import pytest

from pixcli.bundle_adjustment.geometric import adjust_geometrically, camera_covariances
from pixcli.bundle_adjustment.problem import Constants
from pixcli.calibration.calibrate import calibrate, cameras_to_calibrate, ladders_of, share_lenses
from pixcli.calibration.lens_priors import centred_lenses
from pixcli.calibration.lens_report import calibrations
from pixcli.calibration.lenses import converted
from pixcli.geometry.observations import Observations, project, read_observations
from pixcli.options import BundleAdjustmentCeresOptions, BundleAdjustmentOptions, CalibrationOptions

import pycolmap

NOISE = 0.05  # pixels
FREE = BundleAdjustmentOptions(refine_principal_point=True)
LENSES = {
    "SIMPLE_RADIAL": [1200, 521, 379, -0.09],
    "OPENCV": [1200, 1203, 521, 379, -0.12, 0.03, 0.002, -0.0015],
}


def scene(lens: str, rigs: int = 1, frames: int = 8, points: int = 800) -> pycolmap.Reconstruction:
    """A model at the truth, whose observations have noise."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = rigs, frames, points
    options.camera_model_id = pycolmap.CameraModelId.__members__[lens]
    options.camera_params = LENSES[lens]
    model = pycolmap.synthesize_dataset(options)
    rng = np.random.default_rng(0)
    for _, image in sorted(model.images.items()):
        for point2D in image.points2D:
            point2D.xy = point2D.xy + rng.normal(0, NOISE, 2)
    return model


def noise(observations: Observations, deviation: float) -> np.ndarray:
    return np.random.default_rng(1).normal(0, deviation, observations.xy.shape)


def observe(model: pycolmap.Reconstruction, seen: np.ndarray) -> None:
    """Give the observations of a model these places (n, 2)."""
    observations = read_observations(model)
    for image_id, rows in observations.by_image.items():
        for place, xy in zip(observations.keypoints[rows].tolist(), seen[rows], strict=True):
            model.images[image_id].points2D[place].xy = xy


def mapped(truth: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """As COLMAP maps by default: SIMPLE_RADIAL, with the principal point in the middle."""
    model = pycolmap.Reconstruction(truth)
    for camera in model.cameras.values():
        lens = converted(camera, "SIMPLE_RADIAL")
        camera.model = lens.model
        camera.params = [lens.params[0], camera.width / 2, camera.height / 2, lens.params[3]]
    adjust_geometrically(model, [1.0], BundleAdjustmentOptions(), BundleAdjustmentCeresOptions())
    return model


def calibrated(model: pycolmap.Reconstruction, options: CalibrationOptions = CalibrationOptions()):
    """Calibrates in place; the choices, the covariances and the priors."""
    lenses = cameras_to_calibrate(model, options, BundleAdjustmentOptions(), frozenset())
    constants = Constants(lenses=lenses)

    def adjust(state, scales, centred):
        held = Constants(lenses=centred_lenses(lenses, centred))
        adjust_geometrically(state, scales, FREE, BundleAdjustmentCeresOptions(), held)

    observations = read_observations(model)
    every = np.ones(len(observations.xy), bool)
    ladders = ladders_of(model, options, BundleAdjustmentOptions(), lenses)
    choices = calibrate(model, observations, every, ladders, adjust, [1.0, 0.25])
    return choices, camera_covariances(model, observations, every, FREE, constants), lenses


@pytest.mark.parametrize("lens", LENSES)
def test_the_true_lens_is_found_with_its_parameters_and_their_errors(lens):
    truth = scene(lens)
    model = mapped(truth)
    choices, covariances, lenses = calibrated(model)
    (report,) = calibrations(model, choices, covariances, lenses)
    assert report.before == "SIMPLE_RADIAL"
    assert report.model == lens
    assert [candidate.model for candidate in report.candidates if candidate.chosen] == [lens]
    (found,) = report.lenses
    for parameter, value in zip(found.parameters, LENSES[lens], strict=True):
        assert parameter.determined
        assert abs(parameter.value - value) < 4 * parameter.deviation
    assert found.parameters[0].deviation < 2


def test_a_principal_point_in_the_middle_is_left_there():
    model = scene("SIMPLE_RADIAL")
    for camera in model.cameras.values():
        camera.params = [1200, camera.width / 2, camera.height / 2, -0.09]
    observations = read_observations(model)
    observe(model, project(model, observations) + noise(observations, NOISE))
    (choice,), *_ = calibrated(model)
    (camera,) = model.cameras.values()
    assert choice.centred
    assert choice.model == "SIMPLE_RADIAL"
    np.testing.assert_allclose(camera.params[1:3], [camera.width / 2, camera.height / 2], atol=1e-3)


def test_it_is_deterministic():
    first, second = (mapped(scene("OPENCV")) for _ in range(2))
    calibrated(first)
    calibrated(second)
    assert np.array_equal(first.cameras[1].params, second.cameras[1].params)


def test_candidates_restrict_what_is_chosen():
    model = mapped(scene("OPENCV"))
    (choice,), *_ = calibrated(model, CalibrationOptions(candidates="RADIAL,SIMPLE_PINHOLE"))
    assert choice.model in ("SIMPLE_RADIAL", "RADIAL")


def test_a_model_that_is_named_is_taken_without_trials():
    model = mapped(scene("SIMPLE_RADIAL"))
    (choice,), *_ = calibrated(model, CalibrationOptions(model="OPENCV"))
    assert choice.model == model.cameras[1].model.name == "OPENCV"
    assert project(model, read_observations(model)) == pytest.approx(read_observations(model).xy, abs=0.5)


def test_cameras_that_agree_become_one_and_others_stay():
    truth = scene("SIMPLE_RADIAL", rigs=4, frames=3)
    model = pycolmap.Reconstruction(truth)
    odd = sorted(model.cameras)[-1]
    camera = model.cameras[odd]
    camera.params = [1150, 500, 390, -0.05]
    observations = read_observations(model)
    observe(model, project(model, observations) + noise(observations, NOISE))
    points = int(model.compute_num_observations())
    choices, covariances, _ = calibrated(model)
    (choice,) = share_lenses(model, choices, covariances)
    first, *_ = sorted(truth.cameras)
    assert choice.merged == [sorted(set(truth.cameras) - {odd})]
    assert choice.cameras == sorted(model.cameras) == [first, odd]
    assert len(model.rigs) == 2
    for image_id, image in model.images.items():
        assert image.has_pose
        assert image.camera_id == (odd if truth.images[image_id].camera_id == odd else first)
        assert image.frame.rig.is_ref_sensor(image.camera.sensor_id)
    assert model.compute_num_observations() == points
    errors = np.linalg.norm(project(model, read_observations(model)) - read_observations(model).xy, axis=1)
    assert np.median(errors) < 0.5


def test_what_is_held_or_spherical_is_not_calibrated(caplog):
    caplog.set_level(logging.INFO)
    model = scene("SIMPLE_RADIAL", points=50)
    options, every = CalibrationOptions(), BundleAdjustmentOptions()
    assert set(cameras_to_calibrate(model, options, every, [])) == set(model.cameras)
    assert not cameras_to_calibrate(model, options, every, model.cameras)
    assert "held constant" in caplog.text
    held = BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)
    assert not cameras_to_calibrate(model, options, held, [])
    assert not cameras_to_calibrate(model, CalibrationOptions(model="keep"), every, [])
    for camera in model.cameras.values():
        camera.model = pycolmap.CameraModelId.EQUIRECTANGULAR
        camera.params = [camera.width, camera.height]
    assert not cameras_to_calibrate(model, options, every, [])
    assert "spherical" in caplog.text


def test_three_images_of_a_narrow_lens_leave_no_absurd_camera():
    """Ten times the focal length, and a scene that is ten times smaller: next to no perspective."""
    model = scene("SIMPLE_RADIAL", frames=3, points=150)
    (camera,) = model.cameras.values()
    camera.params = [12000, 521, 379, 0.0]
    for point in model.points3D.values():
        point.xyz = 0.1 * point.xyz
    observations = read_observations(model)
    observe(model, project(model, observations) + noise(observations, 1.0))
    choices, covariances, lenses = calibrated(model)
    (report,) = calibrations(model, choices, covariances, lenses)
    (lens,) = report.lenses
    assert report.model == "SIMPLE_RADIAL"
    named = {parameter.name: parameter for parameter in lens.parameters}
    assert abs(named["cx"].value - 512) < 40
    assert abs(named["cy"].value - 384) < 40
    assert 6000 < named["f"].value < 24000
    assert not named["cx"].determined
