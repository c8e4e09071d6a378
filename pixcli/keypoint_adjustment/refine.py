"""Refinement of the keypoints of a COLMAP database, from reading it to writing it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.io.covariance import write_covariances
from pixcli.io.database import MatchGraph, read_match_graph
from pixcli.io.files import check_writable
from pixcli.io.image_list import read_image_list
from pixcli.io.refined_database import check_output_path, write_refined_database
from pixcli.keypoint_adjustment.affine import AffineAlignment
from pixcli.keypoint_adjustment.agreement import Agreement, measure_agreement
from pixcli.keypoint_adjustment.alignment import AlignmentResult
from pixcli.keypoint_adjustment.feature_distance import FeaturemetricAlignment
from pixcli.keypoint_adjustment.tracks import Tracks, build_tracks
from pixcli.keypoint_adjustment.verification import VerificationCounts, verify_pairs
from pixcli.options import DenseFeaturesOptions, InterpolationOptions, KeypointAdjustmentOptions
from pixcli.progress import PhaseStats, Progress
from pixcli.sampling.extraction import image_files
from pixcli.sampling.status import Status
from pixcli.sampling.streaming import CACHE_OR, Estimate

log = logging.getLogger(__name__)


class Alignment(Protocol):
    """One strategy, ready to run on one graph."""

    def estimate(self) -> Estimate: ...

    @property
    def bytes_per_keypoint(self) -> float: ...

    def fill_cache(self, progress: Progress) -> None: ...

    def run(self, progress: Progress) -> AlignmentResult: ...


@dataclass(frozen=True)
class Refinement:
    """What a refinement did; shifts are of the moved keypoints, in pixels."""

    num_images: int
    num_keypoints: int
    num_pairs: int
    num_edges: int
    num_tracks: int
    statuses: Mapping[Status, int]
    """How many keypoints ended how."""
    shift_median: float
    shift_p90: float
    shift_max: float
    cost_before: float
    cost_after: float
    moved_by: Mapping[str, int]
    """How many keypoints each model of a chain moved."""
    epipolar: Agreement
    """How the moved keypoints fit the geometry of their image pairs."""
    verification: VerificationCounts | None
    phases: list[PhaseStats]

    @property
    def num_moved(self) -> int:
        return self.statuses[Status.MOVED]

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them."""
        return {
            "input": {
                "images": self.num_images,
                "keypoints": self.num_keypoints,
                "pairs": self.num_pairs,
                "edges": self.num_edges,
                "tracks": self.num_tracks,
            },
            "keypoints": {status.name.lower(): count for status, count in self.statuses.items()},
            "shift": {"median": self.shift_median, "p90": self.shift_p90, "max": self.shift_max},
            "cost": {"before": self.cost_before, "after": self.cost_after},
            "moved_by": self.moved_by,
            "epipolar": self.epipolar.contents(),
            "verification": self.verification,
            "phases": self.phases,
        }


@dataclass(frozen=True)
class Plan:
    """A refinement before its work starts: matches, their tracks and the strategy that moves keypoints."""

    database: MatchGraph
    """All matches of the database: those that an image list leaves out touch keypoints that move, too."""
    graph: MatchGraph
    """The matches that count."""
    tracks: Tracks
    alignment: Alignment


def plan_refinement(
    database_path: Path,
    image_path: Path,
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
    adjustment: KeypointAdjustmentOptions,
    *,
    image_list_path: Path | None = None,
    constant_image_list_path: Path | None = None,
    progress: Progress,
) -> Plan:
    """Read a database and decide what is aligned to what; says what the work will take.

    Raises:
        UserError: the database or a list cannot be used, or there is too little memory or disk space.
    """
    if not adjustment.apply:
        raise UserError("KeypointAdjustment.apply is 0: there is nothing to do")
    if adjustment.strategy != "affine" and len(features.models) > 1:
        raise UserError(
            f"DenseFeatures.model {features.model} is a chain, which --KeypointAdjustment.strategy affine "
            f"takes: name one model for {adjustment.strategy}"
        )
    if not image_path.is_dir():
        raise UserError(f"there is no folder {image_path}: check --image_path")
    with progress.phase("read"):
        database = graph = read_match_graph(database_path, adjustment.match_source)
        names = [image.name for image in graph.images]
        if image_list_path is not None:
            graph = graph.restricted_to(_indices(read_image_list(image_list_path, names), names))
        constant = np.zeros(len(graph.xy), bool)
        if constant_image_list_path is not None:
            constant = np.isin(
                graph.image_index, _indices(read_image_list(constant_image_list_path, names), names)
            )
        tracks = build_tracks(graph)
    images = image_files(graph, image_path)
    alignment: Alignment
    if adjustment.strategy == "affine":
        alignment = AffineAlignment(graph, tracks, images, features, adjustment, constant)
    else:
        alignment = FeaturemetricAlignment(
            graph, tracks, image_path, features, interpolation, adjustment, constant
        )
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
    return Plan(database, graph, tracks, alignment)


def move_keypoints(plan: Plan, progress: Progress, *, guard: bool) -> tuple[AlignmentResult, Agreement]:
    """Run a plan. With the guard, all is undone if keypoints fit the geometry of their pairs worse then."""
    result = plan.alignment.run(progress)
    with progress.phase("check"):
        agreement = measure_agreement(plan.graph, result.xy)
    if agreement.worse:
        log.warning(
            "where keypoints moved, matches fit the epipolar geometry of their images worse than before: by "
            "%.3f px before, %.3f px after (medians). %s",
            agreement.before,
            agreement.after,
            "All stay where they were; --DenseFeatures.model image with --KeypointAdjustment.strategy affine "
            "is more accurate."
            if guard
            else "KeypointAdjustment.guard is 0: they are written nevertheless.",
        )
        if guard:
            result.undo(plan.graph.xy)
    return result, agreement


def refine_keypoints(
    database_path: Path | str,
    image_path: Path | str,
    output_path: Path | str | None,
    features: DenseFeaturesOptions = DenseFeaturesOptions(),
    interpolation: InterpolationOptions = InterpolationOptions(),
    adjustment: KeypointAdjustmentOptions = KeypointAdjustmentOptions(),
    *,
    image_list_path: Path | None = None,
    constant_image_list_path: Path | None = None,
    covariance_path: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Refinement:
    """Move the matched keypoints of a COLMAP database until what surrounds them agrees between images.

    Args:
        output_path: the refined database; None refines the input in place.
        image_list_path: only matches between these images count.
        constant_image_list_path: keypoints of these images stay where they are; others are aligned to them.
        covariance_path: gets the 2x2 covariance of every moved keypoint (see pixcli.io.covariance).
        seed: of the random samples of re-verification.

    Raises:
        UserError: something about the input cannot be used; nothing has been written.
    """
    progress = progress or Progress()
    database_path, image_path = Path(database_path), Path(image_path)
    check_output_path(database_path, output_path)
    if covariance_path is not None:
        check_writable(covariance_path)
    plan = plan_refinement(
        database_path,
        image_path,
        features,
        interpolation,
        adjustment,
        image_list_path=image_list_path,
        constant_image_list_path=constant_image_list_path,
        progress=progress,
    )
    result, agreement = move_keypoints(plan, progress, guard=adjustment.guard)
    verification = None
    with write_refined_database(database_path, output_path, plan.database, result.xy) as refined:
        if adjustment.reverify:
            with progress.phase("verify", len(refined.touched_pairs)) as update:
                verification = verify_pairs(
                    refined.database,
                    refined.touched_pairs,
                    seed=seed,
                    num_threads=adjustment.num_threads,
                    update=update,
                )
        if covariance_path is not None:
            names = [image.name for image in plan.database.images]
            write_covariances(covariance_path, names, plan.database.offsets, result.covariance)
    return _summary(plan, result, agreement, verification, progress)


def _indices(chosen: list[str], names: list[str]) -> npt.NDArray[np.int64]:
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[name] for name in chosen], np.int64)


def _summary(
    plan: Plan,
    result: AlignmentResult,
    agreement: Agreement,
    verification: VerificationCounts | None,
    progress: Progress,
) -> Refinement:
    graph = plan.graph
    counts = np.bincount(result.status, minlength=len(Status))
    moved = result.status == Status.MOVED
    shift = np.linalg.norm(result.xy[moved] - graph.xy[moved], axis=1) if moved.any() else np.zeros(1)
    return Refinement(
        num_images=len(graph.images),
        num_keypoints=len(graph.xy),
        num_pairs=len(graph.pairs),
        num_edges=len(graph.edges),
        num_tracks=plan.tracks.num_tracks,
        statuses={status: int(counts[status]) for status in Status},
        shift_median=float(np.median(shift)),
        shift_p90=float(np.percentile(shift, 90)),
        shift_max=float(shift.max()),
        cost_before=result.cost_before,
        cost_after=result.cost_after,
        moved_by=result.moved_by,
        epipolar=agreement,
        verification=verification,
        phases=progress.phases,
    )
