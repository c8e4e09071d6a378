"""The command from a database to a refined one: what moves, what stays, what it says and what it reuses."""

import dataclasses
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from pixcli.alignment.result import Status
from pixcli.io.covariance import read_covariances
from pixcli.io.database import MatchGraph, read_match_graph
from pixcli.synthetic.evaluation import keypoint_errors

COMMAND = [sys.executable, "-P", "-m", "pixcli"]
DSIFT = ("--KeypointAdjustment.strategy", "featuremetric", "--DenseFeatures.model", "dsift")


def graph_of(path: Path) -> MatchGraph:
    return read_match_graph(path, "inlier")


def moved_between(before: Path, after: Path) -> np.ndarray:
    """(n,) which keypoints are at another place."""
    return (graph_of(before).xy != graph_of(after).xy).any(axis=1)


def rows_of(path: Path, tables: tuple[str, ...] = ()) -> dict[tuple[str, int], tuple]:
    """Every row of these tables; of all, if none are named."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            (table, row[0]): row[1:]
            for table in tables or names
            for row in connection.execute(f"SELECT rowid, * FROM {table}")
        }


def errors_of(small_scene, path: Path) -> np.ndarray:
    """Two-view errors of the keypoints of a database, on the matches of the raw one."""
    raw = graph_of(small_scene.database_path)
    graph = dataclasses.replace(raw, keypoints=graph_of(path).keypoints)
    return keypoint_errors(small_scene.truth, graph, small_scene.path / "depth")


@dataclasses.dataclass(frozen=True)
class Refined:
    """What one run of the program with default options wrote and printed."""

    path: Path
    report: dict
    covariances: dict[str, np.ndarray]
    out: str
    err: str


@pytest.fixture(scope="module")
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
    before = small_scene.database_path.read_bytes()
    run = subprocess.run(
        [*COMMAND, "feature_refiner", *arguments, *threads], capture_output=True, text=True, check=True
    )
    assert small_scene.database_path.read_bytes() == before
    assert sorted(os.listdir(folder)) == ["covariances.h5", "refined.db", "report.json"]
    report = json.loads(paths["report_path"].read_text(encoding="utf-8"))
    covariances = read_covariances(paths["covariance_path"])
    return Refined(paths["output_path"], report, covariances, run.stdout, run.stderr)


def test_keypoints_come_closer_to_the_truth(small_scene, refined: Refined) -> None:
    before, after = errors_of(small_scene, small_scene.database_path), errors_of(small_scene, refined.path)
    assert np.median(after) < 0.4 * np.median(before)
    assert after.mean() < 0.5 * before.mean()
    assert (after > 1).mean() < (before > 1).mean()


def test_only_positions_of_moved_keypoints_change(small_scene, refined: Refined) -> None:
    before, after = graph_of(small_scene.database_path), graph_of(refined.path)
    assert [image.name for image in after.images] == [image.name for image in before.images]
    moved = moved_between(small_scene.database_path, refined.path)
    matched = np.zeros(len(moved), bool)
    matched[before.edges] = True
    assert not moved[~matched].any()
    assert moved[matched].mean() > 0.5
    for old, new in zip(before.keypoints, after.keypoints, strict=True):
        assert old.shape == new.shape
        assert old.shape[1] > 2
        np.testing.assert_array_equal(new[:, 2:], old[:, 2:])
    kept = ("cameras", "images", "matches", "descriptors", "rigs", "frames")
    assert rows_of(refined.path, kept) == rows_of(small_scene.database_path, kept)


def test_geometries_are_those_of_the_refined_keypoints(small_scene, refined: Refined) -> None:
    changed = rows_of(refined.path, ("two_view_geometries",))
    assert changed.keys() == rows_of(small_scene.database_path, ("two_view_geometries",)).keys()
    assert changed != rows_of(small_scene.database_path, ("two_view_geometries",))
    after = graph_of(refined.path)
    assert refined.report["verification"]["inliers_after"] == len(after.edges)
    assert len(after.edges) >= 0.99 * len(graph_of(small_scene.database_path).edges)


def test_the_report_agrees_with_the_database(small_scene, refined: Refined) -> None:
    report, before = refined.report, graph_of(small_scene.database_path)
    moved = moved_between(small_scene.database_path, refined.path)
    assert (report["schema"], report["command"]) == (1, "feature_refiner")
    assert set(report["options"]) == {
        "KeypointAdjustment", "DenseFeatures", "Interpolation", "default_random_seed"
    }  # fmt: skip
    assert report["options"]["KeypointAdjustment"]["num_threads"] == 1
    counts = {key: report["input"][key] for key in ("images", "keypoints", "pairs", "edges")}
    assert counts == {
        "images": 4, "keypoints": len(before.xy), "pairs": len(before.pairs), "edges": len(before.edges)
    }  # fmt: skip
    keypoints = report["keypoints"]
    assert set(keypoints) == {status.name.lower() for status in Status}
    assert sum(keypoints.values()) == len(before.xy)
    assert keypoints["moved"] == pytest.approx(np.count_nonzero(moved), abs=2)  # by one float32 step at least
    assert keypoints["root"] == report["input"]["tracks"]
    shift = np.linalg.norm(graph_of(refined.path).xy - before.xy, axis=1)[moved]
    assert report["shift"]["median"] == pytest.approx(np.median(shift), abs=1e-3)
    assert report["shift"]["p90"] == pytest.approx(np.percentile(shift, 90), abs=1e-3)
    assert report["shift"]["max"] == pytest.approx(shift.max(), abs=1e-3)
    assert 0 < report["cost"]["after"] < 0.5 * report["cost"]["before"]
    verification = report["verification"]
    assert verification["updated"] + verification["lost"] + verification["left_alone"] == len(before.pairs)
    assert [phase["name"] for phase in report["phases"]] == ["read", "features", "align", "verify"]
    assert all(phase["seconds"] >= 0 and phase["peak_memory_mb"] > 1 for phase in report["phases"])


def test_covariances_are_of_the_moved_keypoints(small_scene, refined: Refined) -> None:
    before = graph_of(small_scene.database_path)
    assert sorted(refined.covariances) == [image.name for image in before.images]
    rows = np.concatenate([refined.covariances[image.name] for image in before.images])
    assert [len(refined.covariances[image.name]) for image in before.images] == np.diff(before.offsets).tolist()
    measured = np.isfinite(rows).all(axis=1)
    assert np.count_nonzero(measured) == refined.report["keypoints"]["moved"]
    moved = moved_between(small_scene.database_path, refined.path)
    assert not (moved & ~measured).any()
    xx, xy, yy = rows[measured].astype(np.float64).T
    assert ((xx > 0) & (yy > 0) & (xx * yy > xy**2)).all()
    assert 0.001 < np.median(np.sqrt((xx + yy) / 2)) < 0.2


def test_the_tables_show_what_the_report_holds(refined: Refined) -> None:
    def shown(label: str) -> str:
        match = re.search(rf"│\s*{re.escape(label)}\s*│\s*([^│\s]+)\s*│", refined.out)
        assert match is not None, label
        return match[1]

    keypoints = refined.report["keypoints"]
    for status in Status:
        if keypoints[status.name.lower()]:
            assert shown(status.label) == str(keypoints[status.name.lower()])
    assert shown("matches") == str(refined.report["input"]["edges"])
    assert shown("shift, median (pixels)") == f"{refined.report['shift']['median']:.3f}"
    assert shown("cost before") == f"{refined.report['cost']['before']:.6g}"
    for phase in refined.report["phases"]:
        assert shown(phase["name"]) == f"{phase['seconds']:.2f}"


def test_off_a_terminal_there_are_no_bars_and_no_colours(refined: Refined) -> None:
    assert "\x1b" not in refined.out + refined.err
    assert "\r" not in refined.out + refined.err
    first, second = refined.err.splitlines()
    assert "4 images" in first
    assert re.search(r"expecting to use \d+ MB of memory", second)


def test_two_threads_give_the_same_bytes_as_one(workplace, refined: Refined) -> None:
    threads = ("--KeypointAdjustment.num_threads", 2, "--DenseFeatures.num_threads", 2)
    covariance_path = workplace.output.with_name("covariances.h5")
    assert workplace.run(*threads, "--covariance_path", covariance_path).code == 0
    assert rows_of(workplace.output) == rows_of(refined.path)
    for name, rows in read_covariances(covariance_path).items():
        np.testing.assert_array_equal(rows, refined.covariances[name])


def test_portable_kernels_agree_with_those_of_this_cpu(workplace, refined: Refined) -> None:
    environment = {**os.environ, "PIXCLI_ISA": "baseline"}
    subprocess.run([*COMMAND, *workplace.arguments()], env=environment, capture_output=True, check=True)
    distance = np.linalg.norm(graph_of(workplace.output).xy - graph_of(refined.path).xy, axis=1)
    moved = moved_between(workplace.database, workplace.output)
    assert (distance[moved] < 0.02).mean() > 0.99


def test_in_place(workplace, refined: Refined) -> None:
    assert workplace.run(in_place=True).code == 0
    assert rows_of(workplace.database) == rows_of(refined.path)
    assert workplace.files() == {"database.db", "images"}


def test_without_reverification_geometries_stay(workplace) -> None:
    run = workplace.run("--KeypointAdjustment.reverify", 0)
    assert run.code == 0
    assert "verified again" not in run.out
    geometries = ("two_view_geometries",)
    assert rows_of(workplace.output, geometries) == rows_of(workplace.database, geometries)
    assert moved_between(workplace.database, workplace.output).any()


def test_raw_matches(workplace) -> None:
    assert workplace.run("--KeypointAdjustment.match_source", "raw").code == 0
    matches = read_match_graph(workplace.database, "raw")
    unverified = np.setdiff1d(matches.edges, graph_of(workplace.database).edges)
    moved = moved_between(workplace.database, workplace.output)
    assert moved[unverified].any()


def test_image_list(workplace, tmp_path: Path) -> None:
    """Only matches among the listed images count; pairs with others are verified again all the same."""
    names = [image.name for image in graph_of(workplace.database).images]
    image_list = tmp_path / "list.txt"
    image_list.write_text(f"# the first two\n{names[1]}\n{names[0]}\n", encoding="utf-8")
    report_path = tmp_path / "report.json"
    run = workplace.run("--image_list_path", image_list, "--report_path", report_path)
    assert run.code == 0
    before = graph_of(workplace.database)
    moved = moved_between(workplace.database, workplace.output)
    assert set(before.image_index[moved]) <= {0, 1}
    assert moved.any()
    report = json.loads(report_path.read_text(encoding="utf-8"))
    assert report["input"]["pairs"] == 1
    touched = [moved[before.edges[a:b]].any() for a, b in zip(before.pair_ptr, before.pair_ptr[1:])]
    assert sum(touched) > 1
    assert report["verification"]["updated"] == sum(touched)


def test_constant_images_hold_still_and_others_come_to_them(small_scene, workplace, tmp_path: Path) -> None:
    before = graph_of(workplace.database)
    names = [image.name for image in before.images]
    image_list = tmp_path / "constant.txt"
    image_list.write_text(f"{names[0]}\n{names[2]}\n", encoding="utf-8")
    report_path = tmp_path / "report.json"
    run = workplace.run("--constant_image_list_path", image_list, "--report_path", report_path)
    assert run.code == 0
    moved = moved_between(workplace.database, workplace.output)
    assert set(before.image_index[moved]) == {1, 3}
    report = json.loads(report_path.read_text(encoding="utf-8"))
    held = np.isin(before.image_index, [0, 2])
    assert report["keypoints"]["constant"] == np.count_nonzero(held)
    raw, refined = errors_of(small_scene, small_scene.database_path), errors_of(small_scene, workplace.output)
    assert np.median(refined) < 0.8 * np.median(raw)


@pytest.mark.parametrize("columns", [2, 4])
def test_narrow_keypoints(small_scene, workplace, columns: int) -> None:
    def narrowed(_: str, rows: np.ndarray) -> np.ndarray:
        if columns == 2:
            return np.ascontiguousarray(rows[:, :2])
        scale = np.hypot(rows[:, 2], rows[:, 4])
        angle = np.arctan2(rows[:, 4], rows[:, 2])
        return np.column_stack([rows[:, :2], scale, angle]).astype(np.float32)

    workplace.set_keypoints(narrowed)
    assert workplace.run().code == 0
    before, after = graph_of(workplace.database), graph_of(workplace.output)
    for old, new in zip(before.keypoints, after.keypoints, strict=True):
        assert old.shape == new.shape == (len(old), columns)
        np.testing.assert_array_equal(old[:, 2:], new[:, 2:])
    raw, refined = errors_of(small_scene, workplace.database), errors_of(small_scene, workplace.output)
    assert np.median(refined) < 0.5 * np.median(raw)


def test_translation_only(small_scene, workplace) -> None:
    assert workplace.run("--KeypointAdjustment.warp", "translation").code == 0
    raw, refined = errors_of(small_scene, workplace.database), errors_of(small_scene, workplace.output)
    assert np.median(refined) < 0.85 * np.median(raw)


NODES = " ".join(f"{x},{y}" for y in range(-3, 4) for x in range(-3, 4))
NCC = (
    *("--KeypointAdjustment.strategy", "featuremetric", "--Interpolation.nodes", NODES),
    *("--Interpolation.ncc_normalize", "1", "--Interpolation.l2_normalize", "0"),
    *("--DenseFeatures.l2_normalize", "0"),
)
FEATUREMETRIC = {
    "dsift": DSIFT,
    "dsift to the root": ("--KeypointAdjustment.strategy", "topological_reference", *DSIFT[2:]),
    "dsift, whole maps": (*DSIFT, "--DenseFeatures.sparse", "0"),
    "dsift, two scales": (*DSIFT, "--DenseFeatures.pyramid_scales", "1.0,0.5"),
    "pixsfm with dsift": ("--preset", "pixsfm", *DSIFT[2:]),
    "grey nodes": NCC,
    "colour nodes": (*NCC, "--DenseFeatures.color", "1"),
}


@pytest.fixture
def shifted_pair(workplace, small_scene):
    """Two views half a pixel apart, their keypoints off by 0.4 pixels at random."""
    source = np.asarray(Image.open(next((small_scene.path / "images").iterdir())).convert("L"), np.float32)
    workplace.images.unlink()
    workplace.images.mkdir()
    for name, offset in (("a.png", 0), ("b.png", 1)):
        cropped = source[offset : offset + 298, offset : offset + 398]
        pixels = cropped.reshape(149, 2, 199, 2).mean((1, 3))
        Image.fromarray((pixels + 0.5).astype(np.uint8)).save(workplace.images / name)
    rng = np.random.default_rng(0)
    xy = rng.uniform([25, 25], [170, 120], (150, 2))
    workplace.database.unlink()
    with workplace.edited() as database:
        camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=199, height=149, params=[200, 99.5, 74.5])
        camera_id = database.write_camera(camera)
        first, second = (
            database.write_image(pycolmap.Image(name=name, camera_id=camera_id)) for name in ("a.png", "b.png")
        )
        database.write_keypoints(first, xy.astype(np.float32))
        database.write_keypoints(second, (xy - 0.5 + rng.normal(0, 0.4, xy.shape)).astype(np.float32))
        matches = np.repeat(np.arange(len(xy), dtype=np.uint32)[:, None], 2, axis=1)
        database.write_matches(first, second, matches)
        geometry = pycolmap.TwoViewGeometry(config=2, inlier_matches=matches)
        database.write_two_view_geometry(first, second, geometry)
    return workplace


@pytest.mark.parametrize("options", FEATUREMETRIC.values(), ids=FEATUREMETRIC)
def test_other_strategies(shifted_pair, options: tuple[str, ...], tmp_path: Path) -> None:
    def error(path: Path) -> float:
        first, second = graph_of(path).keypoints
        return float(np.median(np.linalg.norm(first - second - 0.5, axis=1)))

    report_path = tmp_path / "report.json"
    cache = ("--DenseFeatures.use_cache", 1, "--DenseFeatures.cache_path", tmp_path / "cache.h5")
    run = shifted_pair.run(*options, "--report_path", report_path, *cache)
    assert run.code == 0
    assert error(shifted_pair.output) < 0.5 * error(shifted_pair.database)
    report = json.loads(report_path.read_text(encoding="utf-8"))
    assert report["cost"]["after"] < report["cost"]["before"]
    assert [phase["name"] for phase in report["phases"]] == ["read", "features", "adjust", "verify"]


def test_featuremetric_threads_give_the_same_bytes(workplace) -> None:
    rows = []
    for threads in (1, 2):
        assert workplace.run(*DSIFT, "--KeypointAdjustment.num_threads", threads).code == 0
        rows.append(rows_of(workplace.output))
        workplace.output.unlink()
    assert rows[0] == rows[1]


@pytest.mark.parametrize("options", [(), DSIFT], ids=["affine", "dsift"])
def test_a_filled_cache_is_used_instead_of_the_images(
    workplace, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_path = workplace.output.with_name("cache.h5")
    cache = ("--DenseFeatures.cache_path", str(cache_path), *options)
    extractor = ["dense_feature_extractor", *workplace.arguments(*cache, in_place=True)[1:]]
    assert workplace.run_main(extractor).code == 0
    filled = cache_path.read_bytes()
    use = ("--DenseFeatures.use_cache", "1", *cache)
    with monkeypatch.context() as patch:
        patch.delattr("pixcli.features.streaming.read_image")
        assert workplace.run(*use).code == 0
    assert cache_path.read_bytes() == filled
    uncached = workplace.output.rename(workplace.output.with_name("uncached.db"))
    assert workplace.run(*options).code == 0
    assert rows_of(workplace.output) == rows_of(uncached)


def test_a_cache_of_other_images_or_positions_is_refused(workplace) -> None:
    cache = ("--DenseFeatures.use_cache", "1", "--DenseFeatures.cache_path", str(workplace.output) + ".h5")
    assert workplace.run(*cache).code == 0
    first = next(iter(sorted(workplace.own_images().iterdir())))
    pixels = np.asarray(Image.open(first)).copy()
    pixels[:9] ^= 255
    original = first.read_bytes()
    Image.fromarray(pixels).save(first, format="JPEG")
    workplace.output.unlink()
    run = workplace.run(*cache)
    assert run.code == 1
    assert f"image {first.name} has changed" in run.messages[-1]
    assert "overwrite_cache" in run.messages[-1]
    assert len(run.messages) == 1
    first.write_bytes(original)
    workplace.set_keypoints(lambda _, rows: rows + np.eye(1, rows.shape[1], dtype=np.float32) * 9)
    run = workplace.run(*cache)
    assert run.code == 1
    assert "keypoints at other positions" in run.messages[-1]
    assert not workplace.output.exists()
    assert workplace.run(*cache, "--DenseFeatures.overwrite_cache", 1).code == 0


def test_refining_twice_moves_little_more(workplace) -> None:
    assert workplace.run().code == 0
    shutil.copy(workplace.output, workplace.database)
    workplace.output.unlink()
    first = graph_of(workplace.database).xy
    assert workplace.run().code == 0
    again = np.linalg.norm(graph_of(workplace.output).xy - first, axis=1)
    assert np.median(again[again > 0]) < 0.06
