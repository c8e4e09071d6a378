"""Input that is not as usual and has a sensible result all the same."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixcli.io.database import read_match_graph

DSIFT = ("--DenseFeatures.model", "dsift")


def positions(path: Path) -> np.ndarray:
    return read_match_graph(path, "raw").xy


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


@pytest.mark.parametrize("save", FORMATS.values(), ids=FORMATS)
def test_image_formats_that_work(workplace, refined, save) -> None:
    path = workplace.first_image()
    with Image.open(path) as image:
        image.load()
        save(image, path)
    assert workplace.run().code == 0
    distance = np.linalg.norm(positions(workplace.output) - refined.xy, axis=1)
    assert path.name in workplace.moved_images()
    assert (distance < 0.05).mean() > 0.99


def test_keypoints_that_are_nowhere_stay_and_harm_no_others(workplace, refined) -> None:
    nowhere = np.array([[np.nan, 5], [np.inf, -np.inf], [-3, 20], [5000, 20], [20, 1e30]], np.float32)
    rows = np.arange(0, 500, 100)
    matched = read_match_graph(workplace.database, "inlier").edges.ravel()
    spoiled = np.unique(matched)[rows]  # of the first image

    def change(name: str, keypoints: np.ndarray) -> np.ndarray:
        if name == "0000.jpg":
            keypoints[spoiled, :2] = nowhere
        return keypoints

    workplace.set_keypoints(change)
    for options in ((), ("--KeypointAdjustment.strategy", "featuremetric", *DSIFT)):
        assert workplace.run(*options).code == 0
        after = positions(workplace.output)
        np.testing.assert_array_equal(after[spoiled], nowhere)
        others = np.setdiff1d(np.arange(len(after)), spoiled)
        assert np.isfinite(after[others]).all()
        if not options:
            assert (np.linalg.norm(after - refined.xy, axis=1)[others] < 0.05).mean() > 0.98
        workplace.output.unlink()


def test_frames_that_are_no_frames(workplace) -> None:
    """Without a usable frame the first guess comes from the neighbours, as for 2 columns."""
    workplace.set_keypoints(lambda _, rows: np.hstack([rows[:, :2], rows[:, 2:] * np.float32(np.nan)]))
    assert workplace.run().code == 0
    assert len(workplace.moved_images()) == 4


def test_images_with_and_without_frames_and_one_without_keypoints(workplace) -> None:
    with workplace.edited() as database:
        for image_id in (1, 2, 3):
            database.delete_two_view_geometry(image_id, 4)
            database.delete_matches(image_id, 4)
        database.update_keypoints(1, np.ascontiguousarray(database.read_keypoints(1)[:, :2]))
        (alone,) = (image.name for image in database.read_all_images() if image.image_id == 4)
    with closing(sqlite3.connect(workplace.database)) as connection:
        connection.executescript("DELETE FROM keypoints WHERE image_id = 4")
    (workplace.own_images() / alone).unlink()  # nothing of it is needed
    assert workplace.run().code == 0
    assert len(workplace.moved_images()) == 3


def test_a_path_with_characters_that_mean_something_elsewhere(workplace, refined) -> None:
    database = workplace.database.rename(workplace.database.with_name("a #?%20'b.db"))
    output = workplace.output.with_name("file:c d?mode=ro.db")
    paths = ("--database_path", database, "--image_path", workplace.images, "--output_path", output)
    assert workplace.run_main(["feature_refiner", *map(str, paths)]).code == 0
    np.testing.assert_array_equal(positions(output), refined.xy)


@pytest.mark.parametrize("columns", [2, 6])
def test_keypoints_at_the_border(workplace, columns: int) -> None:
    def change(_: str, rows: np.ndarray) -> np.ndarray:
        rows[:, 0] = np.where(np.arange(len(rows)) % 2, 0, 400)
        return np.ascontiguousarray(rows[:, :columns])

    workplace.set_keypoints(change)
    run = workplace.run()
    assert run.code == 0
    assert workplace.moved_images() == set()
    assert "out of image" in run.out
    kept = workplace.output.with_name("kept.db")
    shutil.copy(workplace.output, kept)
    workplace.output.unlink()
    assert workplace.run("--KeypointAdjustment.strategy", "topological_reference", *DSIFT).code == 0
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
    assert len(workplace.moved_images()) == 1
    assert len(read_match_graph(workplace.output, "inlier").edges) == 1  # not to be verified: kept as it was
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
        database.write_matches(1, 2, np.concatenate([matches, matches, matches + np.uint32([1, 0])]))
    assert workplace.run("--KeypointAdjustment.match_source", "raw").code == 0


def test_no_matches_between_the_listed_images(workplace, tmp_path: Path) -> None:
    """An image list may leave no track at all: nothing moves, and the output is a copy."""
    image_list = tmp_path / "list.txt"
    for names, in_place in (("0001.jpg\n", False), ("", True)):
        image_list.write_text(names, encoding="utf-8")
        before = positions(workplace.database)
        run = workplace.run("--image_list_path", image_list, in_place=in_place)
        assert run.code == 0, run.err
        np.testing.assert_array_equal(positions(workplace.database if in_place else workplace.output), before)


def test_image_names_with_spaces_and_folders(workplace, refined) -> None:
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
    assert set(names.values()) < workplace.moved_images()
    image = images / names["0001.jpg"]
    image.unlink()
    workplace.output.unlink()
    workplace.assert_refused(expected=(str(image), "no such image"))


def test_without_descriptors(workplace, refined) -> None:
    with closing(sqlite3.connect(workplace.database)) as connection:
        connection.executescript("DELETE FROM descriptors; VACUUM")
    assert workplace.run().code == 0
    np.testing.assert_array_equal(positions(workplace.output), refined.xy)
