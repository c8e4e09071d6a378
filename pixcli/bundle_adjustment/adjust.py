"""Refinement of a COLMAP model, from reading it to writing it."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pixcli.bundle_adjustment.changes import changes_between
from pixcli.bundle_adjustment.feature_rounds import FeatureAdjustment, adjust_by_features
from pixcli.bundle_adjustment.geometric import (
    FIRST_SCALES,
    adjust_geometrically,
    camera_covariances,
    scales_down_to,
)
from pixcli.bundle_adjustment.guard import guard_reprojections, restore_points
from pixcli.bundle_adjustment.inputs import read_inputs, set_aside
from pixcli.bundle_adjustment.model_covariance import ModelCovariance, check_covariance, model_covariance
from pixcli.bundle_adjustment.model_database import check_database_options, write_database
from pixcli.bundle_adjustment.problem import Constants
from pixcli.bundle_adjustment.residual_field import residual_fields
from pixcli.bundle_adjustment.result import Adjustment
from pixcli.bundle_adjustment.surface_rounds import SurfaceAdjustment, adjust_by_surfaces
from pixcli.bundle_adjustment.track_revision import TrackRevision, revise_tracks
from pixcli.calibration.calibrate import Ladders, cameras_to_calibrate, ladders_of
from pixcli.calibration.diagnosis import Cause, find_causes
from pixcli.calibration.priors import FocalPrior, centred_lenses
from pixcli.calibration.report import Calibration, calibrations
from pixcli.errors import UserError
from pixcli.geometry.observations import Observations, read_observations, reprojection_errors
from pixcli.geometry.similarity import align
from pixcli.io.covariance import write_model_covariances
from pixcli.io.models import check_model_output, write_model, write_point_normals, writing_model
from pixcli.io.references import References, write_references
from pixcli.options import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    CalibrationOptions,
    DenseFeaturesOptions,
    FeaturemetricBundleAdjustmentOptions,
    InterpolationOptions,
    PosePriorOptions,
    TrackOptions,
)
from pixcli.progress import Progress
from pixcli.sampling.extraction import Extraction
from pixcli.sampling.feature_references import (
    model_references,
    read_model_references,
    references_options,
    strategy_interpolation,
)
from pixcli.sampling.streaming import ImageFile
from pixcli.surfaces.appearance import make_surface_references

log = logging.getLogger(__name__)

_WORST_RESIDUAL = 4.0  # pixels; features may move points off their keypoints, but not by what COLMAP filters


def refine_model(
    input_path: Path | str,
    output_path: Path | str,
    image_path: Path | str,
    features: DenseFeaturesOptions = DenseFeaturesOptions(),
    options: FeaturemetricBundleAdjustmentOptions = FeaturemetricBundleAdjustmentOptions(),
    interpolation: InterpolationOptions = InterpolationOptions(),
    adjustment: BundleAdjustmentOptions = BundleAdjustmentOptions(),
    ceres: BundleAdjustmentCeresOptions = BundleAdjustmentCeresOptions(),
    *,
    calibration: CalibrationOptions = CalibrationOptions(),
    tracks: TrackOptions | None = None,
    pose_priors: PosePriorOptions | None = None,
    database_path: Path | None = None,
    output_database_path: Path | None = None,
    constant_image_list_path: Path | None = None,
    constant_camera_list_path: Path | None = None,
    constant_rig_list_path: Path | None = None,
    constant_point_list_path: Path | None = None,
    normals_path: Path | None = None,
    covariance_path: Path | None = None,
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
        covariance_path: gets the covariances of poses, points and cameras (HDF5).
        references_path: the references of the points, by strategies that have them; if there is no such file,
            it gets those of the refined model. Those of the surface strategy are for localization.

    Raises:
        UserError: something about the input cannot be used; nothing has been written.
    """
    if not options.apply:
        raise UserError("FeaturemetricBundleAdjustment.apply is 0: there is nothing to do")
    progress = progress or Progress()
    pose_priors = pose_priors or PosePriorOptions()
    input_path, output_path, image_path = Path(input_path), Path(output_path), Path(image_path)
    check_model_output(input_path, output_path, options.overwrite)
    check_database_options(options, pose_priors, database_path, output_database_path)
    with progress.phase("read"):
        inputs = read_inputs(
            input_path,
            image_path,
            database_path,
            options,
            adjustment,
            pose_priors,
            constant_image_list_path=constant_image_list_path,
            constant_camera_list_path=constant_camera_list_path,
            constant_rig_list_path=constant_rig_list_path,
            constant_point_list_path=constant_point_list_path,
        )
    model, images, missing, constants = inputs.model, inputs.images, inputs.missing, inputs.constants
    before = pycolmap.Reconstruction(model)
    given = adjustment
    if options.strategy == "surface":
        to_calibrate = cameras_to_calibrate(model, calibration, adjustment, constants.cameras)
        constants = replace(constants, lenses=to_calibrate)
        if to_calibrate:
            adjustment = replace(adjustment, refine_principal_point=True)
    candidates = ladders_of(model, calibration, given, constants.lenses)
    if covariance_path is not None:
        check_covariance(model, adjustment, constants)
    log.info("%d images, %d points", len(images), model.num_points3D())
    if missing:
        log.warning("%d images are not on disk: they take no part, and keep their poses", len(missing))
    interpolation = strategy_interpolation(options.strategy, interpolation)
    references = None
    if references_path is not None:
        if options.strategy != "surface":
            Extraction([], [], features).check_distinct(interpolation)
        if references_path.exists():
            references = _read_references(references_path, model, features, interpolation, options.strategy)
    parts: list[SurfaceAdjustment | FeatureAdjustment | None] = []
    loops: list[TrackRevision] = []
    for loop in range(options.num_loops + 1):
        if loop > 0 and inputs.graph is not None:
            with progress.phase("tracks"):
                loops.append(revise_tracks(model, inputs.graph, tracks or TrackOptions()))
            log.info("loop %d: %s", loop, loops[-1])
        last = loop == options.num_loops
        with set_aside(model, missing):
            part = _adjust(
                model,
                images,
                features,
                options,
                interpolation,
                adjustment,
                ceres,
                constants,
                candidates,
                progress,
                sharing=calibration.share == "auto",
                references=references,
                last=last,
                with_residuals=covariance_path is not None,
            )
        parts.append(part)
    residual_before, residual_after = _median_residual(before), _median_residual(model)
    if not residual_after < max(_WORST_RESIDUAL, residual_before):
        raise UserError(
            f"the adjustment has lost the model (reprojection error {residual_before:.2g} before, "
            f"{residual_after:.2g} pixels after), and nothing was written: try the strategy surface"
        )
    if not constants.images:  # which say that the frame is the same
        before.transform(align(before, model))
    if isinstance(part, SurfaceAdjustment):
        judged, accepted = part.observations, part.accepted
    else:
        judged = read_observations(model, adjustment.min_track_length)
        accepted = np.ones(len(judged.image_ids), bool)
    if isinstance(part, FeatureAdjustment):
        costs = part.images
    else:
        held = replace(constants, images=constants.images.union(missing))
        with progress.phase("guard"):
            costs = guard_reprojections(before, model, judged, accepted, held, adjustment.refine_points3D)
    restored_points = restore_points(before, model)
    covariance = None
    if covariance_path is not None:
        with progress.phase("covariance"):
            covariance = _covariance(model, judged, accepted, part, options, adjustment, constants)
    made = None
    if references_path is not None and options.strategy == "surface":
        with set_aside(model, missing):
            make_surface_references(model, images, features, references_path, progress)
    elif references_path is not None and references is None:
        with set_aside(model, missing):
            made = model_references(
                model,
                images,
                features,
                interpolation,
                min_track_length=adjustment.min_track_length,
                keep_observations=options.keep_observations,
                num_threads=features.num_threads,
                progress=progress,
            )
    lenses: list[Calibration] = []
    if isinstance(part, SurfaceAdjustment) and part.lenses:
        with progress.phase("calibrate"):
            centred = {k for choice in part.lenses if choice.centred for k in choice.cameras}
            held = replace(constants, lenses=centred_lenses(constants.lenses, centred))
            covariances = camera_covariances(model, judged, accepted, adjustment, held)
            lenses = calibrations(model, part.lenses, covariances, constants.lenses)
    with progress.phase("diagnose"):
        explain = partial(explain_fields, model, judged, accepted, adjustment, ceres, constants)
        fields = residual_fields(model, judged, accepted, explain)
    database = None
    with progress.phase("write"), writing_model(output_path) as folder:
        write_model(folder, model, options.output_type)
        if references_path is not None and made is not None:
            write_references(references_path, made, references_options(features, interpolation))
        if covariance_path is not None and covariance is not None:
            _write_covariance(covariance_path, model, covariance)
        if normals_path is not None and isinstance(part, SurfaceAdjustment):
            write_point_normals(normals_path, model, judged.point_ids, part.normals)
        if database_path is not None and output_database_path is not None and inputs.graph is not None:
            database = write_database(model, inputs.graph, database_path, output_database_path)
    return Adjustment(
        num_images=model.num_reg_images(),
        num_missing_images=len(missing),
        num_points=model.num_points3D(),
        num_observations=int(model.compute_num_observations()),
        residual_before=residual_before,
        residual_after=_median_residual(model),
        rounds=[round_ for part in parts if isinstance(part, SurfaceAdjustment) for round_ in part.rounds],
        gated=part.gated.reasons() if isinstance(part, FeatureAdjustment) else {},
        textureless_points=_num_textureless(part),
        restored_points=restored_points,
        loops=loops,
        database=database,
        prior_distance=None if constants.priors is None else constants.priors.distance(model),
        images=costs,
        changes=changes_between(before, model),
        calibrations=lenses,
        residual_fields=fields,
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
    candidates: Ladders,
    progress: Progress,
    *,
    sharing: bool,
    references: Sequence[References] | None,
    last: bool,
    with_residuals: bool,
) -> SurfaceAdjustment | FeatureAdjustment | None:
    """Adjust a model in place by the strategy of the options; only the last time completes tracks."""
    if options.strategy == "surface":
        return adjust_by_surfaces(
            model,
            images,
            features,
            adjustment,
            ceres,
            constants,
            rounds=options.rounds,
            complete_tracks=options.complete_tracks and last,
            keep_completed=options.write_completed != "none",
            ladders=candidates,
            sharing=sharing,
            progress=progress,
        )
    if options.strategy == "geometric":
        with progress.phase("adjust"):
            adjust_geometrically(model, FIRST_SCALES, adjustment, ceres, constants)
        return None
    return adjust_by_features(
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
        with_residuals=with_residuals,
    )


def explain_fields(
    model: pycolmap.Reconstruction,
    observations: Observations,
    accepted: NDArray[np.bool_],
    adjustment: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    constants: Constants,
    following: Mapping[int, str | None],
) -> dict[int, Cause]:
    """What explains the residual fields of cameras, of those whose lens was not searched for."""
    asked = {k: name for k, name in following.items() if k not in constants.lenses}
    if not asked:
        return {}
    still = constants.cameras - asked.keys()
    cameras = {k: camera for k, camera in model.cameras.items() if not camera.is_spherical()}
    priors = {k: FocalPrior.of(camera) for k, camera in cameras.items() if k not in still}
    released = replace(constants, cameras=still, lenses=priors)
    every = {f"refine_{part}": True for part in ("focal_length", "principal_point", "extra_params")}
    freed = replace(adjustment, **every)

    def as_it_was(state: pycolmap.Reconstruction, scales: Sequence[float], _: Collection[int]) -> None:
        adjust_geometrically(state, scales, adjustment, ceres, constants)

    def free(state: pycolmap.Reconstruction, scales: Sequence[float], _: Collection[int]) -> None:
        adjust_geometrically(state, scales, freed, ceres, released)

    scales = FIRST_SCALES[-1:]
    return find_causes(model, observations, accepted, asked, as_it_was, free, scales)


def _covariance(
    model: pycolmap.Reconstruction,
    observations: Observations,
    accepted: NDArray[np.bool_],
    part: SurfaceAdjustment | FeatureAdjustment | None,
    options: FeaturemetricBundleAdjustmentOptions,
    adjustment: BundleAdjustmentOptions,
    constants: Constants,
) -> ModelCovariance:
    if isinstance(part, FeatureAdjustment):
        scale, counts = options.loss_scale, part.gated.counts
        return model_covariance(
            model, part.observations, counts, scale, adjustment, constants, part.residuals
        )
    errors = np.linalg.norm(reprojection_errors(model, observations), axis=1)[accepted]
    scale = scales_down_to(errors[np.isfinite(errors)])[-1]
    return model_covariance(model, observations, accepted, scale, adjustment, constants)


def _write_covariance(path: Path, model: pycolmap.Reconstruction, covariance: ModelCovariance) -> None:
    first = {image.frame_id: image.name for _, image in sorted(model.images.items(), reverse=True)}
    write_model_covariances(
        path,
        covariance.frame_ids,
        [first[frame_id] for frame_id in covariance.frame_ids.tolist()],
        covariance.poses,
        covariance.point_ids,
        covariance.points,
        covariance.cameras,
        covariance.deviation,
    )


def _num_textureless(part: SurfaceAdjustment | FeatureAdjustment | None) -> int:
    """How many points no image measures."""
    if isinstance(part, FeatureAdjustment):
        return int(part.gated.lost.sum())
    if isinstance(part, SurfaceAdjustment):
        observed = part.observations
        measured = np.bincount(observed.point_index[part.accepted], minlength=len(observed.point_ids))
        return int((measured == 0).sum())
    return 0


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
