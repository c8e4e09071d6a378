"""What the featuremetric strategy knows of a model: how its points look in a feature map."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.geometry.projection import derivatives_by_point, facing_warps
from pixcli.io.references import References, write_references
from pixcli.localization.pixels import Pixels, read_pixels
from pixcli.localization.rig_state import Sensor
from pixcli.options import InterpolationOptions
from pixcli.options.localization import LocalizeOptions
from pixcli.progress import Progress
from pixcli.sampling.extraction import Extraction
from pixcli.sampling.feature_references import (
    model_references,
    read_model_references,
    references_options,
    strategy_interpolation,
)
from pixcli.sampling.map_patches import Extractor
from pixcli.sampling.streaming import ImageFile

import pycolmap

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

NO_REFERENCES = "a localizer takes references, or the image_path of the model to make them from"


@dataclass(frozen=True)
class FeatureMap:
    """The references of a model's points, and what makes the same features of a query."""

    source: Literal["file", "images"]
    """Whether the references were read from a file, or made from the model's images."""
    levels: Sequence[References]
    """Coarse to fine."""
    extractor: Extractor
    interpolation: InterpolationOptions
    """How the references were sampled, and queries are to be."""
    model: pycolmap.Reconstruction

    def warps(self, level: int, ids: Int64, sensor: Sensor, rig_from_world: pycolmap.Rigid3d) -> Float64:
        """(n, 2, 2) samples around points (n,) in a query for a sample around their references.

        By the plane through the point that faces the view of its reference; upright where that is not seen.
        """
        references = self.levels[level]
        rows = references.rows_of(ids)
        points = np.array([self.model.points3D[point].xyz for point in ids.tolist()]).reshape(-1, 3)
        query = derivatives_by_point(sensor.camera, sensor.cam_from_rig * rig_from_world, points)
        query *= self._map_scales(level, sensor.camera)[:, None]
        warps = np.tile(np.eye(2), (len(ids), 1, 1))
        for image_id in np.unique(references.image_ids[rows[rows >= 0]]).tolist():
            members = np.flatnonzero((rows >= 0) & (references.image_ids[rows] == image_id))
            image = self.model.images[image_id]
            there = derivatives_by_point(image.camera, image.cam_from_world(), points[members])
            there *= self._map_scales(level, image.camera)[:, None]
            ray = points[members] - image.projection_center()
            ray /= np.linalg.norm(ray, axis=1, keepdims=True)
            found = facing_warps(query[members], there, ray)
            usable = np.isfinite(found).all(axis=(1, 2))
            warps[members[usable]] = found[usable]
        return warps

    def _map_scales(self, level: int, camera: pycolmap.Camera) -> Float64:
        size = (camera.width, camera.height)
        return self.extractor.map_scales(size, self.extractor.outputs[level])

    def image(self, pixels: Pixels, camera: pycolmap.Camera) -> npt.NDArray[np.float32]:
        """A query as the feature model takes it."""
        options = self.extractor.options
        return read_pixels(
            pixels,
            camera,
            color=self.extractor.model.color,
            max_edge=options.max_edge,
            resize=options.resize,
        )


def open_feature_map(
    model: pycolmap.Reconstruction,
    references_path: Path | None,
    image_path: Path | None,
    options: LocalizeOptions,
    progress: Progress,
) -> FeatureMap:
    """The references of a file; without it made from the model's images, and written there for the next time.

    Raises:
        UserError: the file is of another model or of other features, or lacks what target_reference takes.
    """
    features, interpolation = options.dense_features, options.interpolation
    target_reference = options.localization.target_reference
    if target_reference == "full":
        interpolation = strategy_interpolation("patch_warp", interpolation)
    Extraction([], [], features).check_distinct(interpolation)
    extractor = Extractor(features)
    keep_observations = target_reference in ("nearest", "all_observations")
    if references_path is not None and references_path.exists():
        levels = read_model_references(references_path, model, features, interpolation)
        if keep_observations and any(level.observations is None for level in levels):
            raise UserError(
                f"{references_path}: has one reference a point, but the target_reference {target_reference} "
                "takes the features of all observations: make it with "
                "--FeaturemetricBundleAdjustment.keep_observations 1, or set --Localization.target_reference "
                "robust_mean"
            )
        return FeatureMap("file", levels, extractor, interpolation, model)
    if image_path is None:
        raise UserError(NO_REFERENCES)
    images = [model.images[image_id] for image_id in sorted(model.reg_image_ids())]
    files = [
        ImageFile(image.name, image_path / image.name, (image.camera.width, image.camera.height))
        for image in images
    ]
    levels = model_references(
        model,
        files,
        features,
        interpolation,
        keep_observations=keep_observations,
        num_threads=features.num_threads,
        progress=progress,
    )
    if references_path is not None:
        write_references(references_path, levels, references_options(features, interpolation))
    return FeatureMap("images", levels, extractor, interpolation, model)
