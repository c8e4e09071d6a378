"""Scale space: which level of an image shows a support unaliased, and the 8-bit patches cut from it.

Level k is made for nodes 2^(k/4) pixels apart. Sampling by the cubic B-spline blurs by 1/sqrt(3) of a sample, so a
level whose samples are as far apart as the nodes needs no blur of its own. From a step of 2 on, the samples are half a
step apart, which the level's blur makes safe; below, they are the image's own.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ive

from pixcli import _core

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
    return np.clip(levels, 0, MAX_LEVEL).astype(np.int32)


def pitch_of(level: npt.ArrayLike) -> Float64:
    """The distance of a level's samples in pixels of the image."""
    return np.maximum(step_of(level) / 2, 1)


def build_level(image: npt.NDArray[np.float32], level: int) -> npt.NDArray[np.float32]:
    """One level of an image (height, width). Sample (row, column) lies at ((column, row) + 0.5) * pitch."""
    pitch = float(pitch_of(level))
    sigma = SPLINE_SIGMA * float(np.sqrt(max(step_of(level) ** 2 - pitch**2, 0)))
    if sigma == 0:
        return image
    height, width = image.shape
    rows, cols = _axis_filter(height, pitch, sigma), _axis_filter(width, pitch, sigma)
    return _core.resample(image, *rows, *cols)


def _axis_filter(length: int, pitch: float, sigma: float) -> tuple[Int32, npt.NDArray[np.float32]]:
    """First tap and weights (n, taps) of each sample of a level along one axis of the image."""
    centre = (np.arange(max(int(length / pitch), 1)) + 0.5) * pitch - 0.5
    reach = int(np.ceil(4 * sigma)) + 1
    taps = min(2 * reach + 1, length)
    offset = np.arange(-reach, reach + 1)
    index = np.rint(centre).astype(int)[:, None] + offset
    if pitch == 1:
        # The discrete analogue of the Gaussian has exactly the variance asked for, however narrow it is.
        weight = np.tile(ive(np.abs(offset), sigma**2), (len(centre), 1))
    else:
        weight = np.exp(-((index - centre[:, None]) ** 2) / (2 * sigma**2))
    weight /= weight.sum(1, keepdims=True)
    first = np.clip(index[:, 0], 0, length - taps)
    column = np.clip(index, 0, length - 1) - first[:, None]  # beyond the border, its last pixel goes on
    folded = np.zeros((len(centre), taps))
    np.add.at(folded, (np.arange(len(centre))[:, None], column), weight)
    return first.astype(np.int32), folded.astype(np.float32)


@dataclass(frozen=True)
class LevelPatches:
    """8-bit patches of scale-space levels, of any sizes, flat in one buffer."""

    buffer: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    """(n,) where each patch begins in the buffer."""
    size: Int32
    """(n, 2) width and height in samples."""
    origin: Float64
    """(n, 3) x and y of sample [0, 0] in COLMAP pixels, and the pitch in pixels."""
    gain: npt.NDArray[np.float32]
    """(n,) grey levels that one unit of the patch stands for; 0 where the patch is flat."""


@dataclass(frozen=True)
class PatchBoxes:
    """Where patches are to be cut: whole boxes of samples, clipped to their level."""

    level: Int32
    box: Int32
    """(n, 4) column, row, width and height; empty boxes have width 0."""

    @property
    def offset(self) -> npt.NDArray[np.int64]:
        area = self.box[:, 2].astype(np.int64) * self.box[:, 3]
        return np.concatenate([[0], np.cumsum(area)])


def boxes_around(xy: Float64, level: Int32, half: Float64, image_size: Float64) -> PatchBoxes:
    """Boxes of half-widths `half` (n, 2) pixels around `xy` (n, 2), inside images of `image_size` (n, 2)."""
    pitch = pitch_of(level)[:, None]
    limit = np.maximum(np.floor(image_size / pitch), 1)
    limit = np.where(pitch == 1, image_size, limit)
    # The four samples of the spline around the outermost nodes belong to the patch.
    low = np.clip(np.floor((xy - half) / pitch - 0.5) - 1, 0, limit)
    high = np.clip(np.floor((xy + half) / pitch - 0.5) + 3, 0, limit)
    size = np.maximum(high - low, 0)
    size[(size < 4).any(1) | ~np.isfinite(size).all(1)] = 0
    return PatchBoxes(level, np.nan_to_num(np.concatenate([low, size], 1)).astype(np.int32))


def cut_patches(
    image: npt.NDArray[np.float32], boxes: PatchBoxes, rows: npt.NDArray[np.int64], buffer: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Cut the boxes `rows`, all of one image, into their places in the buffer; returns their gains."""
    gain = np.zeros(len(rows), np.float32)
    offset, levels = boxes.offset[rows], boxes.level[rows]
    filled = boxes.box[rows, 2] > 0
    for level in np.unique(levels[filled]):
        of_level = np.flatnonzero(filled & (levels == level))
        gain[of_level] = _core.cut_patches(
            build_level(image, int(level)), boxes.box[rows[of_level]], offset[of_level], buffer
        )
    return gain


def patches_of(boxes: PatchBoxes, buffer: npt.NDArray[np.uint8], gain: npt.NDArray[np.float32]) -> LevelPatches:
    """The patches of filled boxes with their geometry in image pixels."""
    pitch = pitch_of(boxes.level)[:, None]
    origin = np.concatenate([(boxes.box[:, :2] + 0.5) * pitch, pitch], 1)
    return LevelPatches(buffer, boxes.offset[:-1], np.ascontiguousarray(boxes.box[:, 2:]), origin, gain)
