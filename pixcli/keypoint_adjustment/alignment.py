"""What every keypoint adjustment strategy returns."""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Status(IntEnum):
    """What happened to a keypoint; everything but MOVED leaves it where it was."""

    UNMATCHED = 0
    """In no track: nothing to align it with."""
    MOVED = 1
    ROOT = 2
    """The root of its track, which defines where the others go."""
    CONSTANT = 3
    """Held fixed on request."""
    OUT_OF_BOUND = 4
    """The optimum is further away than the bound allows."""
    OUT_OF_IMAGE = 5
    """Its support leaves the image."""
    WEAK_TEXTURE = 6
    """Flat, or the predicted standard deviation is over its threshold."""
    LOW_CORRELATION = 7
    """It does not look like its track's template, even after alignment."""
    WORSE_SCORE = 8
    """Moving it would not have improved its cost or correlation."""
    DISTORTED = 9
    """The local warp drifted too far from its start."""
    INVALID = 10
    """Not finite, or outside the image."""
    UNDONE = 11
    """Moved, but so that matches fitted the geometry of their image pairs worse: all such were undone."""

    @property
    def label(self) -> str:
        """What a table calls it."""
        return self.name.lower().replace("_", " ")


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
