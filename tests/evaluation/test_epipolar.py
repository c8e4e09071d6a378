import numpy as np
import pytest

from pixcli.evaluation.epipolar import best_fundamental, pair_residuals
from pixcli.geometry.fundamental import sampson
from pixcli.io.database import read_match_graph

import pycolmap


def matches(noise: float, outliers: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Projections of 300 random points into two cameras of focal length 1000."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2, -2, 4], [2, 2, 8], (300, 3))
    turn = pycolmap.Rotation3d(np.array([0.05, -0.2, 0.02])).matrix()
    second = points @ turn.T + [1.0, 0.1, 0.2]
    x1, x2 = (1000 * p[:, :2] / p[:, 2:] + rng.normal(0, noise, (300, 2)) for p in (points, second))
    x2[:outliers] += rng.uniform(20, 50, (outliers, 2))
    return x1, x2


def test_exact_matches_have_no_residual() -> None:
    x1, x2 = matches(0.0)
    assert np.abs(sampson(best_fundamental(x1, x2), x1, x2)).max() < 1e-6


@pytest.mark.parametrize("outliers", [0, 30])
def test_residuals_are_those_of_the_noise(outliers: int) -> None:
    x1, x2 = matches(0.2, outliers)
    fundamental = best_fundamental(x1, x2)
    residual = np.abs(sampson(fundamental, x1, x2))[outliers:]
    # Noise of two points, seen across a line in each image; 0.6745 is the median of a standard normal.
    assert np.median(residual) == pytest.approx(0.6745 * 0.2, rel=0.15)
    assert np.linalg.det(fundamental / np.linalg.norm(fundamental)) == pytest.approx(0, abs=1e-12)


def test_pairs_of_a_database(small_scene) -> None:
    graph = read_match_graph(small_scene.database_path, "inlier")
    cameras = {i.image_id: small_scene.truth.find_image_with_name(i.name).camera for i in graph.images}
    pairs = list(pair_residuals(graph, cameras))
    assert [pair.names for pair in pairs] == [
        (graph.images[i].name, graph.images[j].name) for i, j in graph.pairs.tolist()
    ]
    assert all(0.01 < np.median(pair.residuals) < 0.3 for pair in pairs)
    noisy = [rows[:, :2] + np.random.default_rng(0).normal(0, 1, (len(rows), 2)) for rows in graph.keypoints]
    (worse,) = pair_residuals(graph, cameras, noisy, pairs=[0], max_matches=100)
    assert len(worse.residuals) == 100
    assert np.median(worse.residuals) > 3 * np.median(pairs[0].residuals)
