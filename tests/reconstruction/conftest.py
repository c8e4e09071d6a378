"""Reconstructions of the small scene."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pixcli.cli.main import main

import pycolmap

SMALL = ["--SiftExtraction.max_num_features", "1500"]
"""Fewer features, so that tests are quick."""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one line on stderr that is none of the log."""
        lines = [line for line in self.err.splitlines() if line[:4] not in ("I202", "W202", "E202")]
        assert len(lines) == 1, self.err
        return lines[0]

    @property
    def again(self) -> list[str]:
        """Which steps were done again, and why."""
        return [line.split("] ")[1] for line in self.err.splitlines() if " again: " in line]


Run = Callable[..., Outcome]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line of paths, numbers and texts."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture(autouse=True)
def _same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """COLMAP in this process, which is quicker; `first_run` and programs that tests start do as users do."""

    def call(
        what: str, folder: Path, function: Callable[..., dict], *arguments: object, update: object = None
    ) -> tuple[dict, float]:
        return function(*arguments), 0.0

    monkeypatch.setattr("pixcli.reconstruction.chain.isolated", call)


@pytest.fixture
def images(small_scene, tmp_path: Path) -> Path:
    """The images of the small scene, this test's own."""
    shutil.copytree(small_scene.path / "images", tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture(scope="session")
def first_run(small_scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: `images` and `out`, both to be copied by what changes them."""
    folder = tmp_path_factory.mktemp("first_run")
    shutil.copytree(small_scene.path / "images", folder / "images")
    paths = ["--image_path", folder / "images", "--output_path", folder / "out"]
    assert main(["reconstructor", *map(str, paths), *SMALL]) == 0
    return folder


@pytest.fixture
def finished(first_run: Path, tmp_path: Path) -> Path:
    """A copy of the output folder, to go on in with the images of `first_run`."""
    shutil.copytree(first_run / "out", tmp_path / "out")
    return tmp_path / "out"


def database_without_geometries(source: Path, target: Path, columns: int = 6) -> None:
    """Copies cameras, images, the first columns of keypoints and raw matches, but nothing verified."""
    with pycolmap.Database.open(source) as old, pycolmap.Database.open(target) as new:
        for camera in old.read_all_cameras():
            new.write_camera(camera, True)
        for rig in old.read_all_rigs():
            new.write_rig(rig, True)
        for frame in old.read_all_frames():
            new.write_frame(frame, True)
        for image in old.read_all_images():
            new.write_image(image, True)
            new.write_keypoints(image.image_id, old.read_keypoints(image.image_id)[:, :columns].copy())
        for pair_id in old.read_num_matches()[0]:
            pair = pycolmap.pair_id_to_image_pair(pair_id)
            new.write_matches(*pair, old.read_matches(*pair))
