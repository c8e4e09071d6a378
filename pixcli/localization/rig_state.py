"""The state of a pose refinement, a rig's pose and its cameras: projections and their derivatives.

A query is one image, or several of a rig: *sensors*, whose poses in the frame of the rig are known. The pose
is that of the rig; for a single image the two are the same.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pixcli.geometry.projection import derivatives_by_point

import pycolmap

Float64 = npt.NDArray[np.float64]

_STEP = 1e-6  # of an intrinsic parameter, that derivatives are taken over; relative if it is above 1


@dataclass(frozen=True)
class Sensor:
    """A camera of a query."""

    camera: pycolmap.Camera
    cam_from_rig: pycolmap.Rigid3d


@dataclass(frozen=True)
class RefinedIntrinsics:
    """What of the cameras is refined beside the pose."""

    focal_length: bool = False
    principal_point: bool = False
    extra_params: bool = False

    def indices(self, camera: pycolmap.Camera) -> list[int]:
        """Rows of camera.params."""
        return sorted(
            [*camera.focal_length_idxs()] * self.focal_length
            + [*camera.principal_point_idxs()] * self.principal_point
            + [*camera.extra_params_idxs()] * self.extra_params
        )


@dataclass(frozen=True)
class RigState:
    """A pose, and cameras. Its parameters are w and v of the pose, then those refined of each camera."""

    rig_from_world: pycolmap.Rigid3d
    sensors: list[Sensor]

    def moved(self, step: Float64, refined: RefinedIntrinsics) -> "RigState":
        """After a step (k,) of the parameters: rotations are turned by w, translations moved by v."""
        old = self.rig_from_world
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(step[:3]) * old.rotation, old.translation + step[3:6])
        sensors, first = [], 6
        for sensor in self.sensors:
            indices = refined.indices(sensor.camera)
            sensors.append(_with_params(sensor, indices, step[first : first + len(indices)]))
            first += len(indices)
        return RigState(pose, sensors)

    def project(self, points: Sequence[Float64]) -> list[Float64]:
        """(n, 2) where each sensor sees its points (n, 3); infinite behind it."""
        return [
            project(sensor, self.rig_from_world, xyz)
            for sensor, xyz in zip(self.sensors, points, strict=True)
        ]

    def jacobians(self, points: Sequence[Float64], refined: RefinedIntrinsics) -> list[Float64]:
        """(n, 2, k) of each sensor's projections by all parameters; 0 where points are not seen."""
        total = 6 + sum(len(refined.indices(sensor.camera)) for sensor in self.sensors)
        blocks, first = [], 6
        for sensor, xyz in zip(self.sensors, points, strict=True):
            block = np.zeros((len(xyz), 2, total))
            block[:, :, :6] = by_pose(sensor, self.rig_from_world, xyz)
            for column, index in enumerate(refined.indices(sensor.camera), first):
                block[:, :, column] = _by_intrinsic(sensor, self.rig_from_world, index, xyz)
            first += len(refined.indices(sensor.camera))
            blocks.append(finite(block))
        return blocks


@dataclass(frozen=True)
class RefinedPose:
    """A pose and what it costs."""

    state: RigState
    covariance: Float64
    """(6, 6), see LocalizationResult."""
    cost_before: float
    """Mean of a measurement, for the pose before."""
    cost_after: float


def project(sensor: Sensor, rig_from_world: pycolmap.Rigid3d, points: Float64) -> Float64:
    """(n, 2) where a sensor sees points (n, 3) of the world; infinite behind it."""
    pose = sensor.cam_from_rig * rig_from_world
    in_camera = points @ pose.rotation.matrix().T + pose.translation
    xy = np.asarray(sensor.camera.img_from_cam(in_camera), float).reshape(-1, 2)
    return np.where(np.isfinite(xy), xy, np.inf)


def pixel_deviation(state: RigState, points: Sequence[Float64], covariance: Float64) -> float:
    """Pixels along an axis that projections deviate by if the pose does as a covariance says.

    Root mean square of the points (n, 3) that each sensor sees.
    """
    rows = np.concatenate(
        [
            by_pose(sensor, state.rig_from_world, xyz)
            for sensor, xyz in zip(state.sensors, points, strict=True)
        ]
    ).reshape(-1, 6)
    return float(np.sqrt(np.nanmean(((rows @ covariance) * rows).sum(1))))


def difference(old: pycolmap.Rigid3d, new: pycolmap.Rigid3d) -> Float64:
    """(6,) w and v that take a pose to another one, see LocalizationResult."""
    turn = (new.rotation * old.rotation.inverse()).quat  # x y z w
    angle = 2 * np.arctan2(np.linalg.norm(turn[:3]), abs(turn[3])) * np.copysign(1, turn[3])
    axis = turn[:3] / max(float(np.linalg.norm(turn[:3])), 1e-300)
    return np.concatenate([angle * axis, new.translation - old.translation])


def by_pose(sensor: Sensor, rig_from_world: pycolmap.Rigid3d, points: Float64) -> Float64:
    """(n, 2, 6) derivatives of projections by w and v of the pose; NaN where points are not seen."""
    in_rig = points @ rig_from_world.rotation.matrix().T + rig_from_world.translation
    by_rig = derivatives_by_point(sensor.camera, sensor.cam_from_rig, in_rig)
    turned = (in_rig - rig_from_world.translation)[:, None]
    result = np.empty((*by_rig.shape[:2], 6))
    # exp([w]) y is y + w x y: the derivative of b . (w x y) by w is y x b.
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        result[:, :, k] = turned[:, :, i] * by_rig[:, :, j] - turned[:, :, j] * by_rig[:, :, i]
    result[:, :, 3:] = by_rig
    return result


def finite(values: Float64) -> Float64:
    """The values, 0 where they are not finite."""
    return np.where(np.isfinite(values), values, 0)


def _by_intrinsic(sensor: Sensor, rig_from_world: pycolmap.Rigid3d, index: int, points: Float64) -> Float64:
    """(n, 2) central differences of projections by a parameter of the camera."""
    size = _STEP * max(abs(float(sensor.camera.params[index])), 1.0)
    ahead, behind = (
        project(_with_params(sensor, [index], np.array([step])), rig_from_world, points)
        for step in (size, -size)
    )
    with np.errstate(invalid="ignore"):  # where a point is not seen
        return np.asarray((ahead - behind) / (2 * size))


def _with_params(sensor: Sensor, indices: Sequence[int], step: Float64) -> Sensor:
    if not indices:
        return sensor
    camera, params = copy(sensor.camera), np.array(sensor.camera.params)
    params[list(indices)] += step
    camera.params = params
    return replace(sensor, camera=camera)
