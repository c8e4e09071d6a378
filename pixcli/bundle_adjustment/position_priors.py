"""Positions of images that are known beforehand, such as from GPS, as COLMAP's databases hold them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli.bundle_adjustment.solver import Loss, ceres_loss
from pixcli.ceres import colmap_costs
from pixcli.errors import UserError
from pixcli.io.database import read_pose_priors
from pixcli.options.bundle_adjustment import PosePriorOptions

import pycolmap

Float64 = NDArray[np.float64]

_WITHIN_95_PERCENT = 2.7955  # deviations of a position in space: the root of chi square with three degrees


@dataclass(frozen=True)
class PositionPriors:
    """Where the reference sensors of frames were, in the world of the priors."""

    positions: Mapping[int, Float64]
    """(3,) by image id."""
    covariances: Mapping[int, Float64]
    """(3, 3)"""
    loss: Loss

    def distance(self, model: pycolmap.Reconstruction) -> float:
        """How far images are from their priors, in the median."""
        both = [(model.images[k].projection_center(), position) for k, position in self.positions.items()]
        return float(np.median([np.linalg.norm(a - b) for a, b in both]))


def read_priors(path: Path, model: pycolmap.Reconstruction, options: PosePriorOptions) -> PositionPriors:
    """The priors of a database for images of a model; latitudes and longitudes become metres east, north, up.

    Those of other sensors than the reference of their rig are left out, as COLMAP does.

    Raises:
        UserError: there are fewer than three.
    """
    by_name = {image.name: image for image in model.images.values() if image.has_pose}
    positions, covariances = {}, {}
    origin: Float64 | None = None
    for name, prior in sorted(read_pose_priors(path).items()):
        image = by_name.get(name)
        if image is None or not image.is_ref_in_frame() or not prior.has_position():
            continue
        position = np.array(prior.position, np.float64)
        if prior.coordinate_system == pycolmap.PosePriorCoordinateSystem.WGS84:
            origin = position if origin is None else origin
            transform = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
            position = np.asarray(transform.ellipsoid_to_enu(position[None], *origin))[0]
        positions[image.image_id] = position
        covariances[image.image_id] = (
            np.array(prior.position_covariance)
            if prior.has_position_cov()
            else np.eye(3) * options.prior_position_fallback_stddev**2
        )
    if len(positions) < 3:
        raise UserError(
            f"{path} holds positions of {len(positions)} of the images of the model, but 3 are needed for "
            "--PosePrior.use_prior_position"
        )
    robust = options.use_robust_loss_on_prior_position
    loss = Loss("cauchy", options.prior_position_loss_scale) if robust else Loss("trivial")
    return PositionPriors(positions, covariances, loss)


def align_to_priors(model: pycolmap.Reconstruction, priors: PositionPriors) -> None:
    """Move, turn and scale a model so that its images are where the priors say, but for outliers among them.

    Raises:
        UserError: no such similarity fits.
    """
    locations = np.array(list(priors.positions.values()))
    # Seen from the origin of geographic coordinates, differences would drown in the digits.
    centre = locations.mean(0)
    locations -= centre
    deviations = [np.sqrt(np.linalg.eigvalsh(covariance)[-1]) for covariance in priors.covariances.values()]
    ransac = pycolmap.RANSACOptions()
    # Models bend by about a hundredth of their size, however exact the priors are.
    extent = float(np.sqrt((locations**2).sum(1).mean()))
    ransac.max_error = max(_WITHIN_95_PERCENT * float(np.mean(deviations)), 0.01 * extent)
    ransac.random_seed = 0
    names = [model.images[image_id].name for image_id in priors.positions]
    world_from_model = pycolmap.align_reconstruction_to_locations(model, names, locations, 3, ransac)
    if world_from_model is None:
        raise UserError(
            f"the positions of the database do not fit to the model within {ransac.max_error:.3g} units: "
            "check them, or set --PosePrior.prior_position_fallback_stddev to how far off they are"
        )
    model.transform(world_from_model)
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(), centre))


def add_position_priors(
    problem: Any, priors: PositionPriors, poses: Mapping[int, Float64], scale: float
) -> list[object]:
    """Add the costs of priors to a problem of pyceres; what is returned must outlive it.

    Args:
        poses: the parameters of cam_from_world by image id, as the problem has them.
        scale: the deviation of the residuals beside them, in their units: priors count as much less.
    """
    robust = ceres_loss(priors.loss)
    for image_id, pose in poses.items():
        if image_id in priors.positions and problem.has_parameter_block(pose):
            covariance = priors.covariances[image_id] / scale**2
            cost = colmap_costs.AbsolutePosePositionPriorCost(covariance, priors.positions[image_id])
            problem.add_residual_block(cost, robust, [pose])
    return [robust]
