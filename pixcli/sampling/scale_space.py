"""Scale space: which level of an image shows a support unaliased, and the 8-bit patches cut from it.

Level k is made for nodes 2^(k/4) pixels apart. Sampling by the cubic B-spline blurs by 1/sqrt(3) of a sample,
so a level whose samples are as far apart as the nodes needs no blur of its own. From a step of 1.5 on, there
are 1.5 samples a step, which the level's blur makes safe; below, the samples are the image's own pixels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixcli import _core
from pixcli.io.patch_store import Contents, Items, LevelLayout
from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.resampling import resampled, resampled_shape
from pixcli.sampling.streaming import ImageFile, ImageItems

LEVELS_PER_OCTAVE = 4
MAX_LEVEL = 6 * LEVELS_PER_OCTAVE
SPLINE_SIGMA = 3**-0.5

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]


def step_of(level: npt.ArrayLike) -> Float64:
    """The distance of nodes, in pixels, that a level is made for."""
    return np.asarray(2.0 ** (np.asarray(level, float) / LEVELS_PER_OCTAVE))


def level_of(step: npt.ArrayLike) -> Int32:
    """The level that is made for nodes nearest to `step` pixels apart."""
    levels = np.rint(LEVELS_PER_OCTAVE * np.log2(np.maximum(step, 1e-6)))
    return np.asarray(np.clip(levels, 0, MAX_LEVEL), np.int32)


def pitch_of(level: npt.ArrayLike) -> Float64:
    """The distance of a level's samples in pixels of the image."""
    return np.maximum(step_of(level) / 1.5, 1)


def level_shape(size: tuple[int, int], level: int) -> tuple[int, int]:
    """Rows and columns of a level of an image with `size` rows and columns."""
    return resampled_shape(size, float(pitch_of(level)))


def build_level(
    image: npt.NDArray[np.float32], level: int, part: tuple[slice, slice] | None = None
) -> npt.NDArray[np.float32]:
    """One level of an image (height, width). Sample (row, column) lies at ((column, row) + 0.5) * pitch.

    Args:
        part: rows and columns of the level; they are the same as in the whole, and nothing else is computed.
    """
    pitch = float(pitch_of(level))
    sigma = SPLINE_SIGMA * max(float(step_of(level)) ** 2 - pitch**2, 0.0) ** 0.5
    if sigma == 0:
        return image if part is None else image[part]
    return resampled(image, pitch, sigma, part)


@dataclass(frozen=True)
class Boxes:
    """Where patches are cut: boxes of whole samples of a level, inside the image."""

    level: Int32
    """(n,)"""
    corner: Int32
    """(n, 2) column and row of the first sample."""
    shape: Int32
    """(n, 2) rows and columns; 0 where the box is too small to sample from."""
    pitch: Float64 | None = None
    """(n,) the distance of their samples in pixels; None: as the levels of this scale space have it."""

    @property
    def geometry(self) -> Float64:
        """(n, 3) x and y of the first sample in COLMAP pixels, and the pitch in pixels."""
        pitch = (pitch_of(self.level) if self.pitch is None else self.pitch)[:, None]
        return np.concatenate([(self.corner + 0.5) * pitch, pitch], 1)


def boxes_between(
    low: Float64, high: Float64, level: Int32, image_size: Float64, pitch: Float64 | None = None
) -> Boxes:
    """Boxes with all samples that the spline needs from `low` to `high` (n, 2), inside the image."""
    pitches, pitch = pitch, (pitch_of(level) if pitch is None else pitch)[:, None]
    limit = np.maximum(np.floor(image_size / pitch), 1)
    with np.errstate(invalid="ignore"):
        first = np.clip(np.floor(low / pitch - 0.5) - 1, 0, limit)
        size = np.clip(np.floor(high / pitch - 0.5) + 3, 0, limit) - first
        size[~(size >= 4).all(1)] = 0
    shape = np.ascontiguousarray(size[:, ::-1]).astype(np.int32)
    return Boxes(level, np.nan_to_num(first).astype(np.int32), shape, pitches)


def cut_boxes(image: npt.NDArray[np.float32], boxes: Boxes, rows: slice) -> npt.NDArray[np.uint8]:
    """The 8-bit samples of the boxes `rows`, all of one image, one behind the other.

    Each patch is stretched to the whole range by its own gain and bias, which alignment is invariant to.
    """
    level, shape = boxes.level[rows], boxes.shape[rows]
    offset = np.concatenate([[0], np.cumsum(shape.prod(1, dtype=np.int64))])
    box = np.concatenate([boxes.corner[rows], shape[:, ::-1]], 1)
    samples = np.empty(offset[-1], np.uint8)
    for k in np.unique(level):
        of_level = np.flatnonzero((level == k) & (shape[:, 0] > 0))
        if len(of_level):
            _core.cut_patches(build_level(image, int(k)), box[of_level], offset[of_level], samples)
    return samples


def box_items(
    boxes: Boxes, image: Int32, images: Sequence[ImageFile], features: DenseFeaturesOptions
) -> ImageItems:
    """The patches of all boxes, which are ordered by the image (n,) that each is cut from."""
    ptr = np.searchsorted(image, np.arange(len(images) + 1)).astype(np.int64)
    digest = hashlib.blake2b(digest_size=16)
    for array in (boxes.level, boxes.corner, boxes.shape):
        digest.update(array.tobytes())
    layout = LevelLayout(1, np.dtype(np.uint8), boxes.shape)
    names = [file.name for file in images]
    contents = Contents({"patches": "scale space"}, names, ptr, digest.hexdigest(), [layout])
    scales = np.repeat(1 / pitch_of(boxes.level)[:, None], 2, 1)

    def make(index: int, pixels: npt.NDArray[np.float32]) -> list[Items]:
        rows = slice(int(ptr[index]), int(ptr[index + 1]))
        return [(cut_boxes(pixels, boxes, rows)[:, None], boxes.corner[rows], scales[rows])]

    return ImageItems(images, contents, make, features, concurrent=True)
