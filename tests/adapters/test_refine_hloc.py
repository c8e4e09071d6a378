"""hloc's files: their scores reach the solver, and nothing but the output is written."""

from pathlib import Path

import h5py
import numpy as np
import pytest

import pixcli
from pixcli.adapters.hloc_import import with_scores
from pixcli.adapters.match_input import MatchInput
from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.database import read_match_graph
from pixcli.io.hloc import Features, write_features
from pixcli.options import (
    DenseFeaturesOptions,
    FeatureRefinerOptions,
    KeypointAdjustmentOptions,
    TwoViewGeometryOptions,
)

FEATUREMETRIC = FeatureRefinerOptions(
    KeypointAdjustmentOptions(strategy="featuremetric", guard=False), DenseFeaturesOptions(model="dsift")
)


def write_hloc(folder: Path, graph: MatchGraph, scores: dict[int, float]) -> MatchInput:
    """The matches of a graph as hloc's files; those of each pair have one score."""
    folder.mkdir()
    features = {
        name: Features(rows[:, :2].astype(np.float64), None, None)
        for name, rows in zip(graph.names, graph.keypoints, strict=True)
    }
    write_features(folder / "f.h5", features)
    with h5py.File(folder / "m.h5", "w") as file:
        for k, (i, j) in enumerate(graph.pairs.tolist()):
            edges = graph.edges[graph.pair_ptr[k] : graph.pair_ptr[k + 1]] - graph.offsets[[i, j]]
            matches0 = np.full(len(graph.keypoints[i]), -1)
            matches0[edges[:, 0]] = edges[:, 1]
            group = file.create_group(f"{graph.names[i]}/{graph.names[j]}")
            group.create_dataset("matches0", data=matches0)
            group.create_dataset("matching_scores0", data=np.where(matches0 >= 0, scores[k], 0))
    return MatchInput(features_path=folder / "f.h5", matches_path=folder / "m.h5")


@pytest.fixture(scope="module")
def graph(small_scene) -> MatchGraph:
    return read_match_graph(small_scene.database_path)


@pytest.fixture(scope="module")
def scored(graph: MatchGraph, tmp_path_factory: pytest.TempPathFactory) -> list[MatchInput]:
    """The same matches, all of one score, and with another score for each pair."""
    folder = tmp_path_factory.mktemp("hloc")
    scores = np.random.default_rng(0).uniform(0.2, 1, len(graph.pairs)).tolist()
    return [
        write_hloc(folder / "equal", graph, dict.fromkeys(range(len(graph.pairs)), 0.5)),
        write_hloc(folder / "unlike", graph, dict(enumerate(scores))),
    ]


def positions(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.concatenate([file[name]["keypoints"][()] for name in sorted(file)])


def test_scores_change_what_featuremetric_strategies_find(small_scene, scored, tmp_path: Path) -> None:
    images = small_scene.path / "images"
    found = []
    for name, matches in zip(("equal", "unlike"), scored, strict=True):
        refinement = pixcli.refine_hloc(matches, images, tmp_path / f"{name}.h5", FEATUREMETRIC)
        assert refinement.keypoints.num_moved > 300
        assert refinement.verification is None  # there are no geometries to be renewed
        found.append(positions(tmp_path / f"{name}.h5"))
    assert (np.abs(found[0] - found[1]).max(axis=1) > 1e-3).sum() > 100
    assert {path.name for path in tmp_path.iterdir()} == {"equal.h5", "unlike.h5"}


def test_scores_of_a_graph(graph: MatchGraph, scored: list[MatchInput]) -> None:
    equal, unlike = (with_scores(graph, matches.matches_path).scores for matches in scored)
    assert (equal == 0.5).all()
    count = np.diff(graph.pair_ptr)
    expected = np.random.default_rng(0).uniform(0.2, 1, len(count))
    np.testing.assert_allclose(unlike, np.repeat(expected, count), rtol=1e-6)


def test_raw_matches_need_no_verification(small_scene, scored, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pixcli.adapters.refine_hloc.verify_matches", lambda *_: pytest.fail("verified"))
    options = FeatureRefinerOptions(KeypointAdjustmentOptions(match_source="raw"))
    refinement = pixcli.refine_hloc(scored[0], small_scene.path / "images", tmp_path / "o.h5", options)
    assert refinement.keypoints.num_moved > 300


def test_matches_of_which_none_is_verified(small_scene, scored, tmp_path: Path) -> None:
    strict = TwoViewGeometryOptions(min_num_inliers=100_000)
    with pytest.raises(UserError, match=r"m\.h5: no pair of images has verified matches"):
        pixcli.refine_hloc(
            scored[0], small_scene.path / "images", tmp_path / "o.h5", two_view_geometry=strict
        )
    assert list(tmp_path.iterdir()) == []
