"""References against plain NumPy."""

import numpy as np
import pytest

from pixcli import _core
from pixcli.bundle_adjustment.feature_costs import compute_cost_maps
from pixcli.geometry.observations import Observations, project, read_observations
from pixcli.io.patch_store import Patches
from pixcli.options import InterpolationOptions
from pixcli.sampling.feature_references import compute_references, sampling_arguments

PLAIN = InterpolationOptions(l2_normalize=False)
EDGE = 8


def _observations(lengths):
    n = sum(lengths)
    ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = 10 + 3 * np.arange(len(lengths))
    return Observations(ids, ptr, np.arange(n) % 7, np.arange(n) + 100, np.zeros((n, 2)))


def _constant_patches(features, dtype=np.float64):
    """Patches that have the same features everywhere, around (4, 4)."""
    n, channels = features.shape
    data = np.broadcast_to(features[:, None, None], (n, EDGE, EDGE, channels))
    return Patches(np.ascontiguousarray(data, dtype), np.zeros((n, 2), np.int32), np.ones((n, 2)))


def _robust_mean(features, scale, iterations=1000):
    mean = features.mean(axis=0)
    for _ in range(iterations):
        weights = 1 / (1 + np.square(features - mean).sum(axis=1) / scale**2)
        mean = weights @ features / weights.sum()
    return mean


def test_the_reference_is_nearest_to_the_robust_mean():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 12, 40).tolist()
    observations = _observations(lengths)
    features = rng.normal(0, 0.15, (sum(lengths), 6)) + np.repeat(
        rng.uniform(-1, 1, (40, 6)), lengths, axis=0
    )
    features[observations.ptr[:-1]] += 3  # an outlier in each, which pulls the plain mean
    patches = _constant_patches(features)
    found = compute_references(observations, np.full((len(features), 2), 4.0), patches, PLAIN, num_threads=2)
    np.testing.assert_array_equal(found.point_ids, observations.point_ids)
    for k in range(40):
        rows = np.arange(observations.ptr[k], observations.ptr[k + 1])
        distances = np.linalg.norm(features[rows] - _robust_mean(features[rows], 0.25), axis=1)
        nearest = rows[distances.argmin()]
        assert found.keypoints[k] == observations.keypoints[nearest]
        assert found.image_ids[k] == observations.image_ids[nearest]
        np.testing.assert_allclose(found.features[k], features[nearest], rtol=1e-6)


def test_weights_are_the_derivative_of_the_loss():
    """Where the peer's weights, one over the loss, choose another observation."""
    features = np.array([[0.0], [0.05], [0.4], [0.45], [0.5], [2.0]])
    found = compute_references(_observations([6]), np.full((6, 2), 4.0), _constant_patches(features), PLAIN)
    mean = _robust_mean(features, 0.25)
    expected = features[np.abs(features - mean).argmin()]
    np.testing.assert_allclose(found.features[0], expected)


def test_iterations_stop_at_rest_or_at_their_limit():
    features = np.random.default_rng(1).normal(0, 0.3, (20, 4))
    patches, observations = _constant_patches(features), _observations([20])
    arguments = (observations.ptr, patches.data, patches.corners, patches.scales, np.arange(20))
    run = [
        _core.compute_references(
            np.full((20, 2), 4.0),
            *arguments,
            **sampling_arguments(PLAIN),
            loss_scale=0.25,
            max_iterations=limit,
            keep_observations=False,
            num_threads=1,
        )
        for limit in (100, 3)
    ]
    assert 3 < run[0]["iterations"][0] < 100
    assert run[1]["iterations"][0] == 3


def test_of_two_observations_the_first_is_taken():
    """Both are as near to their mean, and rounding must not choose."""
    rng = np.random.default_rng(2)
    features = rng.normal(0, 0.1, (400, 17))
    found = compute_references(
        _observations([2] * 200), np.full((400, 2), 4.0), _constant_patches(features), PLAIN
    )
    np.testing.assert_array_equal(found.keypoints, 100 + 2 * np.arange(200))


def test_observations_that_do_not_project_into_their_patch_do_not_count():
    features = np.array([[5.0], [1.0], [1.1], [1.0], [np.nan], [2.0], [9.0], [9.0]])
    at = np.array([[-3, 4], [4, 4], [4, 4], [4, np.nan], [4, 4], [4, 4], [40, 4], [4, -2]], float)
    observations = _observations([4, 2, 2])
    found = compute_references(observations, at, _constant_patches(features), PLAIN, keep_observations=True)
    np.testing.assert_array_equal(found.point_ids, observations.point_ids[:2])
    np.testing.assert_allclose(found.features, [[1.0], [2.0]])
    assert found.observations is not None
    np.testing.assert_array_equal(found.observations.ptr, [0, 2, 3])
    np.testing.assert_array_equal(found.observations.keypoints, [101, 102, 105])
    np.testing.assert_allclose(found.observations.features, [[1.0], [1.1], [2.0]], rtol=1e-6)


def test_features_are_taken_at_the_projection_not_at_the_keypoint(feature_scene):
    scene = feature_scene()
    found = compute_references(scene.observations, scene.projected, scene.patches, PLAIN)
    np.testing.assert_allclose(found.features, scene.references.features, atol=1e-6)
    np.testing.assert_array_equal(found.image_ids, scene.observations.image_ids[scene.observations.ptr[:-1]])


@pytest.mark.parametrize("num_threads", [1, 4])
def test_threads_change_nothing(feature_scene, num_threads):
    scene = feature_scene(points=300)
    rng = np.random.default_rng(0)
    at = scene.projected + rng.uniform(-0.5, 0.5, scene.projected.shape)
    found = compute_references(scene.observations, at, scene.patches, PLAIN, num_threads=num_threads)
    expected = compute_references(scene.observations, at, scene.patches, PLAIN, num_threads=2)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert found.features.tobytes() == expected.features.tobytes()


def test_observations_are_those_of_the_tracks(feature_scene):
    scene = feature_scene(cameras_per_rig=2)
    model, observations = scene.truth, scene.observations
    assert observations.point_ids.tolist() == sorted(model.points3D)
    for k in (0, 17, len(observations.xy) - 1):
        image = model.images[int(observations.image_ids[k])]
        point2D = image.points2D[int(observations.keypoints[k])]
        assert point2D.point3D_id == observations.point_ids[observations.point_index[k]]
        np.testing.assert_array_equal(point2D.xy, observations.xy[k])
        projected = image.project_point(model.points3D[point2D.point3D_id].xyz)
        np.testing.assert_allclose(project(model, observations)[k], projected, atol=1e-9)
    longest = int(np.diff(observations.ptr).max())
    assert len(read_observations(model, longest + 1).point_ids) == 0


def test_cost_maps_are_distances_with_their_derivatives(feature_scene):
    scene = feature_scene(channels=5)
    maps = compute_cost_maps(scene.observations, scene.patches, scene.references, PLAIN, num_threads=2)
    features = scene.references.features[scene.observations.point_index]
    distance = np.linalg.norm(scene.patches.data - features[:, None, None], axis=-1)
    np.testing.assert_allclose(maps[..., 0], distance, rtol=1e-6)
    inner = (slice(None), slice(2, -2), slice(2, -2))
    far = distance[inner] > 1  # differences of the tip of the distance are no derivatives
    for axis in (1, 2):
        slope = np.gradient(distance, axis=axis)[inner]
        np.testing.assert_allclose(maps[..., 3 - axis][inner][far], slope[far], atol=0.05)


def test_points_without_a_reference_have_maps_of_zeros(feature_scene):
    scene = feature_scene()
    few = type(scene.references)(
        *(array[3:] for array in vars(scene.references).values() if array is not None)
    )
    maps = compute_cost_maps(scene.observations, scene.patches, few, PLAIN)
    without = scene.observations.point_index < 3
    assert not maps[without].any()
    assert maps[~without].any(axis=(1, 2, 3)).all()
