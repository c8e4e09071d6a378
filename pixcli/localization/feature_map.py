"""What the featuremetric strategy knows of a model: how its points look in a feature map."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pycolmap

from pixcli.adjustment.references import model_references, read_model_references, references_options
from pixcli.errors import UserError
from pixcli.features.extraction import Extraction
from pixcli.features.patches import Extractor
from pixcli.features.streaming import ImageFile
from pixcli.io.references import References, write_references
from pixcli.localization.pixels import Pixels, read_pixels
from pixcli.options import DenseFeaturesOptions, InterpolationOptions
from pixcli.options.localization import TargetReference
from pixcli.progress import Progress

NO_REFERENCES = "a localizer takes references, or the image_path of the model to make them from"


@dataclass(frozen=True)
class FeatureMap:
    """The references of a model's points, and what makes the same features of a query."""

    source: Literal["file", "images"]
    """Whether the references were read from a file, or made from the model's images."""
    levels: Sequence[References]
    """Coarse to fine."""
    extractor: Extractor

    def image(self, pixels: Pixels, camera: pycolmap.Camera) -> npt.NDArray[np.float32]:
        """A query as the feature model takes it."""
        options = self.extractor.options
        return read_pixels(
            pixels,
            camera,
            color=self.extractor.model.color,
            max_edge=options.max_edge,
            resize=options.resize,
            fast=options.fast_image_load,
        )


def open_feature_map(
    model: pycolmap.Reconstruction,
    references_path: Path | None,
    image_path: Path | None,
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
    target_reference: TargetReference,
    progress: Progress,
) -> FeatureMap:
    """The references of a file; without it made from the model's images, and written there for the next time.

    Raises:
        UserError: the file is of another model or of other features, or lacks what target_reference takes.
    """
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
        return FeatureMap("file", levels, extractor)
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
    return FeatureMap("images", levels, extractor)
