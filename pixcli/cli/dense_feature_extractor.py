"""pixcli dense_feature_extractor"""

import logging
from dataclasses import replace
from pathlib import Path

from pixcli.adapters.refine_database import RefinerFiles, fill_cache
from pixcli.cli.params import command
from pixcli.cli.terminal import print_table
from pixcli.errors import UserError
from pixcli.options import DenseFeaturesOptions, FeatureRefinerOptions, ModelCheckOptions
from pixcli.progress import Progress
from pixcli.sampling.model_check import check_model

log = logging.getLogger(__name__)


@command
def dense_feature_extractor(
    database_path: Path | None,
    image_path: Path | None,
    image_list_path: Path | None,
    constant_image_list_path: Path | None,
    options: FeatureRefinerOptions,
    check: ModelCheckOptions,
    progress: Progress,
) -> None:
    """Fill a cache of dense features that later commands use again.

    The cache is the file of --DenseFeatures.cache_path. It holds what the strategy of keypoint adjustment
    aligns: what is around the matched keypoints or, with --DenseFeatures.sparse 0 and a featuremetric
    strategy, whole maps. Commands with the same options and --DenseFeatures.use_cache 1 read it instead of
    the images. A run that was interrupted is taken up again.
    """
    features = options.dense_features
    if check.check_model:
        _print_check(features)
        return
    if database_path is None or image_path is None:
        missing = "database_path" if database_path is None else "image_path"
        raise UserError(
            f"--{missing} is missing: give it on the command line or in the file of --project_path"
        )
    if not features.cache_path:
        raise UserError("--DenseFeatures.cache_path is missing: it names the file to fill")
    fill_cache(
        database_path,
        image_path,
        replace(options, dense_features=replace(features, use_cache=True)),
        files=RefinerFiles(image_list_path, constant_image_list_path),
        progress=progress,
    )
    phase = progress.phases[-1]
    log.info("done in %.1f s, peak memory %.0f MB", phase.seconds, phase.peak_memory_mb)


def _print_check(features: DenseFeaturesOptions) -> None:
    for model in features.models:
        found = check_model(features.of_model(model))
        print_table(
            f"Model {features.model_path or model}",
            ["", "value"],
            [
                *((f"level {k}", text) for k, text in enumerate(found.levels)),
                ("tiles against the whole image (deviations)", f"{found.tiling:.2g}"),
                ("lost by half precision (deviations)", f"{found.half:.2g}"),
                ("CPU seconds for a megapixel", f"{found.seconds_per_megapixel:.3f}"),
                ("memory for a megapixel (MB)", f"{found.memory / 1e6:.0f}"),
            ],
        )
