"""Whatever is wrong with the input: one line that says what and what to do, exit code 1, nothing changed."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from pixcli.io.database import read_match_graph

PIXCLI = [sys.executable, "-P", "-m", "pixcli"]


def assert_refused(workplace, *options: object, expected: tuple[str, ...], in_place: bool = False) -> None:
    """The command fails with one line that holds all that is expected, and leaves everything as it was."""
    before = workplace.database.read_bytes() if workplace.database.is_file() else None
    files = workplace.files()
    run = workplace.run(*options, in_place=in_place)
    assert run.code == 1
    assert run.out == ""
    assert len(run.messages) == 1, run.err
    assert run.messages[0].startswith("pixcli feature_refiner: ")
    for words in expected:
        assert words in run.messages[0]
    assert (workplace.database.read_bytes() if workplace.database.is_file() else None) == before
    assert workplace.files() == files


def positions(path: Path) -> np.ndarray:
    return read_match_graph(path, "raw").xy


def moved_images(workplace) -> set[str]:
    """The names of the images of which keypoints moved."""
    before, after = (read_match_graph(path, "raw") for path in (workplace.database, workplace.output))
    changed = (before.xy != after.xy) & np.isfinite(before.xy)
    return {before.images[i].name for i in before.image_index[changed.any(axis=1)]}


def first_image(workplace) -> Path:
    """The first image, in a folder that the test may change."""
    return sorted(workplace.own_images().iterdir())[0]


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
    assert_refused(workplace, expected=(str(workplace.database), expected))


def test_no_raw_matches(workplace) -> None:
    with closing(sqlite3.connect(workplace.database)) as connection:
        connection.executescript("DELETE FROM matches")
    raw = ("--KeypointAdjustment.match_source", "raw")
    assert_refused(workplace, *raw, expected=("holds no matches: run `colmap exhaustive_matcher`",))
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
    assert_refused(workplace, expected=(str(workplace.database), expected))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_database(workplace, share: float) -> None:
    contents = workplace.database.read_bytes()
    workplace.database.write_bytes(contents[: int(len(contents) * share)])
    assert_refused(workplace, expected=(str(workplace.database),))


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
    expected = (f"row 5 of the {source} matches of 0000.jpg and {name} is (3, {count})", "match these images")
    assert_refused(workplace, "--KeypointAdjustment.match_source", source, expected=expected)


def test_damaged_raw_matches_stop_the_verification_in_one_line(workplace) -> None:
    with closing(sqlite3.connect(workplace.database)) as connection:
        connection.execute("UPDATE matches SET data = x'00' WHERE rowid = (SELECT min(rowid) FROM matches)")
        connection.commit()
    assert_refused(workplace, expected=("raw matches of images 1 and 2 are damaged",))


# Images


IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no such image"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:9000]), "the image cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "the image cannot be read"),
    "a text": (lambda path: path.write_text("no image"), "the image cannot be read (not an image)"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "the image cannot be read"),
    "smaller": (
        lambda path: Image.open(path).resize((200, 150)).save(path),
        "is 200x150, but its camera in the database 400x300",
    ),
    "turned": (
        lambda path: Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path),
        "turned by 90 degrees (COLMAP ignores EXIF rotation)",
    ),
}


@pytest.mark.parametrize(("change", "expected"), IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("in_place", [False, True])
def test_image(workplace, change: Callable[[Path], object], expected: str, in_place: bool) -> None:
    path = first_image(workplace)
    change(path)
    assert_refused(workplace, expected=(str(path), expected), in_place=in_place)


def test_no_folder_of_images(workplace) -> None:
    workplace.images.unlink()
    assert_refused(workplace, expected=(f"no folder {workplace.images}: check --image_path",))


def _with_exif_rotation(image: Image.Image, path: Path) -> None:
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    image.save(path, format="JPEG", quality=95, exif=exif)


FORMATS: dict[str, Callable[[Image.Image, Path], object]] = {
    "grey": lambda image, path: image.convert("L").save(path, format="PNG"),
    "16 bits": lambda image, path: Image.fromarray(
        (np.asarray(image.convert("L"), np.uint16) * 257).astype(np.uint16)
    ).save(path, format="PNG"),
    "CMYK": lambda image, path: image.convert("CMYK").save(path, format="JPEG", quality=95),
    "palette": lambda image, path: image.convert("L").convert("P").save(path, format="PNG"),
    "transparent": lambda image, path: image.convert("RGBA").save(path, format="PNG"),
    "EXIF rotation": _with_exif_rotation,
}


@pytest.fixture(scope="module")
def plainly_refined(small_scene, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    output = tmp_path_factory.mktemp("refined") / "refined.db"
    paths = ("--database_path", small_scene.database_path, "--image_path", small_scene.path / "images")
    command = [*PIXCLI, "feature_refiner", *map(str, paths), "--output_path", str(output)]
    subprocess.run(command, check=True, capture_output=True)
    return positions(output)


@pytest.mark.parametrize("save", FORMATS.values(), ids=FORMATS)
def test_image_formats_that_work(workplace, plainly_refined: np.ndarray, save) -> None:
    path = first_image(workplace)
    with Image.open(path) as image:
        image.load()
        save(image, path)
    assert workplace.run().code == 0
    distance = np.linalg.norm(positions(workplace.output) - plainly_refined, axis=1)
    assert path.name in moved_images(workplace)
    assert (distance < 0.05).mean() > 0.99


# Keypoints and matches that are unusual


def test_keypoints_that_are_nowhere_stay_and_harm_no_others(workplace, plainly_refined: np.ndarray) -> None:
    nowhere = np.array([[np.nan, 5], [np.inf, -np.inf], [-3, 20], [5000, 20], [20, 1e30]], np.float32)
    rows = np.arange(0, 500, 100)
    matched = read_match_graph(workplace.database, "inlier").edges.ravel()
    spoiled = np.unique(matched)[rows]  # of the first image

    def change(name: str, keypoints: np.ndarray) -> np.ndarray:
        if name == "0000.jpg":
            keypoints[spoiled, :2] = nowhere
        return keypoints

    workplace.set_keypoints(change)
    for options in ((), ("--KeypointAdjustment.strategy", "featuremetric", "--DenseFeatures.model", "dsift")):
        assert workplace.run(*options).code == 0
        after = positions(workplace.output)
        np.testing.assert_array_equal(after[spoiled], nowhere)
        others = np.setdiff1d(np.arange(len(after)), spoiled)
        assert np.isfinite(after[others]).all()
        if not options:
            assert (np.linalg.norm(after - plainly_refined, axis=1)[others] < 0.05).mean() > 0.98
        workplace.output.unlink()


def test_frames_that_are_no_frames(workplace) -> None:
    """Without a usable frame the first guess comes from the neighbours, as for 2 columns."""
    workplace.set_keypoints(lambda _, rows: np.hstack([rows[:, :2], rows[:, 2:] * np.float32(np.nan)]))
    assert workplace.run().code == 0
    assert len(moved_images(workplace)) == 4


@pytest.mark.parametrize("columns", [2, 6])
def test_keypoints_at_the_border(workplace, columns: int) -> None:
    def change(_: str, rows: np.ndarray) -> np.ndarray:
        rows[:, 0] = np.where(np.arange(len(rows)) % 2, 0, 400)
        return np.ascontiguousarray(rows[:, :columns])

    workplace.set_keypoints(change)
    run = workplace.run()
    assert run.code == 0
    assert moved_images(workplace) == set()
    assert "out of image" in run.out
    kept = workplace.output.with_name("kept.db")
    shutil.copy(workplace.output, kept)
    workplace.output.unlink()
    assert workplace.run("--KeypointAdjustment.strategy", "topological_reference").code == 0
    assert np.isfinite(positions(workplace.output)).all()


def _keep_matches(workplace, chosen: dict[tuple[int, int], slice]) -> None:
    """Leaves some rows of the verified matches of these pairs, and no other matches."""
    with workplace.edited() as database:
        geometries = {pair: database.read_two_view_geometry(*pair) for pair in chosen}
        database.clear_two_view_geometries()
        database.clear_matches()
        for pair, rows in chosen.items():
            geometries[pair].inlier_matches = geometries[pair].inlier_matches[rows]
            database.write_matches(*pair, geometries[pair].inlier_matches)
            database.write_two_view_geometry(*pair, geometries[pair])


def test_a_pair_with_one_match(workplace) -> None:
    _keep_matches(workplace, {(1, 2): slice(40, 41)})
    run = workplace.run()
    assert run.code == 0
    assert len(moved_images(workplace)) == 1
    assert len(read_match_graph(workplace.output, "inlier").edges) == 1  # it cannot be verified: kept as it was
    assert "would have lost all inliers │     1" in run.out


def test_tracks_of_two(workplace) -> None:
    _keep_matches(workplace, {(1, 2): slice(None), (3, 4): slice(None)})
    assert workplace.run().code == 0
    before, after = (read_match_graph(path, "raw") for path in (workplace.database, workplace.output))
    moved = (before.xy != after.xy).any(axis=1)
    assert not moved[before.edges].all(axis=1).any()  # one of the two is the root
    assert moved[before.edges].any(axis=1).mean() > 0.9


def test_matches_of_an_image_with_itself_and_twice(workplace) -> None:
    with workplace.edited() as database:
        matches = database.read_matches(1, 2)
        database.delete_matches(1, 2)
        database.write_matches(1, 2, np.concatenate([matches, matches, matches + [[1, 0]]]).astype(np.uint32))
    assert workplace.run("--KeypointAdjustment.match_source", "raw").code == 0


def test_no_matches_between_the_listed_images(workplace, tmp_path: Path) -> None:
    """An image list may leave no track at all: nothing moves, and the output is a copy."""
    image_list = tmp_path / "list.txt"
    for names, in_place in (("0001.jpg\n", False), ("", True)):
        image_list.write_text(names, encoding="utf-8")
        before = positions(workplace.database)
        run = workplace.run("--image_list_path", image_list, in_place=in_place)
        assert run.code == 0, run.err
        np.testing.assert_array_equal(
            positions(workplace.database if in_place else workplace.output), before
        )


def test_image_names_with_spaces_and_folders(workplace, plainly_refined: np.ndarray) -> None:
    names = {"0000.jpg": "a folder/the first image.jpg", "0001.jpg": "a folder/überall.jpg"}
    images = workplace.own_images()
    (images / "a folder").mkdir()
    with workplace.edited() as database:
        for image in database.read_all_images():
            if name := names.get(image.name):
                (images / image.name).rename(images / name)
                image.name = name
                database.update_image(image)
    assert workplace.run("--covariance_path", workplace.output.with_suffix(".h5")).code == 0
    assert set(names.values()) < moved_images(workplace)
    image = images / names["0001.jpg"]
    image.unlink()
    workplace.output.unlink()
    assert_refused(workplace, expected=(str(image), "no such image"))


def test_without_descriptors(workplace, plainly_refined: np.ndarray) -> None:
    with closing(sqlite3.connect(workplace.database)) as connection:
        connection.executescript("DELETE FROM descriptors; VACUUM")
    assert workplace.run().code == 0
    np.testing.assert_array_equal(positions(workplace.output), plainly_refined)


# Where it goes


def test_output_that_is_the_input(workplace) -> None:
    expected = ("is the input: leave --output_path out to refine it in place",)
    assert_refused(workplace, "--output_path", workplace.database, expected=expected)
    link = workplace.database.with_name("link.db")
    link.symlink_to(workplace.database)
    assert_refused(workplace, "--output_path", link, expected=expected)


def test_output_that_exists(workplace) -> None:
    workplace.output.write_text("hours of work")
    assert_refused(workplace, expected=(f"{workplace.output} exists already: remove it",))
    assert workplace.output.read_text() == "hours of work"


@pytest.mark.parametrize("option", ["--output_path", "--report_path", "--covariance_path"])
def test_no_folder_for_an_output(workplace, option: str) -> None:
    path = workplace.output.parent / "missing" / "file"
    assert_refused(workplace, option, path, expected=(str(path.parent),))


@pytest.mark.parametrize("option", ["--report_path", "--covariance_path"])
def test_no_other_output_replaces_a_database(workplace, option: str) -> None:
    for path in (workplace.database, workplace.output):
        assert_refused(workplace, option, path, expected=(str(path), option))


def test_report_and_covariances_in_one_file(workplace) -> None:
    path = workplace.output.with_suffix(".h5")
    expected = (str(path), "--report_path", "--covariance_path")
    assert_refused(workplace, "--report_path", path, "--covariance_path", path, expected=expected)


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
            assert_refused(workplace, option, folder / "x", expected=(f"folder {folder}", "read-only"))
    with read_only(workplace.database.parent, monkeypatch):
        assert_refused(workplace, in_place=True, expected=("read-only: give an --output_path elsewhere",))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can make files")
@pytest.mark.parametrize("option", ["--output_path", "--report_path", "--covariance_path"])
def test_file_system_without_files(workplace, option: str) -> None:
    assert_refused(workplace, option, "/proc/refined", expected=("/proc", "cannot be written"))


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
        assert_refused(workplace, in_place=in_place, expected=(str(workplace.database.parent),))


def test_full_disk_for_the_cache(workplace) -> None:
    path = workplace.output.with_suffix(".h5")
    cache = ("--DenseFeatures.use_cache", 1, "--DenseFeatures.cache_path", path)
    with file_size_limit(2_000_000):
        assert_refused(workplace, *cache, expected=(str(path), "the cache cannot be made", "cache_path"))


def test_full_disk_for_the_covariances(workplace) -> None:
    """They are larger than all that comes before only beside many unmatched keypoints of 2 columns."""

    def change(_: str, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows[:, :2], np.full((40000, 2), 50, np.float32)])

    workplace.set_keypoints(change)
    path = workplace.output.with_suffix(".h5")
    with file_size_limit(1_900_000):
        assert_refused(workplace, "--covariance_path", path, in_place=True, expected=(str(path),))


# Options


OPTIONS = {
    "preset": (("--preset", "pixfsm"), "unknown preset 'pixfsm'. Did you mean pixsfm?"),
    "option": (("--KeypointAdjustment.boud", "1"), "Did you mean --KeypointAdjustment.bound?"),
    "path": (("--databse_path", "x"), "Did you mean --database_path?"),
    "choice": (("--KeypointAdjustment.strategy", "affin"), "takes {affine, featuremetric,"),
    "number": (("--KeypointAdjustment.bound", "much"), "KeypointAdjustment.bound is 'much', but takes a number"),
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
    "missing path": (("--image_path", ""), "--image_path is missing"),
}


@pytest.mark.parametrize(("options", "expected"), OPTIONS.values(), ids=OPTIONS)
def test_options(workplace, options: tuple[str, ...], expected: str) -> None:
    assert_refused(workplace, *options, expected=(expected,))


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
    assert_refused(workplace, "--project_path", ini, expected=(expected,))


@pytest.mark.parametrize("option", ["--image_list_path", "--constant_image_list_path"])
def test_image_lists(workplace, tmp_path: Path, option: str) -> None:
    image_list = tmp_path / "list.txt"
    assert_refused(workplace, option, image_list, expected=(str(image_list), "cannot be read"))
    image_list.write_text("0001.jpg\n0001.jpeg\n", encoding="utf-8")
    expected = (f"{image_list}, line 2: there is no image 0001.jpeg; did you mean 0001.jpg?",)
    assert_refused(workplace, option, image_list, expected=expected)


def test_cache_of_other_options(workplace) -> None:
    cache = ("--DenseFeatures.use_cache", 1, "--DenseFeatures.cache_path", workplace.output.with_suffix(".h5"))
    assert workplace.run(*cache).code == 0
    workplace.output.unlink()
    for options in (
        ("--KeypointAdjustment.supports", "7:1"),
        ("--KeypointAdjustment.strategy", "featuremetric", "--DenseFeatures.model", "dsift"),
    ):
        assert_refused(workplace, *cache, *options, expected=("the cache was made", "overwrite_cache"))
    path = workplace.output.with_suffix(".h5")
    path.write_bytes(path.read_bytes()[:-5000])
    assert_refused(workplace, *cache, expected=(str(path), "truncated or damaged", "overwrite_cache"))


# Interrupted and killed


STALLING = """
import sys, time
from contextlib import contextmanager
from pixcli.cli.main import main
from pixcli.cli.progress import TerminalProgress

@contextmanager
def show(self, name, total):
    if name != sys.argv[1]:
        yield lambda done: None
        return

    def update(done):
        print("now", file=sys.stderr, flush=True)
        time.sleep(60)

    if name == "read":
        update(0)
    yield update

TerminalProgress._show = show
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("phase", ["read", "features", "align", "verify"])
def test_interrupted(workplace, phase: str, in_place: bool) -> None:
    before, files = workplace.database.read_bytes(), workplace.files()
    temporary = workplace.database.parent.parent / "tmp"
    temporary.mkdir()
    outputs = ("--covariance_path", workplace.output.with_suffix(".h5"))
    outputs += ("--report_path", workplace.output.with_suffix(".json"), "--log_level", -1)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", STALLING, phase, *workplace.arguments(*outputs, in_place=in_place)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().strip() == "pixcli feature_refiner: interrupted"
    assert process.returncode == 130
    assert workplace.database.read_bytes() == before
    assert workplace.files() == files
    assert list(temporary.iterdir()) == []


def test_interrupted_in_native_code(workplace) -> None:
    """An alignment that would go on for long stops although nobody asks how far it is."""
    supports = ",".join(["15:1"] * 400)
    process = subprocess.Popen(
        [*PIXCLI, *workplace.arguments("--KeypointAdjustment.supports", supports)],
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        while "expecting to use" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.3)  # wherever it is by then
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().endswith("pixcli feature_refiner: interrupted\n")
    assert process.returncode == 130
    assert not workplace.output.exists()


@pytest.mark.parametrize("in_place", [False, True])
def test_killed_at_any_moment(workplace, plainly_refined: np.ndarray, in_place: bool) -> None:
    before, raw = workplace.database.read_bytes(), positions(workplace.database)
    moments = random.Random(0)
    for attempt in range(4):
        process = subprocess.Popen(
            [*PIXCLI, *workplace.arguments(in_place=in_place)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stderr is not None
            while attempt and "expecting to use" not in process.stderr.readline():
                assert process.poll() is None
            time.sleep(moments.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
        if in_place:
            after = positions(workplace.database)
            assert np.array_equal(after, raw) or np.array_equal(after, plainly_refined)
            workplace.database.write_bytes(before)
        else:
            assert workplace.database.read_bytes() == before
            if workplace.output.exists():
                np.testing.assert_array_equal(positions(workplace.output), plainly_refined)
                workplace.output.unlink()
    assert workplace.run(in_place=in_place).code == 0  # whatever the killed ones left does not disturb
    result = workplace.database if in_place else workplace.output
    np.testing.assert_array_equal(positions(result), plainly_refined)
