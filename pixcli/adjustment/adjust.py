"""Refinement of a COLMAP model, from reading it to writing it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pixcli.adjustment.changes import Changes, align, changes_between
from pixcli.adjustment.feature_rounds import adjust_by_features
from pixcli.adjustment.featuremetric import strategy_interpolation
from pixcli.adjustment.geometric import FIRST_SCALES, adjust_geometrically
from pixcli.adjustment.guard import ImageCost, guard_reprojections
from pixcli.adjustment.inputs import check_observations, image_files, read_constants, set_aside
from pixcli.adjustment.model_database import (
    DatabaseChange,
    check_database,
    check_database_options,
    write_database,
)
from pixcli.adjustment.observations import read_observations
from pixcli.adjustment.priors import align_to_priors, read_priors
from pixcli.adjustment.problem import Constants
from pixcli.adjustment.references import model_references, read_model_references, references_options
from pixcli.adjustment.residual_field import ResidualField, residual_fields
from pixcli.adjustment.surface_rounds import SurfaceAdjustment, SurfaceRound, adjust_by_surfaces
from pixcli.adjustment.tracks import TrackRevision, revise_tracks
from pixcli.errors import UserError
from pixcli.features.extraction import Extraction
from pixcli.features.streaming import ImageFile
from pixcli.io.database import read_match_graph
from pixcli.io.models import check_model_output, read_model, write_model, write_point_normals, writing_model
from pixcli.io.references import References, write_references
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
    images: list[ImageCost]
    changes: Changes
    residual_fields: list[ResidualField]
    phases: list[PhaseStats]

    @property
    def residual(self) -> tuple[float, float]:
        """residual_before and residual_after."""
        return self.residual_before, self.residual_after

    @property
    def cost(self) -> tuple[float, float]:
        """Of all images, before and after."""
        return sum(image.before for image in self.images), sum(image.after for image in self.images)

    @property
    def prior_distance(self) -> float | None:
        """The median distance of images from where the database has them."""
        return None if self.prior_distances is None else float(np.median(self.prior_distances))

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them, see pixcli.io.report."""
        return {
            "model": {
                "images": self.num_images,
                "missing_images": self.num_missing_images,
                "points": self.num_points,
                "observations": self.num_observations,
            },
            "residual": dict(zip(("before", "after"), self.residual, strict=True)),
            "cost": dict(zip(("before", "after"), self.cost, strict=True)),
            "rounds": self.rounds,
            "loops": self.loops,
            "database": self.database,
            "prior_distance": self.prior_distance,
            "images": self.images,
            "image_residuals": self.changes.residuals,
            "poses": self.changes.poses,
            "focal_lengths": self.changes.focal_lengths,
            "residual_fields": self.residual_fields,
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
    references_path: Path | None = None,
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
        references_path: the references of the points, by strategies that have them; if there is no such file,
            it gets those of the refined model.

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
    interpolation = strategy_interpolation(options.strategy, interpolation)
    references = None
    if references_path is not None:
        Extraction([], [], features).check_distinct(interpolation)
        if references_path.exists():
            references = _read_references(references_path, model, features, interpolation, options.strategy)
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
                model,
                images,
                features,
                options,
                interpolation,
                adjustment,
                ceres,
                constants,
                progress,
                references=references,
                last=last,
            )
    residual_before, residual_after = _median_residual(before), _median_residual(model)
    if not residual_after < max(_WORST_RESIDUAL, residual_before):
        raise UserError(
            f"the adjustment has lost the model (reprojection error {residual_before:.2g} before, "
            f"{residual_after:.2g} pixels after), and nothing was written: try the strategy surface"
        )
    if surfaces:
        judged, accepted = surfaces[-1].observations, surfaces[-1].accepted
    else:
        judged = read_observations(model, adjustment.min_track_length)
        accepted = np.ones(len(judged.image_ids), bool)
    if not constants.images:  # which say that the frame is the same
        before.transform(align(before, model))
    with progress.phase("guard"):
        costs = guard_reprojections(before, model, judged, accepted, constants)
    made = None
    if references_path is not None and references is None:
        made = model_references(
            model,
            images,
            features,
            interpolation,
            min_track_length=adjustment.min_track_length,
            keep_observations=options.keep_observations,
            num_threads=ceres.num_threads,
            progress=progress,
        )
    database = None
    with progress.phase("write"), writing_model(output_path) as folder:
        write_model(folder, model, options.output_type)
        if references_path is not None and made is not None:
            write_references(references_path, made, references_options(features, interpolation))
        if normals_path is not None and surfaces:
            write_point_normals(normals_path, model, judged.point_ids, surfaces[-1].normals)
        if database_path is not None and output_database_path is not None and graph is not None:
            database = write_database(model, graph, database_path, output_database_path)
    return Adjustment(
        num_images=model.num_reg_images(),
        num_missing_images=len(missing),
        num_points=model.num_points3D(),
        num_observations=int(model.compute_num_observations()),
        residual_before=residual_before,
        residual_after=_median_residual(model),
        rounds=[round_ for part in surfaces for round_ in part.rounds],
        loops=loops,
        database=database,
        prior_distances=None if constants.priors is None else constants.priors.distances(model),
        images=costs,
        changes=changes_between(before, model),
        residual_fields=residual_fields(model, judged, accepted),
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
    progress: Progress,
    *,
    references: Sequence[References] | None,
    last: bool,
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
            model,
            images,
            features,
            options,
            interpolation,
            adjustment,
            ceres,
            constants,
            progress,
            given=references,
        )
    return []


def _read_references(
    path: Path,
    model: pycolmap.Reconstruction,
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
    strategy: str,
) -> list[References]:
    if strategy in ("surface", "geometric"):
        raise UserError(
            f"{path}: there are references already, which the strategy {strategy} does not use; delete them, "
            "or name a new file for those of the refined model"
        )
    return read_model_references(path, model, features, interpolation)


def _median_residual(model: pycolmap.Reconstruction) -> float:
    model.update_point_3d_errors()
    errors = np.array([point.error for point in model.points3D.values()])
    return float(np.median(errors[errors >= 0])) if (errors >= 0).any() else float("nan")
