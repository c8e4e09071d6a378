"""Our own small network, trained to be aligned under changing light, which comes with pixcli.

It runs natively, without torch: convolutions of the logarithm of the grey image. scripts/train_features.py
makes its weights; docs/feature_models.md says from what, and what they are good for.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixcli import _core
from pixcli.features.model import FeatureModel, Level


class Layer(NamedTuple):
    """A convolution, of which all but the last are rectified."""

    channels: int
    size: int
    stride: int = 1
    padding: int = 1


LAYERS = (Layer(12, 3), Layer(16, 3), Layer(16, 3), Layer(16, 3), Layer(8, 3))
OFFSET = 0.04
"""Added to intensities in 0..1 before their logarithm, so that noise in the dark stays small."""


class CompactModel(FeatureModel):
    """8 channels at every pixel, compared free of a gain and a bias for each."""

    default_options: ClassVar[Mapping[str, Any]] = {"num_threads": -1}
    normalizable = False
    kept_as = "int4"
    levels = (Level(channels=LAYERS[-1].channels, radius=len(LAYERS), basin=4),)

    def forward(self, image: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """(8, H, W) features, stored channels last."""
        x = np.log(image[..., None] * np.float32(1 / 255) + np.float32(OFFSET))
        weights = _weights()
        for k, layer in enumerate(LAYERS):
            rectify = k + 1 < len(LAYERS)
            x = _core.convolve(
                x, *weights[k], layer.stride, layer.padding, rectify, self.options["num_threads"]
            )
        return [np.moveaxis(x, 2, 0)]


@cache
def _weights() -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    with resources.as_file(resources.files("pixcli") / "features" / "compact.npz") as path:
        return read_weights(path)


def read_weights(path: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(size, size, inputs, outputs) and (outputs,) of each layer, as train_features.py writes them."""
    with np.load(path) as arrays:
        return [(arrays[f"weight{k}"], arrays[f"bias{k}"]) for k in range(len(LAYERS))]
