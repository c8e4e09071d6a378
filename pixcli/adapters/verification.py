"""Two-view geometries in databases, as COLMAP estimates them: first ones, and those of moved keypoints."""

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.io.hloc import write_pairs
from pixcli.options.colmap import TwoViewGeometryOptions, applied
from pixcli.progress import Update

import pycolmap

_Data = tuple[Any, npt.NDArray[np.float64], Any, npt.NDArray[np.float64], npt.NDArray[np.uint32]]

# What an estimate from two images alone would falsify: geometries of whole rigs, of several motions in one
# pair, and watermarks, on which nothing is to be built.
_LEFT_ALONE = {
    int(configuration)
    for configuration in (
        pycolmap.TwoViewGeometryConfiguration.CALIBRATED_RIG,
        pycolmap.TwoViewGeometryConfiguration.MULTIPLE,
        pycolmap.TwoViewGeometryConfiguration.WATERMARK,
    )
}


@dataclass
class VerificationCounts:
    """What re-verification did to the touched image pairs."""

    updated: int = 0
    """Pairs with a new geometry."""
    lost: int = 0
    """Pairs that would have lost all inliers; kept as they were."""
    left_alone: int = 0
    """Pairs without a stored geometry, or with one of a rig, of multiple motions or of a watermark."""
    inliers_before: int = 0
    """Inlier matches of the updated pairs, before and after."""
    inliers_after: int = 0


def geometry_options(options: TwoViewGeometryOptions, seed: int) -> pycolmap.TwoViewGeometryOptions:
    """COLMAP's own object with the values of a group."""
    geometry = applied(options, pycolmap.TwoViewGeometryOptions())
    geometry.ransac.random_seed = seed
    return geometry


def verify_matches(database_path: Path, options: TwoViewGeometryOptions, seed: int) -> dict[str, int]:
    """Verify all raw matches of a database; counts as of match_counts."""
    with pycolmap.Database.open(database_path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        pairs = [
            pycolmap.pair_id_to_image_pair(pair_id) for pair_id in sorted(database.read_num_matches()[0])
        ]
    with tempfile.TemporaryDirectory(prefix="pixcli-") as folder:
        listed = Path(folder) / "pairs.txt"
        write_pairs(listed, [(names[a], names[b]) for a, b in pairs])
        pycolmap.set_random_seed(seed)
        pycolmap.verify_matches(database_path, listed, geometry_options(options, seed))
    return match_counts(database_path)


def match_counts(database_path: Path) -> dict[str, int]:
    """How many pairs of a database have matches and verified ones, and how many these are."""
    with pycolmap.Database.open(database_path) as database:
        _, inliers = database.read_two_view_geometry_num_inliers()
        inliers = [count for count in inliers if count > 0]
        return {
            "pairs": database.num_matched_image_pairs(),
            "verified_pairs": len(inliers),
            "matches": database.num_matches(),
            "inlier_matches": sum(inliers),
        }


def verify_pairs(
    database: pycolmap.Database,
    pairs: Sequence[tuple[int, int]],
    options: TwoViewGeometryOptions | None = None,
    *,
    seed: int = 0,
    num_threads: int = -1,
    update: Update | None = None,
) -> VerificationCounts:
    """Re-estimate the geometries of pairs (image ids, smaller first) from the keypoints now in the database.

    Candidates are the raw matches and, since guided matching adds to them, the stored inliers. Every pair has
    its own random numbers, so that results depend neither on the number of threads nor on what else is
    verified. update is called with the number of pairs done so far.
    """
    geometry = geometry_options(options or TwoViewGeometryOptions(), seed)
    read = _candidate_reader(database)
    counts = VerificationCounts()
    workers = num_threads if num_threads > 0 else cpu_count() or 1
    # The database is used by this thread alone; a few pairs at a time bound the memory.
    with ThreadPoolExecutor(workers) as executor:
        for start in range(0, len(pairs), 8 * workers):
            batch = pairs[start : start + 8 * workers]
            jobs = [read(pair) for pair in batch]
            results = executor.map(lambda job: job[1] and _estimate(job[1], job[0], geometry), jobs)
            for pair, (stored, _), estimated in zip(batch, jobs, results, strict=True):
                if estimated is None:
                    counts.left_alone += 1
                elif len(estimated.inlier_matches) == 0:
                    counts.lost += 1
                else:
                    database.update_two_view_geometry(*pair, estimated)
                    counts.updated += 1
                    counts.inliers_before += len(stored.inlier_matches)
                    counts.inliers_after += len(estimated.inlier_matches)
            if update:
                update(start + len(batch))
    return counts


def _candidate_reader(
    database: pycolmap.Database,
) -> Callable[[tuple[int, int]], tuple[Any, _Data | None]]:
    """Reads the stored geometry of a pair and, if it is to be estimated again, from what."""
    cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
    camera_of = {image.image_id: cameras[image.camera_id] for image in database.read_all_images()}
    points: dict[int, npt.NDArray[np.float32]] = {}

    def xy(image_id: int) -> npt.NDArray[np.float64]:
        if image_id not in points:
            points[image_id] = np.ascontiguousarray(database.read_keypoints(image_id)[:, :2])
        return points[image_id].astype(np.float64)

    def read(pair: tuple[int, int]) -> tuple[Any, _Data | None]:
        stored = database.read_two_view_geometry(*pair) if database.exists_two_view_geometry(*pair) else None
        if stored is None or stored.config in _LEFT_ALONE:
            return stored, None
        xy1, xy2 = xy(pair[0]), xy(pair[1])
        try:
            raw = database.read_matches(*pair)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the raw matches of images {pair[0]} and {pair[1]} are damaged: {error}"
            ) from error
        matches = _candidates(raw, stored.inlier_matches, xy1, xy2)
        # A view-graph calibration stores its own cameras with the pair.
        camera1, camera2 = stored.camera1 or camera_of[pair[0]], stored.camera2 or camera_of[pair[1]]
        return stored, (camera1, xy1, camera2, xy2, matches)

    return read


def _candidates(
    raw: npt.NDArray[np.uint32],
    inliers: npt.NDArray[np.uint32],
    xy1: npt.NDArray[np.float64],
    xy2: npt.NDArray[np.float64],
) -> npt.NDArray[np.uint32]:
    """(m, 2) raw matches, then inliers that are not among them; only those of existing, finite keypoints."""
    key = np.array([1 << 32, 1], np.uint64)
    guided = ~np.isin(inliers.astype(np.uint64) @ key, raw.astype(np.uint64) @ key)
    matches = np.concatenate([raw, inliers[guided]])
    matches = matches[(matches[:, 0] < len(xy1)) & (matches[:, 1] < len(xy2))]
    finite = np.isfinite(xy1[matches[:, 0]]).all(axis=1) & np.isfinite(xy2[matches[:, 1]]).all(axis=1)
    kept: npt.NDArray[np.uint32] = matches[finite]
    return kept


def _estimate(data: _Data, stored: Any, options: pycolmap.TwoViewGeometryOptions) -> Any:
    """The new geometry, with everything that the stored one has."""
    if stored.cam2_from_cam1 is not None:
        options = copy(options)
        options.compute_relative_pose = True
    estimated = pycolmap.estimate_two_view_geometry(*data, options)
    estimated.camera1, estimated.camera2 = stored.camera1, stored.camera2
    return estimated
