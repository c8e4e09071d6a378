"""Position priors: which take part, how a model is aligned to them, and what they cost."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pixcli.bundle_adjustment.geometric import adjust_geometrically
from pixcli.bundle_adjustment.position_priors import align_to_priors, read_priors
from pixcli.bundle_adjustment.problem import Constants
from pixcli.errors import UserError
from pixcli.options import BundleAdjustmentCeresOptions, BundleAdjustmentOptions, PosePriorOptions

import pycolmap

CARTESIAN = pycolmap.PosePriorCoordinateSystem.CARTESIAN
WGS84 = pycolmap.PosePriorCoordinateSystem.WGS84


@pytest.fixture
def scene(tmp_path: Path) -> tuple[pycolmap.Reconstruction, Path]:
    """A rig of two cameras, six frames, with a database without priors."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1, num_cameras_per_rig=2, num_frames_per_rig=6, num_points3D=80
    )
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        model = pycolmap.synthesize_dataset(options, database)
    return model, tmp_path / "database.db"


def write_priors(path, model, position_of, system=CARTESIAN, deviation=0.01):
    with pycolmap.Database.open(path) as database:
        for image in database.read_all_images():
            prior = pycolmap.PosePrior()
            prior.corr_data_id = image.data_id
            centre = model.find_image_with_name(image.name).projection_center()
            prior.position = position_of(image.name, centre)
            if deviation:
                prior.position_covariance = np.eye(3) * deviation**2
            prior.coordinate_system = system
            database.write_pose_prior(prior)


def test_reference_sensors_take_part(scene) -> None:
    model, path = scene
    write_priors(path, model, lambda name, centre: centre, deviation=0)
    priors = read_priors(path, model, PosePriorOptions(prior_position_fallback_stddev=3.0))
    assert len(priors.positions) == 6
    assert all(model.images[image_id].is_ref_in_frame() for image_id in priors.positions)
    for covariance in priors.covariances.values():
        np.testing.assert_array_equal(covariance, 9 * np.eye(3))
    assert priors.loss.name == "trivial"


def test_too_few(scene) -> None:
    model, path = scene
    with pytest.raises(UserError, match="positions of 0 of the images"):
        read_priors(path, model, PosePriorOptions())


def test_a_model_is_aligned_whatever_its_frame_is_and_whoever_lies(scene) -> None:
    """The wrong ones are told by the others."""
    model, path = scene
    far = np.array([4e6, 5e5, 3e6])  # as geocentric coordinates
    wrong = {image.name for _, image in sorted(model.images.items())[:2]}
    write_priors(path, model, lambda name, centre: 3 * centre + far + 20 * (name in wrong))
    priors = read_priors(path, model, PosePriorOptions())
    before = pycolmap.Reconstruction(model)
    align_to_priors(model, priors)
    for image_id, image in model.images.items():
        expected = 3 * before.images[image_id].projection_center() + far
        np.testing.assert_allclose(image.projection_center(), expected, atol=1e-5)


def test_positions_that_do_not_fit_are_refused(scene) -> None:
    model, path = scene
    rng = np.random.default_rng(0)
    write_priors(path, model, lambda name, centre: rng.uniform(-100, 100, 3))
    priors = read_priors(path, model, PosePriorOptions())
    with pytest.raises(UserError, match="do not fit to the model"):
        align_to_priors(model, priors)


def test_latitudes_become_metres(scene) -> None:
    model, path = scene
    transform = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
    origin = (47.0, 8.0, 400.0)

    def position(name: str, centre: np.ndarray) -> np.ndarray:
        return np.asarray(transform.enu_to_ellipsoid(10 * centre[None], *origin))[0]

    write_priors(path, model, position, WGS84)
    priors = read_priors(path, model, PosePriorOptions())
    align_to_priors(model, priors)
    assert priors.distance(model) < 1e-3
    ids = sorted(priors.positions)
    distances = [np.linalg.norm(priors.positions[a] - priors.positions[b]) for a, b in pairwise(ids)]
    assert max(distances) > 1  # metres, not degrees


@pytest.mark.parametrize("robust", [False, True])
def test_priors_hold_what_images_do_not(scene, robust: bool) -> None:
    """Scale and frame come from the priors; a robust loss is not led astray by one that is wrong."""
    model, path = scene
    wrong = min(image.name for image in model.images.values() if image.is_ref_in_frame())
    write_priors(path, model, lambda name, centre: centre + 0.5 * (name == wrong))
    options = PosePriorOptions(use_robust_loss_on_prior_position=robust, prior_position_loss_scale=1.0)
    priors = read_priors(path, model, options)
    truth = {image_id: image.projection_center() for image_id, image in model.images.items()}
    noise = pycolmap.SyntheticNoiseOptions(rig_from_world_translation_stddev=0.02, point3D_stddev=0.02)
    pycolmap.synthesize_noise(noise, model)
    model.transform(pycolmap.Sim3d(1.1, pycolmap.Rotation3d(), np.full(3, 0.1)))
    ceres = BundleAdjustmentCeresOptions(function_tolerance=1e-10, max_num_iterations=200)
    adjust_geometrically(model, (1.0,), BundleAdjustmentOptions(), ceres, Constants(priors=priors))
    errors = [np.linalg.norm(model.images[k].projection_center() - truth[k]) for k in truth]
    if robust:
        assert max(errors) < 0.01
    else:
        assert max(errors) > 0.03
