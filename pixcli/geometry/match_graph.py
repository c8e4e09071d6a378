"""Keypoints of images and the matches between them, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageRecord:
    """An image and its size in pixels."""

    name: str
    width: int
    height: int
    image_id: int = 0
    """Of the database that the graph was read from."""


@dataclass(frozen=True)
class MatchGraph:
    """All keypoints of a set of images and the matches between them.

    Images are ordered by name. COLMAP numbers them in the order in which its threads finish; ordered by name,
    the same images and features give the same graph.
    """

    images: list[ImageRecord]
    """Sorted by name."""
    keypoints: list[Rows]
    """For each image (n_i, 2, 4 or 6) rows as COLMAP stores them: x y in COLMAP pixels, then the frame."""
    offsets: npt.NDArray[np.int64]
    """(images + 1,) index of each image's first keypoint among all n keypoints."""
    edges: npt.NDArray[np.int32]
    """(m, 2) indices of matched keypoints among all n: of the first and of the second image of the pair."""
    pairs: npt.NDArray[np.int32]
    """(p, 2) indices of matched images, smaller first, sorted."""
    pair_ptr: npt.NDArray[np.int64]
    """(p + 1,) edges pair_ptr[k]:pair_ptr[k + 1] belong to pairs[k]."""
    scores: npt.NDArray[np.float32] | None = None
    """(m,) finite match scores, at least 0; None where unknown. COLMAP stores none."""

    @classmethod
    def from_matches(
        cls,
        sizes: Mapping[str, tuple[int, int]],
        keypoints: Mapping[str, npt.ArrayLike],
        matches: Mapping[tuple[str, str], npt.ArrayLike],
        scores: Mapping[tuple[str, str], npt.ArrayLike] | None = None,
    ) -> "MatchGraph":
        """A graph of arrays that belong to images and to pairs of images.

        Args:
            sizes: (width, height) of each image, by its name.
            keypoints: (n_i, 2), (n_i, 4) or (n_i, 6) of each image: x y in COLMAP pixels, where (0.5, 0.5) is
                the centre of the top-left pixel, then scale and orientation, or a 2x2 frame.
            matches: (m, 2) rows of the first and of the second image's keypoints, for each pair.
            scores: (m,) of the matches of each pair, at least 0.

        Raises:
            UserError: an array has another shape, or names an image or a keypoint that is not there.
        """
        names = sorted(sizes)
        rows = [_keypoint_rows(name, keypoints.get(name, np.empty((0, 2)))) for name in names]
        counts = {name: len(each) for name, each in zip(names, rows, strict=True)}
        found: dict[tuple[str, str], tuple[npt.NDArray[np.int64], Rows]] = {}
        for (a, b), given in matches.items():
            first, second = min(a, b), max(a, b)
            if a == b or not counts.keys() >= {a, b}:
                raise UserError(f"matches of {a} and {b}: expected two images that have a size")
            if (first, second) in found:
                raise UserError(f"matches of {a} and {b} are given twice: join them")
            of_pair = np.asarray(given, np.int64).reshape(-1, 2)[:, :: 1 if a == first else -1]
            check_match_rows(of_pair, first, second, (counts[first], counts[second]))
            found[first, second] = of_pair, _scores_of((a, b), scores, len(of_pair))
        index = {name: k for k, name in enumerate(names)}
        pairs = sorted(pair for pair, (of_pair, _) in found.items() if len(of_pair))
        indices = np.array([[index[name] for name in pair] for pair in pairs], np.int32).reshape(-1, 2)
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in rows], dtype=np.int64)])
        edges = [found[pair][0] + offsets[ij] for pair, ij in zip(pairs, indices, strict=True)]
        return cls(
            [ImageRecord(name, *sizes[name], index[name] + 1) for name in names],
            rows,
            offsets,
            np.concatenate([*edges, np.empty((0, 2))]).astype(np.int32),
            indices,
            np.concatenate([[0], np.cumsum([len(each) for each in edges], dtype=np.int64)]),
            None
            if scores is None
            else np.concatenate([np.empty(0, np.float32), *(found[pair][1] for pair in pairs)]),
        )

    def __repr__(self) -> str:
        scored = "" if self.scores is None else ", with scores"
        return (
            f"<MatchGraph: {len(self.images)} images, {int(self.offsets[-1])} keypoints, "
            f"{len(self.edges)} matches in {len(self.pairs)} pairs{scored}>"
        )

    @cached_property
    def xy(self) -> Array:
        """(n, 2) positions of all keypoints in COLMAP pixels."""
        return np.concatenate([rows[:, :2] for rows in self.keypoints]).astype(np.float64)

    @cached_property
    def image_index(self) -> npt.NDArray[np.int32]:
        """(n,) index into images of each keypoint."""
        return np.repeat(np.arange(len(self.images), dtype=np.int32), np.diff(self.offsets))

    @cached_property
    def image_size(self) -> Array:
        """(n, 2) width and height of each keypoint's image."""
        sizes = np.array([(image.width, image.height) for image in self.images], np.float64)
        return np.asarray(sizes.reshape(-1, 2)[self.image_index])

    @cached_property
    def inside_image(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a keypoint is finite and lies in its image."""
        with np.errstate(invalid="ignore"):
            return np.asarray(((self.xy >= 0) & (self.xy <= self.image_size)).all(1))

    @property
    def names(self) -> list[str]:
        """Of the images."""
        return [image.name for image in self.images]

    def indices(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Where images are among all, by their names; UserError where there is no such image."""
        index = {image.name: k for k, image in enumerate(self.images)}
        if unknown := [name for name in names if name not in index]:
            raise UserError(f"there is no image {unknown[0]} among the {len(index)} that have keypoints")
        return np.array([index[name] for name in names], np.int64)

    def rows_of(self, image: int) -> slice:
        """The keypoints of an image (index) among all n."""
        return slice(int(self.offsets[image]), int(self.offsets[image + 1]))

    def moved(self, xy: Array) -> npt.NDArray[np.bool_]:
        """(n,) which keypoints are elsewhere at xy (n, 2), by at least one float32 step."""
        target = xy.astype(np.float32)
        return np.asarray((target != self.xy.astype(np.float32)).any(1) & np.isfinite(target).all(1))

    def with_positions(self, xy: Array) -> "MatchGraph":
        """The same matches with the keypoints at xy (n, 2), in float32 as COLMAP stores them."""
        keypoints = [
            np.concatenate([xy[self.rows_of(k)].astype(np.float32), rows[:, 2:]], axis=1)
            for k, rows in enumerate(self.keypoints)
        ]
        return replace(self, keypoints=keypoints)

    def restricted_to(self, images: npt.NDArray[np.int64]) -> "MatchGraph":
        """The same keypoints with the matches between these images (indices) only."""
        kept = np.isin(self.pairs, images).all(1)
        count = np.diff(self.pair_ptr)
        edges = np.repeat(kept, count)
        return replace(
            self,
            edges=self.edges[edges],
            pairs=self.pairs[kept],
            pair_ptr=np.concatenate([[0], np.cumsum(count[kept], dtype=np.int64)]),
            scores=None if self.scores is None else self.scores[edges],
        )


def check_match_rows(rows: npt.NDArray[Any], first: str, second: str, counts: tuple[int, int]) -> None:
    """Raises UserError unless all matches (m, 2) of two images are below their numbers of keypoints."""
    if (bad := np.flatnonzero(((rows < 0) | (rows >= counts)).any(axis=1))).size:
        raise UserError(
            f"row {bad[0]} of the matches of {first} and {second} is {tuple(rows[bad[0]].tolist())}, but "
            f"they have {counts[0]} and {counts[1]} keypoints: match these images again"
        )


def _scores_of(
    pair: tuple[str, str], scores: Mapping[tuple[str, str], npt.ArrayLike] | None, count: int
) -> Rows:
    values = np.ones(count, np.float32) if scores is None else np.asarray(scores[pair], np.float32)
    if values.shape != (count,) or not (np.isfinite(values) & (values >= 0)).all():
        raise UserError(f"scores of {pair[0]} and {pair[1]}: expected {count} finite numbers, at least 0")
    return values


def _keypoint_rows(name: str, given: npt.ArrayLike) -> Rows:
    rows = np.ascontiguousarray(given, np.float32)
    if rows.ndim != 2 or rows.shape[1] not in (2, 4, 6):
        raise UserError(f"keypoints of {name} are {rows.shape}: expected (n, 2), (n, 4) or (n, 6)")
    return rows
