"""Gradients of the logarithm of the image: free of slow changes of light, without a network."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixcli.features.model import FeatureModel, Level

_OFFSET = 0.04  # of intensities in 0..1, so that noise in the dark stays small


class GradientsModel(FeatureModel):
    """Two channels at every pixel, along x and along y, compared free of a gain and a bias for each."""

    normalizable = False
    levels = (Level(channels=2, radius=1, basin=2),)

    def forward(self, image: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """(2, H, W) differences of neighbours on either side, of Sobel's shape."""
        p = np.pad(np.log(image * np.float32(1 / 255) + np.float32(_OFFSET)), 1, mode="edge")
        rows = p[:-2] + 2 * p[1:-1] + p[2:]
        columns = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
        along_x, along_y = rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]
        return [np.stack([along_x, along_y]).astype(np.float32) / np.float32(8)]
