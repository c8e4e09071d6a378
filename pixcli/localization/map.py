"""What the surface strategy knows of a model: its points as small planes, and what they look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pycolmap

from pixcli.features.streaming import ImageFile
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress


@dataclass(frozen=True)
class LocalizationMap:
    """Points of a model with their references; memory-mapped, so that it takes little memory."""

    source: Literal["file", "images"]
    """Whether the references were read from a file, or made from the model's images."""
    point_ids: npt.NDArray[np.int64]
    """(p,) ascending."""

    def rows_of(self, point_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The row of each point, -1 for those that have no references."""
        raise NotImplementedError


def read_map(reconstruction: pycolmap.Reconstruction, path: Path) -> LocalizationMap:
    """The map of a model from its file of references; UserError if they are damaged or of another model."""
    raise NotImplementedError


def make_map(
    reconstruction: pycolmap.Reconstruction,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    progress: Progress,
) -> LocalizationMap:
    """The map of a model measured now, at its poses; kept in features.cache_path if it says use_cache."""
    raise NotImplementedError
