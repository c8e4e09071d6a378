"""Keypoint adjustment by aligning what surrounds a keypoint to the root of its track.

The local warp between a keypoint and the root is refined natively, on several supports of growing extent,
each starting where the one before ended. The support whose predicted deviation is smallest decides. See "The
affine strategy" in docs/architecture.md.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.recfunctions import structured_to_unstructured

from pixcli import _core
from pixcli.alignment.result import AlignmentResult, Status
from pixcli.alignment.scale_space import Boxes, boxes_between, cut_boxes, level_of, pitch_of, step_of
from pixcli.alignment.tracks import Tracks
from pixcli.alignment.warps import frames_of, searched_warps, warps_from_frames, warps_from_neighbors
from pixcli.features.streaming import Estimate, ImageFile, ImageItems
from pixcli.io.database import MatchGraph
from pixcli.io.patch_store import Contents, LevelLayout
from pixcli.options import DenseFeaturesOptions, KeypointAdjustmentOptions
from pixcli.progress import Progress, Update

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]

_STEP_TOLERANCE = 0.008  # pixels
_WARP_SLACK = 1.15  # how much larger than its first guess a warped support may become inside its patch
_SEARCH_SLACK = 1.7  # the same for warps that are searched for
# The perspective part of a warp is about the sine of the angle between two views over the focal length; this
# is its standard deviation times the longer side of the image.
_PERSPECTIVE = 0.35


@dataclass(frozen=True)
class _Jobs:
    """Keypoints to be aligned (`target`) and the roots they are aligned to (`source`), with first guesses."""

    source: Int32
    target: Int32
    warps: Float64
    """(m, candidates, 2, 2); the first finite one is trusted, the others compete by correlation."""

    @property
    def first_warp(self) -> Float64:
        known = np.isfinite(self.warps).all((2, 3)).argmax(1)
        return np.asarray(self.warps[np.arange(len(self.warps)), known])

    @property
    def anchored(self) -> Bool:
        """Whether the first guess is trusted, rather than one of a search."""
        return np.asarray(np.isnan(self.warps[:, 1:]).all((1, 2, 3)))


class AffineAlignment:
    """What the affine strategy does to the keypoints of a graph; its cost is known before it runs."""

    def __init__(
        self,
        graph: MatchGraph,
        tracks: Tracks,
        images: Sequence[ImageFile],
        features: DenseFeaturesOptions,
        options: KeypointAdjustmentOptions,
        constant: Bool,
    ) -> None:
        self._graph, self._tracks, self._options = graph, tracks, options
        self._size, self._valid = graph.image_size, graph.inside_image
        self._constant = constant
        self._jobs = self._make_jobs()
        self._boxes, self._patch_of = self._plan_patches()
        self._patches = self._patch_items(images, features)

    def estimate(self) -> Estimate:
        """Bytes that run() will take. Raises UserError if a new cache does not fit on its disk."""
        estimate = self._patches.estimate()
        # Per job: candidates and result of a support, levels and boxes of all of them.
        candidates = self._jobs.warps.shape[1] + 1
        work = len(self._jobs.target) * (64 * candidates + 2 * 120 + 16 * len(self._options.support_list))
        return Estimate(estimate.memory + work, estimate.disk)

    def fill_cache(self, progress: Progress) -> None:
        """Make the patches and keep them in the cache for run()."""
        self._patches.fill(progress).close()

    def run(self, progress: Progress) -> AlignmentResult:
        """Align all keypoints."""
        store = self._patches.fill(progress)
        store.close()
        samples, starts = store.flat(0)
        jobs, options = self._jobs, self._options
        supports = options.support_list
        size = np.ascontiguousarray(self._boxes.shape[:, ::-1])
        best = np.full(len(jobs.target), np.inf)
        chosen = np.zeros(len(jobs.target), _core.alignment_dtype)
        reason = np.full(len(jobs.target), Status.INVALID, np.uint8)
        previous: Float64 | None = None
        with progress.phase("align", len(jobs.target) * len(supports)) as update:
            for k, (radius, step) in enumerate(supports):
                result = self._align_support(
                    k, radius, samples, starts, size, previous, _offset(update, k * len(jobs.target))
                )
                status = self._judge(result)
                # Depth edges, curvature and light bias wide supports, about as the square of what they
                # extend over.
                extent = options.extent_deviation * (radius * step) ** 2 / self._size[jobs.source].max(1)
                deviation = np.hypot(_deviation(result), extent)
                better = (status == Status.MOVED) & (deviation < best)
                best[better] = deviation[better]
                chosen[better] = result[better]
                first_reason = reason == Status.INVALID
                reason[first_reason | better] = status[first_reason | better]
                good = (result["outcome"] == 0) & (result["correlation"] > options.min_correlation - 0.1)
                warp = structured_to_unstructured(result["warp"])
                previous = np.where(good[:, None], warp, np.nan if previous is None else previous)
        return self._collect(chosen, reason)

    def _make_jobs(self) -> _Jobs:
        graph, tracks = self._graph, self._tracks
        source, target = tracks.spokes
        usable = self._valid[source] & self._valid[target] & ~self._constant[target]
        source, target = source[usable], target[usable]
        frames = np.concatenate([frames_of(rows) for rows in graph.keypoints])
        warps = warps_from_frames(frames, source, target)
        unknown = np.isnan(warps[:, 0, 0])
        candidates = [warps]
        if unknown.any():
            matches = graph.edges[tracks.inside(graph.edges)]
            warps[unknown] = warps_from_neighbors(
                graph.xy, graph.image_index, matches, source[unknown], target[unknown]
            )
            unknown = np.isnan(warps[:, 0, 0])
        if unknown.any():
            candidates += [np.where(unknown[:, None, None], guess, np.nan) for guess in searched_warps()]
        return _Jobs(source, target, np.stack(candidates, 1))

    def _plan_patches(self) -> tuple[Boxes, npt.NDArray[np.int32]]:
        """The boxes to cut, ordered by image, and (supports, 2, jobs) which serve a root and a keypoint."""
        jobs, xy = self._jobs, self._graph.xy
        warp = jobs.first_warp
        ratio = np.sqrt(np.abs(np.linalg.det(warp)))
        keypoint, level, low, high = [], [], [], []
        for radius, step in self._options.support_list:
            # The coarser of the two views has its nodes a step apart; the other's then lie further apart.
            root_level = level_of(step * np.maximum(1, 1 / ratio))
            spacing = step_of(root_level)
            target_level = level_of(spacing * ratio)
            reach = (radius * spacing)[:, None] * np.ones(2)
            slack = np.where(jobs.anchored, _WARP_SLACK, _SEARCH_SLACK)[:, None]
            extent = slack * radius * spacing[:, None] * np.abs(warp).sum(2)
            extent += self._options.bound + pitch_of(target_level)[:, None]
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
        self._patch_keypoint = unique // 256
        boxes = boxes_between(
            lowest, highest, (unique % 256).astype(np.int32), self._size[self._patch_keypoint]
        )
        return boxes, patch_of.reshape(-1, 2, len(jobs.target)).astype(np.int32)

    def _patch_items(self, images: Sequence[ImageFile], features: DenseFeaturesOptions) -> ImageItems:
        boxes = self._boxes
        image = self._graph.image_index[self._patch_keypoint]
        ptr = np.searchsorted(image, np.arange(len(images) + 1)).astype(np.int64)
        digest = hashlib.blake2b(digest_size=16)
        for array in (boxes.level, boxes.corner, boxes.shape):
            digest.update(array.tobytes())
        layout = LevelLayout(1, np.dtype(np.uint8), boxes.shape)
        names = [image.name for image in images]
        contents = Contents({"patches": "scale space"}, names, ptr, digest.hexdigest(), [layout])
        scales = np.repeat(1 / pitch_of(boxes.level)[:, None], 2, 1)

        def make(index: int, image: npt.NDArray[np.float32]) -> list[Any]:
            rows = slice(int(ptr[index]), int(ptr[index + 1]))
            return [(cut_boxes(image, boxes, rows)[:, None], boxes.corner[rows], scales[rows])]

        return ImageItems(images, contents, make, features)

    def _align_support(
        self,
        support: int,
        radius: int,
        samples: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        size: Int32,
        previous: Float64 | None,
        update: Update,
    ) -> npt.NDArray[Any]:
        jobs, options, xy = self._jobs, self._options, self._graph.xy
        root_patch, target_patch = self._patch_of[support]
        # All jobs of one root and level share a template.
        order = np.argsort(root_patch, kind="stable")
        patch, first = np.unique(root_patch[order], return_index=True)
        root = self._patch_keypoint[patch]
        guesses = jobs.warps[order]
        warps = np.zeros((len(order), guesses.shape[1] + (previous is not None), 8))
        warps[:, : guesses.shape[1], :2] = xy[jobs.target[order], None]
        warps[:, : guesses.shape[1], 2:6] = guesses.reshape(len(order), -1, 4)
        if previous is not None:
            warps[:, -1] = previous[order]
        aligned = _core.align_patches(
            samples,
            starts[:-1],
            size,
            self._boxes.geometry,
            radius,
            options.window,
            patch,
            xy[root],
            step_of(self._boxes.level[patch]),
            _PERSPECTIVE / self._size[root].max(1),
            np.append(first, len(order)).astype(np.int64),
            target_patch[order],
            warps,
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
            change = warp[:, 2:6].reshape(-1, 2, 2) @ np.linalg.inv(jobs.first_warp)
        unusable = ~np.isfinite(change).all((1, 2))
        change[unusable] = 0
        stretch = np.linalg.svd(change, compute_uv=False)
        distorted = (stretch[:, 0] > options.max_distortion) | (stretch[:, 1] * options.max_distortion < 1)
        distorted |= np.linalg.det(change) <= 0
        status = np.full(len(result), Status.MOVED, np.uint8)
        for reason, where in (
            (Status.WEAK_TEXTURE, ~(_deviation(result) <= options.max_deviation)),
            (Status.DISTORTED, distorted & jobs.anchored),
            (Status.WORSE_SCORE, result["correlation"] < result["initial_correlation"]),
            (Status.OUT_OF_BOUND, ~(shift <= options.bound)),
            (Status.LOW_CORRELATION, ~(result["correlation"] >= options.min_correlation)),
            (Status.LOW_CORRELATION, result["outcome"] == _core.OUTCOME_DIVERGED),
            (Status.WEAK_TEXTURE, result["outcome"] == _core.OUTCOME_FLAT),
            (Status.OUT_OF_IMAGE, result["outcome"] == _core.OUTCOME_OUTSIDE),
        ):
            status[where] = reason
        return status

    def _collect(self, chosen: npt.NDArray[Any], reason: npt.NDArray[np.uint8]) -> AlignmentResult:
        graph, tracks, jobs = self._graph, self._tracks, self._jobs
        status = np.full(len(graph.xy), Status.UNMATCHED, np.uint8)
        status[tracks.members] = Status.INVALID  # what no job was made for, unless:
        # a keypoint whose root is unusable has nothing to be aligned to
        source, target = tracks.spokes
        status[target[self._valid[target] & ~self._valid[source]]] = Status.UNMATCHED
        status[tracks.roots[self._valid[tracks.roots]]] = Status.ROOT
        status[jobs.target] = reason
        status[self._constant] = Status.CONSTANT
        xy, covariance = graph.xy.copy(), np.full((len(graph.xy), 3), np.nan, np.float32)
        moved = reason == Status.MOVED
        rows, aligned = jobs.target[moved], chosen[moved]
        xy[rows] = np.stack([aligned["warp"]["x"], aligned["warp"]["y"]], 1)
        covariance[rows] = np.stack([aligned["cov_xx"], aligned["cov_xy"], aligned["cov_yy"]], 1)
        cost_before = float(np.sum(1 - aligned["initial_correlation"]))
        cost_after = float(np.sum(1 - aligned["correlation"]))
        return AlignmentResult(xy, status, covariance, cost_before, cost_after)


def _deviation(result: npt.NDArray[Any]) -> Float64:
    """Predicted standard deviation of the position along one axis, in pixels."""
    return np.asarray(np.sqrt((result["cov_xx"] + result["cov_yy"]) / 2))


def _offset(update: Update, offset: int) -> Update:
    return lambda done: update(offset + done)
