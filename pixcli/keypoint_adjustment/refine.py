"""Keypoint adjustment in memory: a graph of matches and a folder of images in, refined positions out."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.keypoint_adjustment.affine import AffineAlignment
from pixcli.keypoint_adjustment.agreement import measure_agreement
from pixcli.keypoint_adjustment.alignment import Alignment
from pixcli.keypoint_adjustment.feature_distance import FeaturemetricAlignment
from pixcli.keypoint_adjustment.keypoint_result import KeypointResult
from pixcli.keypoint_adjustment.tracks import Tracks, build_tracks
from pixcli.options import FeatureRefinerOptions
from pixcli.progress import Progress
from pixcli.sampling.streaming import CACHE_OR

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Keypoint adjustment before its work starts: matches, their tracks and a strategy."""

    graph: MatchGraph
    """The matches that count."""
    tracks: Tracks
    alignment: Alignment

    def run(self, progress: Progress, *, guard: bool) -> KeypointResult:
        """Align all keypoints. With the guard, undo all if matches then fit their epipolar geometry worse."""
        aligned = self.alignment.run(progress)
        with progress.phase("check"):
            agreement = measure_agreement(self.graph, aligned.xy)
        if agreement.worse:
            log.warning(
                "where keypoints moved, matches fit the epipolar geometry of their images worse than before: "
                "by %.3f px before, %.3f px after (medians). %s",
                agreement.before,
                agreement.after,
                "All stay where they were; --DenseFeatures.model image with --KeypointAdjustment.strategy "
                "affine is more accurate."
                if guard
                else "KeypointAdjustment.guard is 0: they move nevertheless.",
            )
            if guard:
                aligned = aligned.undone(self.graph.xy)
        return KeypointResult(**vars(aligned), graph=self.graph, tracks=self.tracks, epipolar=agreement)


def refine_keypoints(
    graph: MatchGraph,
    images: str | os.PathLike[str],
    options: FeatureRefinerOptions = FeatureRefinerOptions(),
    *,
    only: Sequence[str] | None = None,
    constant: Sequence[str] = (),
    progress: Progress | None = None,
) -> KeypointResult:
    """Shift matched keypoints until their surrounding image patches agree between images.

    Nothing is written, but for the cache that DenseFeatures.use_cache asks for.

    Args:
        graph: keypoints and matches, as pixcli.read_match_graph reads them from a database.
        images: the folder that the names of images are relative to.
        only: names of images; only matches between these count.
        constant: names of images whose keypoints stay where they are; others are aligned to them.

    Raises:
        UserError: something about the input cannot be used, or memory or disk space is too small.
    """
    progress = progress or Progress()
    plan = plan_refinement(graph, images, options, only=only, constant=constant, progress=progress)
    return plan.run(progress, guard=options.keypoint_adjustment.guard)


def plan_refinement(
    graph: MatchGraph,
    images: str | os.PathLike[str],
    options: FeatureRefinerOptions,
    *,
    only: Sequence[str] | None = None,
    constant: Sequence[str] = (),
    progress: Progress,
) -> Plan:
    """Decide what is aligned to what, and log what the work will take; arguments as of refine_keypoints."""
    check_refinement(images, options)
    with progress.phase("build tracks"):
        if only is not None:
            graph = graph.restricted_to(graph.indices(only))
        held = np.isin(graph.image_index, graph.indices(constant))
        tracks = build_tracks(graph)
    strategy = AffineAlignment if options.keypoint_adjustment.strategy == "affine" else FeaturemetricAlignment
    alignment: Alignment = strategy(graph, tracks, Path(images), options, held)
    log.info(
        "%d images, %d keypoints, %d matches in %d pairs, %d tracks",
        len(graph.images),
        len(graph.xy),
        len(graph.edges),
        len(graph.pairs),
        tracks.num_tracks,
    )
    log.info("patches take %.1f KiB a keypoint", alignment.bytes_per_keypoint / 1024)
    alignment.estimate().announce(CACHE_OR + "refine parts with --image_list_path")
    return Plan(graph, tracks, alignment)


def check_refinement(images: str | os.PathLike[str], options: FeatureRefinerOptions) -> None:
    """Raises UserError where options contradict each other or there is no folder of images."""
    adjustment, features = options.keypoint_adjustment, options.dense_features
    if not adjustment.apply:
        raise UserError("KeypointAdjustment.apply is 0: there is nothing to do")
    if adjustment.strategy != "affine" and len(features.models) > 1:
        raise UserError(
            f"DenseFeatures.model {features.model} is a chain, which --KeypointAdjustment.strategy affine "
            f"takes: name one model for {adjustment.strategy}"
        )
    if not Path(images).is_dir():
        raise UserError(f"there is no folder {images}: check --image_path")
