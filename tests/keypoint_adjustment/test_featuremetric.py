"""Featuremetric adjustment against exact truth, its guard, and bad input."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pixcli.errors import UserError
from pixcli.options.interpolation import InterpolationOptions
from pixcli.sampling.status import Status


def test_keypoints_end_near_the_truth(feature_tracks):
    tracks = feature_tracks(30, 4, channels=64)
    result = tracks.adjust()
    moved = result.status == Status.MOVED
    assert (result.status[tracks.roots] == Status.ROOT).all()
    assert moved.sum() > 0.95 * 90
    before, after = (np.abs(xy - tracks.truth)[moved].mean() for xy in (tracks.xy, result.xy))
    assert after < 0.1 * before
    assert result.cost_after < 0.2 * result.cost_before
    np.testing.assert_array_equal(result.xy[~moved], tracks.xy[~moved])
    np.testing.assert_array_equal(np.isnan(result.covariance).any(1), ~moved)


def _normalized_error(tracks, result):
    moved = result.status == Status.MOVED
    xx, xy, yy = result.covariance[moved].astype(float).T
    x, y = (result.xy - tracks.truth)[moved].T
    return ((yy * x * x - 2 * xy * x * y + xx * y * y) / (xx * yy - xy * xy)).mean() / 2


@pytest.mark.parametrize("length", [2, 4])
@pytest.mark.parametrize("noise", [0.03, 0.15])
def test_covariance_is_calibrated(feature_tracks, length, noise):
    """A squared normalized error of two coordinates is 2 in the mean, whatever the noise or the edges."""
    tracks = feature_tracks(240 // length, length, channels=64, noise=noise, seed=7)
    result = tracks.adjust()
    assert 0.7 < _normalized_error(tracks, result) < 1.6


def test_correlated_channels_count_less(feature_tracks):
    """Each channel four times over is no new information: the same covariance, not a quarter of it."""
    tracks = feature_tracks(60, 3, channels=16, noise=0.1, seed=8)
    once = tracks.adjust()
    tracks.data = np.tile(tracks.data, 4)
    again = tracks.adjust()
    ratio = np.nanmedian(again.covariance[:, 0] / once.covariance[:, 0])
    assert 0.8 < ratio < 1.25


def test_the_result_does_not_depend_on_threads(feature_tracks, options):
    tracks = feature_tracks(60, 3, seed=9, error=1.5)
    changed = replace(options, max_deviation=0.05)
    first = tracks.adjust(replace(changed, num_threads=1))
    assert len(np.unique(first.status)) > 2  # the guard was at work
    for num_threads in (2, 5):
        other = tracks.adjust(replace(changed, num_threads=num_threads))
        for name in ("xy", "status", "covariance"):
            assert getattr(first, name).tobytes() == getattr(other, name).tobytes()
        assert first.cost_after == other.cost_after


def test_portable_kernels_agree(feature_tracks):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import Tracks
sys.stdout.buffer.write(Tracks(5, 3).adjust().xy.tobytes())
"""
    command = [sys.executable, "-P", "-c", code, os.path.dirname(__file__)]
    result = subprocess.run(command, capture_output=True, env={**os.environ, "PIXCLI_ISA": "baseline"})
    assert result.returncode == 0, result.stderr.decode()
    np.testing.assert_allclose(
        np.frombuffer(result.stdout).reshape(-1, 2), feature_tracks(5, 3).adjust().xy, atol=1e-4
    )


def _sparse(tracks, seed=0):
    """A chain with some chords in place of all pairs."""
    rng = np.random.default_rng(seed)
    chain = np.stack([np.arange(tracks.n - 1), np.arange(1, tracks.n)], 1)
    chords = rng.integers(0, tracks.n, (4 * tracks.n, 2))
    tracks.edges = np.concatenate([chain, chords[chords[:, 0] != chords[:, 1]]])
    return tracks


def test_long_tracks_are_solved_like_short_ones(feature_tracks):
    tracks = _sparse(feature_tracks(1, 120, channels=8, seed=10))
    dense, iterative = (tracks.solve(max_kps_per_problem=limit) for limit in (1000, 50))
    difference = np.abs(dense["xy"] - iterative["xy"])
    assert np.quantile(difference, 0.95) < 1e-3  # the cost hardly changes with the position of a few
    assert difference.max() < 0.05
    np.testing.assert_allclose(dense["cost_after"], iterative["cost_after"], rtol=1e-6)


def test_a_track_of_two_thousand(feature_tracks):
    tracks = _sparse(feature_tracks(1, 2000, channels=8, error=0.4, seed=11))
    result = tracks.adjust()
    moved = result.status == Status.MOVED
    assert moved.mean() > 0.9
    error = (result.xy - tracks.truth)[moved]
    drift = np.median(error, 0)  # a root is a weak anchor for so many
    assert np.median(np.abs(error - drift)) < 0.3 * np.median(np.abs(tracks.xy - tracks.truth))


def test_coarse_to_fine_reaches_further(feature_tracks):
    tracks = feature_tracks(20, 3, channels=32, smoothness=0.8, error=3.2, noise=0.02, seed=12)
    single = tracks.adjust()
    coarse = tracks.patches()
    coarse.data = gaussian_filter(tracks.data, (0, 2.5, 2.5, 0), mode="wrap")
    double = tracks.adjust(levels=[(coarse, None), (tracks.patches(), np.arange(tracks.n))])

    def found(result):
        return (np.abs(result.xy - tracks.truth).max(1) < 0.1).sum()

    assert found(double) > found(single) + 5
    assert single.cost_before == double.cost_before


def test_topological_reference_uses_root_edges_alone(feature_tracks, options):
    tracks = feature_tracks(5, 4, seed=13)
    changed = replace(options, strategy="topological_reference")
    result = tracks.adjust(changed)
    keep = np.isin(tracks.edges[:, 0], tracks.roots)
    tracks.edges = tracks.edges[keep]
    expected = tracks.adjust()
    np.testing.assert_allclose(result.xy, expected.xy, atol=1e-4)
    tracks.edges = np.array([[0, 1], [1, 2]])  # every member is compared with the root, matched or not
    np.testing.assert_array_equal(tracks.adjust(changed).xy, result.xy)


def test_root_regularize_weight_adds_the_missing_root_edges(feature_tracks, options):
    tracks = feature_tracks(1, 4, seed=14)
    tracks.edges = np.array([[0, 1], [1, 2], [2, 3]])
    added = tracks.adjust(replace(options, root_regularize_weight=0.5))
    tracks.edges = np.array([[0, 1], [1, 2], [2, 3], [0, 2], [0, 3]])
    tracks.weights = np.array([1, 1, 1, 0.5, 0.5])
    np.testing.assert_allclose(added.xy, tracks.adjust().xy, atol=1e-4)
    unweighted = tracks.adjust(replace(options, weight_by_score=False))
    assert np.abs(added.xy - unweighted.xy).max() > 1e-4


def test_edges_between_tracks_and_unmatched_keypoints_take_no_part(feature_tracks):
    tracks = feature_tracks(2, 3, seed=15)
    expected = tracks.adjust()
    tracks.edges = np.concatenate([tracks.edges, [[0, 4], [2, 2]]])
    np.testing.assert_array_equal(tracks.adjust().xy, expected.xy)
    tracks.edges = tracks.edges[~np.isin(tracks.edges, 5).any(1)]
    result = tracks.adjust()
    assert result.status[5] == Status.UNMATCHED
    np.testing.assert_array_equal(result.xy[5], tracks.xy[5])
    np.testing.assert_array_equal(result.xy[:3], expected.xy[:3])


def test_a_keypoint_on_its_bound_goes_back_and_the_rest_is_solved_around_it(feature_tracks, options):
    tracks = feature_tracks(1, 4, seed=16, error=0.3)
    tracks.xy[2] = tracks.truth[2] + [1.5, 0]
    result = tracks.adjust(replace(options, bound=1.0))
    assert result.status.tolist() == [Status.ROOT, Status.MOVED, Status.OUT_OF_BOUND, Status.MOVED]
    np.testing.assert_array_equal(result.xy[2], tracks.xy[2])
    tracks.constant = np.arange(4) == 2
    held = tracks.adjust(replace(options, bound=1.0))
    np.testing.assert_allclose(result.xy, held.xy, atol=1e-4)
    np.testing.assert_allclose(result.cost_after, held.cost_after, rtol=1e-5)


def test_weak_texture_goes_back(feature_tracks, options):
    tracks = feature_tracks(20, 3, seed=17)
    tracks.data[4] = tracks.data[4].mean((0, 1)) + 1e-3 * np.random.default_rng(0).standard_normal(
        tracks.data[4].shape
    )
    tracks.data[7] = tracks.data[7].mean((0, 1))
    result = tracks.adjust(replace(options, max_deviation=0.5))
    assert (result.status[[4, 7]] != Status.MOVED).all()
    assert result.status[7] == Status.WEAK_TEXTURE
    np.testing.assert_array_equal(result.xy[[4, 7]], tracks.xy[[4, 7]])
    assert (result.status == Status.MOVED).sum() > 30


def test_a_keypoint_that_would_cost_more_goes_back(feature_tracks):
    """Keypoint 1 agrees with keypoint 2 where that was detected; a heavy edge then moves keypoint 2 away."""
    tracks = feature_tracks(1, 3, seed=18, noise=0)
    tracks.xy[1:] = tracks.truth[1:] + np.array([0.8, -0.8])
    away = np.indices(tracks.data.shape[1:3]).transpose(1, 2, 0)[..., ::-1] - (
        tracks.xy[1] - 0.5 - tracks.corners[1]
    )
    window = np.exp(-0.5 * (away**2).sum(-1) / 1.2**2)[..., None]
    tracks.data[1] = window * tracks.data[1] + (1 - window) * feature_tracks(1, 1, seed=99).data[0]
    tracks.edges = np.array([[0, 2], [1, 2]])
    tracks.weights = np.array([100.0, 0.01])
    result = tracks.adjust()
    assert result.status.tolist() == [Status.ROOT, Status.WORSE_SCORE, Status.MOVED]
    np.testing.assert_array_equal(result.xy[1], tracks.xy[1])
    np.testing.assert_allclose(result.xy[2], tracks.truth[2], atol=0.05)


@pytest.mark.parametrize("broken", ["xy", "features", "no patch", "root"])
def test_invalid_keypoints_are_left_out(feature_tracks, broken):
    tracks = feature_tracks(1, 4, seed=19)
    rows = np.arange(4)
    which = 0 if broken == "root" else 2
    if broken in ("xy", "root"):
        tracks.xy[which, 0] = np.nan
    elif broken == "features":
        tracks.data[which, :, :, 3] = np.nan
    else:
        rows[which] = -1
    result = tracks.adjust(levels=[(tracks.patches(), rows)])
    expected = [Status.ROOT, Status.MOVED, Status.INVALID, Status.MOVED]
    if broken == "root":
        expected = [Status.INVALID, Status.ROOT, Status.MOVED, Status.MOVED]
    assert result.status.tolist() == expected
    np.testing.assert_array_equal(result.xy[which], tracks.xy[which])
    assert np.isfinite(result.xy[np.arange(4) != which]).all()
    assert np.isfinite(result.cost_after)


def test_a_keypoint_outside_of_its_patch_is_left_out(feature_tracks):
    tracks = feature_tracks(1, 3, seed=20)
    tracks.xy[1] = tracks.corners[1] + [0.2, 5]
    assert tracks.adjust().status[1] == Status.OUT_OF_IMAGE


def test_a_poll_can_stop_it(feature_tracks, options):
    tracks = feature_tracks(4000, 2, channels=1)
    done = []

    def poll(count):
        done.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tracks.adjust(replace(options, num_threads=1), poll=poll)
    assert len(done) == 1
    counts = []
    tracks.adjust(poll=counts.append)
    assert counts[-1] == 4000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xy": np.zeros((6, 3))}, r"xy must have shape \(n, 2\), not \(6, 3\)"),
        ({"edges": np.array([[0, 6]])}, "edges must hold keypoints from 0 to 5"),
        ({"members": np.array([0, 1, 2, 3, 4, 4])}, "more than one track"),
        ({"track_ptr": np.array([0, 3])}, "rise from 0 to the number of members, 6"),
        ({"weights": np.ones(2)}, r"weights must have shape \(6,\)"),
        ({"weights": np.full(6, np.nan)}, "finite"),
        ({"constant": np.zeros(2)}, "constant"),
        ({"data": np.zeros((6, 16, 16, 3), np.uint8)}, "float16, float32 or float64"),
        ({"data": np.zeros((6, 16, 16))}, "patches must have shape"),
        ({"corners": np.zeros((5, 2))}, "corners"),
        ({"scales": np.zeros((6, 2))}, "positive"),
    ],
)
def test_wrong_input_is_refused(feature_tracks, change, message):
    tracks = feature_tracks(2, 3)
    for name, value in change.items():
        setattr(tracks, name, value)
    with pytest.raises(ValueError, match=message):
        tracks.adjust()


def test_wrong_rows_and_options_are_refused(feature_tracks):
    tracks = feature_tracks(2, 3)
    with pytest.raises(ValueError, match="from -1 to 5"):
        tracks.adjust(levels=[(tracks.patches(), np.full(6, 6))])
    with pytest.raises(UserError, match=r"at least two in Interpolation\.nodes"):
        tracks.adjust(interpolation=InterpolationOptions(ncc_normalize=True))
