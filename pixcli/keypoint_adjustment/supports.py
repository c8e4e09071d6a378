"""Alignment of keypoints to roots on supports of growing extent: patches, native alignment, judgement."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.recfunctions import structured_to_unstructured

from pixcli import _core
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.patch_store import PatchStore
from pixcli.options import KeypointAdjustmentOptions
from pixcli.progress import Progress, Update
from pixcli.sampling.scale_space import Boxes, boxes_between
from pixcli.sampling.sources import Source, Templates
from pixcli.sampling.status import Status
from pixcli.sampling.streaming import Estimate

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]

_STEP_TOLERANCE = 0.008  # pixels
_WARP_SLACK = 1.15  # how much larger than its first guess a warped support may become inside its patch
_FEATURE_SLACK = 1.1  # the same where samples have many channels
_SEARCH_SLACK = 1.7  # the same where the first guess was searched for


@dataclass(frozen=True)
class Jobs:
    """Keypoints to be aligned (`target`), each to a root (`source`); indices of the graph's keypoints."""

    source: Int32
    target: Int32
    warp: Float64
    """(m, 2, 2) first guess of the linear map from the root to the keypoint."""
    searched: Bool
    """(m,) whether that guess is the best of a search, of which the result may be far."""

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: slice | Bool) -> "Jobs":
        return Jobs(self.source[rows], self.target[rows], self.warp[rows], self.searched[rows])


class SupportAlignment:
    """The alignment of some jobs, of which it plans the patches when it is made."""

    def __init__(
        self,
        graph: MatchGraph,
        jobs: Jobs,
        source: Source,
        options: KeypointAdjustmentOptions,
    ) -> None:
        self._graph, self._jobs, self._source, self._options = graph, jobs, source, options
        grey = source.comparison is None
        self._min_correlation = options.min_correlation if grey else options.feature_min_correlation
        self._plan_patches()
        self._patches = source.items(self._boxes, graph.image_index[self._keypoint])

    def estimate(self) -> Estimate:
        """Bytes that run() will take. Raises UserError if a new cache does not fit on its disk."""
        estimate = self._patches.estimate()
        work = len(self._jobs) * (3 * _core.alignment_dtype.itemsize + 2 * 64 + 64)
        return Estimate(estimate.memory + work, estimate.disk)

    @property
    def bytes_per_keypoint(self) -> float:
        """What the patches take of each keypoint that has some, roots among them."""
        return self._patches.contents.num_bytes / max(len(np.unique(self._keypoint)), 1)

    def fill_cache(self, progress: Progress) -> None:
        """Make the patches and keep them in the cache for run()."""
        self._patches.fill(progress).close()

    def run(self, progress: Progress) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """The alignment of each job on the support that decides, and its Status: MOVED, or why not.

        Every support starts from where the one before ended or from the first guess, whichever correlates
        better.
        """
        jobs, options, supports = self._jobs, self._options, self._source.supports
        best = np.full(len(jobs), np.inf)
        chosen = np.zeros(len(jobs), _core.alignment_dtype)
        reason = np.full(len(jobs), Status.INVALID, np.uint8)
        guess = self._warps(jobs.warp[:, None])
        previous = np.full_like(guess, np.nan)
        longer_side = self._graph.image_size[jobs.source].max(1)
        with (
            self._patches.fill(progress) as store,
            progress.phase("align", len(jobs) * len(supports)) as update,
        ):
            for k, support in enumerate(supports):
                candidates = np.concatenate([guess, previous], 1) if k else guess
                result = self._align(k, store, candidates, _from(k * len(jobs), update))
                status = self._judge(result)
                # Depth edges, curvature and light bias wide supports, about as the square of what they
                # extend over.
                extent = options.extent_deviation * (support.radius * support.step) ** 2 / longer_side
                deviation = np.hypot(_deviation(result), extent)
                better = (status == Status.MOVED) & (deviation < best)
                best[better] = deviation[better]
                chosen[better] = result[better]
                changed = better | (reason == Status.INVALID)
                reason[changed] = status[changed]
                usable = result["outcome"] == _core.Outcome.CONVERGED
                usable &= result["correlation"] > self._min_correlation - 0.1
                previous[usable, 0] = structured_to_unstructured(result["warp"][usable])
        return chosen, reason

    def search(self, warps: Float64, progress: Progress) -> Float64:
        """(m, 2, 2) the linear map to which the best of `warps` (c, 2, 2) led on the smallest support."""
        jobs = self._jobs
        candidates = self._warps(np.broadcast_to(warps, (len(jobs), *warps.shape)))
        with self._patches.fill(progress) as store, progress.phase("search", len(jobs)) as update:
            result = self._align(0, store, candidates, update)
        found = structured_to_unstructured(result["warp"])[:, 2:6].reshape(-1, 2, 2)
        usable = (result["outcome"] == _core.Outcome.CONVERGED) & (np.linalg.det(found) > 0.05)
        return np.where(usable[:, None, None], found, jobs.warp)

    def _plan_patches(self) -> None:
        """Decide on the boxes to cut, ordered by image, and which serve a job's root and keypoint."""
        jobs, xy, source = self._jobs, self._graph.xy, self._source
        ratio = np.sqrt(np.abs(np.linalg.det(jobs.warp)))
        grey = source.comparison is None
        slack = np.where(jobs.searched, _SEARCH_SLACK, _WARP_SLACK if grey else _FEATURE_SLACK)[:, None]
        root_image, target_image = self._graph.image_index[jobs.source], self._graph.image_index[jobs.target]
        keypoint, level, low, high = [], [], [], []
        for support in source.supports:
            # The coarser of the two views has its nodes a step apart; the other's then lie further apart.
            root_level = source.level_of(support, support.step * np.maximum(1, 1 / ratio), root_image)
            spacing = source.spacing_of(support, root_level)
            target_level = source.level_of(support, spacing * ratio, target_image)
            reach = (support.radius * spacing)[:, None] * np.ones(2)
            extent = slack * support.radius * spacing[:, None] * np.abs(jobs.warp).sum(2)
            # A sample to spare costs little where it is a byte.
            extent += self._options.bound + (source.pitch_of(target_level)[:, None] if grey else 0.0)
            keypoint += [jobs.source, jobs.target]
            level += [root_level, target_level]
            low += [xy[jobs.source] - reach, xy[jobs.target] - extent]
            high += [xy[jobs.source] + reach, xy[jobs.target] + extent]
        # One box serves all that is asked of a level around a keypoint; keypoints are ordered by image.
        key = np.concatenate(keypoint).astype(np.int64) * 256 + np.concatenate(level)
        unique, patch_of = np.unique(key, return_inverse=True)
        lowest, highest = np.full((len(unique), 2), np.inf), np.full((len(unique), 2), -np.inf)
        np.minimum.at(lowest, patch_of, np.concatenate(low))
        np.maximum.at(highest, patch_of, np.concatenate(high))
        self._keypoint = unique // 256
        size = self._graph.image_size[self._keypoint]
        of_box = (unique % 256).astype(np.int32)
        self._boxes: Boxes = boxes_between(lowest, highest, of_box, size, source.pitch_of(of_box))
        self._patch_of = patch_of.reshape(len(source.supports), 2, len(jobs)).astype(np.int32)

    def _warps(self, maps: Float64) -> Float64:
        """(m, c, 8) warps of linear maps (m, c, 2, 2), each at the keypoint's place in the database."""
        warps = np.zeros((*maps.shape[:2], 8))
        warps[..., :2] = self._graph.xy[self._jobs.target, None]
        warps[..., 2:6] = maps.reshape(*maps.shape[:2], 4)
        return warps

    def _align(self, index: int, store: PatchStore, candidates: Float64, update: Update) -> npt.NDArray[Any]:
        """Align all jobs on one support, each from the candidate (m, c, 8) of highest correlation."""
        options, support = self._options, self._source.supports[index]
        root_patch, target_patch = self._patch_of[index]
        # All jobs of one root and level share a template.
        order = np.argsort(root_patch, kind="stable")
        patch, first = np.unique(root_patch[order], return_index=True)
        root = self._keypoint[patch]
        templates = Templates(
            patch=patch,
            xy=self._graph.xy[root],
            spacing=self._source.spacing_of(support, self._boxes.level[patch]),
            image_edge=self._graph.image_size[root].max(1),
            job_ptr=np.append(first, len(order)).astype(np.int64),
            job_patch=target_patch[order],
        )
        aligned = self._source.align(
            self._source.arrays(store, self._boxes, support.output),
            support,
            templates,
            candidates[order],
            max_iterations=options.max_iterations,
            max_excursion=3 * options.bound,
            step_tolerance=_STEP_TOLERANCE,
            translation=options.warp == "translation",
            num_threads=options.num_threads,
            progress=update,
        )
        result = np.empty_like(aligned)
        result[order] = aligned
        return result

    def _judge(self, result: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """MOVED where an alignment is to be trusted, else the reason why not."""
        options, jobs = self._options, self._jobs
        warp = structured_to_unstructured(result["warp"])
        shift = np.linalg.norm(warp[:, :2] - self._graph.xy[jobs.target], axis=1)
        with np.errstate(all="ignore"):
            change = warp[:, 2:6].reshape(-1, 2, 2) @ np.linalg.inv(jobs.warp)
        change[~np.isfinite(change).all((1, 2))] = 0
        stretch = np.linalg.svd(change, compute_uv=False)
        distorted = (stretch[:, 0] > options.max_distortion) | (stretch[:, 1] * options.max_distortion < 1)
        distorted |= np.linalg.det(change) <= 0
        status = np.full(len(result), Status.MOVED, np.uint8)
        for reason, where in (
            (Status.WEAK_TEXTURE, ~(_deviation(result) <= options.max_deviation)),
            (Status.DISTORTED, distorted),
            (Status.WORSE_SCORE, result["correlation"] < result["initial_correlation"]),
            (Status.OUT_OF_BOUND, ~(shift <= options.bound)),
            (Status.LOW_CORRELATION, ~(result["correlation"] >= self._min_correlation)),
            (Status.LOW_CORRELATION, result["outcome"] == _core.Outcome.DIVERGED),
            (Status.WEAK_TEXTURE, result["outcome"] == _core.Outcome.FLAT),
            (Status.OUT_OF_IMAGE, result["outcome"] == _core.Outcome.OUTSIDE),
        ):
            status[where] = reason
        return status


def _from(first: int, update: Update) -> Update:
    return lambda done: update(first + done)


def _deviation(result: npt.NDArray[Any]) -> Float64:
    """Predicted standard deviation of the position along one axis, in pixels."""
    return np.asarray(np.sqrt((result["cov_xx"] + result["cov_yy"]) / 2))
