"""Similarities come from weighted places, also where these lie in a line."""

import numpy as np
import pytest

from pixcli.geometry.similarity import weighted_similarity

import pycolmap


@pytest.mark.parametrize("count", [2, 3, 40])
def test_a_similarity_is_found_again(count):
    rng = np.random.default_rng(count)
    source, weights = rng.normal(0, 1, (count, 3)), rng.uniform(0.1, 1, count)
    truth = pycolmap.Sim3d(0.3, pycolmap.Rotation3d(np.array([2.0, -1, 0.5])), np.array([5.0, 6, 7]))
    target = np.asarray(truth * source)
    if count == 40:
        target[0] += 10  # of no weight
        weights[0] = 0
    found = weighted_similarity(source, target, weights)
    assert found.scale == pytest.approx(0.3, rel=1e-12)
    np.testing.assert_allclose(np.asarray(found * source)[1:], target[1:], atol=1e-12)


def test_a_reflection_is_no_rotation():
    source = np.random.default_rng(0).normal(0, 1, (20, 3))
    found = weighted_similarity(source, source * [1, 1, -1], np.ones(20))
    assert np.linalg.det(found.rotation.matrix()) == pytest.approx(1)
    assert found.scale > 0


def test_places_in_a_line_have_one_too():
    source = np.outer(np.arange(5.0), [1, 2, 3])
    found = weighted_similarity(source, 2 * source + 1, np.ones(5))
    np.testing.assert_allclose(np.asarray(found * source), 2 * source + 1, atol=1e-9)
