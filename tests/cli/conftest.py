"""Running `pixcli feature_refiner` and `featuremetric_bundle_adjuster` on copies of the small scene."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from pixcli.cli.main import main
from pixcli.io.covariance import read_covariances
from pixcli.io.database import read_match_graph

import pycolmap

from .query_scene import QueryScene, make_query_scene


def messages_in(err: str) -> list[str]:
    """The lines of a log that are no lines of COLMAP's own, which begin with a letter and the date."""
    return [line for line in err.splitlines() if not re.match(r"[IW]\d{8} ", line)]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[str]:
        """The lines on stderr that are no lines of the log."""
        return messages_in(self.err)


@dataclass(frozen=True)
class Workplace:
    """A folder with a database that a test may change, its images and room for outputs."""

    database: Path
    images: Path
    """A link to what tests share, until own_images()."""
    output: Path
    run_main: Callable[[list[str]], Outcome]

    def arguments(self, *more: object, in_place: bool = False) -> list[str]:
        paths = ["--database_path", self.database, "--image_path", self.images]
        output = [] if in_place else ["--output_path", self.output]
        return ["feature_refiner", *map(str, [*paths, *output, *more])]

    def run(self, *more: object, in_place: bool = False) -> Outcome:
        return self.run_main(self.arguments(*more, in_place=in_place))

    def start(self, *more: object, in_place: bool = False) -> subprocess.Popen[str]:
        """The program, in a process of its own."""
        command = [sys.executable, "-P", "-m", "pixcli", *self.arguments(*more, in_place=in_place)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def assert_refused(self, *options: object, expected: tuple[str, ...], in_place: bool = False) -> None:
        """The command fails with one line that holds all that is expected, and changes nothing."""
        before, files = self._bytes(), self.files()
        run = self.run(*options, in_place=in_place)
        assert run.code == 1, run.err
        assert run.out == ""
        assert len(run.messages) == 1, run.err
        assert run.messages[0].startswith("pixcli feature_refiner: ")
        for words in expected:
            assert words in run.messages[0]
        assert self._bytes() == before
        assert self.files() == files

    def files(self) -> set[str]:
        return set(os.listdir(self.database.parent))

    def own_images(self) -> Path:
        """The folder of the images, from now on this test's own."""
        if self.images.is_symlink():
            shared = self.images.resolve()
            self.images.unlink()
            shutil.copytree(shared, self.images)
        return self.images

    def first_image(self) -> Path:
        """The first image, to be changed."""
        return sorted(self.own_images().iterdir())[0]

    def moved_images(self) -> set[str]:
        """The names of the images of which keypoints moved."""
        before, after = (read_match_graph(path, "raw") for path in (self.database, self.output))
        moved = ((before.xy != after.xy) & np.isfinite(before.xy)).any(axis=1)
        return {before.images[i].name for i in before.image_index[moved]}

    @contextmanager
    def edited(self) -> Iterator[pycolmap.Database]:
        with pycolmap.Database.open(self.database) as database:
            yield database

    def set_keypoints(self, change: Callable[[str, np.ndarray], np.ndarray]) -> None:
        """Replaces the keypoints of every image by change(image name, rows)."""
        with self.edited() as database:
            for image in database.read_all_images():
                rows = database.read_keypoints(image.image_id).copy()
                database.update_keypoints(image.image_id, change(image.name, rows))

    def _bytes(self) -> bytes | None:
        return self.database.read_bytes() if self.database.is_file() else None


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], Outcome]:
    """Runs a command line inside the test."""

    def run(arguments: list[str]) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def workplace(small_scene, tmp_path: Path, run_main: Callable[[list[str]], Outcome]) -> Workplace:
    """A fresh copy of the small scene."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(small_scene.database_path, folder / "database.db")
    (folder / "images").symlink_to(small_scene.path / "images")
    return Workplace(folder / "database.db", folder / "images", folder / "refined.db", run_main)


@dataclass(frozen=True)
class Refined:
    """What the program, with default options and one thread, wrote for the small scene and printed."""

    path: Path
    report: dict
    covariances: dict[str, np.ndarray]
    out: str
    err: str

    @cached_property
    def xy(self) -> np.ndarray:
        """(n, 2) the refined keypoints."""
        return read_match_graph(self.path, "raw").xy


@pytest.fixture(scope="session")
def refined(small_scene, tmp_path_factory: pytest.TempPathFactory) -> Refined:
    folder = tmp_path_factory.mktemp("refined")
    paths = {
        "database_path": small_scene.database_path,
        "image_path": small_scene.path / "images",
        "output_path": folder / "refined.db",
        "report_path": folder / "report.json",
        "covariance_path": folder / "covariances.h5",
    }
    arguments = [str(word) for name, path in paths.items() for word in (f"--{name}", path)]
    threads = ["--KeypointAdjustment.num_threads", "1", "--DenseFeatures.num_threads", "1"]
    command = [sys.executable, "-P", "-m", "pixcli", "feature_refiner", *arguments, *threads]
    before = small_scene.database_path.read_bytes()
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert small_scene.database_path.read_bytes() == before
    assert sorted(os.listdir(folder)) == ["covariances.h5", "refined.db", "report.json"]
    report = json.loads(paths["report_path"].read_text(encoding="utf-8"))
    covariances = read_covariances(paths["covariance_path"])
    return Refined(paths["output_path"], report, covariances, run.stdout, run.stderr)


@pytest.fixture(scope="session")
def query_scene(small_scene, tmp_path_factory) -> QueryScene:
    return make_query_scene(small_scene, tmp_path_factory.mktemp("queries"))


@dataclass(frozen=True)
class ModelWorkplace:
    """A folder with a model and its database that a test may change, its images and room for outputs."""

    model: Path
    database: Path
    images: Path
    output: Path
    output_database: Path
    temporary: Path
    """Empty."""
    run_main: Callable[[list[str]], Outcome]

    def arguments(self, *more: object, output: Path | None = None) -> list[str]:
        paths = ["--input_path", self.model, "--output_path", output or self.output]
        fixed = [f"--BundleAdjustment.refine_{what}" for what in ("focal_length", "extra_params")]
        intrinsics = [word for name in fixed for word in (name, 0)]
        paths += ["--image_path", self.images]
        return ["featuremetric_bundle_adjuster", *map(str, [*paths, *intrinsics, *more])]

    def run(self, *more: object, output: Path | None = None) -> Outcome:
        return self.run_main(self.arguments(*more, output=output))

    def refine(self, *more: object) -> pycolmap.Reconstruction:
        """The refined model; the command has to succeed."""
        run = self.run(*more)
        assert run.code == 0, run.err
        return pycolmap.Reconstruction(self.output)

    def assert_refused(self, *options: object, expected: tuple[str, ...], output: Path | None = None) -> None:
        """The command fails with one line that holds all that is expected, and changes nothing."""
        before = self.contents()
        run = self.run(*options, output=output)
        assert run.code == 1, run.err
        assert run.out == ""
        assert len(run.messages) == 1, run.err
        assert run.messages[0].startswith("pixcli featuremetric_bundle_adjuster: ")
        for words in expected:
            assert words in run.messages[0]
        assert self.contents() == before

    def contents(self) -> dict[str, bytes]:
        """All files but the images."""
        files = (path for path in self.model.parent.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files if self.images not in path.parents}

    def change(self, edit: Callable[[pycolmap.Reconstruction], object]) -> None:
        """Edits the model."""
        model = pycolmap.Reconstruction(self.model)
        edit(model)
        model.write_binary(str(self.model))

    def own_images(self) -> list[Path]:
        """The images, from now on this test's own."""
        shared = self.images.resolve()
        self.images.unlink()
        shutil.copytree(shared, self.images)
        return sorted(self.images.iterdir())


@pytest.fixture
def model_workplace(
    small_scene, mapped: Path, tmp_path: Path, run_main: Callable[[list[str]], Outcome]
) -> ModelWorkplace:
    """A fresh copy of the small scene and of its model."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(mapped, folder / "sparse")
    shutil.copy(small_scene.database_path, folder / "database.db")
    (folder / "images").symlink_to(small_scene.path / "images")
    inputs = (folder / "sparse", folder / "database.db", folder / "images")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return ModelWorkplace(*inputs, folder / "refined", folder / "refined.db", temporary, run_main)
