"""Refinement of a model in a folder: files read, the core in memory, files written whole or not at all."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from pixcli.bundle_adjustment.inputs import set_aside
from pixcli.bundle_adjustment.model_covariance import ModelCovariance
from pixcli.bundle_adjustment.model_database import check_database, check_database_options, write_database
from pixcli.bundle_adjustment.model_result import ModelResult
from pixcli.bundle_adjustment.position_priors import read_priors
from pixcli.bundle_adjustment.problem import Constants
from pixcli.bundle_adjustment.refinement import refine_reconstruction
from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.covariance import write_model_covariances
from pixcli.io.database import read_match_graph
from pixcli.io.image_list import read_id_list, read_image_list
from pixcli.io.models import (
    check_model_output,
    check_model_type,
    read_model,
    write_model,
    write_point_normals,
    writing_model,
)
from pixcli.io.patch_store import cache_beside
from pixcli.io.references import References, write_references
from pixcli.options.bundle_adjustment import FeaturemetricBundleAdjusterOptions
from pixcli.progress import Progress
from pixcli.sampling.extraction import Extraction
from pixcli.sampling.feature_references import (
    model_references,
    read_model_references,
    references_options,
    strategy_interpolation,
)
from pixcli.sampling.model_images import image_files
from pixcli.surfaces.appearance import make_surface_references

import pycolmap


@dataclass(frozen=True)
class ModelFiles:
    """Where a model comes from, and where what is made of it goes; text or Path, None: not asked for."""

    input_path: Path
    output_path: Path
    image_path: Path
    database_path: Path | None = None
    """What the model was mapped from: for loops over its tracks, and for position priors."""
    output_database_path: Path | None = None
    """Gets a copy of the database with the keypoints of the written model; the same path: in place."""
    constant_image_list_path: Path | None = None
    """Images whose poses are held fixed; likewise for the intrinsics of cameras, and so on."""
    constant_camera_list_path: Path | None = None
    constant_rig_list_path: Path | None = None
    constant_point_list_path: Path | None = None
    references_path: Path | None = None
    """The references of the points, read by strategies that compare features. If there is no such file, it
    gets those of the refined model; those of the surface strategy serve localization."""
    write_normals_path: Path | None = None
    """Gets the points with their normals (PLY); surface strategy only."""
    covariance_path: Path | None = None
    """Gets the covariances of poses, points and cameras (HDF5)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if (path := getattr(self, field.name)) is not None:
                object.__setattr__(self, field.name, Path(path))


def refine_model(
    files: ModelFiles,
    options: FeaturemetricBundleAdjusterOptions = FeaturemetricBundleAdjusterOptions(),
    progress: Progress | None = None,
) -> ModelResult:
    """Refine the cameras, poses and points of a COLMAP model, and write it with its refined 2D observations.

    Raises:
        UserError: something about the input cannot be used; nothing has been written.
    """
    progress = progress or Progress()
    how = options.featuremetric_bundle_adjustment
    check_model_output(files.input_path, files.output_path, how.overwrite)
    check_database_options(how, options.pose_priors, files.database_path, files.output_database_path)
    with cache_beside(options.dense_features, files.output_path) as features:
        options = replace(options, dense_features=features)
        with progress.phase("read"):
            model = read_model(files.input_path)
            check_model_type(model, how.output_type)
            constants = _constants(model, files)
            graph = None
            if files.database_path is not None:
                graph = read_match_graph(files.database_path, "inlier")
                check_database(model, graph, files.database_path)
                if options.pose_priors.use_prior_position:
                    priors = read_priors(files.database_path, model, options.pose_priors)
                    constants = replace(constants, priors=priors)
            references = _read_references(model, files, options)
            constants = replace(constants, references=references)
        refined = refine_reconstruction(
            model,
            files.image_path,
            options,
            graph=graph,
            constants=constants,
            with_covariance=files.covariance_path is not None,
            in_place=True,
            progress=progress,
        )
        made = None
        if files.references_path is not None and references is None:
            made = _make_references(refined, files, files.references_path, options, progress)
        with progress.phase("write"):
            return _write(refined, files, options, graph, made)


def _constants(model: pycolmap.Reconstruction, files: ModelFiles) -> Constants:
    """What lists name: registered images by their names, cameras, rigs and points by their ids."""
    images, cameras = files.constant_image_list_path, files.constant_camera_list_path
    rigs, points = files.constant_rig_list_path, files.constant_point_list_path
    by_name = {image.name: image_id for image_id, image in model.images.items() if image.has_pose}
    names = read_image_list(images, sorted(by_name)) if images else []
    return Constants(
        frozenset(by_name[name] for name in names),
        frozenset(read_id_list(cameras, model.cameras, "camera") if cameras else []),
        frozenset(read_id_list(rigs, model.rigs, "rig") if rigs else []),
        frozenset(read_id_list(points, model.points3D, "point") if points else []),
    )


def _read_references(
    model: pycolmap.Reconstruction, files: ModelFiles, options: FeaturemetricBundleAdjusterOptions
) -> list[References] | None:
    """Those of a file that exists, for strategies that compare features."""
    path, strategy = files.references_path, options.featuremetric_bundle_adjustment.strategy
    if path is None:
        return None
    interpolation = strategy_interpolation(strategy, options.interpolation)
    if strategy != "surface":
        Extraction([], [], options.dense_features).check_distinct(interpolation)
    if not path.exists():
        return None
    if strategy in ("surface", "geometric"):
        raise UserError(
            f"{path}: there are references already, which the strategy {strategy} does not use; delete them, "
            "or name a new file for those of the refined model"
        )
    return read_model_references(path, model, options.dense_features, interpolation)


def _make_references(
    refined: ModelResult,
    files: ModelFiles,
    path: Path,
    options: FeaturemetricBundleAdjusterOptions,
    progress: Progress,
) -> list[References] | None:
    """The references of the refined model; those of surfaces are written as they come."""
    how, features = options.featuremetric_bundle_adjustment, options.dense_features
    model = refined.reconstruction
    images = image_files(model, files.image_path, how.allow_missing_images)
    ids = sorted(model.reg_image_ids())
    missing = [image_id for image_id, file in zip(ids, images, strict=True) if file.missing]
    with set_aside(model, missing):
        if how.strategy == "surface":
            make_surface_references(model, images, features, path, progress)
            return None
        return model_references(
            model,
            images,
            features,
            strategy_interpolation(how.strategy, options.interpolation),
            min_track_length=options.bundle_adjustment.min_track_length,
            keep_observations=how.keep_observations,
            num_threads=features.num_threads,
            progress=progress,
        )


def _write(
    refined: ModelResult,
    files: ModelFiles,
    options: FeaturemetricBundleAdjusterOptions,
    graph: MatchGraph | None,
    references: list[References] | None,
) -> ModelResult:
    """All files; where the last one fails, the model is still the old one."""
    model, adjustment = refined.reconstruction, refined.adjustment
    how = options.featuremetric_bundle_adjustment
    with writing_model(files.output_path) as folder:
        write_model(folder, model, how.output_type)
        if files.references_path is not None and references is not None:
            interpolation = strategy_interpolation(how.strategy, options.interpolation)
            made_with = references_options(options.dense_features, interpolation)
            write_references(files.references_path, references, made_with)
        if files.covariance_path is not None and refined.covariance is not None:
            _write_covariance(files.covariance_path, model, refined.covariance)
        if files.write_normals_path is not None and adjustment.normals is not None:
            points = adjustment.observations.point_ids
            write_point_normals(files.write_normals_path, model, points, adjustment.normals)
        if files.output_database_path is None or files.database_path is None or graph is None:
            return refined
        change = write_database(model, graph, files.database_path, files.output_database_path)
        return replace(refined, database=change)


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
