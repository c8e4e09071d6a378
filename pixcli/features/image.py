"""Intensities as a feature map: what the camera saw, grey or RGB, in 0..1."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pixcli.features.model import FeatureModel, Level


class ImageModel(FeatureModel):
    """One grey channel, or three of RGB, at every pixel."""

    default_options: ClassVar[Mapping[str, Any]] = {"color": False}
    normalizable = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.color = options["color"]
        self.levels = (Level(channels=3 if self.color else 1),)

    def forward(self, image: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """The image itself, (1 or 3, H, W)."""
        return [np.moveaxis(np.atleast_3d(image), 2, 0) / np.float32(255)]
