"""References: what each point of a model should look like."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli import _core
from pixcli.adjustment.observations import Observations
from pixcli.io.patch_store import Patches
from pixcli.io.references import ObservedFeatures, References
from pixcli.options import InterpolationOptions


def sampling_arguments(interpolation: InterpolationOptions) -> dict[str, Any]:
    """InterpolationOptions as native code takes them."""
    return {
        "nodes": list(interpolation.offsets),
        "mode": interpolation.mode,
        "l2_normalize": interpolation.l2_normalize,
        "ncc_normalize": interpolation.ncc_normalize,
    }


def compute_references(
    observations: Observations,
    projected: NDArray[np.float64],
    patches: Patches,
    interpolation: InterpolationOptions,
    *,
    rows: NDArray[np.int64] | None = None,
    loss_scale: float = 0.25,
    max_iterations: int = 100,
    keep_observations: bool = False,
    num_threads: int = -1,
    poll: Callable[[int], object] | None = None,
) -> References:
    """The observation of each point that is nearest to the robust mean of all of them.

    The mean minimises Cauchy's loss of the feature distances, found by averaging with the weights of the loss
    again and again, until it rests. A point has no reference if none of its observations counts: an
    observation counts if the point projects into its patch.

    Args:
        projected: (n, 2) where the points project to, see observations.project().
        rows: (n,) the patch of each observation, -1 for none (None: patch k belongs to observation k).
        keep_observations: also return the features of all observations that count.
        poll: called now and then with the number of points done; may raise to stop.
    """
    if rows is None:
        rows = np.arange(len(patches.data), dtype=np.int64)
    found = _core.compute_references(
        np.ascontiguousarray(projected, np.float64),
        observations.ptr,
        patches.data,
        patches.corners,
        patches.scales,
        np.ascontiguousarray(rows, np.int64),
        **sampling_arguments(interpolation),
        loss_scale=loss_scale,
        max_iterations=max_iterations,
        keep_observations=keep_observations,
        num_threads=num_threads,
        poll=poll,
    )
    has_one = found["nearest"] >= 0
    nearest = found["nearest"][has_one]
    kept = None
    if keep_observations:
        counts = found["counts"]
        per_point = np.bincount(observations.point_index[counts], minlength=len(has_one))[has_one]
        kept = ObservedFeatures(
            np.concatenate([[0], np.cumsum(per_point)]).astype(np.int64),
            observations.image_ids[counts],
            observations.keypoints[counts],
            found["observations"][counts],
        )
    return References(
        observations.point_ids[has_one],
        np.ascontiguousarray(found["features"][has_one]),
        observations.image_ids[nearest],
        observations.keypoints[nearest],
        kept,
    )
