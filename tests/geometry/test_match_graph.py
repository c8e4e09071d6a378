"""Graphs of a user's own arrays."""

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph

SIZES = {"b.jpg": (40, 30), "a.jpg": (20, 10), "c.jpg": (8, 8)}
KEYPOINTS = {"a.jpg": [[1.0, 2.0], [3.0, 4.0]], "b.jpg": [[5.0, 6.0, 1.0, 0.0]] * 3}
MATCHES = {("b.jpg", "a.jpg"): [[2, 0], [1, 1]]}


def test_images_are_ordered_by_name_and_matches_turned() -> None:
    graph = MatchGraph.from_matches(SIZES, KEYPOINTS, MATCHES, {("b.jpg", "a.jpg"): [0.5, 0.25]})
    assert graph.names == ["a.jpg", "b.jpg", "c.jpg"]
    assert graph.offsets.tolist() == [0, 2, 5, 5]
    assert graph.pairs.tolist() == [[0, 1]]
    assert graph.edges.tolist() == [[0, 4], [1, 3]]
    assert graph.pair_ptr.tolist() == [0, 2]
    assert graph.scores is not None
    assert graph.scores.tolist() == [0.5, 0.25]
    assert graph.image_size.tolist() == [[20, 10]] * 2 + [[40, 30]] * 3
    assert repr(graph) == "<MatchGraph: 3 images, 5 keypoints, 2 matches in 1 pairs, with scores>"


def test_without_matches() -> None:
    graph = MatchGraph.from_matches(SIZES, KEYPOINTS, {("a.jpg", "b.jpg"): np.empty((0, 2))})
    assert graph.edges.shape == graph.pairs.shape == (0, 2)
    assert graph.pair_ptr.tolist() == [0]


def test_other_positions_keep_the_frames() -> None:
    graph = MatchGraph.from_matches(SIZES, KEYPOINTS, MATCHES)
    xy = graph.xy.copy()
    xy[[1, 4]] += 0.5
    moved = graph.with_positions(xy)
    assert graph.moved(xy).tolist() == [False, True, False, False, True]
    assert moved.keypoints[1].tolist() == [[5, 6, 1, 0], [5, 6, 1, 0], [5.5, 6.5, 1, 0]]
    assert not graph.moved(xy - xy + graph.xy).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matches": {("a.jpg", "x.jpg"): [[0, 0]]}}, "a.jpg and x.jpg: expected two images"),
        ({"matches": {("a.jpg", "a.jpg"): [[0, 0]]}}, "expected two images"),
        ({"matches": {("a.jpg", "b.jpg"): [[0, 0], [2, 0]]}}, r"row 1 .* is \(2, 0\), but they have 2 and 3"),
        ({"matches": {("a.jpg", "b.jpg"): [[0, -1]]}}, "row 0"),
        ({"matches": {**MATCHES, ("a.jpg", "b.jpg"): [[0, 0]]}}, "given twice"),
        ({"keypoints": {"a.jpg": [[1.0, 2.0, 3.0]]}}, "expected .n, 2., .n, 4. or .n, 6."),
        ({"scores": {("b.jpg", "a.jpg"): [1.0]}}, "expected 2 finite numbers"),
        ({"scores": {("b.jpg", "a.jpg"): [1.0, -1.0]}}, "expected 2 finite numbers"),
    ],
)
def test_arrays_that_do_not_fit(change: dict, message: str) -> None:
    given = {"sizes": SIZES, "keypoints": KEYPOINTS, "matches": MATCHES, **change}
    with pytest.raises(UserError, match=message):
        MatchGraph.from_matches(**given)
