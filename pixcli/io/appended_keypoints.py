"""Keypoints that are added to a database behind those that it has, with their rows of other tables."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class AppendedKeypoints:
    """Keypoints that an image gets; what no detector has said of them is taken over from another keypoint.

    That is one of the same 3D point in another image, its donor: its shape and its descriptor.
    """

    xy: npt.NDArray[np.float64]
    """(k, 2) COLMAP pixels."""
    donors: list[tuple[int, int]]
    """Of each: image id of the database, and row."""


def append_rows(
    rows: npt.NDArray[np.float32],
    appended: AppendedKeypoints,
    keypoints: Mapping[int, npt.NDArray[np.float32]],
) -> npt.NDArray[np.float32]:
    """An image's keypoints with the appended ones; `keypoints` are those of all images, by id."""
    added = np.zeros((len(appended.xy), rows.shape[1]), np.float32)
    for k, (image_id, row) in enumerate(appended.donors):
        donor = keypoints[image_id][row]
        added[k, : len(donor)] = donor[: added.shape[1]]
    added[:, :2] = appended.xy
    return np.concatenate([rows, added])


def append_descriptors(connection: sqlite3.Connection, appended: Mapping[int, AppendedKeypoints]) -> None:
    """Lengthen the descriptors of images (by id) as their keypoints were, in the transaction that is open.

    Images without descriptors, or whose donors have none of the same length, keep what they have.
    """

    def read(image_id: int) -> tuple[int, bytes]:
        query = "SELECT rows, data FROM main.descriptors WHERE image_id = ?"
        return connection.execute(query, (image_id,)).fetchone() or (0, b"")

    if not connection.execute("SELECT 1 FROM pragma_table_info('descriptors')").fetchone():
        return
    longer = []
    for image_id, keypoints in appended.items():
        rows, data = read(image_id)
        size = len(data) // rows if rows else 0
        parts = [data]
        for donor, row in keypoints.donors:
            count, others = read(donor)
            parts.append(others[row * size : (row + 1) * size] if count * size == len(others) else b"")
        longer_data = b"".join(parts)
        if size and len(longer_data) == (rows + len(keypoints.donors)) * size:
            longer.append((rows + len(keypoints.donors), longer_data, image_id))
    connection.executemany("UPDATE main.descriptors SET rows = ?, data = ? WHERE image_id = ?", longer)
