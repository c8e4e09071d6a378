"""Keypoint adjustment by aligning what surrounds a keypoint to the root of its track.

The local warp between a keypoint and the root is refined natively, on several supports of growing extent,
each starting where the one before ended. The support whose predicted deviation is smallest decides. What the
first model of a chain rejects is aligned by the next one. See "The affine strategy" in docs/architecture.md.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli import _core
from pixcli.geometry.match_graph import MatchGraph
from pixcli.keypoint_adjustment.alignment import AlignmentResult
from pixcli.keypoint_adjustment.first_warps import (
    frames_of,
    searched_warps,
    warps_from_frames,
    warps_from_neighbors,
)
from pixcli.keypoint_adjustment.supports import Jobs, SupportAlignment
from pixcli.keypoint_adjustment.tracks import Tracks
from pixcli.options import FeatureRefinerOptions
from pixcli.progress import Progress
from pixcli.sampling.extraction import image_files
from pixcli.sampling.sources import source_of
from pixcli.sampling.status import Status
from pixcli.sampling.streaming import Estimate

MAX_JOBS = 100_000
"""How many keypoints are aligned at a time where patches are kept in memory: some 500 MB of them."""


class AffineAlignment:
    """What the affine strategy does to the keypoints of a graph; its cost is known before it runs."""

    def __init__(
        self,
        graph: MatchGraph,
        tracks: Tracks,
        images: Path,
        options: FeatureRefinerOptions,
        constant: npt.NDArray[np.bool_],
    ) -> None:
        self._graph, self._tracks, self._constant = graph, tracks, constant
        self._images = image_files(graph, images)
        self._features, self._options = options.dense_features, options.keypoint_adjustment
        self._sources = [
            source_of(model, self._images, self._features, self._options) for model in self._features.models
        ]
        self._jobs = self._make_jobs()

    def estimate(self) -> Estimate:
        """Bytes that run() will take, but for later models of a chain.

        Raises UserError if a new cache does not fit on its disk.
        """
        estimate = self._part(self._parts[0]).estimate()
        all_jobs = len(self._jobs) * (48 + _core.alignment_dtype.itemsize)
        return Estimate(estimate.memory + all_jobs, estimate.disk)

    @property
    def bytes_per_keypoint(self) -> float:
        """What the patches of the first model take of each keypoint that has some, roots among them."""
        return self._part(self._parts[0]).bytes_per_keypoint

    def fill_cache(self, progress: Progress) -> None:
        """Make the patches and keep them in the cache for run()."""
        self._search(progress)
        self._part(self._parts[0]).fill_cache(progress)

    def run(self, progress: Progress) -> AlignmentResult:
        """Align all keypoints."""
        self._search(progress)
        results = [self._run_chain(self._jobs[rows], progress) for rows in self._parts]
        chosen, reason, model = (np.concatenate(column) for column in zip(*results, strict=True))
        graph, tracks, jobs = self._graph, self._tracks, self._jobs
        valid = graph.inside_image
        source, target = tracks.spokes
        status = np.full(len(graph.xy), Status.UNMATCHED, np.uint8)
        status[tracks.members] = Status.INVALID
        status[tracks.roots[valid[tracks.roots]]] = Status.ROOT
        status[target[valid[target] & ~valid[source]]] = Status.UNMATCHED  # there is no root to align it to
        status[jobs.target] = reason
        status[self._constant] = Status.CONSTANT
        xy, covariance = graph.xy.copy(), np.full((len(graph.xy), 3), np.nan, np.float32)
        moved = reason == Status.MOVED
        rows, aligned = jobs.target[moved], chosen[moved]
        xy[rows] = np.stack([aligned["warp"]["x"], aligned["warp"]["y"]], 1)
        covariance[rows] = np.stack([aligned["cov_xx"], aligned["cov_xy"], aligned["cov_yy"]], 1)
        cost_before = float(np.sum(1 - aligned["initial_correlation"]))
        cost_after = float(np.sum(1 - aligned["correlation"]))
        counts = np.bincount(model[moved], minlength=len(self._sources))
        moved_by = {of.name: int(count) for of, count in zip(self._sources, counts, strict=True)}
        return AlignmentResult(xy, status, covariance, cost_before, cost_after, moved_by)

    def _run_chain(
        self, jobs: Jobs, progress: Progress
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """The alignment of each job, its Status, and the model that decided: of none, the first."""
        chosen, reason = SupportAlignment(self._graph, jobs, self._sources[0], self._options).run(progress)
        model = np.zeros(len(jobs), np.uint8)
        for k, source in enumerate(self._sources[1:], 1):
            rejected = np.flatnonzero(reason != Status.MOVED)
            if not len(rejected):
                break
            left = np.zeros(len(jobs), bool)
            left[rejected] = True
            part = SupportAlignment(self._graph, jobs[left], source, self._options)
            better, status = part.run(progress)
            moved = status == Status.MOVED
            rows = rejected[moved]
            chosen[rows], reason[rows], model[rows] = better[moved], Status.MOVED, k
        return chosen, reason, model

    @property
    def _parts(self) -> list[slice]:
        """The jobs that are aligned at a time: all where a cache keeps the patches.

        Jobs are ordered by the image of their root, so that a part needs few images.
        """
        size = max(len(self._jobs), 1) if self._features.use_cache else MAX_JOBS
        return [slice(begin, begin + size) for begin in range(0, max(len(self._jobs), 1), size)]

    def _part(self, rows: slice) -> SupportAlignment:
        return SupportAlignment(self._graph, self._jobs[rows], self._sources[0], self._options)

    def _make_jobs(self) -> Jobs:
        graph, tracks = self._graph, self._tracks
        valid = graph.inside_image
        source, target = tracks.spokes
        usable = valid[source] & valid[target] & ~self._constant[target]
        source, target = source[usable], target[usable]
        order = np.lexsort((target, source))
        source, target = source[order], target[order]
        frames = np.concatenate([frames_of(rows) for rows in graph.keypoints])
        warps = warps_from_frames(frames, source, target)
        unknown = np.isnan(warps[:, 0, 0])
        if unknown.any():
            matches = graph.edges[tracks.inside(graph.edges)]
            warps[unknown] = warps_from_neighbors(
                graph.xy, graph.image_index, matches, source[unknown], target[unknown]
            )
            unknown = np.isnan(warps[:, 0, 0])
            warps[unknown] = np.eye(2)
        return Jobs(source, target, warps, unknown)

    def _search(self, progress: Progress) -> None:
        """Find first guesses for the jobs that neither frames nor neighbours have one for."""
        rows = np.flatnonzero(self._jobs.searched)
        in_memory = replace(self._features, use_cache=False)
        source = source_of(self._features.models[0], self._images, in_memory, self._options)
        for begin in range(0, len(rows), MAX_JOBS // 10):  # each has many candidates
            some = np.zeros(len(self._jobs), bool)
            some[rows[begin : begin + MAX_JOBS // 10]] = True
            part = SupportAlignment(self._graph, self._jobs[some], source, self._options)
            self._jobs.warp[some] = part.search(searched_warps(), progress)
