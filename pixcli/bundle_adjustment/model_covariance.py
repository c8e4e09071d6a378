"""Covariances of the poses, points and cameras of a refined model.

They are those of the least-squares problem that was solved, (J^T J)^-1 times the variance that its residuals
show, with the points eliminated first. Where nothing fixes position, orientation and scale, they are those of
a model that is aligned to the truth by its camera centres: what an evaluation would see. Images and points
that are held take their place. Errors that observations have in common, such as those of the lens model, are
not in them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import block_diag, csr_matrix

from pixcli.bundle_adjustment.problem import Constants
from pixcli.errors import UserError
from pixcli.geometry.observations import Observations, points_of, reprojection_errors
from pixcli.geometry.projection import projection_derivatives
from pixcli.options.bundle_adjustment import BundleAdjustmentOptions

import pycolmap

Float64 = NDArray[np.float64]

_MOST_PARAMETERS = 15_000  # of cameras and poses, whose covariance is a dense matrix: 1.8 GB
_STEP = 1e-6  # for derivatives by the parameters of a camera, relative to them where they are over 1
_DEGENERATE = 1e-6  # ratio of extents of the camera centres


@dataclass(frozen=True)
class ModelCovariance:
    """What is known how well. Zeros stand for what was held; NaN for points that took no part."""

    frame_ids: NDArray[np.int64]
    """(f,) ascending."""
    poses: Float64
    """(f, 6, 6) of each rig_from_world: rotation vector w in radians along the axes of the rig, as in
    exp([w]) R, then the projection centre in the world, in units of the model."""
    point_ids: NDArray[np.int64]
    """(p,) ascending."""
    points: Float64
    """(p, 3, 3) in the world, in units of the model squared."""
    cameras: dict[int, Float64]
    """(k, k) of the parameters of each camera."""
    deviation: float
    """Standard deviation of a coordinate of an observation that the residuals show, in pixels; with features,
    in their units."""


@dataclass(frozen=True)
class FeatureResiduals:
    """What m rows of each of n observations say in an adjustment by features."""

    residual: Float64
    """(n, m) zeros where an observation takes no part."""
    by_point: Float64
    """(n, m, 3) its derivatives by the point."""

    def by_pixel(self, pixel_by_point: Float64) -> Float64:
        """(n, m, 2) its derivatives by the projection, of which (n, 2, 3) are given by the point."""
        return self.by_point @ np.linalg.pinv(pixel_by_point)


class _Columns:
    """Where the parameters of cameras, sensors and frames are among the columns; those held have none."""

    def __init__(
        self,
        model: pycolmap.Reconstruction,
        image_ids: Iterable[int],
        options: BundleAdjustmentOptions,
        constants: Constants,
    ) -> None:
        self.total = 0
        images = [model.images[image_id] for image_id in image_ids]
        held = {model.images[image_id].frame_id for image_id in constants.images}
        frames = sorted({image.frame_id for image in images})
        self.held_frames = [k for k in frames if k in held or not options.refine_rig_from_world]
        self.frames = {k: self._take(6) for k in frames if k not in self.held_frames}
        self.cameras: dict[int, tuple[int, list[int]]] = {}
        """The first column and the indices of the parameters that vary."""
        for camera_id in sorted({image.camera_id for image in images} - constants.cameras):
            camera = model.cameras[camera_id]
            free: list[int] = []
            if options.refine_focal_length:
                free += camera.focal_length_idxs()
            if options.refine_principal_point:
                free += camera.principal_point_idxs()
            if options.refine_extra_params:
                free += camera.extra_params_idxs()
            free = sorted({*free} - {*camera.metadata_params_idxs()})
            self.cameras[camera_id] = (self._take(len(free)), free)
        self.sensors: dict[tuple[int, int], int] = {}
        sensors = {(image.frame.rig_id, image.camera_id) for image in images if not image.is_ref_in_frame()}
        self.scaled = False
        """By a rig that is known."""
        for rig_id, camera_id in sorted(sensors):
            if options.refine_sensor_from_rig and rig_id not in constants.rigs:
                self.sensors[rig_id, camera_id] = self._take(6)
            else:
                self.scaled = True

    def _take(self, count: int) -> int:
        self.total += count
        return self.total - count


def check_covariance(
    model: pycolmap.Reconstruction, options: BundleAdjustmentOptions, constants: Constants
) -> None:
    """Raises UserError if covariances cannot be computed: better before the work than after."""
    columns = _Columns(model, model.reg_image_ids(), options, constants)
    if columns.total > _MOST_PARAMETERS:
        raise UserError(
            f"the model has {columns.total} parameters of poses and cameras; covariances are computed for "
            f"up to {_MOST_PARAMETERS}: leave out --covariance_path"
        )
    _gauge(model, columns, options, constants)


def model_covariance(
    model: pycolmap.Reconstruction,
    observations: Observations,
    used: NDArray[np.bool_],
    scale: float,
    options: BundleAdjustmentOptions,
    constants: Constants,
    features: FeatureResiduals | None = None,
) -> ModelCovariance:
    """The covariance of a model that was adjusted to these observations with Cauchy's loss.

    Args:
        used: (n,) observations that took part.
        scale: of the loss, in pixels, or in units of the features.
        features: what was compared instead of xy.

    Raises:
        UserError: the cameras lie in a line, or there are too many.
    """
    columns = _Columns(model, observations.by_image, options, constants)
    borders = _gauge(model, columns, options, constants)
    points = points_of(model, observations)
    by_point, _ = projection_derivatives(model, observations, points)
    used = used & np.isfinite(by_point).all(axis=(1, 2))
    if features is None:
        residual = reprojection_errors(model, observations)
        factors = np.broadcast_to(np.eye(2), (len(residual), 2, 2))
        squares = np.square(residual).sum(axis=1)
    else:
        directions, factors = np.linalg.qr(features.by_pixel(np.nan_to_num(by_point)))
        residual = np.einsum("nkj,nk->nj", directions, features.residual)
        squares = np.square(features.residual).sum(axis=1)
    used &= np.isfinite(residual).all(axis=1)
    by_point = factors @ by_point
    rows = _shared_rows(model, observations, points, by_point, factors, used, columns)
    free = np.full(len(points), options.refine_points3D)
    free[np.isin(observations.point_ids, sorted(constants.points))] = False

    # Eliminate the points.
    slope = by_point * (used & free[observations.point_index])[:, None, None]
    information = np.add.reduceat(slope.transpose(0, 2, 1) @ slope, observations.ptr[:-1])
    known = np.linalg.eigvalsh(information)[:, 0] > 1e-12 * np.trace(information, axis1=1, axis2=2)
    inverse = np.zeros_like(information)
    inverse[known] = np.linalg.inv(information[known])
    coupling = _coupling(rows, slope, observations)
    reduced = (rows.T @ rows - coupling @ block_diag(inverse, "csr") @ coupling.T).toarray()
    shared = _inverse(reduced, borders)

    parameters = columns.total - borders.shape[1] + 3 * int(known.sum())
    variance = _variance(residual[used], squares[used], scale, parameters)
    of_points = inverse + _through(shared, coupling, inverse)
    of_points[~known & free] = np.nan
    return _sorted_out(
        model, columns, observations, variance * shared, variance * of_points, float(np.sqrt(variance))
    )


def _variance(residual: Float64, squares: Float64, scale: float, parameters: int) -> float:
    """What (J^T J)^-1 has to be multiplied with, in squared units of the residuals.

    That of an M-estimator, K^2 E[psi^2] / E[psi']^2 with K = 1 + p/n Var[psi'] / E[psi']^2 (Huber, Robust
    Statistics, 1981, section 7.6), for two coordinates that share a weight: psi = r / (1 + s / scale^2).
    Residuals are smaller than errors, as p parameters were fitted to n of them, and are enlarged first.

    Args:
        residual: (n, 2) along the directions in which the projection moves it.
        squares: (n,) of the whole residual, s.
    """
    taken = parameters / max(2 * len(residual), 1)
    if taken >= 1:
        return float("nan")
    inner = np.square(residual).sum(axis=1)
    squares = squares - inner + inner / (1 - taken)
    inner = inner / (1 - taken)
    weight = 1 / (1 + squares / scale**2)
    bend = weight**2 * inner / scale**2
    slope = weight - bend  # of psi, on average over the directions; it varies with them by bend**2 / 2
    correction = 1 + taken * (np.var(slope) + np.mean(bend**2) / 2) / np.mean(slope) ** 2
    return float(correction**2 * np.mean(weight**2 * inner) / 2 / np.mean(slope) ** 2)


def _shared_rows(
    model: pycolmap.Reconstruction,
    observations: Observations,
    points: Float64,
    by_point: Float64,
    factors: Float64,
    used: NDArray[np.bool_],
    columns: _Columns,
) -> csr_matrix:
    """(2n, columns) derivatives by poses, sensors and cameras.

    Args:
        by_point: (n, 2, 3) derivatives by points (p, 3), and (n, 2, 2) by pixels: factors.
    """
    values: list[Float64] = []
    places: list[NDArray[np.int64]] = []
    at_rows: list[NDArray[np.int64]] = []

    def add(members: NDArray[np.int64], block: Float64, column: int) -> None:
        row = 2 * members[:, None, None] + np.array([[0], [1]])
        place = column + np.arange(block.shape[2])
        values.append(block.ravel())
        at_rows.append(np.broadcast_to(row, block.shape).ravel())
        places.append(np.broadcast_to(place, block.shape).ravel())

    for image_id, rows in observations.by_image.items():
        image = model.images[image_id]
        members = rows[used[rows]]
        rig_from_world = image.frame.rig_from_world
        xyz, slope = points[observations.point_index[members]], by_point[members]
        if image.frame_id in columns.frames:
            block = _by_pose(slope, rig_from_world, xyz)
            add(members, block, columns.frames[image.frame_id])
        if (key := (image.frame.rig_id, image.camera_id)) in columns.sensors:
            in_rig = np.asarray(rig_from_world * xyz)
            slope_in_rig = slope @ rig_from_world.rotation.matrix().T
            sensor_from_rig = image.frame.rig.sensor_from_rig(image.camera.sensor_id)
            add(members, _by_pose(slope_in_rig, sensor_from_rig, in_rig), columns.sensors[key])
        column, free = columns.cameras.get(image.camera_id, (0, []))
        if free:
            in_camera = np.asarray(image.cam_from_world() * xyz)
            add(members, factors[members] @ _by_camera(image.camera, free, in_camera), column)
    shape = (2 * len(observations.xy), columns.total)
    if not values:
        return csr_matrix(shape)
    entries = np.concatenate(values), (np.concatenate(at_rows), np.concatenate(places))
    return csr_matrix(entries, shape)


def _by_pose(by_point: Float64, target_from_source: pycolmap.Rigid3d, points: Float64) -> Float64:
    """(m, 2, 6) derivatives by a turn of the target's axes, and by the place of its origin in the source.

    Args:
        by_point: (m, 2, 3) derivatives by points (m, 3) of the source.
    """
    rotation = target_from_source.rotation.matrix()
    in_target = np.asarray(target_from_source * points)
    # exp([w]) y is y + w x y, and r (w x y) is w (y x r), for a row r of the derivatives by y.
    turn = np.cross(in_target[:, None], by_point @ rotation.T)
    return np.concatenate([turn, -by_point], axis=2)


def _by_camera(camera: pycolmap.Camera, free: Sequence[int], in_camera: Float64) -> Float64:
    """(m, 2, k) derivatives of the projection by these parameters."""
    block = np.empty((len(in_camera), 2, len(free)))
    other = pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=camera.params
    )
    for place, index in enumerate(free):
        seen = []
        step = _STEP * max(abs(camera.params[index]), 1.0)
        for sign in (1, -1):
            params = np.array(camera.params)
            params[index] += sign * step
            other.params = params
            seen.append(np.asarray(other.img_from_cam(in_camera)))
        block[:, :, place] = np.nan_to_num((seen[0] - seen[1]) / (2 * step))
    return block


def _coupling(rows: csr_matrix, slope: Float64, observations: Observations) -> csr_matrix:
    """(columns, 3p) the part of the normal equations between the shared parameters and the points."""
    n = len(slope)
    row = np.repeat(np.arange(2 * n), 3)
    column = (3 * observations.point_index[:, None, None] + np.arange(3)).repeat(2, axis=1).ravel()
    by_points = csr_matrix((slope.ravel(), (row, column)), (2 * n, 3 * len(observations.point_ids)))
    return (rows.T @ by_points).tocsr()


def _gauge(
    model: pycolmap.Reconstruction,
    columns: _Columns,
    options: BundleAdjustmentOptions,
    constants: Constants,
) -> Float64:
    """(columns, g) what camera centres may not do together: move, turn or grow, unless something is held."""
    frames = sorted([*columns.frames, *columns.held_frames])
    centres = np.array([model.frames[k].rig_from_world.inverse().translation for k in frames])
    middle = centres.mean(axis=0)
    extent = np.sqrt(np.square(centres - middle).sum(axis=1).mean()) or 1.0

    def motion(xyz: Float64) -> Float64:
        """(3, 7) how a place moves: three translations, three turns and the scale."""
        x, y, z = (xyz - middle) / extent
        return np.array([[1, 0, 0, 0, z, -y, x], [0, 1, 0, -z, 0, x, y], [0, 0, 1, y, -x, 0, z]])

    turn = np.hstack([np.zeros((3, 3)), np.eye(3), np.zeros((3, 1))])
    held = [np.zeros((1, 7))]
    for k in columns.held_frames:
        held += [motion(centres[frames.index(k)]), turn]
    fixed = constants.points if options.refine_points3D else model.point3D_ids()
    held += [motion(model.points3D[k].xyz) for k in sorted(fixed)[:100] if k in model.points3D]
    if columns.scaled:
        held.append(np.eye(7)[6:])
    _, size, directions = np.linalg.svd(np.concatenate(held))
    free = directions[int((size > 1e-9).sum()) :].T
    if not free.shape[1] or not columns.frames:
        return np.zeros((columns.total, 0))
    borders = np.zeros((columns.total, free.shape[1]))
    for k, column in columns.frames.items():
        borders[column + 3 : column + 6] = motion(centres[frames.index(k)]) @ free
    strength = np.linalg.svd(borders, compute_uv=False)
    if len(strength) < free.shape[1] or strength[-1] < _DEGENERATE * strength[0]:
        raise UserError(
            "--covariance_path needs three cameras that are not in a line, or constant images: else nothing "
            "says against what errors are counted"
        )
    return borders


def _inverse(matrix: Float64, borders: Float64) -> Float64:
    """The inverse of a matrix on what is orthogonal to the borders; it may be singular elsewhere."""
    size, extra = len(matrix), borders.shape[1]
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    whole = np.zeros((size + extra, size + extra))
    whole[:size, :size] = matrix * scale * scale[:, None]
    scaled = borders * scale[:, None]
    whole[:size, size:] = scaled / np.maximum(np.linalg.norm(scaled, axis=0), 1e-300)
    whole[size:, :size] = whole[:size, size:].T
    try:
        inverse = np.linalg.inv(whole)[:size, :size]
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)
    return inverse * scale * scale[:, None]


def _through(shared: Float64, coupling: csr_matrix, inverse: Float64) -> Float64:
    """(p, 3, 3) what the uncertainty of poses and cameras adds to points."""
    by_column = coupling.tocsc()
    result = np.zeros_like(inverse)
    for k in range(len(inverse)):
        block = by_column[:, 3 * k : 3 * k + 3]
        touched = np.unique(block.indices)
        gain = block[touched].toarray() @ inverse[k]
        result[k] = gain.T @ shared[np.ix_(touched, touched)] @ gain
    return result


def _sorted_out(
    model: pycolmap.Reconstruction,
    columns: _Columns,
    observations: Observations,
    shared: Float64,
    points: Float64,
    deviation: float,
) -> ModelCovariance:
    frames = sorted([*columns.frames, *columns.held_frames])
    poses = np.zeros((len(frames), 6, 6))
    for row, frame_id in enumerate(frames):
        if frame_id in columns.frames:
            column = columns.frames[frame_id]
            poses[row] = shared[column : column + 6, column : column + 6]
    cameras = {}
    for camera_id, (column, free) in columns.cameras.items():
        covariance = np.zeros((len(model.cameras[camera_id].params),) * 2)
        end = column + len(free)
        covariance[np.ix_(free, free)] = shared[column:end, column:end]
        cameras[camera_id] = covariance
    return ModelCovariance(
        np.array(frames, np.int64), poses, observations.point_ids, points, cameras, deviation
    )
