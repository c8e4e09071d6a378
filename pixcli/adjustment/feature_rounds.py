"""The strategies that compare features with references: patches around the projections, then adjustment."""

from collections.abc import Sequence

import numpy as np
import pycolmap

from pixcli.adjustment.featuremetric import adjust_bundle
from pixcli.adjustment.observations import project, read_observations
from pixcli.adjustment.problem import Constants
from pixcli.adjustment.references import compute_references
from pixcli.features.extraction import Extraction
from pixcli.features.streaming import ImageFile
from pixcli.io.patch_store import Patches
from pixcli.options import DenseFeaturesOptions, InterpolationOptions
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.progress import Progress

_NONE = np.empty(0, np.int64)


def adjust_by_features(
    model: pycolmap.Reconstruction,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    options: FeaturemetricBundleAdjustmentOptions,
    interpolation: InterpolationOptions,
    adjustment: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    constants: Constants,
    progress: Progress,
) -> None:
    """Refine a model in place by features at the points' projections, against a reference for each point.

    Args:
        images: the registered images, by ascending id.
    """
    observations = read_observations(model, adjustment.min_track_length)
    projected = project(model, observations)
    by_image = [observations.by_image.get(image_id, _NONE) for image_id in sorted(model.reg_image_ids())]
    extraction = Extraction(images, [projected[members] for members in by_image], features)
    extraction.check_distinct(interpolation)
    row_of = np.empty(len(projected), np.int64)
    row_of[np.concatenate(by_image)] = np.arange(len(projected))
    levels = []
    for patches, _ in extraction.patches(progress):
        with progress.phase("references", len(observations.point_ids)) as update:
            references = compute_references(
                observations,
                projected,
                patches,
                interpolation,
                rows=row_of,
                num_threads=ceres.num_threads,
                poll=update,
            )
        of_observations = Patches(patches.data[row_of], patches.corners[row_of], patches.scales[row_of])
        levels.append((of_observations, references))
    with progress.phase("adjust", ceres.max_num_iterations) as update:
        adjust_bundle(
            model,
            observations,
            levels,
            options,
            interpolation,
            adjustment,
            ceres,
            constants=constants,
            poll=lambda iteration, cost: update(iteration),
        )
