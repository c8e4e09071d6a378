"""The affine strategy: what it moves, what it leaves alone and why, and how well it knows its errors."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.database import read_match_graph
from pixcli.keypoint_adjustment import supports
from pixcli.keypoint_adjustment.affine import AffineAlignment
from pixcli.keypoint_adjustment.tracks import build_tracks
from pixcli.options import DenseFeaturesOptions, FeatureRefinerOptions, KeypointAdjustmentOptions
from pixcli.progress import Progress
from pixcli.sampling.status import Status
from pixcli.synthetic.evaluation import keypoint_errors

WIDTH, HEIGHT = 320, 240
# From the first image to the second: where a pixel's content lies there.
LINEAR, OFFSET = np.array([[1.05, 0.06], [-0.04, 0.96]]), np.array([3.2, 8.6])
FLAT_BELOW = 200  # rows of the first image without texture
UNLIKE_FROM = 230  # columns that the second image shows otherwise


def align(graph, folder, constant=None, features=None, **options):
    """The result for a graph whose images are in a folder."""
    alignment = AffineAlignment(
        graph,
        build_tracks(graph),
        folder,
        FeatureRefinerOptions(KeypointAdjustmentOptions(**options), features or DenseFeaturesOptions()),
        np.zeros(len(graph.xy), bool) if constant is None else constant,
    )
    return alignment.run(Progress())


def texture(seed):
    rng = np.random.default_rng(seed)
    values = sum(s * gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), s) for s in (1.5, 3, 6))
    return 128 + 45 * values / values.std()


@dataclasses.dataclass
class Pair:
    """Two images of one plane and matched keypoints; those of the second are off by about half a pixel."""

    folder: Path
    graph: MatchGraph
    truth: np.ndarray

    def replaced(self, index, xy):
        """The same with a keypoint of the second image elsewhere."""
        second = self.graph.keypoints[1].copy()
        second[index, :2] = xy
        keypoints = [self.graph.keypoints[0], second]
        return dataclasses.replace(self, graph=dataclasses.replace(self.graph, keypoints=keypoints))

    def nearest(self, x, y):
        """The keypoint (index within its image) nearest to a place in the first image."""
        return int(np.linalg.norm(self.graph.keypoints[0][:, :2] - [x, y], axis=1).argmin())

    def align(self, **options):
        return align(self.graph, self.folder, **options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    first = texture(0)
    first[FLAT_BELOW:] = 128
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    source = (np.stack([x, y], -1) - OFFSET) @ np.linalg.inv(LINEAR).T - 0.5
    second = 0.8 * map_coordinates(first, [source[..., 1], source[..., 0]], order=3, mode="nearest") + 20
    second[:, UNLIKE_FROM:] = texture(1)[:, UNLIKE_FROM:]
    for name, values in (("a.png", first), ("b.png", second)):
        Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).save(folder / name)
    grid = np.stack(np.meshgrid(np.arange(4.0, WIDTH, 22), np.arange(4.0, HEIGHT, 22)), -1).reshape(-1, 2)
    truth = grid @ LINEAR.T + OFFSET
    inside = ((truth > 2) & (truth < [WIDTH - 2, HEIGHT - 2])).all(1)
    grid, truth = grid[inside], truth[inside]
    n = len(grid)
    error = np.random.default_rng(2).uniform(-0.5, 0.5, (n, 2))
    frame = np.tile([2.0, 0.0], (n, 1))
    keypoints = [np.hstack([xy, frame]) for xy in (grid, truth + error)]
    graph = MatchGraph.from_matches(
        {"a.png": (WIDTH, HEIGHT), "b.png": (WIDTH, HEIGHT)},
        {"a.png": keypoints[0], "b.png": keypoints[1]},
        {("a.png", "b.png"): np.stack([np.arange(n)] * 2, 1)},
    )
    return Pair(folder, graph, truth)


def test_keypoints_move_to_where_the_content_is(pair):
    result = pair.align()
    n = len(pair.truth)
    assert (result.status[:n] == Status.ROOT).all()
    moved = result.status[n:] == Status.MOVED
    assert moved.sum() > 50
    error = np.linalg.norm(result.xy[n:] - pair.truth, axis=1)[moved]
    assert np.median(error) < 0.02
    assert np.percentile(error, 90) < 0.1
    assert result.cost_after < result.cost_before
    still = result.status != Status.MOVED
    np.testing.assert_array_equal(result.xy[still], pair.graph.xy[still])
    np.testing.assert_array_equal(np.isnan(result.covariance).any(1), still)


def test_each_reason_to_leave_a_keypoint_is_given(pair):
    n = len(pair.truth)

    def status(pair, index, **options):
        result = pair.align(**options)
        assert (result.xy[n + index] == pair.graph.xy[n + index]).all()
        return result.status[n + index]

    good = pair.nearest(114, 92)
    assert pair.align().status[n + good] == Status.MOVED
    assert status(pair, pair.nearest(26, 4)) == Status.OUT_OF_IMAGE
    assert status(pair, pair.nearest(114, 224), supports="5:1") == Status.WEAK_TEXTURE
    assert status(pair, good, max_deviation=1e-4) == Status.WEAK_TEXTURE
    assert status(pair, pair.nearest(268, 114), bound=20.0) == Status.LOW_CORRELATION
    assert status(pair, good, min_correlation=1.0) == Status.LOW_CORRELATION
    assert status(pair, good, max_distortion=1.001) == Status.DISTORTED
    away = pair.replaced(good, pair.truth[good] + [1.4, -0.8])
    assert away.align(bound=3.0).status[n + good] == Status.MOVED
    assert status(away, good, bound=1.0) == Status.OUT_OF_BOUND


def test_a_worse_correlation_than_at_the_start_is_refused(pair, monkeypatch):
    native = supports._core.align

    def worse(*args, **kwargs):
        result = native(*args, **kwargs)
        result["initial_correlation"] = result["correlation"] + 1e-3
        return result

    monkeypatch.setattr(supports._core, "align", worse)
    statuses = pair.align().status
    assert (statuses == Status.WORSE_SCORE).sum() > 50
    assert not (statuses == Status.MOVED).any()


@pytest.mark.parametrize("xy", [(np.nan, 50.0), (-3.0, 50.0), (50.0, HEIGHT + 1.0)])
def test_keypoints_outside_their_image_are_invalid(pair, xy):
    """Their partners have nothing to be aligned to and stay; all others are as if they were not there."""
    n, index = len(pair.truth), pair.nearest(114, 92)
    before, changed = pair.align(), pair.replaced(index, xy)
    after = changed.align()
    assert after.status[n + index] == Status.INVALID
    np.testing.assert_array_equal(after.xy[n + index], np.float32(xy))
    others = np.delete(np.arange(2 * n), n + index)
    np.testing.assert_array_equal(after.xy[others], before.xy[others])
    # The same for a root: its partner is unmatched.
    first = pair.graph.keypoints[0].copy()
    first[index, :2] = xy
    graph = dataclasses.replace(pair.graph, keypoints=[first, pair.graph.keypoints[1]])
    result = align(graph, pair.folder)
    assert result.status[index] == Status.INVALID
    assert result.status[n + index] == Status.UNMATCHED


def test_constant_and_unmatched_keypoints_stay(pair):
    n = len(pair.truth)
    constant = np.zeros(2 * n, bool)
    constant[n : n + 40] = True
    graph = dataclasses.replace(pair.graph, edges=pair.graph.edges[:80], pair_ptr=np.array([0, 80]))
    result = align(graph, pair.folder, constant)
    assert (result.status[n : n + 40] == Status.CONSTANT).all()
    assert (result.status[80:n] == Status.UNMATCHED).all()
    assert (result.status[n + 80 :] == Status.UNMATCHED).all()
    assert (result.status[n + 40 : n + 80] == Status.MOVED).any()
    np.testing.assert_array_equal(result.xy[constant], graph.xy[constant])


def test_a_translation_leaves_the_distortion(pair):
    """With unit frames on a warped view, a position alone fits worse than with its linear map."""
    n = len(pair.truth)
    errors = []
    for warp in ("affine", "translation"):
        result = pair.align(warp=warp, supports="8:1")
        moved = result.status[n:] == Status.MOVED
        errors.append(np.median(np.linalg.norm(result.xy[n:] - pair.truth, axis=1)[moved]))
    assert errors[0] < 0.6 * errors[1]
    assert errors[1] < 0.3


def test_no_matches_and_no_keypoints_are_fine(pair):
    graph = dataclasses.replace(
        pair.graph,
        edges=np.empty((0, 2), np.int32),
        pairs=np.empty((0, 2), np.int32),
        pair_ptr=np.zeros(1, int),
    )
    result = align(graph, pair.folder)
    assert (result.status == Status.UNMATCHED).all()
    np.testing.assert_array_equal(result.xy, graph.xy)


@pytest.fixture(scope="module")
def graph(small_scene):
    return read_match_graph(small_scene.database_path, "inlier")


@pytest.fixture(scope="module")
def errors_of(small_scene, graph):
    """Errors (2, m) of the graph's matches, of keypoints at other places if these are given."""

    def errors(xy=None):
        moved = graph.keypoints
        if xy is not None:
            parts = np.split(xy, graph.offsets[1:-1])
            moved = [np.hstack([p, rows[:, 2:]]) for p, rows in zip(parts, graph.keypoints, strict=True)]
        of = dataclasses.replace(graph, keypoints=moved)
        return keypoint_errors(small_scene.truth, of, small_scene.path / "depth")

    return errors


@pytest.fixture(scope="module")
def refined(small_scene, graph):
    return align(graph, small_scene.path / "images")


def right_errors(errors, before):
    """Those of matches that were right before."""
    return errors[np.isfinite(errors) & (before < 4)]


def test_errors_of_a_scene_shrink(graph, refined, errors_of):
    before = errors_of()
    raw, after = right_errors(before, before), right_errors(errors_of(refined.xy), before)
    assert np.median(after) < 0.35 * np.median(raw)
    assert after.mean() < 0.45 * raw.mean()
    assert (refined.status == Status.MOVED).sum() > 0.9 * (refined.status[graph.edges].max(1) > 0).sum() / 3


def test_keypoints_without_frames_end_nearly_as_well(small_scene, graph, refined, errors_of):
    stripped = dataclasses.replace(graph, keypoints=[rows[:, :2].copy() for rows in graph.keypoints])
    result = align(stripped, small_scene.path / "images")
    before = errors_of()
    with_frames, without = (right_errors(errors_of(xy), before) for xy in (refined.xy, result.xy))
    assert np.median(without) < 1.15 * np.median(with_frames)
    assert without.mean() < 1.3 * with_frames.mean()
    assert (result.status == Status.MOVED).sum() > 0.95 * (refined.status == Status.MOVED).sum()


def test_the_chosen_support_is_not_far_from_the_best(small_scene, graph, refined, errors_of):
    """Images are small here, where the extent counts much; scripts/bench/accuracy.py has others."""
    before = errors_of()
    chosen = np.median(right_errors(errors_of(refined.xy), before))
    for support in KeypointAdjustmentOptions().supports.split(","):
        fixed = align(graph, small_scene.path / "images", supports=support)
        assert chosen < 1.35 * np.median(right_errors(errors_of(fixed.xy), before))


def test_the_covariance_is_that_of_the_errors(graph, refined, errors_of):
    """Of a keypoint matched to its track's root, whose error to the root's point is exactly known."""
    root_first = np.isin(graph.edges, build_tracks(graph).roots)
    moved = refined.status[graph.edges] == Status.MOVED
    there, back = errors_of(refined.xy)
    squared = []
    for error, target, usable in (
        (there, graph.edges[:, 1], root_first[:, 0] & moved[:, 1]),
        (back, graph.edges[:, 0], root_first[:, 1] & moved[:, 0]),
    ):
        usable = usable & (error < 2)
        variance = refined.covariance[target[usable]][:, [0, 2]].mean(1)
        squared.append(error[usable] ** 2 / 2 / variance)
    squared = np.sort(np.concatenate(squared))
    assert len(squared) > 500
    # Without the last two percent: at depth edges, errors are of another kind.
    assert 0.7 < squared[: int(0.98 * len(squared))].mean() < 2
    assert 0.7 < np.median(squared) / np.log(2) < 1.7


def test_results_do_not_depend_on_threads_or_parts(small_scene, graph, refined, monkeypatch):
    monkeypatch.setattr("pixcli.keypoint_adjustment.affine.MAX_JOBS", 400)
    again = align(graph, small_scene.path / "images", num_threads=1)
    assert again.xy.tobytes() == refined.xy.tobytes()
    assert again.covariance.tobytes() == refined.covariance.tobytes()
    np.testing.assert_array_equal(again.status, refined.status)


def test_a_cache_gives_the_same(small_scene, graph, refined, tmp_path):
    features = DenseFeaturesOptions(use_cache=True, cache_path=str(tmp_path / "patches.h5"))
    for _ in range(2):  # made, then reused
        cached = align(graph, small_scene.path / "images", features=features)
        assert cached.xy.tobytes() == refined.xy.tobytes()
