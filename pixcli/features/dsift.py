"""Dense SIFT: at every pixel the descriptor of an upright keypoint of fixed size."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pixcli import _core
from pixcli.features.model import FeatureModel, Level


class DenseSiftModel(FeatureModel):
    """128 channels of unit length: 4x4 bins of `spatial_bin_size` pixels with 8 orientations each."""

    default_options: ClassVar[Mapping[str, Any]] = {
        "spatial_bin_size": 4,
        "rootsift": True,
        "dtype": "auto",
        "num_threads": -1,
    }
    normalizable = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        size = options["spatial_bin_size"]
        # Half of the four bins, a bin's overlap with its neighbour and one pixel for the gradient.
        self.levels = (Level(channels=128, radius=(3 * size + 1) // 2 + size, basin=size),)

    comparison = "cosine"

    def forward(self, image: NDArray[np.float32]) -> Sequence[NDArray[Any]]:
        """(128, H, W) descriptors, stored channels last; float16 if that is all that is kept."""
        descriptors = _core.dense_sift(
            image,
            bin_size=self.options["spatial_bin_size"],
            rootsift=self.options["rootsift"],
            half=self.options["dtype"] in ("auto", "half"),
            num_threads=self.options["num_threads"],
        )
        return [np.moveaxis(descriptors, 2, 0)]
