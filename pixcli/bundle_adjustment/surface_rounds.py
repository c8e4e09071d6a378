"""The surface strategy: surfaces measured at fixed poses, then COLMAP's own adjustment, round by round."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pixcli.bundle_adjustment.completion import (
    COMPLETION_LIMITS,
    COMPLETION_SUPPORT,
    ImagePose,
    find_candidates,
)
from pixcli.bundle_adjustment.geometric import (
    FIRST_SCALES,
    adjust_geometrically,
    camera_covariances,
    scales_down_to,
)
from pixcli.bundle_adjustment.problem import with_centred
from pixcli.bundle_adjustment.solver import BundleSummary
from pixcli.bundle_adjustment.strategy import Adjustment, SurfaceRound, Task
from pixcli.calibration.calibrate import (
    LensChoice,
    calibrate,
    centred_cameras,
    share_lenses,
    without_hopeless,
)
from pixcli.geometry.observations import Observations, points_of, project, read_observations
from pixcli.sampling.status import Status
from pixcli.sampling.streaming import Estimate
from pixcli.surfaces.building import surfaces_of
from pixcli.surfaces.measuring import (
    REFINE_SUPPORT,
    Shifts,
    SurfaceLimits,
    align_surfaces,
    measure_surfaces,
)
from pixcli.surfaces.plane_patches import estimate_surface_patches
from pixcli.surfaces.planes import (
    Surfaces,
    normals_of,
    planes_from_normals,
    points_from_planes,
)

import pycolmap

SHIFT_SUPPORTS = ((5, 1.0), (8, 1.0), (14, 1.0))
# See SurfaceLimits; cameras feel the bias of wide supports more than pairs of views do.
_EXTENT_DEVIATION = 0.6
_GATE = 2.0  # pixels; observations further from their point take no part in its surface
# Only chance moves projections once a round moves them by more than this share of what the round
# before it did; one more is the last then.
_SETTLED = 0.7
_REMEDY = "compare grey images (--DenseFeatures.model image), or refine a part of the model"
_PROBLEM_BYTES = 2000  # that COLMAP's and Ceres's share of an observation takes

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class _Measured:
    """The surfaces of a model and what its images show of them."""

    surfaces: Surfaces
    planes: Float64
    points: Float64
    accepted: Bool
    shifts: Shifts
    normals: Float64


def adjust_by_surfaces(task: Task) -> Adjustment:
    """The strategy `surface`: cameras, poses and points, and the 2D points of observations, round by round.

    In the last round, points may also be measured in images that have no observation of them.
    """
    model, options = task.model, task.options
    how = options.featuremetric_bundle_adjustment
    observations = read_observations(model, options.bundle_adjustment.min_track_length)
    _estimate(task, observations).announce(_REMEDY)
    solves, lenses = _start(task, observations)
    projected = project(model, observations)
    rounds: list[SurfaceRound] = []
    normals: Float64 | None = None
    for k in range(how.rounds):
        measured = _measure(task, observations, normals, first=k == 0)
        accepted, normals = measured.accepted, measured.normals
        xy = np.where(accepted[:, None], measured.shifts.xy, observations.xy)
        observations = replace(observations, xy=xy)
        last = k + 1 == how.rounds or (k >= 2 and rounds[-1].moved >= _SETTLED * rounds[-2].moved)
        added = _complete(task, observations, measured) if how.complete_tracks and task.last and last else []
        if k == 0 and task.ladders:
            lenses = _calibrate_again(task, observations, accepted, lenses)
        residual_before = np.linalg.norm(project(model, observations) - xy, axis=1)[accepted]
        with task.progress.phase("adjust"):
            # Only the last round needs the tight loss: the others lead to places to measure at.
            scales = scales_down_to(residual_before) if last else FIRST_SCALES[-1:]
            solves += _adjust(task, model, scales, centred_cameras(lenses))
            if last and lenses and options.calibration.share == "auto":
                lenses = _share(task, observations, accepted, lenses)
                solves += _adjust(task, model, scales, centred_cameras(lenses))
        if how.write_completed == "none":
            _take_back(model, added)
        before, projected = projected, project(model, observations)
        residual_after = np.linalg.norm(projected - xy, axis=1)[accepted]
        moved = np.linalg.norm(projected - before, axis=1)
        rounds.append(_round(measured, len(added), residual_before, residual_after, moved))
        if last:
            break
    measurements = np.bincount(observations.point_index[accepted], minlength=len(observations.point_ids))
    return Adjustment(
        observations,
        accepted,
        solves,
        normals=normals,
        covariance=np.where(accepted[:, None], measured.shifts.covariance, np.nan),
        reference=measured.surfaces.reference,
        rounds=rounds,
        lenses=lenses,
        textureless_points=int((measurements == 0).sum()),
    )


def _adjust(
    task: Task, model: pycolmap.Reconstruction, scales: Sequence[float], centred: Collection[int] = ()
) -> list[BundleSummary]:
    """Adjust a model; the principal points of the cameras named stay near the middle."""
    options = task.options
    return adjust_geometrically(
        model,
        scales,
        options.bundle_adjustment,
        options.bundle_adjustment_ceres,
        with_centred(task.constants, centred),
    )


def _start(task: Task, observations: Observations) -> tuple[list[BundleSummary], list[LensChoice]]:
    """The model adjusted to its keypoints, robustly; with nearly the right lenses, where they are sought."""
    if not task.ladders:
        with task.progress.phase("adjust"):
            return _adjust(task, task.model, FIRST_SCALES), []
    every = np.ones(len(observations.image_ids), bool)
    with task.progress.phase("calibrate"):
        return [], calibrate(
            task.model, observations, every, task.ladders, partial(_adjust, task), FIRST_SCALES
        )


def _calibrate_again(
    task: Task, observations: Observations, accepted: Bool, lenses: Sequence[LensChoice]
) -> list[LensChoice]:
    """The lenses by what was measured, which is far more precise than keypoints."""
    ladders = without_hopeless(task.ladders, lenses)
    adjust = partial(_adjust, task)
    with task.progress.phase("calibrate"):
        return calibrate(task.model, observations, accepted, ladders, adjust, FIRST_SCALES[-1:])


def _share(
    task: Task, observations: Observations, accepted: Bool, lenses: Sequence[LensChoice]
) -> list[LensChoice]:
    """Cameras that agree within their errors become one."""
    options = task.options.bundle_adjustment
    held = with_centred(task.constants, centred_cameras(lenses))
    covariances = camera_covariances(task.model, observations, accepted, options, held)
    return share_lenses(task.model, lenses, covariances)


def _round(
    measured: "_Measured", completed: int, before: Float64, after: Float64, moved: Float64
) -> SurfaceRound:
    counts = np.bincount(_told(measured), minlength=len(Status))
    return SurfaceRound(
        points=len(measured.points),
        surfaces=int(np.isfinite(measured.normals[:, 0]).sum()),
        observations=len(measured.accepted),
        statuses={status.label: int(counts[status]) for status in Status if counts[status]},
        completed=completed,
        residual_before=_median(before),
        residual_after=_median(after),
        moved=_median(moved),
    )


def _estimate(task: Task, observations: Observations) -> Estimate:
    """What a round takes, as far as the model before it tells."""
    images, features = task.images, task.options.dense_features
    points = points_of(task.model, observations)
    surfaces = surfaces_of(task.model, observations, points, images)
    planes = np.zeros((len(points), 3))
    supports = [REFINE_SUPPORT, *SHIFT_SUPPORTS[:-1]]
    num_pairs = len(observations.image_ids)
    patches = estimate_surface_patches(surfaces, planes, supports, _GATE, images, features, num_pairs)
    return replace(patches, memory=patches.memory + num_pairs * _PROBLEM_BYTES)


def _measure(task: Task, observations: Observations, normals: Float64 | None, *, first: bool) -> _Measured:
    """Measure all observations and put into the model what is accepted."""
    model, images, features = task.model, task.images, task.options.dense_features
    points = points_of(model, observations)
    surfaces = surfaces_of(model, observations, points, images)
    seen = np.stack([surfaces.views["x"], surfaces.views["y"]], 1)
    residual = np.linalg.norm(seen - observations.xy, axis=1)
    # Detectors that scatter by pixels are off by as much before the first round.
    gate = max(_GATE, 4 * float(np.nanmedian(residual)) + 1) if first else _GATE
    limits = SurfaceLimits(
        max_shift=max(3.0, gate),
        extent_deviation=_EXTENT_DEVIATION,
        num_threads=features.num_threads,
    )
    planes = np.zeros((len(points), 3)) if normals is None else planes_from_normals(surfaces, normals)
    fits, shifts = align_surfaces(
        surfaces, planes, residual < gate, SHIFT_SUPPORTS, limits, images, features, task.progress
    )
    # A point counts if its reference and at least one more view agree.
    accepted = shifts.accepted & fits.accepted[surfaces.point]
    accepted &= np.bincount(surfaces.point[accepted], minlength=len(points))[surfaces.point] >= 2
    for image_id, members in observations.by_image.items():
        points2D = model.images[image_id].points2D
        moved = members[accepted[members]]
        for place, xy in zip(observations.keypoints[moved].tolist(), shifts.xy[moved], strict=True):
            points2D[place].xy = xy
    refined = points_from_planes(surfaces, points, fits.planes)
    points3D = model.points3D
    fitted = observations.point_ids[fits.accepted].tolist()
    for point_id, xyz in zip(fitted, refined[fits.accepted], strict=True):
        points3D[point_id].xyz = xyz
    normals = np.where(fits.accepted[:, None], normals_of(surfaces, fits.planes), np.nan)
    return _Measured(surfaces, fits.planes, points, accepted, shifts, normals)


def _complete(task: Task, observations: Observations, measured: _Measured) -> list[tuple[int, int]]:
    """Add observations in images that lack them to the model; the image id and row of each 2D point."""
    model, images, features = task.model, task.images, task.options.dense_features
    image_ids = sorted(model.reg_image_ids())
    poses: list[ImagePose | None] = []
    for image_id, file in zip(image_ids, images, strict=True):
        if file.missing:
            poses.append(None)
            continue
        image = model.images[image_id]
        pose = image.cam_from_world().matrix()
        poses.append(ImagePose(image.camera, pose[:, :3], pose[:, 3]))
    candidates = find_candidates(
        measured.surfaces, measured.planes, measured.points, measured.accepted, poses
    )
    limits = replace(COMPLETION_LIMITS, num_threads=features.num_threads)
    shifts = measure_surfaces(
        candidates, measured.planes, [COMPLETION_SUPPORT], limits, images, features, task.progress
    )
    added = []
    found = shifts.status == Status.MOVED
    of_image = np.array(image_ids)[candidates.image[candidates.pair_view[found]]].tolist()
    of_point = observations.point_ids[candidates.point[found]].tolist()
    for image_id, point_id, xy in zip(of_image, of_point, shifts.xy[found], strict=True):
        image = model.images[image_id]
        place = image.num_points2D()
        image.points2D.append(pycolmap.Point2D(xy))
        model.add_observation(point_id, pycolmap.TrackElement(image.image_id, place))
        added.append((image.image_id, place))
    return added


def _take_back(model: pycolmap.Reconstruction, added: Sequence[tuple[int, int]]) -> None:
    """Remove the last 2D points of images again, with their observations."""
    for image_id, place in reversed(added):
        model.delete_observation(image_id, place)
        del model.images[image_id].points2D[place]


def _told(measured: _Measured) -> NDArray[np.uint8]:
    """What a report says of each observation."""
    status = measured.shifts.status.copy()
    status[measured.shifts.accepted & ~measured.accepted] = Status.UNMATCHED  # no other view agreed
    return status


def _median(values: Float64) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")
