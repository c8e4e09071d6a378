"""Refinement of a COLMAP model, from reading it to writing it."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from pixcli.adjustment.changes import Changes, align, changes_between
from pixcli.adjustment.feature_rounds import adjust_by_features
from pixcli.adjustment.featuremetric import strategy_interpolation
from pixcli.adjustment.geometric import FIRST_SCALES, adjust_geometrically
from pixcli.adjustment.guard import ImageCost, guard_reprojections
from pixcli.adjustment.observations import read_observations
from pixcli.adjustment.problem import Constants
from pixcli.adjustment.references import model_references, read_model_references, references_options
from pixcli.adjustment.residual_field import ResidualField, residual_fields
from pixcli.adjustment.surface_rounds import SurfaceAdjustment, adjust_by_surfaces
from pixcli.errors import UserError
from pixcli.features.extraction import Extraction
from pixcli.features.streaming import ImageFile
from pixcli.io.image_list import read_image_list
from pixcli.io.models import check_model_output, read_model, write_point_normals, writing_model
from pixcli.io.references import References, write_references
from pixcli.options import DenseFeaturesOptions, InterpolationOptions
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.progress import PhaseStats, Progress

log = logging.getLogger(__name__)

_WORST_RESIDUAL = 4.0  # pixels; features may move points off their keypoints, but not by what COLMAP filters


@dataclass(frozen=True)
class Adjustment:
    """What a refinement of a model did."""

    num_images: int
    num_points: int
    num_observations: int
    residual_before: float
    """Median reprojection error of the model, in pixels."""
    residual_after: float
    surfaces: SurfaceAdjustment | None
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

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them, see pixcli.io.report."""
        return {
            "model": {
                "images": self.num_images,
                "points": self.num_points,
                "observations": self.num_observations,
            },
            "residual": dict(zip(("before", "after"), self.residual, strict=True)),
            "cost": dict(zip(("before", "after"), self.cost, strict=True)),
            "rounds": self.surfaces.rounds if self.surfaces else [],
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
    constant_image_list_path: Path | None = None,
    normals_path: Path | None = None,
    references_path: Path | None = None,
    progress: Progress | None = None,
) -> Adjustment:
    """Refine cameras, poses and points of a COLMAP model by what its images show.

    The written model has the refined 2D observations.

    Args:
        constant_image_list_path: the poses of these images stay.
        normals_path: gets the points with their normals (PLY); surface strategy only.
        references_path: the references of the points, by strategies that have them; if there is no such file,
            it gets those of the refined model.

    Raises:
        UserError: something about the input cannot be used; nothing has been written.
    """
    progress = progress or Progress()
    check_model_output(input_path, output_path, options.overwrite)
    with progress.phase("read"):
        model = read_model(input_path)
        before = read_model(input_path)
    constants = Constants()
    if constant_image_list_path is not None:
        ids = {image.name: image_id for image_id, image in model.images.items() if image.has_pose}
        names = read_image_list(constant_image_list_path, sorted(ids))
        constants = Constants(images=frozenset(ids[name] for name in names))
    images = _image_files(model, image_path)
    log.info("%d images, %d points", len(images), model.num_points3D())
    interpolation = strategy_interpolation(options.strategy, interpolation)
    references = None
    if references_path is not None:
        Extraction([], [], features).check_distinct(interpolation)
        if references_path.exists():
            references = _read_references(references_path, model, features, interpolation, options.strategy)
    surfaces = None
    if options.strategy == "surface":
        surfaces = adjust_by_surfaces(
            model,
            images,
            features,
            adjustment,
            ceres,
            constants,
            rounds=options.rounds,
            complete_tracks=options.complete_tracks,
            keep_completed=options.write_completed == "model",
            progress=progress,
        )
    elif options.strategy == "geometric":
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
    residual_before, residual_after = _median_residual(before), _median_residual(model)
    if not residual_after < max(_WORST_RESIDUAL, residual_before):
        raise UserError(
            f"the adjustment has lost the model (reprojection error {residual_before:.2g} before, "
            f"{residual_after:.2g} pixels after), and nothing was written: try the strategy surface"
        )
    judged = surfaces.observations if surfaces else read_observations(model, adjustment.min_track_length)
    accepted = surfaces.accepted if surfaces else np.ones(len(judged.image_ids), bool)
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
    with progress.phase("write"):
        if references_path is not None and made is not None:
            write_references(references_path, made, references_options(features, interpolation))
        with writing_model(output_path) as folder:
            model.write_binary(str(folder))
        if normals_path is not None and surfaces is not None:
            write_point_normals(normals_path, model, surfaces.observations.point_ids, surfaces.normals)
    return Adjustment(
        num_images=model.num_reg_images(),
        num_points=model.num_points3D(),
        num_observations=int(model.compute_num_observations()),
        residual_before=residual_before,
        residual_after=_median_residual(model),
        surfaces=surfaces,
        images=costs,
        changes=changes_between(before, model),
        residual_fields=residual_fields(model, judged, accepted),
        phases=progress.phases,
    )


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


def _image_files(model: pycolmap.Reconstruction, image_path: Path) -> list[ImageFile]:
    """The registered images, by ascending id."""
    if not image_path.is_dir():
        raise UserError(f"there is no folder {image_path}: check --image_path")
    files = []
    for image_id in sorted(model.reg_image_ids()):
        image = model.images[image_id]
        file = image_path / image.name
        if not file.is_file():
            raise UserError(f"{file}: no such image, but the model has it; check --image_path")
        files.append(ImageFile(image.name, file, (image.camera.width, image.camera.height)))
    return files


def _median_residual(model: pycolmap.Reconstruction) -> float:
    model.update_point_3d_errors()
    errors = np.array([point.error for point in model.points3D.values()])
    return float(np.median(errors[errors >= 0])) if (errors >= 0).any() else float("nan")
