"""Keypoints of a COLMAP database: read, refined, written."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixcli.adapters.hloc_import import with_scores
from pixcli.adapters.verification import VerificationCounts, verify_pairs
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.covariance import write_covariances
from pixcli.io.database import read_match_graph
from pixcli.io.files import check_writable
from pixcli.io.image_list import read_image_list
from pixcli.io.refined_database import check_output_path, write_refined_database
from pixcli.keypoint_adjustment.keypoint_result import KeypointResult
from pixcli.keypoint_adjustment.refine import check_refinement, plan_refinement, refine_keypoints
from pixcli.options import FeatureRefinerOptions, TwoViewGeometryOptions
from pixcli.options.colmap import check
from pixcli.progress import PhaseStats, Progress

FilePath = str | os.PathLike[str]


@dataclass(frozen=True)
class RefinerFiles:
    """What a refinement reads and writes beside keypoints, matches and images."""

    image_list_path: FilePath | None = None
    """Names of images; only matches between these count."""
    constant_image_list_path: FilePath | None = None
    """Names of images whose keypoints stay where they are; others are aligned to them."""
    scores_path: FilePath | None = None
    """hloc's file of the matches in a database, for their scores."""
    covariance_path: FilePath | None = None
    """Gets the 2x2 covariance of every moved keypoint (see pixcli.io.covariance)."""

    def selection(self, graph: MatchGraph) -> dict[str, Any]:
        """The names in the lists, as keyword arguments of refine_keypoints."""
        names = graph.names
        only, constant = (
            path and read_image_list(path, names)
            for path in (self.image_list_path, self.constant_image_list_path)
        )
        return {"only": only, "constant": constant or ()}

    def check(self) -> None:
        """Raises UserError if the covariances could not be written."""
        if self.covariance_path is not None:
            check_writable(Path(self.covariance_path))

    def write_covariances(self, result: KeypointResult) -> None:
        """Write them, if they are asked for."""
        if self.covariance_path is not None:
            graph = result.graph
            write_covariances(self.covariance_path, graph.names, graph.offsets, result.covariance)


@dataclass(frozen=True)
class Refinement:
    """What the refinement of a file did."""

    keypoints: KeypointResult
    verification: VerificationCounts | None
    """Of the pairs of a database whose keypoints moved."""
    phases: list[PhaseStats]

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them."""
        return {**self.keypoints.contents(), "verification": self.verification, "phases": self.phases}


def refine_database(
    database_path: FilePath,
    images: FilePath,
    output_path: FilePath | None,
    options: FeatureRefinerOptions = FeatureRefinerOptions(),
    two_view_geometry: TwoViewGeometryOptions | None = None,
    *,
    files: RefinerFiles = RefinerFiles(),
    seed: int = 0,
    progress: Progress | None = None,
) -> Refinement:
    """Shift the matched keypoints of a COLMAP database until their surrounding image patches agree.

    Args:
        images: the folder that the names of images are relative to.
        output_path: the refined database; None refines the input in place.
        two_view_geometry: how the pairs whose keypoints moved are verified again.
        seed: of the random samples of re-verification.

    Raises:
        UserError: something about the input cannot be used; nothing has been written.
    """
    progress = progress or Progress()
    geometry = two_view_geometry or TwoViewGeometryOptions()
    adjustment = options.keypoint_adjustment
    check_output_path(database_path, output_path)
    files.check()
    check(geometry)
    check_refinement(images, options)
    with progress.phase("read"):
        graph = _read(database_path, options, files)
        selection = files.selection(graph)
    result = refine_keypoints(graph, images, options, **selection, progress=progress)
    verification = None
    # All matches: those that an image list leaves out touch keypoints that move, too.
    with write_refined_database(database_path, output_path, graph, result.xy) as refined:
        if adjustment.reverify:
            with progress.phase("verify", len(refined.touched_pairs)) as update:
                verification = verify_pairs(
                    refined.database,
                    refined.touched_pairs,
                    geometry,
                    seed=seed,
                    num_threads=adjustment.num_threads,
                    update=update,
                )
        files.write_covariances(result)
    return Refinement(result, verification, progress.phases)


def fill_cache(
    database_path: FilePath,
    images: FilePath,
    options: FeatureRefinerOptions,
    *,
    files: RefinerFiles = RefinerFiles(),
    progress: Progress,
) -> None:
    """Make the dense features that refine_database will align, and keep them in the cache."""
    check_refinement(images, options)
    with progress.phase("read"):
        graph = _read(database_path, options, files)
        selection = files.selection(graph)
    plan = plan_refinement(graph, images, options, **selection, progress=progress)
    plan.alignment.fill_cache(progress)


def _read(database_path: FilePath, options: FeatureRefinerOptions, files: RefinerFiles) -> MatchGraph:
    graph = read_match_graph(database_path, options.keypoint_adjustment.match_source)
    return graph if files.scores_path is None else with_scores(graph, Path(files.scores_path))
