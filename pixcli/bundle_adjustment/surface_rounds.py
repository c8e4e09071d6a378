"""The surface strategy: surfaces measured at fixed poses, then COLMAP's own adjustment, round by round."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pycolmap
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
from pixcli.bundle_adjustment.problem import Constants
from pixcli.calibration.calibrate import Ladders, LensChoice, calibrate, share_lenses, without_hopeless
from pixcli.calibration.priors import centred_lenses
from pixcli.geometry.observations import Observations, points_of, project, read_observations
from pixcli.options import DenseFeaturesOptions
from pixcli.options.bundle_adjustment import BundleAdjustmentCeresOptions, BundleAdjustmentOptions
from pixcli.progress import Progress
from pixcli.sampling.status import Status
from pixcli.sampling.streaming import Estimate, ImageFile
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
class SurfaceRound:
    """What one round measured, and what the adjustment made of it."""

    points: int
    surfaces: int
    """Points whose depth and normal were refined."""
    observations: int
    statuses: dict[str, int]
    """How many observations were measured (moved, root) or kept their old place, and why."""
    completed: int
    """Observations that were added for the adjustment in images where no detector found the point."""
    residual_before: float
    """Median reprojection error of the accepted observations before the adjustment, in pixels."""
    residual_after: float
    moved: float
    """Median change of the projections since the round before, in pixels."""


@dataclass(frozen=True)
class SurfaceAdjustment:
    """What all rounds did, and what the last one measured at p points."""

    rounds: list[SurfaceRound]
    observations: Observations
    """All n that took part, those of completion aside; xy is where the written model has them."""
    accepted: Bool
    """(n,) measured, or a point's reference; the others kept their old place."""
    covariance: Float64
    """(n, 3) xx, xy, yy of the measured places against their references, in pixels squared; NaN where nothing
    was measured, and of references, which define their points."""
    reference: NDArray[np.int32]
    """(p,) row of the observation that each point was compared with."""
    normals: Float64
    """(p, 3) unit normals of the points whose surface was refined, towards the camera; NaN elsewhere."""
    lenses: list[LensChoice]
    """Of the cameras that were calibrated."""


@dataclass(frozen=True)
class _Measured:
    """The surfaces of a model and what its images show of them."""

    surfaces: Surfaces
    planes: Float64
    points: Float64
    accepted: Bool
    shifts: Shifts
    normals: Float64


def adjust_by_surfaces(
    model: pycolmap.Reconstruction,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    options: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    constants: Constants,
    *,
    rounds: int,
    complete_tracks: bool,
    keep_completed: bool,
    ladders: Ladders | None = None,
    sharing: bool = False,
    progress: Progress,
) -> SurfaceAdjustment:
    """Refine a model in place: its cameras, poses and points, and the 2D points of its observations.

    Args:
        images: the registered images, by ascending id.
        complete_tracks: in the last round, measure points also in images that have no observation of them.
        keep_completed: leave these observations in the model, as additional 2D points.
        ladders: of the cameras to calibrate, before anything is measured and again with what was measured;
            none are calibrated without.
        sharing: whether those that agree become one.
    """
    observations = read_observations(model, options.min_track_length)

    def adjust(state: pycolmap.Reconstruction, scales: Sequence[float], centred: Collection[int]) -> None:
        held = replace(constants, lenses=centred_lenses(constants.lenses, centred))
        adjust_geometrically(state, scales, options, ceres, held)

    _estimate(model, observations, images, features).announce(_REMEDY)
    lenses: list[LensChoice] = []
    with progress.phase("calibrate" if ladders else "adjust"):
        if ladders:
            every = np.ones(len(observations.image_ids), bool)
            lenses = calibrate(model, observations, every, ladders, adjust, FIRST_SCALES)
        else:
            adjust(model, FIRST_SCALES, ())
    projected = project(model, observations)
    done: list[SurfaceRound] = []
    normals: Float64 | None = None
    for k in range(rounds):
        measured = _measure(model, observations, normals, images, features, k == 0, progress)
        accepted, normals = measured.accepted, measured.normals
        xy = np.where(accepted[:, None], measured.shifts.xy, observations.xy)
        observations = replace(observations, xy=xy)
        last = k + 1 == rounds or (k >= 2 and done[-1].moved >= _SETTLED * done[-2].moved)
        added = []
        if complete_tracks and last:
            added = _complete(model, observations, measured, images, features, progress)
        residual_before = np.linalg.norm(project(model, observations) - xy, axis=1)[accepted]
        if k == 0 and ladders:
            with progress.phase("calibrate"):
                again = without_hopeless(ladders, lenses)
                lenses = calibrate(model, observations, accepted, again, adjust, FIRST_SCALES[-1:])
            residual_before = np.linalg.norm(project(model, observations) - xy, axis=1)[accepted]
        with progress.phase("adjust"):
            # Only the last round needs the tight loss: the others lead to places to measure at.
            scales = scales_down_to(residual_before) if last else FIRST_SCALES[-1:]
            centred = {k for choice in lenses if choice.centred for k in choice.cameras}
            adjust(model, scales, centred)
            if last and sharing:
                held = replace(constants, lenses=centred_lenses(constants.lenses, centred))
                covariances = camera_covariances(model, observations, accepted, options, held)
                lenses = share_lenses(model, lenses, covariances)
                adjust(model, scales, centred)
        if not keep_completed:
            _take_back(model, added)
        before, projected = projected, project(model, observations)
        residual_after = np.linalg.norm(projected - xy, axis=1)[accepted]
        counts = np.bincount(_told(measured), minlength=len(Status))
        done.append(
            SurfaceRound(
                points=len(measured.points),
                surfaces=int(np.isfinite(normals[:, 0]).sum()),
                observations=len(observations.image_ids),
                statuses={status.label: int(counts[status]) for status in Status if counts[status]},
                completed=len(added),
                residual_before=_median(residual_before),
                residual_after=_median(residual_after),
                moved=_median(np.linalg.norm(projected - before, axis=1)),
            )
        )
        if last:
            break
    return SurfaceAdjustment(
        rounds=done,
        observations=observations,
        accepted=accepted,
        covariance=np.where(accepted[:, None], measured.shifts.covariance, np.nan),
        reference=measured.surfaces.reference,
        normals=measured.normals,
        lenses=lenses,
    )


def _estimate(
    model: pycolmap.Reconstruction,
    observations: Observations,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
) -> Estimate:
    """What a round takes, as far as the model before it tells."""
    points = points_of(model, observations)
    surfaces = surfaces_of(model, observations, points, images)
    planes = np.zeros((len(points), 3))
    supports = [REFINE_SUPPORT, *SHIFT_SUPPORTS[:-1]]
    num_pairs = len(observations.image_ids)
    patches = estimate_surface_patches(surfaces, planes, supports, _GATE, images, features, num_pairs)
    return replace(patches, memory=patches.memory + num_pairs * _PROBLEM_BYTES)


def _measure(
    model: pycolmap.Reconstruction,
    observations: Observations,
    normals: Float64 | None,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    first: bool,
    progress: Progress,
) -> _Measured:
    """Measure all observations and put into the model what is accepted."""
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
        surfaces, planes, residual < gate, SHIFT_SUPPORTS, limits, images, features, progress
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


def _complete(
    model: pycolmap.Reconstruction,
    observations: Observations,
    measured: _Measured,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    progress: Progress,
) -> list[tuple[int, int]]:
    """Add observations in images that lack them to the model; the image id and row of each 2D point."""
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
        candidates, measured.planes, [COMPLETION_SUPPORT], limits, images, features, progress
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
