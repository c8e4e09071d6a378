"""Running `pixcli feature_refiner` on copies of the small scene."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from pixcli.cli.main import main

PIXCLI = [sys.executable, "-P", "-m", "pixcli"]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[str]:
        """The lines on stderr that are no lines of the log."""
        return [line for line in self.err.splitlines() if not line.startswith(("I20", "W20"))]


@dataclass(frozen=True)
class Workplace:
    """A database that a test may change, its images (shared: replace the folder to change one) and outputs."""

    database: Path
    images: Path
    output: Path
    run_main: Callable[[list[str]], Outcome]

    def arguments(self, *more: object, in_place: bool = False) -> list[str]:
        paths = ["--database_path", self.database, "--image_path", self.images]
        output = [] if in_place else ["--output_path", self.output]
        return ["feature_refiner", *map(str, [*paths, *output, *more])]

    def run(self, *more: object, in_place: bool = False) -> Outcome:
        return self.run_main(self.arguments(*more, in_place=in_place))

    def own_images(self) -> Path:
        """Makes the images this test's own, to be changed; their folder."""
        if not self.images.is_symlink():
            return self.images
        shared = self.images.resolve()
        self.images.unlink()
        shutil.copytree(shared, self.images)
        return self.images

    def files(self) -> set[str]:
        return {str(path.relative_to(self.database.parent)) for path in self.database.parent.iterdir()}

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


@pytest.fixture
def workplace(small_scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    """A fresh copy of the small scene: folder with database.db and images (a link)."""

    def run_main(arguments: list[str]) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(small_scene.database_path, folder / "database.db")
    (folder / "images").symlink_to(small_scene.path / "images")
    return Workplace(folder / "database.db", folder / "images", folder / "refined.db", run_main)
