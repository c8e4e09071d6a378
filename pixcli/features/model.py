"""What a feature model is, and how models are found.

A model of your own is a Python file given by --DenseFeatures.model_path that holds one class like this (or
the class is an entry point of an installed package, in the group `pixcli.features`):

    from pixcli.features.model import FeatureModel, Level

    class Gradients(FeatureModel):
        default_options = {"gain": 1.0}
        levels = (Level(channels=2, radius=1),)

        def forward(self, image):
            p = np.pad(image * self.options["gain"], 1, mode="edge")
            return [np.stack([p[1:-1, 2:] - p[1:-1, :-2], p[2:, 1:-1] - p[:-2, 1:-1]])]

The image may be a part of a larger one: what lies within a level's `radius` of a sample must decide it alone.
"""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixcli.errors import UserError

MAX_CHANNELS = 1024


@dataclass(frozen=True)
class Level:
    """One of the maps that a model makes of an image; lengths in pixels of the image that the model gets."""

    channels: int
    stride: int = 1
    """Sample (row r, column c) stands for the image at ((c + .5) stride, (r + .5) stride); an image of (H, W)
    gives (H // stride, W // stride) samples."""
    radius: int = 0
    """A sample depends on no pixel further from it than this, along either axis. Tiles overlap by it."""
    basin: float = 0.0
    """From how far alignment still converges; 0: from `stride`. Levels are used from wide to fine."""


class FeatureModel(ABC):
    """Base of all models. An instance is made once for a run and sees images, or tiles of them, in turn."""

    default_options: ClassVar[Mapping[str, Any]] = {}
    """Options and their defaults; one with a name of the group DenseFeatures (device, color) follows it."""
    levels: tuple[Level, ...]
    color: bool = False
    """Whether forward gets RGB."""
    normalizable: bool = True
    """Whether --DenseFeatures.l2_normalize applies: not to intensities, nor to unit vectors."""
    kept_as: Literal["half", "float", "int8", "int4"] = "half"
    """What --DenseFeatures.dtype auto stands for."""
    batched: bool = False
    """Whether forward_all gains by images of one size."""
    tolerance: float = 1e-4
    """By how much tiles may differ from the whole image, in deviations of a level's values."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    @property
    def comparison(self) -> Literal["correlation", "distance", "cosine"]:
        """How features are compared inside a local warp: free of a gain and a bias for each channel, as they
        are, or as vectors of unit length."""
        return "cosine" if self.normalizable else "correlation"

    @abstractmethod
    def forward(self, image: NDArray[np.float32]) -> Sequence[ArrayLike]:
        """The (C, H // stride, W // stride) map of each level, as NumPy arrays or torch tensors on the CPU.

        The image is float32 in 0..255, (H, W) grey or (H, W, 3) RGB.
        """

    def forward_all(self, images: Iterable[NDArray[np.float32]]) -> Iterator[Sequence[ArrayLike]]:
        """What forward makes of each image, in turn."""
        return map(self.forward, images)


@contextmanager
def own_errors(kind: type[FeatureModel], what: str) -> Iterator[None]:
    """Whatever a model of the user's own raises, as a UserError that starts with `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if kind.__module__.startswith("pixcli."):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{what} ({reason}, {Path(last.filename).name} line {last.lineno})") from error
