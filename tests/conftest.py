import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pixcli.options import SyntheticOptions
from pixcli.options.synthetic import CameraModel
from pixcli.synthetic.baseline import build_database, map_database
from pixcli.synthetic.dataset import generate_dataset

import pycolmap

# A shell that starts the tests in the background has them ignore Ctrl-C; programs that they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_log_handlers_left() -> Iterator[None]:
    """A command line run inside a test logs to that test's captured streams, which do not outlive it."""
    yield
    log = logging.getLogger("pixcli")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.NOTSET)


@dataclass(frozen=True)
class SmallScene:
    """Four views of a synthetic scene, 400 x 300 and SIFT matches. Shared: copy what a test changes."""

    path: Path
    """As the generator wrote it: images, gt, depth, surface.npz."""
    database_path: Path
    truth: pycolmap.Reconstruction


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> SmallScene:
    return make_small_scene(tmp_path_factory.mktemp("small_scene"))


def make_small_scene(folder: Path, camera_model: CameraModel = "OPENCV") -> SmallScene:
    path, database_path = folder / "scene", folder / "database.db"
    options = SyntheticOptions(width=400, height=300, num_images=4, seed=1, camera_model=camera_model)
    generate_dataset(path, options)
    truth = pycolmap.Reconstruction(path / "gt")
    build_database(truth, path / "images", database_path)
    return SmallScene(path, database_path, truth)


@pytest.fixture(scope="session")
def mapped(small_scene: SmallScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of raw SIFT, mapped with the true intrinsics. Shared: copy what a test changes."""
    folder = tmp_path_factory.mktemp("mapped") / "sparse"
    folder.mkdir()
    map_database(small_scene.database_path, small_scene.path / "images").write_binary(str(folder))
    return folder


@pytest.fixture
def rigs() -> pycolmap.Reconstruction:
    """Two rigs of three cameras with noise, three frames each."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=2, num_cameras_per_rig=3, num_frames_per_rig=3, num_points3D=60
    )
    model = pycolmap.synthesize_dataset(options)
    noise = pycolmap.SyntheticNoiseOptions(point2D_stddev=0.3, rig_from_world_translation_stddev=0.01)
    pycolmap.synthesize_noise(noise, model)
    return model
