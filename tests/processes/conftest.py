"""A scene that the programs themselves render and take through README's steps, once for all tests."""

import shutil
from pathlib import Path

import pytest

from tests.processes.pages import shell_examples
from tests.processes.place import NEW_PHOTO, Place, add_new_photo


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of five images, as the generator wrote it."""
    folder = tmp_path_factory.mktemp("photos")
    size = {"width": 400, "height": 300, "num_images": 5, "num_cameras": 1, "samples": 1}
    options = [f"--Synthetic.{name}={value}" for name, value in size.items()]
    camera = "--Synthetic.camera_model=SIMPLE_RADIAL"
    Place(folder).pixcli("synthetic_dataset_generator", "--output_path", "scene", camera, *options)
    return folder / "scene"


@pytest.fixture(scope="session")
def steps(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README's single steps make of four of the images; to be copied by what changes it."""
    folder = tmp_path_factory.mktemp("steps")
    shutil.copytree(photos / "images", folder / "images")
    (folder / "images" / NEW_PHOTO).unlink()
    Place(folder).shell(shell_examples("README.md")[0])
    return folder


@pytest.fixture(scope="session")
def localized(photos: Path, steps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README's steps make of all images, the fifth localized; to be copied by what changes it."""
    folder = tmp_path_factory.mktemp("localized")
    shutil.copytree(steps, folder, dirs_exist_ok=True)
    add_new_photo(folder, photos)
    Place(folder).shell(shell_examples("README.md")[2])
    return folder


@pytest.fixture
def refined(steps: Path, tmp_path: Path) -> Place:
    """A copy of the results of README's steps."""
    shutil.copytree(steps, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path)
