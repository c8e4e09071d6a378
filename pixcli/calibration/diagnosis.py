"""What explains systematic residuals: parameters that are held, or a camera model that is too simple."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixcli.calibration.calibrate import Adjust, Halves, become
from pixcli.calibration.held_out import advantage
from pixcli.calibration.search import BETTER
from pixcli.geometry.observations import Observations

import pycolmap


@dataclass(frozen=True)
class Cause:
    """What would explain the residuals of a camera better, by held-out observations; maybe neither."""

    held: bool
    """The same camera model with all its parameters free."""
    model: str | None
    """This camera model with all its parameters free, and better than the one that it is."""


def find_causes(
    model: pycolmap.Reconstruction,
    observations: Observations,
    measured: NDArray[np.bool_],
    following: Mapping[int, str | None],
    as_it_was: Adjust,
    free: Adjust,
    scales: Sequence[float],
) -> dict[int, Cause]:
    """Why the residuals of cameras are systematic.

    Args:
        measured: (n,) observations that judge.
        following: the cameras in question, with the camera model that could be the better one.
        as_it_was: adjusts a model as this one was adjusted.
        free: adjusts one with the intrinsics of these cameras free.
        scales: of the losses, in pixels.
    """
    halves = Halves(model, observations, measured)
    errors = []
    for trial in range(3):
        for half in halves.halves:
            for camera_id, name in following.items():
                if trial == 2 and name is not None:
                    become(half.model, [camera_id], name)
            (as_it_was if trial == 0 else free)(half.model, scales, ())
        errors.append(halves.judge(scales[-1]))
    causes = {}
    for camera_id, name in following.items():
        mine = halves.of([camera_id])
        if not mine.any():
            continue
        held, own, richer = (values[mine] for values in errors)
        scale = 2 * max(float(np.median(richer)), 0.01)
        block = halves.cell[mine]
        causes[camera_id] = Cause(
            held=advantage(held, own, scale, block) > BETTER,
            model=name if name is not None and advantage(own, richer, scale, block) > BETTER else None,
        )
    return causes
