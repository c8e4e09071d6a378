"""Keypoint adjustment on feature distances, after Lindenberger et al. (ICCV 2021), solved natively.

Over the edges (i, j) of every track, 1/2 Σ w_ij ρ(‖f_i(x_i) - f_j(x_j)‖²) is minimised, each keypoint inside
a box around where it was detected and the track's root held. A keypoint that ends on its box, whose own edges
cost more than before or whose predicted deviation is too large goes back, and the rest of its track is solved
anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixcli import _core
from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.patch_store import Patches
from pixcli.keypoint_adjustment.alignment import AlignmentResult
from pixcli.keypoint_adjustment.tracks import Tracks
from pixcli.options import FeatureRefinerOptions, InterpolationOptions, KeypointAdjustmentOptions
from pixcli.progress import Progress
from pixcli.sampling.extraction import extraction_for
from pixcli.sampling.feature_references import sampling_arguments
from pixcli.sampling.status import Status
from pixcli.sampling.streaming import Estimate


class FeaturemetricAlignment:
    """What a featuremetric strategy does to the keypoints of a graph; its cost is known before it runs."""

    def __init__(
        self,
        graph: MatchGraph,
        tracks: Tracks,
        images: Path,
        options: FeatureRefinerOptions,
        constant: NDArray[np.bool_],
    ) -> None:
        self._graph, self._tracks, self._constant = graph, tracks, constant
        self._interpolation, self._options = options.interpolation, options.keypoint_adjustment
        self._extraction = extraction_for(graph, images, options.dense_features)

    def estimate(self) -> Estimate:
        """Bytes that run() will take. Raises UserError if a new cache does not fit on its disk."""
        return self._extraction.estimate()

    @property
    def bytes_per_keypoint(self) -> float:
        """What the patches, or maps, take of each matched keypoint."""
        return self._extraction.num_bytes / max(len(np.unique(self._graph.edges)), 1)

    def fill_cache(self, progress: Progress) -> None:
        """Make the patches and keep them in the cache for run()."""
        self._extraction.fill_cache(progress)

    def run(self, progress: Progress) -> AlignmentResult:
        """Adjust all keypoints; those outside their image stay where they are and hold no other."""
        _check_nodes(self._interpolation)
        self._extraction.check_distinct(self._interpolation)
        graph, tracks = self._graph, self._tracks
        levels = self._extraction.patches(progress)
        valid = graph.inside_image
        usable = valid[graph.edges].all(1)
        problem = TrackProblem(
            graph.xy,
            tracks.ptr,
            tracks.members,
            graph.edges[usable],
            None if graph.scores is None else graph.scores[usable],
            self._constant,
        )
        with progress.phase("adjust", tracks.num_tracks) as update:
            result = adjust_keypoints(problem, levels, self._options, self._interpolation, update)
        outside = ~valid & (tracks.label >= 0)
        result.status[outside] = Status.INVALID
        result.xy[outside] = graph.xy[outside]
        return result


@dataclass
class TrackProblem:
    """What is adjusted: n keypoints, the tracks they form and the edges that pull on them.

    Raises ValueError where arrays do not fit each other.
    """

    xy: NDArray[np.float64]
    """(n, 2) COLMAP pixels."""
    track_ptr: NDArray[np.int64]
    """(t + 1,) the keypoints of track k are members[track_ptr[k]:track_ptr[k + 1]], its root first."""
    members: NDArray[np.int32]
    """(k,) keypoints, each at most once."""
    edges: NDArray[np.int32]
    """(m, 2) keypoints; an edge between tracks, or outside of them, takes no part."""
    weights: NDArray[np.floating] | None = None
    """(m,) at least 0, or None for ones; used where KeypointAdjustment.weight_by_score is on."""
    constant: NDArray[np.bool_] | None = None
    """(n,) bool, keypoints that do not move, or None."""

    def __post_init__(self) -> None:
        self.xy = np.ascontiguousarray(self.xy, np.float64)  # whatever sequence was given
        _check(self.xy.ndim == 2 and self.xy.shape[1] == 2, "xy", "(n, 2)", self.xy)
        n = len(self.xy)
        self.track_ptr = ptr = np.ascontiguousarray(self.track_ptr, np.int64)
        self.members = np.ascontiguousarray(self.members, np.int32)
        _check(self.members.ndim == 1, "members", "(k,)", self.members)
        _check(ptr.ndim == 1 and len(ptr) > 0, "track_ptr", "(t + 1,)", ptr)
        if ptr[0] != 0 or ptr[-1] != len(self.members) or np.any(np.diff(ptr) < 0):
            raise ValueError(f"track_ptr must rise from 0 to the number of members, {len(self.members)}")
        _check_range(self.members, n, "members")
        if np.any(np.bincount(self.members, minlength=n) > 1):
            raise ValueError("a keypoint is a member of more than one track")
        self.edges = np.ascontiguousarray(self.edges, np.int32)
        _check(self.edges.ndim == 2 and self.edges.shape[1] == 2, "edges", "(m, 2)", self.edges)
        _check_range(self.edges, n, "edges")
        if self.weights is not None:
            self.weights = np.ascontiguousarray(self.weights)
            _check(self.weights.shape == (len(self.edges),), "weights", f"({len(self.edges)},)", self.weights)
            if not np.all((self.weights >= 0) & (self.weights < np.inf)):
                raise ValueError("weights must be finite and not negative")
        if self.constant is not None:
            self.constant = np.ascontiguousarray(self.constant, np.bool_)
            _check(self.constant.shape == (n,), "constant", f"({n},)", self.constant)


def adjust_keypoints(
    problem: TrackProblem,
    levels: Sequence[tuple[Patches, ArrayLike | None]],
    options: KeypointAdjustmentOptions,
    interpolation: InterpolationOptions,
    poll: Callable[[int], object] | None = None,
) -> AlignmentResult:
    """Adjust the keypoints of all tracks, with the same result for any number of threads.

    Args:
        levels: feature maps from coarse to fine, each with its patches and the patch (n,) of every keypoint,
            -1 for none (None: patch k belongs to keypoint k). A keypoint of a track without a patch is
            INVALID. Costs are those of the finest level.
        poll: called now and then with the number of tracks done; may raise to stop.
    """
    if not levels:
        raise ValueError("at least one level of features is needed")
    _check_nodes(interpolation)

    weights = None
    if options.weight_by_score and problem.weights is not None:
        weights = problem.weights.astype(np.float64)
    solved = _core.adjust_featuremetric(
        problem.xy,
        problem.track_ptr,
        problem.members,
        problem.edges,
        weights,
        problem.constant,
        [_native_level(patches, rows, len(problem.xy)) for patches, rows in levels],
        **native_options(options, interpolation),
        guard=True,
        num_threads=options.num_threads,
        poll=poll,
    )
    return AlignmentResult(
        xy=solved["xy"],
        status=solved["status"],
        covariance=solved["covariance"],
        cost_before=float(solved["cost_before"].sum()),
        cost_after=float(solved["cost_after"].sum()),
    )


def native_options(options: KeypointAdjustmentOptions, interpolation: InterpolationOptions) -> dict[str, Any]:
    """What the native solver takes of the options, of which it has no defaults."""
    return {
        **sampling_arguments(interpolation),
        "loss": options.loss,
        "loss_scale": options.loss_scale,
        "bound": options.bound,
        "max_iterations": options.max_iterations,
        "function_tolerance": 0.0,
        "gradient_tolerance": 0.0,
        "parameter_tolerance": options.parameter_tolerance,
        "root_edges_only": options.strategy == "topological_reference",
        "root_regularize_weight": options.root_regularize_weight,
        "max_deviation": options.max_deviation,
        "max_kps_per_problem": options.max_kps_per_problem,
    }


def _check_nodes(interpolation: InterpolationOptions) -> None:
    if interpolation.ncc_normalize and len(interpolation.offsets) < 2:
        raise UserError(
            "Interpolation.ncc_normalize compares nodes: give at least two in Interpolation.nodes."
        )


def _native_level(
    patches: Patches, rows: ArrayLike | None, n: int
) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
    data = np.ascontiguousarray(patches.data)
    _check(data.ndim == 4 and min(data.shape[1:]) > 0, "patches", "(m, height, width, channels)", data)
    if data.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"patches must be float16, float32 or float64, not {data.dtype}")
    corners = np.ascontiguousarray(patches.corners, np.int32)
    scales = np.ascontiguousarray(patches.scales, np.float64)
    _check(corners.shape == (len(data), 2), "corners", f"({len(data)}, 2)", corners)
    _check(scales.shape == (len(data), 2), "scales", f"({len(data)}, 2)", scales)
    if not np.all((scales > 0) & (scales < np.inf)):
        raise ValueError("scales must be positive")
    rows = np.arange(n, dtype=np.int64) if rows is None else np.ascontiguousarray(rows, np.int64)
    _check(rows.shape == (n,), "rows", f"({n},)", rows)
    if len(rows) and (rows.min() < -1 or rows.max() >= len(data)):
        raise ValueError(f"rows must be from -1 to {len(data) - 1}, the last patch")
    return data, corners, scales, rows


def _check(condition: bool, name: str, expected: str, array: NDArray[Any]) -> None:
    if not condition:
        raise ValueError(f"{name} must have shape {expected}, not {array.shape}")


def _check_range(indices: NDArray[Any], n: int, name: str) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise ValueError(f"{name} must hold keypoints from 0 to {n - 1}")
