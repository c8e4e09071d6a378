"""The command from a database to a refined one: what moves, what stays, what it says and what it reuses."""

import itertools
import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.covariance import read_covariances
from pixcli.io.database import read_match_graph
from pixcli.sampling.status import Status
from pixcli.synthetic.evaluation import keypoint_errors


def graph_of(path: Path) -> MatchGraph:
    return read_match_graph(path, "inlier")


def moved_between(before: Path, after: Path) -> np.ndarray:
    """(n,) which keypoints are at another place."""
    return (graph_of(before).xy != graph_of(after).xy).any(axis=1)


def rows_of(path: Path, tables: tuple[str, ...] = ()) -> dict[tuple[str, int], tuple]:
    """Every row of these tables; of all, if none are named."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = tables or [name for (name,) in found]
        return {
            (table, row[0]): row[1:]
            for table in names
            for row in connection.execute(f"SELECT rowid, * FROM {table}")
        }


def errors_of(small_scene, path: Path) -> np.ndarray:
    """Two-view errors of the keypoints of a database, on the matches of the raw one."""
    raw = graph_of(small_scene.database_path)
    graph = raw.with_positions(graph_of(path).xy)
    errors = keypoint_errors(small_scene.truth, graph, small_scene.path / "depth")
    return errors[np.isfinite(errors)]


def test_keypoints_come_closer_to_the_truth(small_scene, refined) -> None:
    before, after = errors_of(small_scene, small_scene.database_path), errors_of(small_scene, refined.path)
    assert np.median(after) < 0.4 * np.median(before)
    assert after.mean() < 0.5 * before.mean()
    assert (after > 1).mean() < (before > 1).mean()


def test_only_positions_of_moved_keypoints_change(small_scene, refined) -> None:
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


def test_geometries_are_those_of_the_refined_keypoints(small_scene, refined) -> None:
    changed = rows_of(refined.path, ("two_view_geometries",))
    assert changed.keys() == rows_of(small_scene.database_path, ("two_view_geometries",)).keys()
    assert changed != rows_of(small_scene.database_path, ("two_view_geometries",))
    after = graph_of(refined.path)
    assert refined.report["verification"]["inliers_after"] == len(after.edges)
    assert len(after.edges) >= 0.99 * len(graph_of(small_scene.database_path).edges)


def test_the_report_agrees_with_the_database(small_scene, refined) -> None:
    report, before = refined.report, graph_of(small_scene.database_path)
    moved = moved_between(small_scene.database_path, refined.path)
    assert (report["schema"], report["command"]) == (1, "feature_refiner")
    assert set(report["options"]) == {
        "KeypointAdjustment", "DenseFeatures", "Interpolation", "TwoViewGeometry", "default_random_seed"
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
    assert 0 < report["epipolar"]["after"] < 0.8 * report["epipolar"]["before"]
    verification = report["verification"]
    assert verification["updated"] + verification["lost"] + verification["left_alone"] == len(before.pairs)
    phases = [phase["name"] for phase in report["phases"]]
    assert phases == ["read", "build tracks", "features", "align", "check", "verify"]
    assert all(phase["seconds"] >= 0 and phase["peak_memory_mb"] > 1 for phase in report["phases"])


def test_covariances_are_of_the_moved_keypoints(small_scene, refined) -> None:
    before = graph_of(small_scene.database_path)
    assert sorted(refined.covariances) == [image.name for image in before.images]
    rows = np.concatenate([refined.covariances[image.name] for image in before.images])
    counts = [len(refined.covariances[image.name]) for image in before.images]
    assert counts == np.diff(before.offsets).tolist()
    measured = np.isfinite(rows).all(axis=1)
    assert np.count_nonzero(measured) == refined.report["keypoints"]["moved"]
    moved = moved_between(small_scene.database_path, refined.path)
    assert not (moved & ~measured).any()
    xx, xy, yy = rows[measured].astype(np.float64).T
    assert ((xx > 0) & (yy > 0) & (xx * yy > xy**2)).all()
    assert 0.001 < np.median(np.sqrt((xx + yy) / 2)) < 0.2


def test_the_tables_show_what_the_report_holds(refined) -> None:
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


def test_off_a_terminal_there_are_no_bars_and_no_colours(refined) -> None:
    assert "\x1b" not in refined.out + refined.err
    assert "\r" not in refined.out + refined.err
    input_, patches, memory = refined.err.splitlines()
    assert "4 images" in input_
    assert re.search(r"expecting to use \d+ MB of memory", memory)
    assert re.search(r"[\d.]+ KiB a keypoint", patches)


def test_two_threads_give_the_same_bytes_as_one(workplace, refined) -> None:
    threads = ("--KeypointAdjustment.num_threads", 2, "--DenseFeatures.num_threads", 2)
    covariance_path = workplace.output.with_name("covariances.h5")
    assert workplace.run(*threads, "--covariance_path", covariance_path).code == 0
    assert rows_of(workplace.output) == rows_of(refined.path)
    for name, rows in read_covariances(covariance_path).items():
        np.testing.assert_array_equal(rows, refined.covariances[name])


def test_portable_kernels_agree_with_those_of_this_cpu(workplace, refined, monkeypatch) -> None:
    monkeypatch.setenv("PIXCLI_ISA", "baseline")  # read once in every process
    workplace.start().communicate()
    distance = np.linalg.norm(graph_of(workplace.output).xy - graph_of(refined.path).xy, axis=1)
    moved = moved_between(workplace.database, workplace.output)
    assert (distance[moved] < 0.02).mean() > 0.99


def test_in_place(workplace, refined) -> None:
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
    touched = [moved[before.edges[a:b]].any() for a, b in itertools.pairwise(before.pair_ptr)]
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


def test_refining_twice_moves_little_more(workplace) -> None:
    assert workplace.run().code == 0
    shutil.copy(workplace.output, workplace.database)
    workplace.output.unlink()
    first = graph_of(workplace.database).xy
    assert workplace.run().code == 0
    again = np.linalg.norm(graph_of(workplace.output).xy - first, axis=1)
    assert np.median(again[again > 0]) < 0.06
