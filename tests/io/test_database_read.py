"""Reading COLMAP databases: what comes out, what is refused, and that the user's file is left alone."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io.database import read_match_graph

import pycolmap


@contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        yield connection
        connection.commit()


def matched_positions(graph) -> set[tuple[str, str, bytes]]:
    """Every match as names and bytes, so that it does not depend on any numbering."""
    xy, index = graph.xy, graph.image_index
    return {
        (graph.images[index[a]].name, graph.images[index[b]].name, xy[a].tobytes() + xy[b].tobytes())
        for a, b in graph.edges
    }


@pytest.mark.parametrize("matches", ["inlier", "raw"])
def test_graph_holds_what_pycolmap_reads(database_path: Path, matches: str) -> None:
    graph = read_match_graph(database_path, matches)
    names = [image.name for image in graph.images]
    assert names == ["alone.jpg", "m.png", "sub folder/a.jpg", "sub folder/b c.jpg", "z last.jpg"]
    assert (graph.pairs[:, 0] < graph.pairs[:, 1]).all()
    assert graph.edges.dtype == graph.pairs.dtype == np.int32
    assert len(graph.edges) == graph.pair_ptr[-1] == 6 * (60 if matches == "inlier" else 71)
    assert graph.xy.shape == (4 * 65 + 2, 2)
    with pycolmap.Database.open(database_path) as database:
        for image, rows in zip(graph.images, graph.keypoints, strict=True):
            assert (image.width, image.height) == (1024, 768)
            assert np.array_equal(rows, database.read_keypoints(image.image_id))
        for k, (i, j) in enumerate(graph.pairs):
            ids = graph.images[i].image_id, graph.images[j].image_id
            if matches == "raw":
                expected = database.read_matches(*ids)
            else:
                expected = database.read_two_view_geometry(*ids).inlier_matches
            span = slice(graph.pair_ptr[k], graph.pair_ptr[k + 1])
            assert np.array_equal(graph.edges[span] - graph.offsets[[i, j]], expected)


def test_keypoints_of_unmatched_images_are_read(database_path: Path) -> None:
    graph = read_match_graph(database_path, "inlier")
    assert np.array_equal(graph.keypoints[0][:, :2], [[3.25, 4.5], [7.0, 1.0]])
    assert not np.isin([0, 1], graph.edges).any()


def test_graph_does_not_depend_on_image_ids(database_path: Path, tmp_path: Path) -> None:
    renumbered = tmp_path / "renumbered.db"
    order = [3, 1, 5, 2, 4]
    with pycolmap.Database.open(database_path) as old, pycolmap.Database.open(renumbered) as new:
        for camera in old.read_all_cameras():
            new.write_camera(camera, use_camera_id=True)
        for image_id in order:
            image = old.read_image(image_id)
            rows = old.read_keypoints(image_id)
            new_id = new.write_image(pycolmap.Image(name=image.name, camera_id=image.camera_id))
            new.write_keypoints(new_id, rows)
        for i in range(1, 5):
            for j in range(i + 1, 5):
                rows = old.read_matches(i, j)
                new.write_matches(order.index(i) + 1, order.index(j) + 1, rows)
    one, other = read_match_graph(database_path, "raw"), read_match_graph(renumbered, "raw")
    assert np.array_equal(one.pairs, other.pairs)
    assert np.array_equal(one.edges, other.edges)
    assert np.array_equal(one.xy, other.xy)


@pytest.mark.parametrize("columns", [2, 4])
def test_narrow_keypoints_invalid_positions(database_path: Path, columns: int) -> None:
    with pycolmap.Database.open(database_path) as database:
        rows = database.read_keypoints(1)[:, :columns].copy()
        rows[0, 0], rows[1, 1] = np.nan, -1e6
        database.update_keypoints(1, rows)
    graph = read_match_graph(database_path, "inlier")
    assert np.array_equal(graph.keypoints[-1], rows, equal_nan=True)


def test_input_is_left_alone(database_path: Path) -> None:
    before = database_path.read_bytes(), database_path.stat().st_mtime_ns
    read_match_graph(database_path, "raw")
    assert (database_path.read_bytes(), database_path.stat().st_mtime_ns) == before
    assert os.listdir(database_path.parent) == [database_path.name]


def test_unchecked_write_ahead_log_is_read(database_path: Path) -> None:
    with closing(sqlite3.connect(database_path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE keypoints SET data = zeroblob(rows * cols * 4) WHERE image_id = 5")
        writer.commit()
        log = database_path.with_name("database.db-wal")
        before = database_path.read_bytes(), log.read_bytes()
        assert before[1]
        link = database_path.parent / "link.db"  # the log lies beside the file, not beside the link
        link.symlink_to(database_path)
        for path in (database_path, link):
            assert not read_match_graph(path, "inlier").keypoints[0].any()
        assert (database_path.read_bytes(), log.read_bytes()) == before


def test_interrupted_transaction_of_another_program_is_rolled_back(
    database_path: Path, tmp_path: Path
) -> None:
    expected = read_match_graph(database_path, "inlier").xy
    killed = tmp_path / "killed.db"
    with closing(sqlite3.connect(database_path)) as writer:
        writer.execute("PRAGMA journal_mode = DELETE")
        writer.execute("PRAGMA cache_size = 1")  # so that changes reach the file before they are committed
        writer.execute("UPDATE keypoints SET data = zeroblob(rows * cols * 4)")
        shutil.copy(database_path, killed)
        shutil.copy(f"{database_path}-journal", f"{killed}-journal")
        writer.rollback()
    with closing(sqlite3.connect(f"file:{killed}?immutable=1", uri=True)) as connection:
        (spoiled,) = connection.execute("SELECT data FROM keypoints WHERE image_id = 1").fetchone()
    assert not any(spoiled)
    assert np.array_equal(read_match_graph(killed, "inlier").xy, expected)


def test_older_schema_is_read_and_not_upgraded(database_path: Path) -> None:
    expected = matched_positions(read_match_graph(database_path, "inlier"))
    with edited(database_path) as connection:
        for table in ("rigs", "rig_sensors", "frames", "frame_data", "pose_priors", "descriptors"):
            connection.execute(f"DROP TABLE {table}")
        for column in ("qvec", "tvec", "camera1", "camera2"):
            connection.execute(f"ALTER TABLE two_view_geometries DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 3600")
    before = database_path.read_bytes()
    assert matched_positions(read_match_graph(database_path, "inlier")) == expected
    assert database_path.read_bytes() == before


# What is done to the database, which matches are asked for, and what the one line must name.
SPOILED = {
    "ancient schema": ("ALTER TABLE two_view_geometries RENAME TO inlier_matches", "raw", "older schema"),
    "missing column": ("ALTER TABLE two_view_geometries DROP COLUMN config", "raw", "lacks config"),
    "another program's": ("DROP TABLE images", "raw", "not a COLMAP database"),
    "no images": ("DELETE FROM images", "raw", "feature_extractor"),
    "no keypoints": ("DELETE FROM keypoints", "raw", "feature_extractor"),
    "no matches": ("DELETE FROM matches", "raw", "exhaustive_matcher"),
    "no geometries": ("DELETE FROM two_view_geometries", "inlier", "geometric_verifier"),
    "lost camera": ("DELETE FROM cameras WHERE camera_id = 2", "raw", "camera 2"),
    "lost image": ("DELETE FROM images WHERE image_id = 4", "raw", "image 4"),
    "3 columns": (
        "UPDATE keypoints SET rows = 2 * rows, cols = 3 WHERE image_id = 3",
        "raw",
        "sub folder/a.jpg",
    ),
    "short keypoints": ("UPDATE keypoints SET data = x'00' WHERE image_id = 3", "raw", "cannot decode"),
    "short matches": ("UPDATE matches SET data = x'00'", "raw", "cannot decode"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_bad_database_is_told_in_one_line(database_path: Path, case: str) -> None:
    statement, matches, expected = SPOILED[case]
    with edited(database_path) as connection:
        connection.execute(statement)
    before = database_path.read_bytes()
    with pytest.raises(UserError) as raised:
        read_match_graph(database_path, matches)
    message = str(raised.value)
    assert expected in message
    assert str(database_path) in message
    assert "\n" not in message
    assert database_path.read_bytes() == before
    assert os.listdir(database_path.parent) == [database_path.name]


def test_match_out_of_range_names_pair_and_row(database_path: Path) -> None:
    with pycolmap.Database.open(database_path) as database:
        rows = database.read_matches(1, 4).copy()
        rows[7] = 3, 65
        database.delete_matches(1, 4)
        database.write_matches(1, 4, rows)
    with pytest.raises(
        UserError, match=r"row 7 .* m\.png and z last\.jpg is \(65, 3\).* 65 and 65 keypoints"
    ):
        read_match_graph(database_path, "raw")
    assert len(read_match_graph(database_path, "inlier").edges) == 6 * 60


@pytest.mark.parametrize("contents", [b"", b"a text file, not a database " * 99])
def test_other_files_are_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "database.db"
    with pytest.raises(UserError, match="there is no database"):
        read_match_graph(path, "inlier")
    path.write_bytes(contents)
    with pytest.raises(UserError, match="not a database"):
        read_match_graph(path, "inlier")
    assert path.read_bytes() == contents


def test_truncated_database_is_refused(database_path: Path) -> None:
    database_path.write_bytes(database_path.read_bytes()[:40960])
    with pytest.raises(UserError, match="cannot be read"):
        read_match_graph(database_path, "raw")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_database(database_path: Path) -> None:
    database_path.chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        read_match_graph(database_path, "raw")
