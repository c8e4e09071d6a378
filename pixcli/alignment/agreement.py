"""Whether keypoints that moved fit the epipolar geometry of their image pairs better than before."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.io.database import MatchGraph

Float64 = npt.NDArray[np.float64]

_MAX_PAIRS = 100  # enough to tell, whatever the number of images
_MIN_MATCHES = 30  # of a pair, so that its geometry is more than a fit to them
_ITERATIONS = 8
_SIGNIFICANT = 3.0  # deviations of what chance does


@dataclass(frozen=True)
class Agreement:
    """How well matches fit the fundamental matrix that fits their pair best, before and after."""

    before: float
    """Median distance from it, in pixels, of the matches of which a keypoint moved; NaN without any."""
    after: float
    worse: bool
    """Whether more of them fit worse than better, beyond chance."""

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them; null where there are none."""
        known = np.isfinite(self.before)
        return {"before": self.before if known else None, "after": self.after if known else None}


def measure_agreement(graph: MatchGraph, moved_xy: Float64) -> Agreement:
    """Compare the positions (n, 2) in COLMAP pixels with those of the graph, on some of its pairs.

    Independent of whatever moved the keypoints. Lens distortion stays in: it adds to both residuals alike, so
    that under strong distortion the comparison only tells less.
    """
    moved = (moved_xy != graph.xy).any(1)
    touched = moved[graph.edges].any(1) & graph.inside_image[graph.edges].all(1)
    size = np.diff(graph.pair_ptr)
    count = np.add.reduceat(np.append(touched, False), graph.pair_ptr[:-1]) if len(size) else size
    usable = np.flatnonzero((size >= _MIN_MATCHES) & (count > 0))
    before, after, keypoints = [], [], []
    for pair in usable[:: max(-(-len(usable) // _MAX_PAIRS), 1)]:
        edges = graph.edges[graph.pair_ptr[pair] : graph.pair_ptr[pair + 1]]
        edges = edges[graph.inside_image[edges].all(1)]
        if len(edges) < _MIN_MATCHES:
            continue
        shown = moved[edges].any(1)
        before.append(_residuals(graph.xy[edges[:, 0]], graph.xy[edges[:, 1]])[shown])
        after.append(_residuals(moved_xy[edges[:, 0]], moved_xy[edges[:, 1]])[shown])
        keypoints.append(edges[shown][moved[edges[shown]]])
    if not before:
        return Agreement(np.nan, np.nan, False)
    old, new = np.concatenate(before), np.concatenate(after)
    # A keypoint has matches in several pairs, which share its error: it counts once.
    independent = len(np.unique(np.concatenate(keypoints)))
    excess = 2 * float((new > old).mean()) - 1
    worse = excess * independent**0.5 > _SIGNIFICANT
    return Agreement(float(np.median(old)), float(np.median(new)), worse)


def _residuals(a: Float64, b: Float64) -> Float64:
    """Sampson distances (n,) in pixels of points (n, 2) under their robust best fundamental matrix."""
    center, scale = np.concatenate([a, b]).mean(0), max(float(np.concatenate([a, b]).std()), 1e-9)
    one = np.ones((len(a), 1))
    x, y = np.hstack([(a - center) / scale, one]), np.hstack([(b - center) / scale, one])
    rows = (y[:, :, None] * x[:, None, :]).reshape(-1, 9)
    weight, distance = np.ones(len(a)), np.zeros(len(a))
    for _ in range(_ITERATIONS):
        matrix = np.linalg.eigh((rows * weight[:, None]).T @ rows)[1][:, 0].reshape(3, 3)
        u, d, vt = np.linalg.svd(matrix)
        matrix = (u[:, :2] * d[:2]) @ vt[:2]
        in_b, in_a = x @ matrix.T, y @ matrix
        gradient = np.square(in_b[:, :2]).sum(1) + np.square(in_a[:, :2]).sum(1)
        gradient = np.maximum(gradient, np.finfo(float).tiny)
        distance = np.abs((y * in_b).sum(1)) / np.sqrt(gradient)
        # The algebraic error over the gradient is the distance in the image; Cauchy's weights.
        width = max(2 * float(np.median(distance)), 1e-9)
        weight = 1 / (1 + np.square(distance / width)) / np.maximum(gradient, 1e-6 * gradient.max())
    return np.asarray(distance * scale)
