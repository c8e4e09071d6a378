"""Whatever is wrong with the input: one line that says what and what to do, exit code 1, nothing changed."""

import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# The database


DATABASES = {
    "older schema": ("ALTER TABLE two_view_geometries DROP COLUMN config", "older schema"),
    "not COLMAP's": ("DROP TABLE images", "not a COLMAP database: it has no table images"),
    "no images": ("DELETE FROM images", "holds no images: run `colmap feature_extractor`"),
    "no keypoints": ("DELETE FROM keypoints", "holds no keypoints: run `colmap feature_extractor`"),
    "no geometries": ("DELETE FROM two_view_geometries", "holds no two-view geometries: run"),
    "one image": (
        "DELETE FROM images WHERE image_id > 1; DELETE FROM two_view_geometries; DELETE FROM matches",
        "holds no two-view geometries: run",
    ),
    "3 columns": (
        "UPDATE keypoints SET cols = 3, rows = rows * 2 WHERE image_id = 1",
        "0000.jpg have 3 columns, not 2, 4 or 6",
    ),
    "short rows": ("UPDATE keypoints SET data = x'00' WHERE image_id = 1", "COLMAP cannot decode"),
    "no camera": ("DELETE FROM cameras WHERE camera_id = 1", "has camera 1, which does not exist"),
}


@pytest.mark.parametrize(("statement", "expected"), DATABASES.values(), ids=DATABASES)
def test_database(workplace, statement: str, expected: str) -> None:
    with closing(sqlite3.connect(workplace.database)) as connection:
        connection.executescript(statement)
    workplace.assert_refused(expected=(str(workplace.database), expected))


def test_no_raw_matches(workplace) -> None:
    with closing(sqlite3.connect(workplace.database)) as connection:
        connection.executescript("DELETE FROM matches")
    raw = ("--KeypointAdjustment.match_source", "raw")
    workplace.assert_refused(*raw, expected=("holds no matches: run `colmap exhaustive_matcher`",))
    assert workplace.run().code == 0  # verified matches are enough


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (None, "there is no database"),
        (b"", "is not a database: expected the SQLite file of `colmap feature_extractor`"),
        (b"words " * 9999, "is not a database"),
        (b"SQLite format 3\0" + b"words " * 9999, "cannot be read as a database"),
    ],
)
def test_other_files(workplace, contents: bytes | None, expected: str) -> None:
    workplace.database.unlink()
    if contents is not None:
        workplace.database.write_bytes(contents)
    workplace.assert_refused(expected=(str(workplace.database), expected))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_database(workplace, share: float) -> None:
    contents = workplace.database.read_bytes()
    workplace.database.write_bytes(contents[: int(len(contents) * share)])
    workplace.assert_refused(expected=(str(workplace.database),))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_database(workplace) -> None:
    workplace.database.chmod(0)
    run = workplace.run()
    assert run.code == 1
    assert "cannot be read: Permission denied" in run.messages[0]


@pytest.mark.parametrize("source", ["inlier", "raw"])
def test_matches_out_of_range(workplace, source: str) -> None:
    with workplace.edited() as database:
        name, count = database.read_image(2).name, len(database.read_keypoints(2))
        matches = database.read_matches(1, 2).copy()
        matches[5] = 3, count
        if source == "raw":
            database.delete_matches(1, 2)
            database.write_matches(1, 2, matches)
        else:
            geometry = database.read_two_view_geometry(1, 2)
            geometry.inlier_matches = matches
            database.update_two_view_geometry(1, 2, geometry)
    row = f"{source} matches: row 5 of the matches of 0000.jpg and {name} is (3, {count})"
    expected = (row, "match these images")
    workplace.assert_refused("--KeypointAdjustment.match_source", source, expected=expected)


def test_damaged_raw_matches_stop_the_verification_in_one_line(workplace) -> None:
    with closing(sqlite3.connect(workplace.database)) as connection:
        connection.execute("UPDATE matches SET data = x'00' WHERE rowid = (SELECT min(rowid) FROM matches)")
        connection.commit()
    workplace.assert_refused(expected=("raw matches of images 1 and 2 are damaged",))


# Images


IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no such image"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:9000]), "the image cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "the image cannot be read"),
    "a text": (lambda path: path.write_text("no image"), "the image cannot be read (not an image)"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "the image cannot be read"),
    "smaller": (
        lambda path: Image.open(path).resize((200, 150)).save(path),
        "is 200x150, but its camera has 400x300",
    ),
    "turned": (
        lambda path: Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path),
        "turned by 90 degrees (COLMAP ignores EXIF rotation)",
    ),
}


@pytest.mark.parametrize(("change", "expected"), IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("in_place", [False, True])
def test_image(workplace, change: Callable[[Path], object], expected: str, in_place: bool) -> None:
    path = workplace.first_image()
    change(path)
    workplace.assert_refused(expected=(str(path), expected), in_place=in_place)


def test_no_folder_of_images(workplace) -> None:
    workplace.images.unlink()
    workplace.assert_refused(expected=(f"no folder {workplace.images}: check --image_path",))


# Where it goes


def test_output_that_is_the_input(workplace) -> None:
    expected = ("is the input: leave --output_path out to refine it in place",)
    workplace.assert_refused("--output_path", workplace.database, expected=expected)
    link = workplace.database.with_name("link.db")
    link.symlink_to(workplace.database)
    workplace.assert_refused("--output_path", link, expected=expected)


def test_output_that_exists(workplace) -> None:
    workplace.output.write_text("hours of work")
    workplace.assert_refused(expected=(f"{workplace.output} exists already: remove it",))
    assert workplace.output.read_text() == "hours of work"


@pytest.mark.parametrize("option", ["--output_path", "--report_path", "--covariance_path"])
def test_no_folder_for_an_output(workplace, option: str) -> None:
    path = workplace.output.parent / "missing" / "file"
    workplace.assert_refused(option, path, expected=(str(path.parent),))


@pytest.mark.parametrize("option", ["--report_path", "--covariance_path"])
def test_no_other_output_replaces_a_database(workplace, option: str) -> None:
    for path in (workplace.database, workplace.output):
        workplace.assert_refused(option, path, expected=(str(path), option))


def test_report_and_covariances_in_one_file(workplace) -> None:
    path = workplace.output.with_suffix(".h5")
    expected = (str(path), "--report_path", "--covariance_path")
    workplace.assert_refused("--report_path", path, "--covariance_path", path, expected=expected)


@contextmanager
def read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder in which nothing can be made; for root, to whom nothing is forbidden, it only seems so."""
    access = os.access

    def seemingly(path: str | Path, mode: int) -> bool:
        forbidden = mode & os.W_OK and folder in (Path(path), Path(path).parent)
        return not forbidden and access(path, mode)

    folder.chmod(0o500)
    with monkeypatch.context() as patch:
        if os.geteuid() == 0:
            patch.setattr(os, "access", seemingly)
        yield
    folder.chmod(0o700)


def test_read_only_folder(workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workplace.output.parent / "locked"
    folder.mkdir()
    with read_only(folder, monkeypatch):
        for option in ("--output_path", "--report_path", "--covariance_path"):
            workplace.assert_refused(option, folder / "x", expected=(f"folder {folder}", "read-only"))
    with read_only(workplace.database.parent, monkeypatch):
        workplace.assert_refused(in_place=True, expected=("read-only: give an --output_path elsewhere",))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can make files")
@pytest.mark.parametrize("option", ["--output_path", "--report_path", "--covariance_path"])
def test_file_system_without_files(workplace, option: str) -> None:
    workplace.assert_refused(option, "/proc/refined", expected=("/proc", "cannot be written"))


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Writing beyond this size fails, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize(
    ("in_place", "share"), [(False, 0), (False, 0.1), (False, 0.5), (False, 0.9), (True, 0), (True, 0.1)]
)
def test_full_disk(workplace, in_place: bool, share: float) -> None:
    size = int(workplace.database.stat().st_size * share)
    with file_size_limit(size):
        workplace.assert_refused(in_place=in_place, expected=(str(workplace.database.parent),))


def test_full_disk_for_the_cache(workplace) -> None:
    path = workplace.output.with_suffix(".h5")
    cache = ("--DenseFeatures.use_cache", 1, "--DenseFeatures.cache_path", path)
    with file_size_limit(2_000_000):
        workplace.assert_refused(*cache, expected=(str(path), "the cache cannot be made", "cache_path"))


def test_full_disk_for_the_covariances(workplace) -> None:
    """They are larger than all that comes before only beside many unmatched keypoints of 2 columns."""

    def change(_: str, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows[:, :2], np.full((40000, 2), 50, np.float32)])

    workplace.set_keypoints(change)
    path = workplace.output.with_suffix(".h5")
    with file_size_limit(1_900_000):
        workplace.assert_refused("--covariance_path", path, in_place=True, expected=(str(path),))


# Options


OPTIONS = {
    "preset": (("--preset", "pixfsm"), "unknown preset 'pixfsm'. Did you mean pixsfm?"),
    "option": (("--KeypointAdjustment.boud", "1"), "Did you mean --KeypointAdjustment.bound?"),
    "path": (("--databse_path", "x"), "Did you mean --database_path?"),
    "choice": (("--KeypointAdjustment.strategy", "affin"), "takes {affine, featuremetric,"),
    "number": (("--KeypointAdjustment.bound", "much"), "bound is 'much', but takes a number"),
    "range": (("--KeypointAdjustment.bound", "-1"), "takes a number, at least 0"),
    "supports": (("--KeypointAdjustment.supports", "11"), "such as 8:1"),
    "boolean": (("--KeypointAdjustment.reverify", "perhaps"), "KeypointAdjustment.reverify is 'perhaps'"),
    "nan": (("--KeypointAdjustment.bound", "nan"), "KeypointAdjustment.bound is 'nan'"),
    "model": (
        ("--KeypointAdjustment.strategy", "featuremetric", "--DenseFeatures.model", "dsfit"),
        "dsift",
    ),
    "one node": (
        ("--KeypointAdjustment.strategy", "featuremetric", "--Interpolation.ncc_normalize", "1"),
        "at least two in Interpolation.nodes",
    ),
    "one channel": (
        ("--KeypointAdjustment.strategy", "topological_reference"),
        "a single channel of unit length is 1 everywhere: set --DenseFeatures.model dsift",
    ),
    "missing path": (("--image_path", ""), "--image_path is missing"),
}


@pytest.mark.parametrize(("options", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_options(workplace, options: tuple[str, ...], expected: str) -> None:
    workplace.assert_refused(*options, expected=(expected,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[KeypointAdjustment]\nboud=3\n", "Did you mean KeypointAdjustment.bound?"),
        ("[KeypointAdjusment]\nbound=3\n", "KeypointAdjustment"),
        ("[KeypointAdjustment]\nbound=much\n", "takes a number, at least 0"),
        ("bound\n", "project.ini"),
    ],
)
def test_ini_file(workplace, tmp_path: Path, text: str, expected: str) -> None:
    ini = tmp_path / "project.ini"
    ini.write_text(text, encoding="utf-8")
    workplace.assert_refused("--project_path", ini, expected=(expected,))


@pytest.mark.parametrize("option", ["--image_list_path", "--constant_image_list_path"])
def test_image_lists(workplace, tmp_path: Path, option: str) -> None:
    image_list = tmp_path / "list.txt"
    workplace.assert_refused(option, image_list, expected=(str(image_list), "cannot be read"))
    image_list.write_text("0001.jpg\n0001.jpeg\n", encoding="utf-8")
    expected = (f"{image_list}, line 2: there is no image 0001.jpeg; did you mean 0001.jpg?",)
    workplace.assert_refused(option, image_list, expected=expected)


def test_cache_of_other_options(workplace) -> None:
    path = workplace.output.with_suffix(".h5")
    cache = ("--DenseFeatures.use_cache", 1, "--DenseFeatures.cache_path", path)
    assert workplace.run(*cache).code == 0
    workplace.output.unlink()
    for options in (
        ("--KeypointAdjustment.supports", "7:1"),
        ("--KeypointAdjustment.strategy", "featuremetric", "--DenseFeatures.model", "dsift"),
    ):
        workplace.assert_refused(*cache, *options, expected=("the cache was made", "overwrite_cache"))
    path.write_bytes(path.read_bytes()[:-5000])
    workplace.assert_refused(*cache, expected=(str(path), "truncated or damaged", "overwrite_cache"))
