"""What keypoint adjustment made of a graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.geometry.match_graph import MatchGraph
from pixcli.keypoint_adjustment.agreement import Agreement
from pixcli.keypoint_adjustment.alignment import AlignmentResult
from pixcli.keypoint_adjustment.tracks import Tracks
from pixcli.sampling.status import Status

Array = npt.NDArray[np.float64]


@dataclass(repr=False, kw_only=True)
class KeypointResult(AlignmentResult):
    """Refined positions of all n keypoints of a graph, and how they came about."""

    graph: MatchGraph
    """The matches that counted, and the keypoints where they were."""
    tracks: Tracks
    """What they were joined to."""
    epipolar: Agreement
    """How the moved keypoints fit the epipolar geometry of their image pairs."""

    @property
    def keypoints(self) -> dict[str, Array]:
        """The refined positions (n_i, 2) in COLMAP pixels of each image, by its name."""
        return {name: self.xy[self.graph.rows_of(k)] for k, name in enumerate(self.graph.names)}

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many keypoints ended how."""
        found = np.bincount(self.status, minlength=len(Status))
        return {status: int(found[status]) for status in Status}

    @property
    def num_moved(self) -> int:
        return self.counts[Status.MOVED]

    @property
    def shifts(self) -> Array:
        """(moved,) distances in pixels."""
        moved = self.status == Status.MOVED
        return np.asarray(np.linalg.norm(self.xy[moved] - self.graph.xy[moved], axis=1))

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them."""
        shifts = self.shifts if self.num_moved else np.zeros(1)
        return {
            "input": {
                "images": len(self.graph.images),
                "keypoints": len(self.graph.xy),
                "pairs": len(self.graph.pairs),
                "edges": len(self.graph.edges),
                "tracks": self.tracks.num_tracks,
            },
            "keypoints": {status.name.lower(): count for status, count in self.counts.items()},
            "shift": {
                "median": float(np.median(shifts)),
                "p90": float(np.percentile(shifts, 90)),
                "max": float(shifts.max()),
            },
            "cost": {"before": self.cost_before, "after": self.cost_after},
            "moved_by": self.moved_by,
            "epipolar": self.epipolar.contents(),
        }

    def summary(self) -> list[tuple[str, str]]:
        """The figures that say how it went: names and values."""
        figures = self.contents()
        shift, cost, input_ = figures["shift"], figures["cost"], figures["input"]
        return [
            ("keypoints moved", f"{self.num_moved} of {input_['keypoints']} in {input_['images']} images"),
            ("tracks", f"{input_['tracks']} from {input_['edges']} matches"),
            ("shift, median and largest (pixels)", f"{shift['median']:.3f}, {shift['max']:.3f}"),
            ("cost before and after", f"{cost['before']:.6g}, {cost['after']:.6g}"),
            (
                "epipolar residual before and after, median (pixels)",
                f"{self.epipolar.before:.3f}, {self.epipolar.after:.3f}",
            ),
        ]

    def __repr__(self) -> str:
        return "KeypointResult\n" + "\n".join(f"  {name}: {value}" for name, value in self.summary())

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{value}</td></tr>" for name, value in self.summary())
        return f"<table>{rows}</table>"
