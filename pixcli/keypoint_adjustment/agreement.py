"""Whether keypoints that moved fit the epipolar geometry of their image pairs better than before."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.geometry.fundamental import linear_fundamental, normalised, sampson
from pixcli.geometry.match_graph import MatchGraph

Float64 = npt.NDArray[np.float64]

_MAX_PAIRS = 100  # enough to tell, whatever the number of images
_MIN_MATCHES = 30  # of a pair, so that its geometry is more than a fit to them
_SCALE = 0.25  # pixels, of the loss that geometries are fitted by
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
    x, y, to_normal = normalised(a, b)
    per_pixel = float(to_normal[0, 0])
    return np.abs(sampson(linear_fundamental(x, y, _SCALE * per_pixel), x, y)) / per_pixel
