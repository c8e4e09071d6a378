"""pixcli dense_feature_extractor"""

import logging
from dataclasses import replace
from pathlib import Path

from pixcli.alignment.refine import plan_refinement
from pixcli.cli.params import command
from pixcli.errors import UserError
from pixcli.options import DenseFeaturesOptions, InterpolationOptions, KeypointAdjustmentOptions
from pixcli.progress import Progress

log = logging.getLogger(__name__)


@command
def dense_feature_extractor(
    database_path: Path,
    image_path: Path,
    image_list_path: Path | None,
    constant_image_list_path: Path | None,
    features: DenseFeaturesOptions,
    adjustment: KeypointAdjustmentOptions,
    interpolation: InterpolationOptions,
    progress: Progress,
) -> None:
    """Fill a cache of dense features that later commands use again.

    The cache is the file of --DenseFeatures.cache_path. It holds what the strategy of keypoint adjustment
    aligns: what is around the matched keypoints or, with --DenseFeatures.sparse 0 and a featuremetric
    strategy, whole maps. Commands with the same options and --DenseFeatures.use_cache 1 read it instead of
    the images. A run that was interrupted is taken up again.
    """
    if not features.cache_path:
        raise UserError("--DenseFeatures.cache_path is missing: it names the file to fill")
    plan = plan_refinement(
        database_path,
        image_path,
        replace(features, use_cache=True),
        interpolation,
        adjustment,
        image_list_path=image_list_path,
        constant_image_list_path=constant_image_list_path,
        progress=progress,
    )
    plan.alignment.fill_cache(progress)
    phase = progress.phases[-1]
    log.info("done in %.1f s, peak memory %.0f MB", phase.seconds, phase.peak_memory_mb)
