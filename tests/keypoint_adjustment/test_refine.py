"""Keypoint adjustment in memory."""

import os
from pathlib import Path

import numpy as np
import pytest

import pixcli
from pixcli.errors import UserError
from pixcli.io.database import read_match_graph
from pixcli.options import DenseFeaturesOptions, FeatureRefinerOptions, KeypointAdjustmentOptions
from pixcli.sampling.status import Status


def files_below(*folders: Path) -> set[str]:
    return {str(path) for folder in folders for path in folder.rglob("*")}


def test_a_notebook_cell_refines_in_memory(small_scene, tmp_path: Path, monkeypatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    graph = pixcli.read_match_graph(str(small_scene.database_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr("tempfile.mkdtemp", lambda *_, **__: pytest.fail("a folder was written"))
    before = files_below(tmp_path, small_scene.path, small_scene.database_path.parent)
    result = pixcli.refine_keypoints(graph, str(small_scene.path / "images"))
    assert files_below(tmp_path, small_scene.path, small_scene.database_path.parent) == before
    assert result.num_moved > 300
    assert [len(rows) for rows in result.keypoints.values()] == np.diff(graph.offsets).tolist()
    assert f"keypoints moved: {result.num_moved} of {len(graph.xy)} in 4 images" in repr(result)
    assert len(repr(result).splitlines()) == 6
    assert f"<td>{result.num_moved} of " in result._repr_html_()
    assert os.listdir(temporary) == []


def test_names_choose_what_takes_part_and_what_stays(small_scene) -> None:
    graph = read_match_graph(small_scene.database_path)
    names = graph.names
    result = pixcli.refine_keypoints(graph, small_scene.path / "images", only=names[:2], constant=names[:1])
    moved = graph.image_index[result.status == Status.MOVED]
    assert set(moved) == {1}
    assert len(result.graph.pairs) == 1
    with pytest.raises(UserError, match=r"there is no image nowhere\.jpg among the 4"):
        pixcli.refine_keypoints(graph, small_scene.path / "images", only=["nowhere.jpg"])


def test_scores_weigh_the_matches_of_featuremetric_strategies(small_scene) -> None:
    graph = read_match_graph(small_scene.database_path)
    rng = np.random.default_rng(0)
    matches, scores, equal = {}, {}, {}
    for k, (i, j) in enumerate(graph.pairs.tolist()):
        edges = graph.edges[graph.pair_ptr[k] : graph.pair_ptr[k + 1]]
        pair = graph.names[i], graph.names[j]
        matches[pair] = edges - graph.offsets[[i, j]]
        scores[pair] = np.repeat(rng.uniform(0.2, 1), len(edges))
        equal[pair] = np.full(len(edges), 0.5)
    sizes = {image.name: (image.width, image.height) for image in graph.images}
    keypoints = dict(zip(graph.names, graph.keypoints, strict=True))
    images = small_scene.path / "images"

    def refined(scores: dict | None, by_score: bool = True) -> np.ndarray:
        adjustment = KeypointAdjustmentOptions(
            strategy="featuremetric", weight_by_score=by_score, guard=False
        )
        options = FeatureRefinerOptions(adjustment, DenseFeaturesOptions(model="dsift"))
        with_scores = pixcli.MatchGraph.from_matches(sizes, keypoints, matches, scores)
        return pixcli.refine_keypoints(with_scores, images, options).xy

    plain = refined(None)
    np.testing.assert_array_equal(
        pixcli.refine_keypoints(
            graph,
            images,
            FeatureRefinerOptions(
                KeypointAdjustmentOptions(strategy="featuremetric", guard=False),
                DenseFeaturesOptions(model="dsift"),
            ),
        ).xy,
        plain,
    )
    weighted = refined(scores)
    assert (np.abs(weighted - plain).max(1) > 1e-3).sum() > 100
    np.testing.assert_array_equal(refined(equal, by_score=False), plain)
