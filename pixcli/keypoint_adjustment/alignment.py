"""What a strategy of keypoint adjustment has to do, and what it returns."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pixcli.progress import Progress
from pixcli.sampling.status import Status
from pixcli.sampling.streaming import Estimate


@dataclass
class AlignmentResult:
    """Refined positions of all n keypoints, row by row as in the input."""

    xy: npt.NDArray[np.float64]
    """(n, 2) COLMAP pixels; equal to the input wherever the status is not MOVED."""
    status: npt.NDArray[np.uint8]
    """(n,) values of Status."""
    covariance: npt.NDArray[np.float32]
    """(n, 3) xx, xy, yy of the position in pixels squared; NaN where nothing was measured."""
    cost_before: float
    """Sum of the strategy's own cost over all aligned keypoints or edges, before."""
    cost_after: float
    moved_by: dict[str, int] = field(default_factory=dict)
    """How many keypoints each model of a chain moved; of the affine strategy."""

    def undone(self, xy: npt.NDArray[np.float64]) -> "AlignmentResult":
        """The result of moving nothing: all keypoints stay where they were, (n, 2)."""
        moved = self.status == Status.MOVED
        return AlignmentResult(
            xy.copy(),
            np.where(moved, np.uint8(Status.UNDONE), self.status),
            np.where(moved[:, None], np.float32(np.nan), self.covariance),
            self.cost_before,
            self.cost_before,
            dict.fromkeys(self.moved_by, 0),
        )


class Alignment(Protocol):
    """One strategy, ready to run on one graph."""

    def estimate(self) -> Estimate:
        """Bytes that run() will take."""

    @property
    def bytes_per_keypoint(self) -> float:
        """Bytes of patches, or maps, for each matched keypoint."""

    def fill_cache(self, progress: Progress) -> None:
        """Make the patches and keep them in the cache for run()."""

    def run(self, progress: Progress) -> AlignmentResult:
        """Align all keypoints."""
