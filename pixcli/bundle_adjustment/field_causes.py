"""What explains residual fields: parameters that are held, or a camera model that is too simple."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pixcli.bundle_adjustment.geometric import FIRST_SCALES, adjust_geometrically
from pixcli.bundle_adjustment.problem import Constants
from pixcli.calibration.diagnosis import Cause, find_causes
from pixcli.calibration.lens_priors import FocalPrior
from pixcli.geometry.observations import Observations
from pixcli.options.bundle_adjustment import FeaturemetricBundleAdjusterOptions

import pycolmap


def explain_fields(
    model: pycolmap.Reconstruction,
    observations: Observations,
    accepted: NDArray[np.bool_],
    options: FeaturemetricBundleAdjusterOptions,
    constants: Constants,
    following: Mapping[int, str | None],
) -> dict[int, Cause]:
    """What explains the residual fields of cameras, of those whose lens was not searched for.

    Args:
        accepted: (n,) observations that judge.
        following: the cameras in question, with the camera model that can follow more.
    """
    asked = {k: name for k, name in following.items() if k not in constants.lenses}
    if not asked:
        return {}
    still = constants.cameras - asked.keys()
    cameras = {k: camera for k, camera in model.cameras.items() if not camera.is_spherical()}
    priors = {k: FocalPrior.of(camera) for k, camera in cameras.items() if k not in still}
    released = replace(constants, cameras=still, lenses=priors)
    intrinsics = replace(
        options.bundle_adjustment,
        refine_focal_length=True,
        refine_principal_point=True,
        refine_extra_params=True,
    )
    ceres = options.bundle_adjustment_ceres

    def as_it_was(state: pycolmap.Reconstruction, scales: Sequence[float], _: Collection[int]) -> None:
        adjust_geometrically(state, scales, options.bundle_adjustment, ceres, constants)

    def free(state: pycolmap.Reconstruction, scales: Sequence[float], _: Collection[int]) -> None:
        adjust_geometrically(state, scales, intrinsics, ceres, released)

    return find_causes(model, observations, accepted, asked, as_it_was, free, FIRST_SCALES[-1:])
