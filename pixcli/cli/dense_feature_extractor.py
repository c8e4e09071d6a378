"""pixcli dense_feature_extractor"""

import logging
from dataclasses import replace
from pathlib import Path

from pixcli.cli.params import command
from pixcli.errors import UserError
from pixcli.features.extraction import extraction_for
from pixcli.io.database import read_match_graph
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress

log = logging.getLogger(__name__)


@command
def dense_feature_extractor(
    database_path: Path, image_path: Path, features: DenseFeaturesOptions, progress: Progress
) -> None:
    """Fill a cache of dense features that later commands use again.

    The cache is the file of --DenseFeatures.cache_path. It holds what is around the keypoints that have
    verified matches or, with --DenseFeatures.sparse 0, whole maps. Commands with the same options and
    --DenseFeatures.use_cache 1 read it instead of the images. A run that was interrupted is taken up again.
    """
    if not features.cache_path:
        raise UserError("--DenseFeatures.cache_path is missing: it names the file to fill")
    graph = read_match_graph(database_path, "inlier")
    extraction = extraction_for(graph, image_path, replace(features, use_cache=True))
    estimate = extraction.estimate()
    log.info(
        "%d images, %d keypoints with matches: %.2f GB of memory, %.2f GB on disk (%s)",
        len(graph.images),
        extraction.num_keypoints,
        estimate.memory / 1e9,
        estimate.disk / 1e9,
        features.cache_path,
    )
    extraction.fill_cache(progress)
    phase = progress.phases[-1]
    log.info("done in %.1f s, peak memory %.0f MB", phase.seconds, phase.peak_memory_mb)
