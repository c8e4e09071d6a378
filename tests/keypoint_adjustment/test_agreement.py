"""How well moved keypoints fit the epipolar geometry of their pairs, on exact points with noise."""

import itertools

import numpy as np
import pytest

from pixcli.geometry.match_graph import MatchGraph
from pixcli.keypoint_adjustment.agreement import measure_agreement

NUM_IMAGES, NUM_POINTS = 4, 150


@pytest.fixture(scope="module")
def exact():
    """(images, points, 2) where points project to."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-2, -1.5, 4], [2, 1.5, 7], (NUM_POINTS, 3))
    xy = []
    for k in range(NUM_IMAGES):
        c, s = np.cos(0.15 * k), np.sin(0.15 * k)
        at = points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T + [0.4 * k, 0.1 * k, 0]
        xy.append(500 * at[:, :2] / at[:, 2:] + [400, 300])
    return np.array(xy)


def graph_of(xy):
    names = [f"{k}.png" for k in range(NUM_IMAGES)]
    same = np.stack([np.arange(NUM_POINTS)] * 2, 1)
    return MatchGraph.from_matches(
        dict.fromkeys(names, (2000, 2000)),
        dict(zip(names, xy, strict=True)),
        dict.fromkeys(itertools.combinations(names, 2), same),
    )


def noisy(exact, deviation, seed):
    return exact + 500 + deviation * np.random.default_rng(seed).standard_normal(exact.shape)


@pytest.mark.parametrize(
    ("before", "after", "worse"), [(0.4, 0.1, False), (0.1, 0.4, True), (0.3, 0.6, True)]
)
def test_noise_is_seen(exact, before, after, worse):
    agreement = measure_agreement(graph_of(noisy(exact, before, 1)), noisy(exact, after, 2).reshape(-1, 2))
    assert agreement.worse == (after > before)
    # Across the epipolar line there is one coordinate of two points, each of which moves half of the way.
    for measured, deviation in ((agreement.before, before), (agreement.after, after)):
        assert measured == pytest.approx(0.674 * deviation, rel=0.15)


def test_other_noise_of_the_same_size_is_not_worse(exact):
    for seed in range(5):
        graph = graph_of(noisy(exact, 0.3, seed))
        assert not measure_agreement(graph, noisy(exact, 0.3, seed + 10).reshape(-1, 2)).worse


def test_keypoints_that_stay_do_not_count(exact):
    graph = graph_of(noisy(exact, 0.1, 0))
    moved = graph.xy.copy()
    some = np.arange(0, len(moved), 10)
    moved[some] = noisy(exact, 1.0, 1).reshape(-1, 2)[some]
    agreement = measure_agreement(graph, moved)
    assert agreement.worse
    assert agreement.after > 3 * agreement.before


def test_nothing_moved_says_nothing(exact):
    graph = graph_of(noisy(exact, 0.1, 0))
    agreement = measure_agreement(graph, graph.xy)
    assert not agreement.worse
    assert agreement.contents() == {"before": None, "after": None}


def test_wrong_matches_and_points_outside_do_not_disturb(exact):
    before, after = noisy(exact, 0.4, 1), noisy(exact, 0.1, 2)
    before[1, :20] = after[1, :20] = np.random.default_rng(3).uniform(0, 1500, (20, 2))
    before[2, 30] = after[2, 30] = np.nan
    agreement = measure_agreement(graph_of(before), after.reshape(-1, 2))
    assert not agreement.worse
    assert agreement.after < 0.5 * agreement.before
