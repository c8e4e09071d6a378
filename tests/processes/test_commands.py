"""Every subcommand as a process of its own, with real work on a small scene."""

import configparser
import shutil

import numpy as np
import pytest
from PIL import Image

import pixcli
from pixcli.cli.main import COMMANDS
from pixcli.evaluation.poses import aligned_errors
from pixcli.io.database import read_match_graph
from tests.processes.pages import shell_examples
from tests.processes.place import NEW_PHOTO

import pycolmap


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_test_here(name):
    assert f"test_{name}" in globals()


def test_synthetic_dataset_generator(photos):
    truth = pycolmap.Reconstruction(photos / "gt")
    assert len(truth.images) == 5
    for image in truth.images.values():
        assert Image.open(photos / "images" / image.name).size == (400, 300)
        assert np.load(photos / "depth" / f"{image.name[:4]}.npz")["depth"].shape == (300, 400)


def test_feature_refiner(steps):
    raw, refined = (read_match_graph(steps / name, "inlier") for name in ("db.db", "refined.db"))
    assert len(refined.edges) > 0.99 * len(raw.edges) > 1000
    shifts = np.linalg.norm(refined.xy - raw.xy, axis=1)
    assert 0.1 < np.median(shifts[shifts > 0]) < 1


def test_featuremetric_bundle_adjuster(steps):
    mapped, refined = (pycolmap.Reconstruction(steps / name) for name in ("sparse/0", "refined"))
    assert mapped.num_reg_images() == refined.num_reg_images() == 4
    assert 0 < refined.compute_mean_reprojection_error() < 0.2


def test_localize(localized, photos):
    name, *_ = (localized / "localized" / "poses.txt").read_text().split()
    assert name == NEW_PHOTO
    model, truth = pycolmap.Reconstruction(localized / "localized"), pycolmap.Reconstruction(photos / "gt")
    assert model.num_reg_images() == 5
    errors = aligned_errors(truth, model)
    assert errors.centres.max() < 0.1


def test_reconstructor(place, photos):
    shutil.copytree(photos / "images", place.path / "images")
    place.shell(shell_examples("README.md")[1])
    assert pycolmap.Reconstruction(place.path / "out" / "model").num_reg_images() == 5
    pictures = list((place.path / "out" / "report").glob("*.png"))
    assert pictures
    for picture in pictures:
        Image.open(picture).verify()


def test_triangulator(place, photos):
    paths = ["--reference_path", photos / "gt", "--image_path", photos / "images"]
    place.pixcli("triangulator", *paths, "--output_path", "out")
    model, truth = (pycolmap.Reconstruction(path) for path in (place.path / "out" / "model", photos / "gt"))
    assert len(model.points3D) > 200
    for image in truth.images.values():
        pose = model.find_image_with_name(image.name).cam_from_world()
        assert np.allclose(pose.matrix(), image.cam_from_world().matrix(), atol=1e-9)


def test_dense_feature_extractor(refined):
    paths = ["--database_path", "db.db", "--image_path", "images"]
    options = ["--DenseFeatures.model", "compact", "--KeypointAdjustment.strategy", "featuremetric"]
    refined.pixcli("dense_feature_extractor", *paths, *options, "--DenseFeatures.cache_path", "cache.h5")
    assert (refined.path / "cache.h5").stat().st_size > 1_000_000


def test_project_generator(place):
    place.pixcli("project_generator", "--output_path", "project.ini")
    parser = configparser.ConfigParser()
    parser.read_string("[paths]\n" + (place.path / "project.ini").read_text())
    assert parser["KeypointAdjustment"]["strategy"] == "affine"


def test_help(place):
    assert set(COMMANDS) <= set(place.pixcli("help").split())
    assert "Usage: pixcli localize" in place.pixcli("help", "localize")


def test_version(place):
    assert place.pixcli("version") == f"pixcli {pixcli.__version__}\n"
    assert "pycolmap" in place.pixcli("version", "--verbose")
