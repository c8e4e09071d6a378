"""Images with their samples further apart, blurred to suit: what scale spaces are made of."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from pixcli import _core


def resampled_shape(size: tuple[int, int], pitch: float) -> tuple[int, int]:
    """Rows and columns of an image with `size` of them whose samples then are pitch pixels apart."""
    return max(int(size[0] / pitch), 1), max(int(size[1] / pitch), 1)


def resampled(
    image: NDArray[np.float32], pitch: float, sigma: float, part: tuple[slice, slice] | None = None
) -> NDArray[np.float32]:
    """An image (height, width) blurred by sigma pixels, its samples pitch pixels apart.

    Sample (row, column) lies at ((column, row) + 0.5) * pitch.

    Args:
        part: rows and columns of the result; they are the same as in the whole, and nothing else is computed.
    """
    height, width = image.shape
    rows, columns = _axis_filter(height, pitch, sigma), _axis_filter(width, pitch, sigma)
    if part is None:
        return _core.resample(image, *rows, *columns)
    above, first_row, row_weights = _only(*rows, part[0])
    left, first_col, col_weights = _only(*columns, part[1])
    area = np.ascontiguousarray(image[above, left])
    return _core.resample(area, first_row, row_weights, first_col, col_weights)


def _only(
    first: NDArray[np.int32], weight: NDArray[np.float32], samples: slice
) -> tuple[slice, NDArray[np.int32], NDArray[np.float32]]:
    """What of an axis some samples take, and their filter on that."""
    first, weight = first[samples], weight[samples]
    return slice(int(first[0]), int(first[-1]) + weight.shape[1]), first - first[0], weight


@lru_cache(maxsize=64)
def _axis_filter(length: int, pitch: float, sigma: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
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
