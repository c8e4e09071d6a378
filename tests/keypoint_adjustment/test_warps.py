"""First guesses of local warps."""

import numpy as np
import pytest

from pixcli.keypoint_adjustment.first_warps import (
    frames_of,
    searched_warps,
    warps_from_frames,
    warps_from_neighbors,
)

import pycolmap

ROWS = np.array([[10, 20, 2.5, 0.7], [30, 5, 0.8, -2.9], [1, 2, 4.0, np.pi / 2]], np.float32)


def test_scale_and_orientation_make_the_frame_that_colmap_makes():
    for row, frame in zip(ROWS, frames_of(ROWS), strict=True):
        a11, a12, a21, a22 = frame.ravel()
        keypoint = pycolmap.FeatureKeypoint(x=row[0], y=row[1], a11=a11, a12=a12, a21=a21, a22=a22)
        assert keypoint.compute_scale() == pytest.approx(row[2], rel=1e-5)
        assert keypoint.compute_orientation() == pytest.approx(row[3], abs=1e-5)
        assert keypoint.compute_shear() == pytest.approx(0, abs=1e-5)


def test_six_columns_are_the_frame():
    rows = np.array([[1, 2, 3, 4, 5, 6]], np.float32)
    np.testing.assert_array_equal(frames_of(rows)[0], [[3, 4], [5, 6]])


def test_two_columns_have_no_frame():
    assert np.isnan(frames_of(ROWS[:, :2])).all()
    assert frames_of(ROWS[:, :2]).shape == (3, 2, 2)


def test_a_warp_leads_from_frame_to_frame():
    frames = np.concatenate(
        [frames_of(ROWS), np.random.default_rng(0).normal(0, 1, (1, 2, 2)) + 2 * np.eye(2)]
    )
    warps = warps_from_frames(frames, np.array([0, 1, 0]), np.array([1, 0, 3]))
    np.testing.assert_allclose(warps @ frames[[0, 1, 0]], frames[[1, 0, 3]], atol=1e-5)
    np.testing.assert_allclose(warps[0] @ warps[1], np.eye(2), atol=1e-5)


@pytest.mark.parametrize(
    "frame",
    [np.full((2, 2), np.nan), np.zeros((2, 2)), np.diag([1.0, -1.0]), np.full((2, 2), np.inf)],
    ids=["unknown", "flat", "mirrored", "infinite"],
)
def test_frames_of_no_use_give_no_warp(frame):
    frames = np.stack([frame, np.eye(2)])
    warps = warps_from_frames(frames, np.array([0, 1, 1]), np.array([1, 0, 1]))
    assert np.isnan(warps[:2]).all()
    np.testing.assert_array_equal(warps[2], np.eye(2))


class Matches:
    """Points of one image matched to two others by known affine maps."""

    def __init__(self, count=60, noise=0.0, seed=0):
        rng = np.random.default_rng(seed)
        points = rng.uniform(0, 400, (count, 2))
        self.maps = [np.array([[1.2, 0.3], [-0.2, 0.9]]), np.array([[0.5, -0.6], [0.7, 0.4]])]
        views = [points, *[points @ m.T + [50, 20] for m in self.maps]]
        self.xy = np.concatenate(views) + rng.normal(0, noise, (3 * count, 2))
        self.image = np.repeat(np.arange(3), count)
        index = np.arange(count)
        # One pair is listed the other way around, as a graph may.
        self.edges = np.concatenate(
            [np.stack([index, index + count], 1), np.stack([index + 2 * count, index], 1)]
        )
        self.count = count

    def fit(self, source, target):
        return warps_from_neighbors(self.xy, self.image, self.edges, np.asarray(source), np.asarray(target))


def test_neighbours_tell_the_warp():
    matches = Matches()
    n = matches.count
    first = matches.fit(np.arange(n), np.arange(n) + n)
    assert np.abs(first - matches.maps[0]).max() < 0.01
    back = matches.fit(np.arange(n) + n, np.arange(n))
    assert np.abs(back - np.linalg.inv(matches.maps[0])).max() < 0.01
    second = matches.fit([3, 3 + 2 * n], [3 + 2 * n, 3])
    assert np.abs(second[0] - matches.maps[1]).max() < 0.01
    assert np.abs(second[1] - np.linalg.inv(matches.maps[1])).max() < 0.01


def test_a_few_wrong_neighbours_do_not_matter():
    matches = Matches(noise=0.2, seed=1)
    n = matches.count
    wrong = np.random.default_rng(2).choice(n, n // 6, replace=False)
    matches.xy[n + wrong] += [60, -80]
    right = np.setdiff1d(np.arange(n), wrong)
    error = np.abs(matches.fit(right, right + n) - matches.maps[0]).max((1, 2))
    assert np.nanmedian(error) < 0.02
    assert (error < 0.1).mean() > 0.85  # where wrong ones are the majority, nothing is told


def test_too_few_neighbours_tell_nothing():
    matches = Matches(count=4)
    assert np.isnan(matches.fit([0], [4])).all()


def test_neighbours_that_do_not_agree_tell_nothing():
    """Random matches: no affine map explains five of them."""
    rng = np.random.default_rng(3)
    xy = rng.uniform(0, 2000, (40, 2))
    edges = np.stack([np.arange(20), np.arange(20, 40)], 1)
    warps = warps_from_neighbors(xy, np.repeat([0, 1], 20), edges, np.arange(20), np.arange(20, 40))
    assert np.isnan(warps).all((1, 2)).mean() > 0.8


def test_the_search_is_of_rotations_and_scales():
    warps = searched_warps()
    scale = np.sqrt(np.linalg.det(warps))
    np.testing.assert_array_equal(warps[0], np.eye(2))
    np.testing.assert_allclose(np.unique(np.round(scale, 6)), [0.625, 1, 1.6])
    np.testing.assert_allclose(
        warps @ np.swapaxes(warps, 1, 2), scale[:, None, None] ** 2 * np.eye(2), atol=1e-12
    )
