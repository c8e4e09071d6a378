"""Observations without effect are counted, and points that have no others stay."""

import numpy as np
import pytest

from pixcli.bundle_adjustment.texture import find_gated
from pixcli.geometry.observations import project
from pixcli.io.references import References
from pixcli.options import InterpolationOptions

PLAIN = InterpolationOptions(l2_normalize=False)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_observations_without_effect_are_told_by_their_reason(feature_scene, dtype):
    scene = feature_scene(dtype=dtype)
    observations, references = scene.observations, scene.references
    rows = np.arange(len(observations.xy))
    of_point = [np.flatnonzero(observations.point_index == k) for k in range(4)]
    scene.patches.data[of_point[0]] = 0.7  # flat in all images
    scene.patches.data[of_point[1][:1]] = 0.7  # and in one
    projected = scene.projected.copy()
    projected[of_point[2][0]] = np.nan
    projected[of_point[2][1]] += 100
    keep = np.arange(len(references.point_ids)) != 3
    fewer = References(
        references.point_ids[keep],
        references.features[keep],
        references.image_ids[keep],
        references.keypoints[keep],
    )
    gated = find_gated(observations, projected, scene.patches, rows, fewer, PLAIN)
    assert set(np.flatnonzero(gated.flat)) == {*of_point[0], of_point[1][0]}
    assert set(np.flatnonzero(gated.outside)) == set(of_point[2][:2])
    assert set(np.flatnonzero(gated.unreferenced)) == set(of_point[3])
    assert set(np.flatnonzero(gated.lost)) == {0, 3}
    assert gated.reasons() == {
        "no reference": len(of_point[3]),
        "outside": 2,
        "no texture": len(of_point[0]) + 1,
    }
    assert gated.counts.sum() == len(rows) - len(of_point[3]) - 2 - len(of_point[0]) - 1


def test_all_that_has_texture_counts(feature_scene):
    scene = feature_scene("OPENCV_FISHEYE", [900, 905, 512, 384, 0.02, 0.01, 0, 0])
    rows = np.arange(len(scene.observations.xy))
    projected = project(scene.truth, scene.observations)
    gated = find_gated(scene.observations, projected, scene.patches, rows, scene.references, PLAIN)
    assert gated.counts.all()
    assert not gated.lost.any()
