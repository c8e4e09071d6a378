"""Writing refined databases: exactly what moved changes, and whatever goes wrong changes nothing."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io import refined_database as module
from pixcli.io.database import read_match_graph
from pixcli.io.refined_database import check_output_path, write_refined_database

import pycolmap

IN_PLACE = [True, False]


def moved_positions(graph: MatchGraph) -> np.ndarray:
    """Two keypoints of m.png moved, one of them so little that float32 cannot tell."""
    xy = graph.xy.copy()
    first = graph.offsets[1]
    xy[first + 4] += 0.25, -0.125
    xy[first + 5] += 1e-9
    return xy


def rows_of(path: Path) -> dict[tuple[str, int], tuple]:
    """Every row of every table."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {
            (table, row[0]): row[1:]
            for table in tables
            for row in connection.execute(f"SELECT rowid, * FROM {table}")
        }


def differences(before: dict, after: dict) -> set[tuple[str, int]]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


@pytest.mark.parametrize("in_place", IN_PLACE)
def test_only_moved_positions_change(database_path: Path, tmp_path: Path, in_place: bool) -> None:
    graph = read_match_graph(database_path, "inlier")
    before, unchanged = rows_of(database_path), database_path.read_bytes()
    output = database_path if in_place else tmp_path / "refined.db"
    with write_refined_database(
        database_path, None if in_place else output, graph, moved_positions(graph)
    ) as refined:
        assert refined.num_moved == 1
        assert refined.touched_pairs == [(3, 4), (2, 4), (1, 4)]  # in the order of names
    image_id = graph.images[1].image_id
    assert differences(before, rows_of(output)) == {("keypoints", image_id)}
    expected = graph.keypoints[1].copy()
    expected[4, :2] += 0.25, -0.125
    with pycolmap.Database.open(output) as database:
        assert database.read_keypoints(image_id).tobytes() == expected.tobytes()
        assert database.num_rigs() == 2
        assert database.num_pose_priors() == 4
        assert database.num_descriptors() == 4 * 65
    if not in_place:
        assert database_path.read_bytes() == unchanged
    assert sorted(os.listdir(tmp_path)) == ["in"] + ["refined.db"] * (not in_place)
    assert os.listdir(database_path.parent) == [database_path.name]


@pytest.mark.parametrize("in_place", IN_PLACE)
def test_geometries_updated_in_the_block_are_delivered(
    database_path: Path, tmp_path: Path, in_place: bool
) -> None:
    graph = read_match_graph(database_path, "inlier")
    before = rows_of(database_path)
    output = database_path if in_place else tmp_path / "refined.db"
    with write_refined_database(
        database_path, None if in_place else output, graph, moved_positions(graph)
    ) as refined:
        geometry = refined.database.read_two_view_geometry(1, 4)
        geometry.inlier_matches = geometry.inlier_matches[:20]
        refined.database.update_two_view_geometry(1, 4, geometry)
    pair_id = pycolmap.image_pair_to_pair_id(1, 4)
    assert differences(before, rows_of(output)) == {("keypoints", 4), ("two_view_geometries", pair_id)}
    with pycolmap.Database.open(output) as database:
        stored = database.read_two_view_geometry(1, 4)
        assert np.array_equal(stored.inlier_matches, geometry.inlier_matches)
        assert np.array_equal(stored.E, geometry.E)


def test_nothing_moved_changes_nothing(database_path: Path, tmp_path: Path) -> None:
    graph = read_match_graph(database_path, "raw")
    before = rows_of(database_path)
    with write_refined_database(database_path, tmp_path / "refined.db", graph, graph.xy) as refined:
        assert refined.touched_pairs == []
    assert differences(before, rows_of(tmp_path / "refined.db")) == set()


def test_rows_that_are_not_finite_keep_their_bytes(database_path: Path, tmp_path: Path) -> None:
    with pycolmap.Database.open(database_path) as database:
        rows = database.read_keypoints(4).copy()
        rows[:2, 0], rows[2, 5] = (np.nan, np.inf), np.nan
        database.update_keypoints(4, rows)
    graph = read_match_graph(database_path, "inlier")
    xy = moved_positions(graph)
    xy[graph.offsets[1] + 10] = np.nan  # never written, whatever a solver does
    with write_refined_database(database_path, tmp_path / "refined.db", graph, xy):
        pass
    rows[4, :2] += 0.25, -0.125
    with pycolmap.Database.open(tmp_path / "refined.db") as database:
        assert database.read_keypoints(4).tobytes() == rows.tobytes()


@pytest.mark.parametrize("in_place", IN_PLACE)
def test_unchecked_log_and_open_readers(database_path: Path, tmp_path: Path, in_place: bool) -> None:
    with closing(sqlite3.connect(database_path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("UPDATE keypoints SET data = zeroblob(rows * cols * 4) WHERE image_id = 5")
        other.commit()
        graph = read_match_graph(database_path, "inlier")
        output = None if in_place else tmp_path / "refined.db"
        with write_refined_database(database_path, output, graph, moved_positions(graph)):
            pass
        (seen,) = other.execute("SELECT data FROM keypoints WHERE image_id = 4").fetchone()
        assert (seen == graph.keypoints[1].tobytes()) != in_place
    result = read_match_graph(output or database_path, "inlier")
    assert not result.keypoints[0].any()
    assert np.array_equal(result.xy, moved_positions(graph).astype(np.float32))


@pytest.mark.parametrize("in_place", IN_PLACE)
def test_older_schema_stays_as_it_is(database_path: Path, tmp_path: Path, in_place: bool) -> None:
    with closing(sqlite3.connect(database_path)) as connection:
        connection.execute("DROP TABLE rigs")
        connection.execute("ALTER TABLE two_view_geometries DROP COLUMN camera1")
        connection.commit()
    graph = read_match_graph(database_path, "inlier")
    before = rows_of(database_path)
    output = None if in_place else tmp_path / "refined.db"
    with write_refined_database(database_path, output, graph, moved_positions(graph)) as refined:
        geometry = refined.database.read_two_view_geometry(1, 4)
        geometry.inlier_matches = geometry.inlier_matches[:20]
        refined.database.update_two_view_geometry(1, 4, geometry)
    changed = differences(before, rows_of(output or database_path))
    pair_id = pycolmap.image_pair_to_pair_id(1, 4)
    assert changed == {("keypoints", 4), ("two_view_geometries", pair_id)}


def test_output_paths_are_checked(database_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave --output_path out"):
        check_output_path(database_path, database_path.parent / ".." / "in" / database_path.name)
    link = tmp_path / "link.db"
    link.symlink_to(database_path)
    with pytest.raises(UserError, match="leave --output_path out"):
        check_output_path(database_path, link)
    other = tmp_path / "other.db"
    other.write_text("precious")
    with pytest.raises(UserError, match="exists already: remove it"):
        check_output_path(database_path, other)
    assert other.read_text() == "precious"
    with pytest.raises(UserError, match="does not exist: create it"):
        check_output_path(database_path, tmp_path / "nowhere" / "refined.db")
    check_output_path(database_path, tmp_path / "refined.db")
    check_output_path(database_path, None)


@pytest.mark.parametrize("in_place", IN_PLACE)
def test_read_only_places(
    database_path: Path, tmp_path: Path, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root, real permissions stop nothing
    with pytest.raises(UserError, match="read-only"):
        check_output_path(database_path, None if in_place else tmp_path / "refined.db")


def test_database_in_use_is_not_written(database_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.1)
    graph = read_match_graph(database_path, "inlier")
    with closing(sqlite3.connect(database_path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        block = write_refined_database(database_path, None, graph, moved_positions(graph))
        with pytest.raises(UserError, match="another program is using it"), block:
            pass
    assert np.array_equal(read_match_graph(database_path, "inlier").xy, graph.xy)


def test_database_changed_meanwhile_is_not_written(database_path: Path, tmp_path: Path) -> None:
    graph = read_match_graph(database_path, "inlier")
    with pycolmap.Database.open(database_path) as database:
        database.update_keypoints(2, database.read_keypoints(2) + 1)
    block = write_refined_database(database_path, tmp_path / "refined.db", graph, moved_positions(graph))
    with pytest.raises(UserError, match=r"sub folder/b c\.jpg changed"), block:
        pass
    assert os.listdir(tmp_path) == ["in"]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file may grow over size bytes: what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("in_place", IN_PLACE)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_full_disk(database_path: Path, tmp_path: Path, in_place: bool, share: float) -> None:
    graph = read_match_graph(database_path, "inlier")
    before = rows_of(database_path)
    size = int(database_path.stat().st_size * share)
    output = None if in_place else tmp_path / "refined.db"
    with (
        file_size_limit(size),
        pytest.raises(UserError, match=r"cannot be written|no space"),
        write_refined_database(database_path, output, graph, moved_positions(graph)),
    ):
        pass
    assert differences(before, rows_of(database_path)) == set()
    assert os.listdir(tmp_path) == ["in"]
    assert os.listdir(database_path.parent) == [database_path.name]


@pytest.mark.parametrize("in_place", IN_PLACE)
@pytest.mark.parametrize("start", ["UPDATE", "COMMIT"])
def test_disk_full_in_the_transaction(
    database_path: Path, tmp_path: Path, in_place: bool, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Connection(sqlite3.Connection):
        def _fail(self, sql: str) -> None:
            if sql.startswith(start) and in_transaction.append(self.in_transaction) is None:
                raise sqlite3.OperationalError("database or disk is full")

        def execute(self, sql, *args):
            self._fail(sql)
            return super().execute(sql, *args)

        def executemany(self, sql, *args):
            super().executemany(sql, *args)
            self._fail(sql)

    in_transaction: list[bool] = []
    graph = read_match_graph(database_path, "inlier")
    before = rows_of(database_path)
    output = None if in_place else tmp_path / "refined.db"
    with monkeypatch.context() as patch:
        patch.setattr(module.sqlite3, "connect", partial(sqlite3.connect, factory=Connection))
        block = write_refined_database(database_path, output, graph, moved_positions(graph))
        with pytest.raises(UserError, match="disk is full; nothing was changed"), block:
            pass
    assert in_transaction == [True]
    assert differences(before, rows_of(database_path)) == set()
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("in_place", IN_PLACE)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_errors_in_the_block_pass_through(
    database_path: Path, tmp_path: Path, in_place: bool, error: type[BaseException]
) -> None:
    graph = read_match_graph(database_path, "inlier")
    before = database_path.read_bytes()
    output = None if in_place else tmp_path / "refined.db"
    block = write_refined_database(database_path, output, graph, moved_positions(graph))
    with pytest.raises(error), block:
        raise error
    assert database_path.read_bytes() == before
    assert os.listdir(tmp_path) == ["in"]
    assert os.listdir(database_path.parent) == [database_path.name]


KILLED = """
import sqlite3, sys, time
from pixcli.io.database import read_match_graph
from pixcli.io.refined_database import write_refined_database

class Connection(sqlite3.Connection):
    def execute(self, sql, *args):
        if sql == {statement!r}:
            print("now", flush=True)
            time.sleep(60)
        return super().execute(sql, *args)

connect = sqlite3.connect
sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Connection, **kwargs)
path, output = sys.argv[1], sys.argv[2] or None
graph = read_match_graph(path, "inlier")
with write_refined_database(path, output, graph, graph.xy + 1):
    pass
"""


@pytest.mark.parametrize("in_place", IN_PLACE)
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_killed_while_writing(
    database_path: Path, tmp_path: Path, in_place: bool, journal: str, statement: str
) -> None:
    with closing(sqlite3.connect(database_path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    before = rows_of(database_path)
    output = tmp_path / "refined.db"
    arguments = [str(database_path), "" if in_place else str(output)]
    with subprocess.Popen(
        [sys.executable, "-P", "-c", KILLED.format(statement=statement), *arguments], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    assert differences(before, rows_of(database_path)) == set()
    graph = read_match_graph(database_path, "inlier")
    again = tmp_path / "again.db"
    with write_refined_database(database_path, again, graph, graph.xy + 1):
        pass
    assert np.array_equal(read_match_graph(again, "inlier").xy, (graph.xy + 1).astype(np.float32))
