"""Bundle adjustment problems for pyceres: a model's poses, cameras and points with costs between them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli import _core
from pixcli.bundle_adjustment.position_priors import PositionPriors, add_position_priors
from pixcli.bundle_adjustment.solver import BundleSummary, Loss, ceres_loss, solve_problem
from pixcli.calibration.lens_priors import FocalPriors, add_lens_priors, centred_lenses
from pixcli.ceres import colmap_costs, costs, pyceres
from pixcli.errors import UserError
from pixcli.geometry.observations import Observations
from pixcli.io.patch_store import Patches, mapped_file
from pixcli.io.references import References
from pixcli.options import InterpolationOptions
from pixcli.options.bundle_adjustment import BundleAdjustmentCeresOptions, BundleAdjustmentOptions
from pixcli.sampling.feature_references import sampling_arguments

import pycolmap

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Constants:
    """What stays as it is, by COLMAP's ids, or near to where it is known to be."""

    images: frozenset[int] = frozenset()
    """The poses of their frames."""
    cameras: frozenset[int] = frozenset()
    rigs: frozenset[int] = frozenset()
    """Where their sensors are in them."""
    points: frozenset[int] = frozenset()
    priors: PositionPriors | None = None
    references: Sequence[References] | None = None
    """Of the points on all levels, for strategies that compare features; None: they are found."""
    lenses: FocalPriors = field(default_factory=dict)
    """Cameras that are calibrated: weak priors hold what observations do not determine of them."""


def with_centred(constants: Constants, cameras: Collection[int]) -> Constants:
    """The same, with the principal points of calibrated cameras held near the middle of their images."""
    return replace(constants, lenses=centred_lenses(constants.lenses, cameras))


class BundleProblem:
    """The parameters of a model, copied, and costs between them.

    Add costs, solve, then write what came out into a model: until then nothing of the model is changed.
    """

    def __init__(
        self,
        reconstruction: pycolmap.Reconstruction,
        observations: Observations,
        options: BundleAdjustmentOptions,
        constants: Constants | None = None,
    ) -> None:
        self._model = reconstruction
        self._observations = observations
        self._options = options
        self._constants = constants or Constants()
        points = [reconstruction.points3D[point_id].xyz for point_id in observations.point_ids.tolist()]
        # All parameters lie in one array, as Ceres breaks ties by address: else results would depend on where
        # the memory of each happens to be.
        poses = len(reconstruction.frames) + sum(rig.num_sensors() for rig in reconstruction.rigs.values())
        intrinsics = sum(len(camera.params) for camera in reconstruction.cameras.values())
        self._unused = np.empty(3 * len(points) + 7 * poses + intrinsics)
        self.points: Array = self._placed(np.array(points, np.float64)).reshape(-1, 3)
        self.cameras: dict[int, Array] = {}
        self.rig_from_world: dict[int, Array] = {}
        """By frame: qx qy qz qw tx ty tz."""
        self.sensor_from_rig: dict[tuple[int, int], Array] = {}
        """By rig and camera, of sensors that are not their rig's reference."""
        self._point_blocks = list(self.points)
        self._image_blocks = {image_id: self._blocks_of(image_id) for image_id in observations.by_image}
        self._problem = pyceres.Problem()
        self._added: list[tuple[NDArray[np.int64], int, Loss]] = []
        """Observations in the order of their residuals, of how many rows each, with the loss."""
        self._kept: list[Any] = []
        """Losses and manifolds, which Ceres only borrows."""
        self._projections: dict[tuple[int, bool], Any] = {}
        self._parameterized = False

    def _blocks_of(self, image_id: int) -> list[Array]:
        """What costs of an image depend on besides the point: [sensor_from_rig], rig_from_world, camera."""
        image = self._model.images[image_id]
        camera_id, frame = image.camera_id, image.frame
        blocks = []
        if not image.is_ref_in_frame():
            key = (frame.rig_id, camera_id)
            if key not in self.sensor_from_rig:
                sensor_from_rig = frame.rig.sensor_from_rig(image.camera.sensor_id)
                self.sensor_from_rig[key] = self._placed(_unit_pose(sensor_from_rig.params))
            blocks.append(self.sensor_from_rig[key])
        if image.frame_id not in self.rig_from_world:
            self.rig_from_world[image.frame_id] = self._placed(_unit_pose(frame.rig_from_world.params))
        if camera_id not in self.cameras:
            self.cameras[camera_id] = self._placed(image.camera.params)
        return [*blocks, self.rig_from_world[image.frame_id], self.cameras[camera_id]]

    def _placed(self, values: Array) -> Array:
        """A flat copy where parameters lie."""
        block, self._unused = np.split(self._unused, [values.size])
        block[:] = values.ravel()
        return block

    def add_features(
        self,
        patches: Patches,
        references: References,
        interpolation: InterpolationOptions,
        loss: Loss,
        *,
        warps: Array | None = None,
        rows: NDArray[np.int64] | None = None,
        compressed: bool = True,
    ) -> int:
        """Adds f(projection) - reference for all observations of points with a reference, and counts them.

        `compressed` makes three rows of each residual, exactly; without it, there is one for each channel and
        node.

        Args:
            warps: (n, 2, 2) what carries the nodes of interpolation into the patch of each observation.
            rows: (n,) the patch of each observation, -1 for those that take no part (None: patch k belongs to
                observation k).
        """
        count = len(self._observations.image_ids)
        rows = np.arange(count) if rows is None else rows
        warps_of_patches = None
        if warps is not None:
            warps_of_patches = np.zeros((len(patches.data), 2, 2))
            warps_of_patches[rows[rows >= 0]] = warps[rows >= 0]
        shared = costs.ReferencedPatches(
            patches.data,
            patches.corners,
            patches.scales,
            references.features,
            warps=warps_of_patches,
            mapped=mapped_file(patches.data) is not None,
            **sampling_arguments(interpolation),
        )
        patch_of = rows.tolist()

        def make(k: int, reference: int, projection: Any, wrap_width: float) -> Any:
            return costs.FeaturemetricProjectionCost(
                projection, shared, patch_of[k], reference, wrap_width=wrap_width, compressed=compressed
            )

        size = references.features.shape[1]
        return self._add_all(make, references, 3 if compressed else size, loss, rows >= 0)

    def add_cost_maps(
        self,
        maps: NDArray[np.float32],
        patches: Patches,
        references: References,
        loss: Loss,
        *,
        rows: NDArray[np.int64] | None = None,
    ) -> int:
        """Adds the distance to the reference from the map of each observation, (n, P, P, 3), and counts them.

        Args:
            patches: where the maps lie.
            rows: (n,) the patch of each observation, see add_features().
        """
        rows = np.arange(len(maps)) if rows is None else rows
        shared = costs.CostMaps(maps, patches.corners[rows], patches.scales[rows])

        def make(k: int, reference: int, projection: Any, wrap_width: float) -> Any:
            return costs.CostMapProjectionCost(projection, shared, k, wrap_width=wrap_width)

        return self._add_all(make, references, 3, loss, rows >= 0)

    def _add_all(
        self,
        make: Callable[..., Any],
        references: References,
        rows_of_each: int,
        loss: Loss,
        chosen: NDArray[np.bool_],
    ) -> int:
        observations = self._observations
        robust = self._borrowed(ceres_loss(loss))
        reference = references.rows_of(observations.point_ids)[observations.point_index]
        reference[~chosen] = -1
        for image_id, members in observations.by_image.items():
            camera, blocks = self._model.images[image_id].camera, self._image_blocks[image_id]
            projection = self._projection(camera, rig=len(blocks) == 3)
            wrap_width = float(camera.width) if camera.is_spherical() else 0.0
            members = members[reference[members] >= 0]
            self._added.append((members, rows_of_each, loss))
            for k in members.tolist():
                cost = make(k, int(reference[k]), projection, wrap_width)
                point = self._point_blocks[observations.point_index[k]]
                self._problem.add_residual_block(cost, robust, [point, *blocks])
        return int((reference >= 0).sum())

    def _projection(self, camera: pycolmap.Camera, rig: bool) -> Any:
        """COLMAP's reprojection error with measurement 0 is the projection; it is shared, having no state."""
        key = (int(camera.model), rig)
        if key not in self._projections:
            kind = colmap_costs.RigReprojErrorCost if rig else colmap_costs.ReprojErrorCost
            self._projections[key] = kind(camera.model, np.zeros(2))
        return self._projections[key]

    def add_reprojections(
        self, xy: Array, loss: Loss, covariances: Array | None = None, rows: NDArray[np.int64] | None = None
    ) -> int:
        """Adds COLMAP's reprojection error of xy (n, 2), pixels; returns the number of observations.

        Args:
            covariances: (n, 2, 2) of xy; residuals are then in deviations instead of pixels.
            rows: which of the observations take part; all if None.
        """
        observations = self._observations
        robust = self._borrowed(ceres_loss(loss))
        chosen = np.zeros(len(xy), bool)
        chosen[slice(None) if rows is None else rows] = True
        for image_id, members in observations.by_image.items():
            blocks, model = self._image_blocks[image_id], self._model.images[image_id].camera.model
            kind = colmap_costs.RigReprojErrorCost if len(blocks) == 3 else colmap_costs.ReprojErrorCost
            members = members[chosen[members]]
            self._added.append((members, 2, loss))
            for k in members.tolist():
                cost = kind(model, xy[k]) if covariances is None else kind(model, covariances[k], xy[k])
                point = self._point_blocks[observations.point_index[k]]
                self._problem.add_residual_block(cost, robust, [point, *blocks])
        return int(chosen.sum())

    def add_priors(self, scale: float) -> None:
        """Adds the priors of the constants, on positions and lenses; after all other costs.

        Args:
            scale: the deviation of the other residuals, see add_position_priors().
        """
        if self._constants.priors is not None:
            images = [(image_id, self._model.images[image_id].frame_id) for image_id in self._image_blocks]
            poses = {image_id: self.rig_from_world[frame_id] for image_id, frame_id in images}
            self._kept += add_position_priors(self._problem, self._constants.priors, poses, scale)
        lenses = {
            camera_id: (self._model.cameras[camera_id], focal)
            for camera_id, focal in sorted(self._constants.lenses.items())
            if camera_id in self.cameras
        }
        self._kept += add_lens_priors(self._problem, lenses, self.cameras, scale)

    def solve(
        self, options: BundleAdjustmentCeresOptions, poll: Callable[[int, float], object] | None = None
    ) -> BundleSummary:
        """Minimises the costs.

        Args:
            poll: called after each iteration with its number and cost; may raise to stop.
        """
        if self._problem.num_residual_blocks() == 0:
            raise UserError("there is no observation to refine the model with")
        self._parameterize()
        return solve_problem(self._problem, len(self._image_blocks), options, poll)

    def observation_costs(self) -> Array:
        """(n,) what the observations contribute to the cost as the parameters are; they add up to it."""
        plain = pyceres.EvaluateOptions()
        plain.apply_loss_function = False  # with it, residuals are scaled for Gauss-Newton steps
        residuals = np.array(self._problem.evaluate_residuals(plain))
        result = np.zeros(len(self._observations.image_ids))
        begin = 0
        for members, size, loss in self._added:
            end = begin + size * len(members)
            squares = np.square(residuals[begin:end]).reshape(len(members), size).sum(axis=1)
            result[members] += 0.5 * _core.evaluate_loss(squares, loss.name, loss.scale)[0]
            begin = end
        return result

    def slopes(self) -> tuple[Array, Array]:
        """(n, m) residuals without loss, and (n, m, 3) their derivatives by the points, before a solve.

        Of the only costs that were added; m is the rows of each. Zeros where an observation has no cost.
        """
        ((_, size, _), *_) = self._added
        plain = pyceres.EvaluateOptions()
        plain.apply_loss_function = False
        members = np.concatenate([rows for rows, _, _ in self._added])
        residuals = np.zeros((len(self._observations.image_ids), size))
        residuals[members] = np.reshape(self._problem.evaluate_residuals(plain), (-1, size))
        plain.set_parameter_blocks(self._point_blocks)
        by_points = np.zeros((*residuals.shape, 3))
        # A row depends on one point: its three derivatives are all there is in it.
        by_points[members] = np.reshape(self._problem.evaluate_jacobian(plain).values, (-1, size, 3))
        return residuals, by_points

    def update(self, reconstruction: pycolmap.Reconstruction) -> None:
        """Writes poses, cameras and points into this model, which has the ids of the one given at first."""
        for camera_id, params in self.cameras.items():
            reconstruction.cameras[camera_id].params = params
        for (rig_id, camera_id), params in self.sensor_from_rig.items():
            sensor_id = reconstruction.cameras[camera_id].sensor_id
            reconstruction.rigs[rig_id].set_sensor_from_rig(sensor_id, _rigid(params))
        for frame_id, params in self.rig_from_world.items():
            reconstruction.frames[frame_id].rig_from_world = _rigid(params)
        for point_id, xyz in zip(self._observations.point_ids.tolist(), self.points, strict=True):
            reconstruction.points3D[point_id].xyz = xyz

    def _parameterize(self) -> None:
        """Manifolds, and what is constant, as COLMAP's bundle adjuster sets them."""
        if self._parameterized:
            return
        self._parameterized = True
        self._parameterize_cameras()
        free_frames = self._parameterize_poses()
        self._fix_gauge(free_frames)
        for point_id, xyz in zip(self._observations.point_ids.tolist(), self._point_blocks, strict=True):
            if not self._options.refine_points3D or point_id in self._constants.points:
                self._hold(xyz)

    def _parameterize_cameras(self) -> None:
        options = self._options
        for camera_id, params in self.cameras.items():
            camera = self._model.cameras[camera_id]
            held = {*camera.metadata_params_idxs()}
            if not options.refine_focal_length:
                held |= {*camera.focal_length_idxs()}
            if not options.refine_principal_point:
                held |= {*camera.principal_point_idxs()}
            if not options.refine_extra_params:
                held |= {*camera.extra_params_idxs()}
            if camera_id in self._constants.cameras or len(held) == len(params):
                self._hold(params)
            elif held:
                self._set_manifold(params, pyceres.SubsetManifold(len(params), sorted(held)))

    def _parameterize_poses(self) -> set[int]:
        """Returns the frames whose poses vary."""
        options = self._options
        # Without their reference, sensors could move together against the pose of the rig.
        images = [self._model.images[image_id] for image_id in self._image_blocks]
        anchored = {image.frame.rig_id for image in images if image.is_ref_in_frame()}
        for (rig_id, _), pose in self.sensor_from_rig.items():
            self._set_manifold(pose, costs.RigidManifold())
            if not options.refine_sensor_from_rig or rig_id in self._constants.rigs or rig_id not in anchored:
                self._hold(pose)
        held = {self._model.images[image_id].frame_id for image_id in self._constants.images}
        free = {*self.rig_from_world} - held if options.refine_rig_from_world else set()
        for frame_id, pose in self.rig_from_world.items():
            self._set_manifold(pose, costs.RigidManifold())
            if frame_id not in free:
                self._hold(pose)
        return free

    def _fix_gauge(self, free: set[int]) -> None:
        """Holds one pose and, for the scale, the axis of a second one along which they are furthest apart.

        Poses that are constant anyway count. With a single frame the scale stays free, if nothing else says
        it: the damping of the solver keeps it where it is.
        """
        candidates = self._anchors()
        if self._constants.priors is not None:
            return  # they say where the world is
        if not free or sum(frame_id not in free for frame_id in candidates) >= 2:
            return
        candidates.sort(key=lambda frame_id: frame_id in free)  # constant ones first
        first = candidates[0] if candidates else min(free)
        self._hold(self.rig_from_world[first])
        for second in candidates[1:]:
            from_world = [_rigid(self.rig_from_world[frame_id]) for frame_id in (first, second)]
            baseline = np.abs((from_world[0] * from_world[1].inverse()).translation)
            if baseline.max() > 1e-9:
                axis = int(baseline.argmax())
                self._set_manifold(self.rig_from_world[second], costs.RigidManifold(axis))
                return

    def _anchors(self) -> list[int]:
        """Frames seen by a sensor whose place in the rig is known, in the order of their first image."""
        frames = []
        for image_id, blocks in self._image_blocks.items():
            image = self._model.images[image_id]
            constant = len(blocks) < 3 or self._problem.is_parameter_block_constant(blocks[0])
            if constant and image.frame_id not in frames:
                frames.append(image.frame_id)
        return frames

    def _hold(self, block: Array) -> None:
        if self._problem.has_parameter_block(block):
            self._problem.set_parameter_block_constant(block)

    def _set_manifold(self, block: Array, manifold: Any) -> None:
        if self._problem.has_parameter_block(block):
            self._problem.set_manifold(block, self._borrowed(manifold))

    def _borrowed(self, thing: Any) -> Any:
        self._kept.append(thing)
        return thing


def _unit_pose(params: NDArray[Any]) -> Array:
    """A copy whose quaternion is of unit length, as costs assume."""
    pose: Array = np.array(params, np.float64)
    pose[:4] /= np.linalg.norm(pose[:4])
    return pose


def _rigid(params: Array) -> pycolmap.Rigid3d:
    return pycolmap.Rigid3d(pycolmap.Rotation3d(params[:4]), params[4:])
