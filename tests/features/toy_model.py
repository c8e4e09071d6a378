"""A small network in NumPy, in the shape of learned models: two levels, strides, receptive fields."""

import numpy as np
from numpy.typing import NDArray

from pixcli.features.model import FeatureModel, Level


def convolve(maps: NDArray[np.float32], kernels: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) by (C', C, 3, 3), zeros beyond the border, one order of summation for every sample."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
    height, width = maps.shape[1:]
    out = np.zeros((len(kernels), height, width), np.float32)
    for c in range(len(maps)):
        for i in range(3):
            for j in range(3):
                out += kernels[:, c, i, j, None, None] * padded[c, i : i + height, j : j + width]
    return out


class ToyNetwork(FeatureModel):
    """Convolution, 2x2 max pooling, convolution: 4 channels at every pixel and 6 at every other."""

    levels = (Level(channels=4, radius=1), Level(channels=6, stride=2, radius=4, basin=5))

    def forward(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Both levels."""
        rng = np.random.default_rng(0)
        fine = np.maximum(convolve(image[None] / 255, rng.normal(size=(4, 1, 3, 3)).astype(np.float32)), 0)
        height, width = fine.shape[1] // 2, fine.shape[2] // 2
        pooled = fine[:, : 2 * height, : 2 * width].reshape(4, height, 2, width, 2).max(axis=(2, 4))
        coarse = convolve(pooled, rng.normal(size=(6, 4, 3, 3)).astype(np.float32))
        return [fine, coarse + 0.1]
