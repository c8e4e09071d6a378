"""Tracks of a match graph."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pixcli import _core
from pixcli.geometry.match_graph import MatchGraph


@dataclass(frozen=True)
class Tracks:
    """Sets of keypoints of different images that matches link; indices are those of the graph's edges."""

    ptr: npt.NDArray[np.int64]
    """(tracks + 1,) the members of track t are members[ptr[t]:ptr[t + 1]], its root first."""
    members: npt.NDArray[np.int32]
    label: npt.NDArray[np.int32]
    """(keypoints,) the track of each keypoint, -1 for none."""

    @property
    def num_tracks(self) -> int:
        return len(self.ptr) - 1

    @cached_property
    def roots(self) -> npt.NDArray[np.int32]:
        """(tracks,) the keypoint of highest degree of each track."""
        return self.members[self.ptr[:-1]]

    @cached_property
    def spokes(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Root and member, for every member that is not the root."""
        root_of = np.repeat(self.roots, np.diff(self.ptr))
        others = np.ones(len(self.members), bool)
        others[self.ptr[:-1]] = False
        return root_of[others], self.members[others]

    def inside(self, edges: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Which edges (m, 2) join two members of one track."""
        label = self.label[edges]
        return np.asarray((label[:, 0] == label[:, 1]) & (label[:, 0] >= 0))


def build_tracks(graph: MatchGraph) -> Tracks:
    """Tracks from the edges of a graph; a track never holds two keypoints of one image.

    Where two edges would put two keypoints of an image into one track, the weaker is not used: the one with
    the lower score or, where scores are equal or unknown, of the pair with fewer matches.
    """
    count = np.diff(graph.pair_ptr)
    strength = np.repeat(count, count)
    if graph.scores is not None and len(strength):
        both = np.stack([graph.scores, strength], 1)
        strength = np.unique(both, axis=0, return_inverse=True)[1].ravel()
    return Tracks(*_core.build_tracks(graph.edges, graph.image_index, strength.astype(np.float32)))
