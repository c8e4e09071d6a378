"""Refined COLMAP databases: keypoints that have moved, delivered whole or not at all."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import pycolmap

from ..errors import UserError
from ..geometry.match_graph import MatchGraph
from ..system import sync
from .appended_keypoints import AppendedKeypoints, append_descriptors, append_rows
from .database import (
    BUSY_SECONDS,
    TABLES,
    back_up,
    common_columns,
    copy_tables,
    open_input,
    write_errors,
)


@dataclass(frozen=True)
class RefinedDatabase:
    """A refined database before delivery: its keypoints have moved, its geometries are still the old ones."""

    database: pycolmap.Database
    """Private copy without descriptors. Geometries updated in it are delivered as well."""
    touched_pairs: list[tuple[int, int]]
    """Ids, smaller first, of the image pairs of the graph in which a matched keypoint moved."""
    num_moved: int
    """Keypoints that moved, by at least one float32 step."""


def check_output_path(input_path: str | os.PathLike[str], output_path: str | os.PathLike[str] | None) -> None:
    """Raise a UserError, before any work is done, if the refined database could not be written there.

    An existing output is refused, never replaced: it may be the only copy of hours of matching.
    """
    input_path = Path(input_path)
    if output_path is None:
        writable = os.access(input_path, os.W_OK) and os.access(input_path.parent, os.W_OK)
        if input_path.exists() and not writable:
            raise UserError(f"{input_path} or its folder is read-only: give an --output_path elsewhere")
        return
    output_path = Path(output_path)
    if output_path.exists():
        if input_path.exists() and output_path.samefile(input_path):
            raise UserError(f"{output_path} is the input: leave --output_path out to refine it in place")
        raise UserError(f"{output_path} exists already: remove it, or give another --output_path")
    if not output_path.parent.is_dir():
        raise UserError(f"the folder {output_path.parent} of --output_path does not exist: create it first")
    if not os.access(output_path.parent, os.W_OK | os.X_OK):
        raise UserError(f"the folder {output_path.parent} of --output_path is read-only: choose another one")


@contextmanager
def write_refined_database(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str] | None,
    graph: MatchGraph,
    xy: npt.NDArray[np.float64],
    appended: Mapping[int, AppendedKeypoints] | None = None,
) -> Iterator[RefinedDatabase]:
    """Move keypoints of a database to xy, (n, 2) COLMAP pixels, and deliver it as the with-block ends.

    Images (by id) also get the `appended` ones, behind those that they have. The block may update two-view
    geometries in what it is given. If it raises, or the process dies, nothing has happened. Rows of keypoints
    that did not move stay bit-identical.

    With an output path, a backup of the input is completed beside the output and then renamed. Without, the
    changed rows go into the input in one SQLite transaction, which rolls back on its own when interrupted;
    renaming a new file over the input instead would lose its owner and links, and would part it from the
    write-ahead log of other programs that have it open.
    """
    input_path = Path(input_path)
    appended = appended or {}
    check_output_path(input_path, output_path)
    final = input_path if output_path is None else Path(output_path)
    with ExitStack() as stack:
        with write_errors(final):
            temporary = tempfile.TemporaryDirectory(prefix=".pixcli-", dir=final.parent)
            folder = Path(stack.enter_context(temporary))
            target = input_path if output_path is None else folder / "output.db"
            with closing(open_input(input_path)) as source:
                if output_path is not None:
                    back_up(source, target)
                private = copy_tables(source, input_path, folder, tuple(TABLES))
            database = stack.enter_context(pycolmap.Database.open(private))
            moved = _update_keypoints(database, graph, xy, appended, input_path)
        touched = _touched_pairs(graph, moved)
        yield RefinedDatabase(database, touched, int(np.count_nonzero(moved)))
        with write_errors(final):
            database.close()
            _transfer(target, private, graph, moved, appended, touched)
            if output_path is not None:
                _check_integrity(target, input_path)
                sync(target)
                target.replace(final)
                sync(final.parent)


def _update_keypoints(
    database: pycolmap.Database,
    graph: MatchGraph,
    xy: npt.NDArray[np.float64],
    appended: Mapping[int, AppendedKeypoints],
    path: Path,
) -> npt.NDArray[np.bool_]:
    """Write the images that have moved or appended keypoints; (n,) which keypoints moved."""
    moved = graph.moved(xy)
    by_id = {image.image_id: rows for image, rows in zip(graph.images, graph.keypoints, strict=True)}
    for i, image in enumerate(graph.images):
        rows = graph.keypoints[i]
        if database.read_keypoints(image.image_id).tobytes() != rows.tobytes():
            raise UserError(f"{path}: keypoints of {image.name} changed during the refinement; run it again")
        where = moved[graph.rows_of(i)]
        if where.any() or image.image_id in appended:
            rows = rows.copy()
            rows[where, :2] = xy[graph.rows_of(i)][where]
            if image.image_id in appended:
                rows = append_rows(rows, appended[image.image_id], by_id)
            database.update_keypoints(image.image_id, rows)
    return moved


def _touched_pairs(graph: MatchGraph, moved: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    touched = np.add.reduceat(moved[graph.edges].any(axis=1), graph.pair_ptr[:-1]) > 0
    ids = [image.image_id for image in graph.images]
    return [(min(ids[i], ids[j]), max(ids[i], ids[j])) for i, j in graph.pairs[touched].tolist()]


def _transfer(
    target: Path,
    private: Path,
    graph: MatchGraph,
    moved: npt.NDArray[np.bool_],
    appended: Mapping[int, AppendedKeypoints],
    touched: list[tuple[int, int]],
) -> None:
    """Carry what changed from the private copy into the target, in one transaction."""
    changed = {graph.images[i].image_id for i in np.unique(graph.image_index[moved]).tolist()}
    rows = {
        ("keypoints", "image_id"): sorted(changed | set(appended)),
        ("two_view_geometries", "pair_id"): [pycolmap.image_pair_to_pair_id(*pair) for pair in touched],
    }
    with closing(sqlite3.connect(target, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS private", (str(private),))
        connection.execute("BEGIN IMMEDIATE")  # closing the connection without COMMIT rolls back
        for (table, key), ids in rows.items():
            names = [name for name in common_columns(connection, table) if name != key]
            old = ", ".join(f"{table}.{name}" for name in names)
            new = ", ".join(f"refined.{name}" for name in names)
            connection.executemany(
                f"UPDATE main.{table} SET ({', '.join(names)}) = ({new}) FROM private.{table} AS refined "
                f"WHERE {table}.{key} = ? AND refined.{key} = {table}.{key} AND ({new}) IS NOT ({old})",
                ((row_id,) for row_id in ids),
            )
        append_descriptors(connection, appended)
        connection.execute("COMMIT")


def _check_integrity(target: Path, input_path: Path) -> None:
    with closing(sqlite3.connect(target)) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise UserError(f"{input_path} is damaged: {verdict}; repair it with `sqlite3 FILE .recover`")
