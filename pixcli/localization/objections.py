"""Which refined poses are not to be trusted: both strategies ask here."""

import numpy as np

from pixcli.localization.first_pose import FirstPose
from pixcli.localization.rig_state import RefinedPose, difference

_MAX_JUMP = 6.0  # standard deviations of the first pose
_MIN_KEPT = 0.5  # of the first pose's inliers


def objection(first: FirstPose, refined: RefinedPose, num_inliers: int) -> str:
    """Why the refinement of a first pose is to be undone; empty if nothing speaks against it.

    Args:
        num_inliers: of the matches, at the refined pose.
    """
    if not refined.cost_after <= refined.cost_before * (1 + 1e-9):
        return f"raised its own cost from {refined.cost_before:.3g} to {refined.cost_after:.3g}"
    if num_inliers < _MIN_KEPT * first.pose.num_inliers:
        return f"left {num_inliers} of {first.pose.num_inliers} inliers"
    moved = difference(first.pose.state.rig_from_world, refined.state.rig_from_world)
    jump = float(np.sqrt(moved @ np.linalg.solve(first.pose.covariance, moved) / 6))
    if not jump <= _MAX_JUMP:
        return f"moved the pose by {jump:.1f} of its standard deviations"
    return ""
