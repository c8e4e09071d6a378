"""Refinement of a COLMAP model, from reading it to writing it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pixcli.adjustment.feature_rounds import adjust_by_features
from pixcli.adjustment.geometric import FIRST_SCALES, adjust_geometrically
from pixcli.adjustment.inputs import check_observations, image_files, read_constants, set_aside
from pixcli.adjustment.model_database import (
    DatabaseChange,
    check_database,
    check_database_options,
    write_database,
)
from pixcli.adjustment.priors import align_to_priors, read_priors
from pixcli.adjustment.problem import Constants
from pixcli.adjustment.surface_rounds import SurfaceAdjustment, SurfaceRound, adjust_by_surfaces
from pixcli.adjustment.tracks import TrackRevision, revise_tracks
from pixcli.errors import UserError
from pixcli.features.streaming import ImageFile
from pixcli.io.database import read_match_graph
from pixcli.io.models import check_model_output, read_model, write_model, write_point_normals, writing_model
from pixcli.options import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    DenseFeaturesOptions,
    FeaturemetricBundleAdjustmentOptions,
    InterpolationOptions,
    PosePriorOptions,
    TrackOptions,
)
from pixcli.progress import PhaseStats, Progress

log = logging.getLogger(__name__)

_WORST_RESIDUAL = 4.0  # pixels; features may move points off their keypoints, but not by what COLMAP filters
_JUMP = 5.0
"""An image whose pose changed by so many times the median change is named in the report."""


@dataclass(frozen=True)
class PoseChange:
    """How far an image moved, after the models are aligned: degrees, and the scene's units."""

    name: str
    rotation: float
    centre: float
    jumped: bool


@dataclass(frozen=True)
class Adjustment:
    """What a refinement of a model did."""

    num_images: int
    num_missing_images: int
    """Of these, not on disk."""
    num_points: int
    num_observations: int
    residual_before: float
    """Median reprojection error of the model, in pixels."""
    residual_after: float
    rounds: list[SurfaceRound]
    """Of the surface strategy, in all loops."""
    loops: list[TrackRevision]
    database: DatabaseChange | None
    prior_distances: NDArray[np.float64] | None
    """(n,) how far images are from where the database has them, in its units."""
    poses: list[PoseChange]
    focal_changes: Mapping[int, float]
    """Of the mean focal length of each camera, relative."""
    phases: list[PhaseStats]

    @property
    def prior_distance(self) -> float | None:
        """The median distance of images from where the database has them."""
        return None if self.prior_distances is None else float(np.median(self.prior_distances))

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them."""
        return {
            "model": {
                "images": self.num_images,
                "missing_images": self.num_missing_images,
                "points": self.num_points,
                "observations": self.num_observations,
            },
            "residual": {"before": self.residual_before, "after": self.residual_after},
            "rounds": self.rounds,
            "loops": self.loops,
            "database": self.database,
            "prior_distance": self.prior_distance,
            "poses": self.poses,
            "focal_changes": {str(camera): change for camera, change in self.focal_changes.items()},
            "phases": self.phases,
        }


def refine_model(
    input_path: Path,
    output_path: Path,
    image_path: Path,
    features: DenseFeaturesOptions,
    options: FeaturemetricBundleAdjustmentOptions,
    interpolation: InterpolationOptions,
    adjustment: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    *,
    tracks: TrackOptions | None = None,
    pose_priors: PosePriorOptions | None = None,
    database_path: Path | None = None,
    output_database_path: Path | None = None,
    constant_image_list_path: Path | None = None,
    constant_camera_list_path: Path | None = None,
    constant_rig_list_path: Path | None = None,
    constant_point_list_path: Path | None = None,
    normals_path: Path | None = None,
    progress: Progress | None = None,
) -> Adjustment:
    """Refine cameras, poses and points of a COLMAP model by what its images show.

    The written model has the refined 2D observations.

    Args:
        database_path: what the model was mapped from: for loops over its tracks, and for position priors.
        output_database_path: gets a copy of the database whose keypoints are those of the written model; the
            same path updates it in place, if overwriting is allowed.
        constant_image_list_path, constant_camera_list_path, constant_rig_list_path, constant_point_list_path:
            poses of images, intrinsics of cameras, sensors in rigs, and points that stay.
        normals_path: gets the points with their normals (PLY); surface strategy only.

    Raises:
        UserError: something about the input cannot be used; nothing has been written.
    """
    progress = progress or Progress()
    pose_priors = pose_priors or PosePriorOptions()
    check_model_output(input_path, output_path, options.overwrite)
    check_database_options(options, pose_priors, database_path, output_database_path)
    with progress.phase("read"):
        model = read_model(input_path)
        check_observations(model, adjustment.min_track_length)
        before = pycolmap.Reconstruction(model)
        lists = (constant_camera_list_path, constant_rig_list_path, constant_point_list_path)
        constants = read_constants(model, constant_image_list_path, *lists)
        images = image_files(model, image_path, options.allow_missing_images)
        graph = None
        if database_path is not None:
            graph = read_match_graph(database_path, "inlier")
            check_database(model, graph, database_path)
    if database_path is not None and pose_priors.use_prior_position:
        priors = read_priors(database_path, model, pose_priors)
        constants = replace(constants, priors=priors)
        if not constants.images:
            align_to_priors(model, priors)
    missing = [
        image_id for image_id, file in zip(sorted(model.reg_image_ids()), images, strict=True) if file.missing
    ]
    log.info("%d images, %d points", len(images), model.num_points3D())
    if missing:
        log.warning("%d images are not on disk: they take no part", len(missing))
    surfaces: list[SurfaceAdjustment] = []
    loops: list[TrackRevision] = []
    for loop in range(options.num_loops + 1):
        if loop > 0 and graph is not None:
            with progress.phase("tracks"):
                loops.append(revise_tracks(model, graph, tracks or TrackOptions()))
            log.info("loop %d: %s", loop, loops[-1])
        last = loop == options.num_loops
        with set_aside(model, missing):
            surfaces += _adjust(
                model, images, features, options, interpolation, adjustment, ceres, constants, last, progress
            )
    residual_before, residual_after = _median_residual(before), _median_residual(model)
    if not residual_after < max(_WORST_RESIDUAL, residual_before):
        raise UserError(
            f"the adjustment has lost the model (reprojection error {residual_before:.2g} before, "
            f"{residual_after:.2g} pixels after), and nothing was written: try the strategy surface"
        )
    database = None
    with progress.phase("write"), writing_model(output_path) as folder:
        write_model(folder, model, options.output_type)
        if normals_path is not None and surfaces:
            points = surfaces[-1].observations.point_ids
            write_point_normals(normals_path, model, points, surfaces[-1].normals)
        if database_path is not None and output_database_path is not None and graph is not None:
            database = write_database(model, graph, database_path, output_database_path)
    return Adjustment(
        num_images=model.num_reg_images(),
        num_missing_images=len(missing),
        num_points=model.num_points3D(),
        num_observations=int(model.compute_num_observations()),
        residual_before=residual_before,
        residual_after=residual_after,
        rounds=[round_ for part in surfaces for round_ in part.rounds],
        loops=loops,
        database=database,
        prior_distances=None if constants.priors is None else constants.priors.distances(model),
        poses=_pose_changes(before, model),
        focal_changes={
            camera_id: float(camera.mean_focal_length() / before.cameras[camera_id].mean_focal_length() - 1)
            for camera_id, camera in sorted(model.cameras.items())
        },
        phases=progress.phases,
    )


def _adjust(
    model: pycolmap.Reconstruction,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    options: FeaturemetricBundleAdjustmentOptions,
    interpolation: InterpolationOptions,
    adjustment: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    constants: Constants,
    last: bool,
    progress: Progress,
) -> list[SurfaceAdjustment]:
    """Adjust a model in place by the strategy of the options; only the last time completes tracks."""
    if options.strategy == "surface":
        by_surfaces = adjust_by_surfaces(
            model,
            images,
            features,
            adjustment,
            ceres,
            constants,
            rounds=options.rounds,
            complete_tracks=options.complete_tracks and last,
            keep_completed=options.write_completed != "none",
            progress=progress,
        )
        return [by_surfaces]
    if options.strategy == "geometric":
        with progress.phase("adjust"):
            adjust_geometrically(model, FIRST_SCALES, adjustment, ceres, constants)
    else:
        adjust_by_features(
            model, images, features, options, interpolation, adjustment, ceres, constants, progress
        )
    return []


def _median_residual(model: pycolmap.Reconstruction) -> float:
    model.update_point_3d_errors()
    errors = np.array([point.error for point in model.points3D.values()])
    return float(np.median(errors[errors >= 0])) if (errors >= 0).any() else float("nan")


def _pose_changes(before: pycolmap.Reconstruction, after: pycolmap.Reconstruction) -> list[PoseChange]:
    ids = sorted(after.reg_image_ids())
    if len(ids) >= 3:
        to_after = pycolmap.align_reconstructions_via_proj_centers(before, after, 1e9)
        if to_after is not None:
            before.transform(to_after)
    old = [before.images[image_id].cam_from_world() for image_id in ids]
    new = [after.images[image_id].cam_from_world() for image_id in ids]
    both = list(zip(new, old, strict=True))
    rotation = np.array([np.degrees((a * b.inverse()).rotation.angle()) for a, b in both])
    centre = np.array([_centre(a) - _centre(b) for a, b in both])
    moved = np.linalg.norm(centre, axis=1)
    jumped = (moved > _JUMP * max(float(np.median(moved)), 1e-12)) | (
        rotation > _JUMP * max(float(np.median(rotation)), 1e-9)
    )
    names = [after.images[image_id].name for image_id in ids]
    return [
        PoseChange(name, float(r), float(c), bool(j))
        for name, r, c, j in zip(names, rotation, moved, jumped, strict=True)
    ]


def _centre(cam_from_world: pycolmap.Rigid3d) -> NDArray[np.float64]:
    return np.asarray(cam_from_world.inverse().translation)
