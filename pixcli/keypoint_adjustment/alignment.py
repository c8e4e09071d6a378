"""What every keypoint adjustment strategy returns."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pixcli.sampling.status import Status


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

    def undo(self, xy: npt.NDArray[np.float64]) -> None:
        """Puts all keypoints back to where they were, (n, 2)."""
        moved = self.status == Status.MOVED
        self.xy, self.cost_after = xy.copy(), self.cost_before
        self.status[moved], self.covariance[moved] = Status.UNDONE, np.nan
        self.moved_by = dict.fromkeys(self.moved_by, 0)
