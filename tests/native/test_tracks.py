"""Tracks of match graphs against a plain statement of the rules."""

from itertools import pairwise

import numpy as np
import pytest

from pixcli import _core


def build(edges, image, scores=None):
    """(members of each track, root first; label of each keypoint)."""
    scores = None if scores is None else np.asarray(scores, np.float32)
    ptr, members, label = _core.build_tracks(
        np.asarray(edges, np.int32).reshape(-1, 2), np.asarray(image, np.int32), scores
    )
    return [list(members[a:b]) for a, b in pairwise(ptr)], list(label)


def reference_tracks(edges, image, scores):
    """Sets of keypoints: each edge in turn joins what it links unless an image would be there twice."""
    track_of = {k: {k} for k in range(len(image))}
    for e in sorted(range(len(edges)), key=lambda e: (-scores[e], e)):
        a, b = track_of[edges[e][0]], track_of[edges[e][1]]
        if a is b or {image[k] for k in a} & {image[k] for k in b}:
            continue
        a |= b
        for k in b:
            track_of[k] = a
    return {frozenset(track) for track in track_of.values() if len(track) > 1}


def reference_root(track, edges):
    """The member with most edges inside the track, the lowest among equals."""
    degree = dict.fromkeys(track, 0)
    for i, j in edges:
        if i in degree and j in degree and i != j:
            degree[i] += 1
            degree[j] += 1
    return min(track, key=lambda k: (-degree[k], k))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("num_edges", [30, 120, 400])
def test_random_graphs_follow_the_rules(seed, num_edges):
    """Few images and wild edges, so that many of them clash; few distinct scores, so that many are equal."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 12, 150)
    edges = rng.integers(0, len(image), (num_edges, 2))
    scores = rng.integers(0, 5, num_edges).astype(np.float32)
    for given in (scores, None):
        tracks, label = build(edges, image, given)
        expected = reference_tracks(edges, image, np.zeros(num_edges) if given is None else given)
        assert {frozenset(track) for track in tracks} == expected
        for t, track in enumerate(tracks):
            assert len({image[k] for k in track}) == len(track)
            assert track[0] == reference_root(track, edges)
            assert [label[k] for k in track] == [t] * len(track)
        assert sum(k >= 0 for k in label) == sum(map(len, tracks))


def test_a_track_never_holds_two_keypoints_of_an_image():
    """0 and 2 are of one image: the weaker of the edges that would join them is not used."""
    image, edges = [0, 1, 0], [(0, 1), (1, 2)]
    assert build(edges, image, [0.9, 0.5])[0] == [[0, 1]]
    assert build(edges, image, [0.5, 0.9])[0] == [[1, 2]]
    assert build([(0, 2)], image)[0] == []


def test_edges_of_equal_score_count_in_their_order():
    image = [0, 1, 0]
    for scores in (None, [1.0, 1.0]):
        assert build([(0, 1), (1, 2)], image, scores)[0] == [[0, 1]]
        assert build([(1, 2), (0, 1)], image, scores)[0] == [[1, 2]]


def test_the_root_has_most_edges_and_members_follow_by_degree():
    # A star about 3 with one more edge between 1 and 2.
    edges = [(3, 0), (3, 1), (2, 3), (1, 2)]
    tracks, label = build(edges, [0, 1, 2, 3])
    assert tracks == [[3, 1, 2, 0]]
    assert label == [0, 0, 0, 0]
    # Of equals, the lowest index.
    assert build([(0, 1), (1, 2), (2, 0)], [0, 1, 2])[0] == [[0, 1, 2]]


def test_unused_edges_do_not_make_a_root():
    """Keypoint 1 has most edges, but two of them would bring an image in twice."""
    image = [0, 1, 2, 0, 0, 3]
    edges = [(0, 2), (2, 5), (0, 1), (1, 3), (1, 4)]
    tracks, label = build(edges, image, [5, 4, 3, 2, 1])
    assert tracks == [[0, 2, 1, 5]]
    assert label[3:5] == [-1, -1]


def test_an_edge_to_itself_or_given_twice_is_harmless():
    assert build([(0, 0)], [0])[0] == []
    assert build([(0, 1), (1, 0), (0, 1)], [0, 1])[0] == [[0, 1]]


def test_empty_graphs():
    assert build([], [0, 1, 2]) == ([], [-1, -1, -1])
    assert build([], []) == ([], [])


def test_a_track_of_two_thousand_is_built():
    """A chain and its long-range edges in random order; its ends join last of all."""
    rng = np.random.default_rng(0)
    n = 2000
    chain = np.stack([np.arange(n - 1), np.arange(1, n)], 1)
    edges = rng.permutation(np.concatenate([chain, rng.integers(0, n, (3 * n, 2))]))
    tracks, _ = build(edges, np.arange(n), rng.random(len(edges)))
    assert len(tracks) == 1
    assert sorted(tracks[0]) == list(range(n))


def test_indices_out_of_range_are_refused():
    with pytest.raises(ValueError, match="indices into image"):
        build([(0, 2)], [0, 1])
    with pytest.raises(ValueError, match="indices into image"):
        build([(-1, 1)], [0, 1])
    with pytest.raises(ValueError, match="one value for each edge"):
        build([(0, 1)], [0, 1], [1.0, 2.0])
