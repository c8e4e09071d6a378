"""Guided completion looks for points where they should be seen, and finds them."""

import dataclasses

import numpy as np

from pixcli.bundle_adjustment.completion import COMPLETION_LIMITS, COMPLETION_SUPPORT, find_candidates
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress
from pixcli.surfaces.measuring import measure_surfaces
from pixcli.surfaces.planes import planes_from_normals


def test_candidates_are_where_points_should_be_seen(true_surface):
    """All that one image sees is taken away, and found again."""
    surfaces = true_surface.surfaces
    planes = planes_from_normals(surfaces, true_surface.normals)
    taken = surfaces.image[surfaces.pair_view] == 1
    taken[surfaces.reference] = False
    keep = ~taken
    ptr = np.concatenate([[0], np.cumsum(keep)])[surfaces.ptr]
    rest = dataclasses.replace(surfaces, ptr=ptr, pair_view=surfaces.pair_view[keep])
    candidates = find_candidates(
        rest, planes, true_surface.points, np.ones(keep.sum(), bool), true_surface.poses
    )
    found = candidates.image[candidates.pair_view] == 1
    again = set(zip(candidates.point[found], candidates.image[candidates.pair_view[found]], strict=True))
    expected = set(zip(surfaces.point[taken], surfaces.image[surfaces.pair_view[taken]], strict=True))
    assert len(again & expected) > 0.8 * len(expected)
    old = set(zip(rest.point, rest.image[rest.pair_view], strict=True))
    assert not old & set(zip(candidates.point, candidates.image[candidates.pair_view], strict=True))
    shifts = measure_surfaces(
        candidates,
        planes,
        [COMPLETION_SUPPORT],
        COMPLETION_LIMITS,
        true_surface.files,
        DenseFeaturesOptions(),
        Progress(),
    )
    good = shifts.accepted
    assert good[found].sum() > 0.5 * len(expected)
    error = np.linalg.norm(shifts.xy - shifts.predicted, axis=1)[good]
    assert np.median(error) < 0.06
    assert (error > 0.3).mean() < 0.02
