"""The pose of a query as it gets better."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixcli.localization.localized import Step
from pixcli.localization.rig_state import RigState

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class QueryPose:
    """The pose of a query, and what its sensors show of their matches."""

    state: RigState
    covariance: Float64
    """(6, 6), see LocalizationResult."""
    inliers: Sequence[npt.NDArray[np.bool_]]
    """(m,) for each sensor."""
    keypoints: Sequence[Float64]
    """(m, 2) for each sensor: as measured where they were, else as given."""
    undone: tuple[str, ...] = ()
    """Refinements that were taken back, and why."""
    steps: tuple[Step, ...] = ()

    @property
    def num_inliers(self) -> int:
        """Of all sensors."""
        return sum(int(mask.sum()) for mask in self.inliers)
