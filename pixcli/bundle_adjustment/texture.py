"""Observations that say nothing to an adjustment by features, and points that are left with no other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixcli import _core
from pixcli.geometry.observations import Observations
from pixcli.io.patch_store import Patches, release
from pixcli.io.references import References
from pixcli.options import InterpolationOptions
from pixcli.sampling.feature_references import sampling_arguments

_FLAT = 1e-4  # of the length of a feature: what changes less within a pixel is flat
_PART = 2048  # observations, whose features are in memory at a time


@dataclass(frozen=True)
class Gated:
    """Observations that take part without effect, and what follows for their points."""

    unreferenced: NDArray[np.bool_]
    """(n,) their point has no reference."""
    outside: NDArray[np.bool_]
    """(n,) the point is behind the camera, or projects outside of the patch."""
    flat: NDArray[np.bool_]
    """(n,) the features do not change around the projection: no texture."""
    lost: NDArray[np.bool_]
    """(p,) points of which no observation is left: they stay where they are."""

    @property
    def counts(self) -> NDArray[np.bool_]:
        """(n,) observations that have an effect."""
        return ~(self.unreferenced | self.outside | self.flat)

    def reasons(self) -> dict[str, int]:
        """How many observations for each reason, as a report says it."""
        pairs = (("no reference", self.unreferenced), ("outside", self.outside), ("no texture", self.flat))
        return {name: int(mask.sum()) for name, mask in pairs}


def find_gated(
    observations: Observations,
    projected: NDArray[np.float64],
    patches: Patches,
    rows: NDArray[np.int64],
    references: References,
    interpolation: InterpolationOptions,
) -> Gated:
    """Of the observations of p points, n in all, by the first reason that holds.

    Args:
        projected: (n, 2) where the points project to, NaN behind the camera.
        rows: (n,) the patch of each observation, -1 for none.
    """
    unreferenced = references.rows_of(observations.point_ids)[observations.point_index] < 0
    uv = projected * patches.scales[rows] - 0.5 - patches.corners[rows]
    inside = (uv >= 0) & (uv <= np.array(patches.data.shape[2:0:-1]) - 1)
    outside = ~unreferenced & ~((rows >= 0) & inside.all(axis=1))
    flat = np.zeros(len(rows), bool)
    left = np.flatnonzero(~unreferenced & ~outside)
    for begin in range(0, len(left), _PART):
        part = left[begin : begin + _PART]
        sampled = _core.interpolate(
            patches.data, rows[part], np.ascontiguousarray(uv[part]), **sampling_arguments(interpolation)
        )
        value, *slopes = np.linalg.norm(sampled, axis=2).T
        steepest = np.hypot(*slopes) * patches.scales[rows[part]].max(axis=1)
        flat[part] = ~(steepest > _FLAT * value)
        release(patches)
    counts = ~(unreferenced | outside | flat)
    lost = np.bincount(observations.point_index[counts], minlength=len(observations.point_ids)) == 0
    return Gated(unreferenced, outside, flat, lost)
