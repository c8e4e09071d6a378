"""COLMAP databases, read; refined_database.py writes them.

pycolmap encodes and decodes every row, but never opens a file of the user's: `Database.open` alone rewrites
the header, upgrades an older schema in place and needs write access. It gets a private copy of the few tables
that are needed (never the descriptors, which are most of a database), and one transaction carries what
changed to where it belongs.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

import pycolmap

from ..errors import UserError
from ..geometry.match_graph import ImageRecord, MatchGraph, check_match_rows

TABLES = {
    "cameras": {"camera_id", "model", "width", "height", "params", "prior_focal_length"},
    "images": {"image_id", "name", "camera_id"},
    "keypoints": {"image_id", "rows", "cols", "data"},
    "matches": {"pair_id", "rows", "cols", "data"},
    "two_view_geometries": {"pair_id", "rows", "cols", "data", "config"},
}
"""What pixcli needs; all other columns may be missing (older schemas) or more (newer ones)."""
BUSY_SECONDS = 10.0
"""So long another program may hold a database."""


def read_match_graph(
    path: str | os.PathLike[str], matches: Literal["inlier", "raw"] = "inlier"
) -> MatchGraph:
    """Read keypoints and matches: those of the verified two-view geometries, or the raw ones.

    Keypoints that are not finite or lie outside their image are allowed here.
    """
    path = Path(path)
    source = "two_view_geometries" if matches == "inlier" else "matches"
    with (
        closing(open_input(path)) as connection,
        tempfile.TemporaryDirectory(prefix="pixcli-") as folder,
    ):
        private = copy_tables(connection, path, Path(folder), ("cameras", "images", "keypoints", source))
        return _read_graph(private, matches, path)


def read_pose_priors(path: Path) -> dict[str, pycolmap.PosePrior]:
    """The pose priors of a database by the names of their images; none where it has none."""
    needed = {"corr_data_id", "corr_sensor_type", "position", "position_covariance", "coordinate_system"}
    with (
        closing(open_input(path)) as connection,
        tempfile.TemporaryDirectory(prefix="pixcli-") as folder,
    ):
        columns = set(_columns(connection, "pose_priors"))
        if not columns:
            return {}
        if missing := sorted(needed - columns):
            raise UserError(
                f"{path} has an older schema: its table pose_priors lacks {', '.join(missing)}; write it "
                "again with COLMAP 4"
            )
        private = copy_tables(connection, path, Path(folder), ("cameras", "images", "pose_priors"))
        with decode_errors(path), pycolmap.Database.open(private) as database:
            names = {image.image_id: image.name for image in _read_images(database, path)}
            priors = database.read_all_pose_priors()
    camera = pycolmap.SensorType.CAMERA
    return {
        names[prior.corr_data_id.id]: prior
        for prior in priors
        if prior.corr_data_id.sensor_id.type == camera and prior.corr_data_id.id in names
    }


def copy_database(input_path: str | os.PathLike[str], output_path: Path) -> None:
    """Copy a database with all that it holds, newest rows of its write-ahead log included, to a new file."""
    input_path = Path(input_path)
    with write_errors(output_path), closing(open_input(input_path)) as source:
        back_up(source, output_path)


def open_input(path: Path) -> sqlite3.Connection:
    """A read-only connection that leaves no trace beside the file."""
    if not path.is_file():
        raise UserError(f"there is no database {path}: check --database_path")
    try:
        with path.open("rb") as stream:
            magic = stream.read(16)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if magic != b"SQLite format 3\0":
        raise UserError(f"{path} is not a database: expected the SQLite file of `colmap feature_extractor`")
    # Even a read-only connection leaves -wal and -shm files behind unless told that the file is immutable.
    # But where there is a log, the newest rows may be in it; and what a program wrote before it was killed
    # must be rolled back, which takes write access.
    file = path.resolve()
    mode = "immutable=1"
    if file.with_name(f"{file.name}-wal").exists():
        mode = "mode=ro"
    if file.with_name(f"{file.name}-journal").exists():
        mode = "mode=rw"
    try:
        connection = sqlite3.connect(f"{file.as_uri()}?{mode}", uri=True, timeout=BUSY_SECONDS)
        for table, needed in TABLES.items():
            columns = set(_columns(connection, table))
            if not columns and table in ("cameras", "images"):
                raise UserError(f"{path} is not a COLMAP database: it has no table {table}")
            if missing := sorted(needed - columns):
                raise UserError(
                    f"{path} has an older schema: its table {table} lacks {', '.join(missing)}; "
                    "extract and match again with COLMAP 3.4 or later"
                )
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be read as a database: {error}") from error
    return connection


def copy_tables(source: sqlite3.Connection, path: Path, folder: Path, tables: Sequence[str]) -> Path:
    """Copy these tables of the database at path into a new one in folder, for pycolmap to open; its path."""
    private = folder / "private.db"
    try:
        pycolmap.Database.open(private).close()
    except RuntimeError as error:  # it does not say why, but the folder is new and our own
        raise UserError(f"no space in {folder.parent} for a working copy of {path}") from error
    try:
        source.execute("ATTACH ? AS private", (str(private),))
        source.execute("PRAGMA private.synchronous = OFF")
        for table in tables:
            names = ", ".join(common_columns(source, table))
            source.execute(f"INSERT INTO private.{table} ({names}) SELECT {names} FROM main.{table}")
        source.commit()
        source.execute("DETACH private")
    except sqlite3.Error as error:
        if "full" in str(error) or "disk I/O" in str(error):
            raise UserError(f"no space in {folder.parent} for a working copy of {path}: {error}") from error
        raise UserError(f"{path} cannot be read: {error}") from error
    return private


def _read_graph(private: Path, matches: str, path: Path) -> MatchGraph:
    with decode_errors(path), pycolmap.Database.open(private) as database:
        images = _read_images(database, path)
        keypoints = [_read_keypoints(database, image, path) for image in images]
        offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in keypoints], dtype=np.int64)])
        if offsets[-1] == 0:
            raise UserError(f"{path} holds no keypoints: run `colmap feature_extractor` on it first")
        if offsets[-1] > np.iinfo(np.int32).max:
            raise UserError(f"{path} holds {offsets[-1]} keypoints, more than the 2^31 that are supported")
        pairs, pair_ptr, ids = _read_pairs(database, images, matches, path)
        edges = np.empty((int(pair_ptr[-1]), 2), np.int32)
        for k, (id1, id2) in enumerate(ids):
            if matches == "inlier":
                rows = database.read_two_view_geometry(id1, id2).inlier_matches
            else:
                rows = database.read_matches(id1, id2)
            first, second = pairs[k]
            counts = len(keypoints[first]), len(keypoints[second])
            try:
                check_match_rows(rows, images[first].name, images[second].name, counts)
            except UserError as error:
                raise UserError(f"{path}, {matches} matches: {error}") from None
            edges[pair_ptr[k] : pair_ptr[k + 1]] = rows + offsets[[first, second]]
    return MatchGraph(images, keypoints, offsets, edges, pairs, pair_ptr)


def _read_images(database: pycolmap.Database, path: Path) -> list[ImageRecord]:
    cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
    images = []
    for image in sorted(database.read_all_images(), key=lambda image: str(image.name)):
        if (camera := cameras.get(image.camera_id)) is None:
            raise UserError(f"{path}: image {image.name} has camera {image.camera_id}, which does not exist")
        images.append(ImageRecord(image.name, camera.width, camera.height, image.image_id))
    if not images:
        raise UserError(f"{path} holds no images: run `colmap feature_extractor` on it first")
    return images


def _read_keypoints(database: pycolmap.Database, image: ImageRecord, path: Path) -> npt.NDArray[np.float32]:
    rows: npt.NDArray[np.float32] = database.read_keypoints(image.image_id)
    if len(rows) == 0:
        return np.empty((0, 2), np.float32)
    if rows.shape[1] not in (2, 4, 6):
        raise UserError(f"{path}: keypoints of {image.name} have {rows.shape[1]} columns, not 2, 4 or 6")
    return rows


def _read_pairs(
    database: pycolmap.Database, images: list[ImageRecord], matches: str, path: Path
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], list[tuple[int, int]]]:
    """The image pairs that have matches, sorted by image index: indices, pair_ptr, and ids in that order."""
    if matches == "inlier":
        pair_ids, counts = database.read_two_view_geometry_num_inliers()
    else:
        pair_ids, counts = database.read_num_matches()
    index = {image.image_id: i for i, image in enumerate(images)}
    found: list[tuple[int, int, int, int, int]] = []
    for pair_id, count in zip(pair_ids, counts, strict=True):
        if count == 0:
            continue
        ids = pycolmap.pair_id_to_image_pair(pair_id)
        if missing := [image_id for image_id in ids if image_id not in index]:
            raise UserError(f"{path}: {matches} matches of image {missing[0]}, which does not exist")
        (i, id1), (j, id2) = sorted((index[image_id], image_id) for image_id in ids)
        found.append((i, j, id1, id2, count))
    if not found:
        if matches == "inlier":
            command = "colmap exhaustive_matcher (or geometric_verifier, if it is matched already)"
            raise UserError(f"{path} holds no two-view geometries: run {command} on it first")
        raise UserError(f"{path} holds no matches: run `colmap exhaustive_matcher` on it first")
    found.sort()
    pairs = np.array([row[:2] for row in found], np.int32)
    pair_ptr = np.concatenate([[0], np.cumsum([row[4] for row in found], dtype=np.int64)])
    return pairs, pair_ptr, [row[2:4] for row in found]


def back_up(source: sqlite3.Connection, target: Path) -> None:
    """Copies all of a database into a new file."""
    with closing(sqlite3.connect(target)) as connection:
        source.backup(connection)
        # A write-ahead log would part from the file when that is renamed; COLMAP turns it on again.
        connection.execute("PRAGMA journal_mode = DELETE")


def has_table(connection: sqlite3.Connection, table: str) -> bool:
    """Whether a database has a table: older schemas lack some."""
    return bool(_columns(connection, table))


def _columns(connection: sqlite3.Connection, table: str, schema: str = "main") -> list[str]:
    rows = connection.execute("SELECT name FROM pragma_table_info(?, ?)", (table, schema))
    return [name for (name,) in rows]


def common_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """The columns of a table in both databases: those of older and newer schemas differ, also in order."""
    private = set(_columns(connection, table, "private"))
    return [name for name in _columns(connection, table) if name in private]


@contextmanager
def decode_errors(path: Path) -> Iterator[None]:
    """pycolmap raises these for rows whose size does not fit their data."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} holds rows that COLMAP cannot decode: {error}") from error


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Tell in a user's words why path could not be written; pycolmap's errors are RuntimeErrors."""
    try:
        yield
    except (sqlite3.Error, OSError, RuntimeError) as error:
        reason = "another program is using it" if "locked" in str(error) else str(error)
        if "No registered database factory" in reason:  # all that pycolmap says where a new file has no room
            reason = "database or disk is full"
        remedy = "; make room on its disk" if "full" in reason or "disk I/O" in reason else ""
        raise UserError(f"{path} cannot be written: {reason}; nothing was changed{remedy}") from error
