"""Re-verification of two-view geometries, on data synthesized by pycolmap."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from pixcli.adapters.verification import verify_pairs

PAIRS = [(i, j) for i in range(1, 5) for j in range(i + 1, 5)]
Configuration = pycolmap.TwoViewGeometryConfiguration


@pytest.fixture
def database(tmp_path: Path) -> Iterator[pycolmap.Database]:
    """Four images of 60 points; every pair has 60 true matches, verified, and about ten wrong ones."""
    pycolmap.set_random_seed(1)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1,
        num_frames_per_rig=4,
        num_points3D=60,
        inlier_match_ratio=0.85,
        camera_has_prior_focal_length=True,
    )
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        pycolmap.synthesize_dataset(options, database)
        yield database


def snapshot(database: pycolmap.Database) -> list[tuple[int, bytes, bytes, bytes]]:
    geometries = [database.read_two_view_geometry(*pair) for pair in PAIRS]
    return [
        (int(g.config), g.inlier_matches.tobytes(), np.asarray(g.E).tobytes(), np.asarray(g.F).tobytes())
        for g in geometries
    ]


def shake(database: pycolmap.Database, image_id: int, sigma: float) -> None:
    rows = database.read_keypoints(image_id).copy()
    rows[:, :2] += np.random.default_rng(0).normal(scale=sigma, size=(len(rows), 2))
    database.update_keypoints(image_id, rows)


def test_true_matches_stay_inliers_and_wrong_ones_do_not_enter(database: pycolmap.Database) -> None:
    shake(database, 2, 0.2)
    before = snapshot(database)
    progress: list[int] = []
    counts = verify_pairs(database, [(1, 2), (2, 3)], num_threads=2, update=progress.append)
    assert (counts.updated, counts.lost, counts.left_alone) == (2, 0, 0)
    assert counts.inliers_before == 120
    assert progress[-1] == 2
    kept = 0
    for pair in [(1, 2), (2, 3)]:
        inliers = {tuple(row) for row in database.read_two_view_geometry(*pair).inlier_matches.tolist()}
        truth = np.frombuffer(before[PAIRS.index(pair)][1], np.uint32).reshape(-1, 2)
        kept += len(inliers & {tuple(row) for row in truth.tolist()})
        assert len(inliers) <= len(database.read_matches(*pair))
    assert kept == 120
    assert (
        counts.inliers_after <= 124
    )  # of some twenty wrong ones, those that happen to fit the epipolar line
    after = snapshot(database)
    changed = [pair for pair, old, new in zip(PAIRS, before, after, strict=True) if old != new]
    assert changed == [(1, 2), (2, 3)]


@pytest.mark.parametrize("num_threads", [1, 3, -1])
def test_result_depends_on_the_seed_alone(database: pycolmap.Database, num_threads: int) -> None:
    shake(database, 1, 1.0)
    verify_pairs(database, PAIRS, num_threads=2, seed=7)
    expected = snapshot(database)
    verify_pairs(database, PAIRS[::-1], num_threads=num_threads, seed=7)
    assert snapshot(database) == expected


def test_result_is_colmaps_own(database: pycolmap.Database, tmp_path: Path) -> None:
    shake(database, 1, 0.5)
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = 3
    verify_pairs(database, PAIRS, seed=3)
    ours = snapshot(database)
    database.clear_two_view_geometries()
    pycolmap.geometric_verification(tmp_path / "database.db", two_view_geometry_options=options)
    assert [row[:2] for row in ours] == [row[:2] for row in snapshot(database)]


def test_pair_that_loses_all_inliers_is_kept_and_counted(database: pycolmap.Database) -> None:
    before = snapshot(database)
    shake(database, 3, 300.0)
    counts = verify_pairs(database, PAIRS)
    assert counts.updated + counts.lost == 6
    assert counts.lost == 3
    after = snapshot(database)
    for pair, old, new in zip(PAIRS, before, after, strict=True):
        if 3 in pair:
            assert old == new


@pytest.mark.parametrize("config", ["CALIBRATED_RIG", "MULTIPLE", "WATERMARK"])
def test_geometries_that_two_images_cannot_give_are_left_alone(
    database: pycolmap.Database, config: str
) -> None:
    geometry = database.read_two_view_geometry(1, 2)
    geometry.config = getattr(Configuration, config)
    database.update_two_view_geometry(1, 2, geometry)
    database.delete_two_view_geometry(1, 3)
    shake(database, 1, 0.5)
    before = snapshot(database)
    counts = verify_pairs(database, [(1, 2), (1, 3), (1, 4)])
    assert (counts.updated, counts.left_alone) == (1, 2)
    assert snapshot(database)[:2] == before[:2]
    assert not database.exists_two_view_geometry(1, 3)


def test_guided_inliers_survive(database: pycolmap.Database) -> None:
    """Inliers that are no raw matches, as guided matching and imports without raw matches leave them."""
    inliers = database.read_two_view_geometry(1, 2).inlier_matches
    database.delete_matches(1, 2)
    database.write_matches(1, 2, inliers[:20])
    database.delete_matches(1, 3)
    shake(database, 1, 0.2)
    counts = verify_pairs(database, [(1, 2), (1, 3)])
    assert (counts.inliers_before, counts.inliers_after) == (120, 120)


def test_relative_pose_is_renewed_where_there_was_one(database: pycolmap.Database) -> None:
    geometry = database.read_two_view_geometry(1, 2)
    geometry.cam2_from_cam1 = pycolmap.Rigid3d()
    database.update_two_view_geometry(1, 2, geometry)
    shake(database, 1, 0.2)
    verify_pairs(database, [(1, 2), (1, 3)])
    pose = database.read_two_view_geometry(1, 2).cam2_from_cam1
    assert pose is not None
    assert np.linalg.norm(pose.translation) == pytest.approx(1.0)
    assert database.read_two_view_geometry(1, 3).cam2_from_cam1 is None


def test_invalid_keypoints_are_no_candidates(database: pycolmap.Database) -> None:
    matches = database.read_two_view_geometry(1, 2).inlier_matches
    rows = database.read_keypoints(1).copy()
    rows[matches[:5, 0], 0] = np.nan
    database.update_keypoints(1, rows)
    raw = database.read_matches(1, 2)
    database.delete_matches(1, 2)
    database.write_matches(1, 2, np.vstack([raw, [[10**6, 3]]]).astype(np.uint32))
    counts = verify_pairs(database, [(1, 2)])
    assert counts.updated == 1
    inliers = database.read_two_view_geometry(1, 2).inlier_matches
    assert not np.isin(inliers[:, 0], matches[:5, 0]).any()
    assert 55 <= len(inliers) <= 58
