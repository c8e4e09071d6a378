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

import importlib.util
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixcli.errors import UserError, did_you_mean
from pixcli.io.images import image_hash

ENTRY_POINTS = "pixcli.features"
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


def load_model(options: Any) -> FeatureModel:
    """The model that DenseFeaturesOptions name, made with those of the options that it knows."""
    path = options.model_path
    kind = _class_from_file(Path(path)) if path else _class_by_name(options.model)
    where = f"{path or options.model}: {kind.__name__}"
    with own_errors(kind, f"{where} cannot be made"):
        model = kind({key: getattr(options, key, default) for key, default in kind.default_options.items()})
    levels = getattr(model, "levels", ())
    if not (
        isinstance(levels, tuple | list) and levels and all(isinstance(level, Level) for level in levels)
    ):
        raise UserError(f"{where} declares no levels: a tuple of pixcli.features.model.Level")
    for level in levels:
        if not (1 <= level.channels <= MAX_CHANNELS and level.stride >= 1 and level.radius >= 0):
            raise UserError(
                f"{where} declares {level}: a level has 1 to {MAX_CHANNELS} channels, a stride of 1 pixel or "
                "more and no negative radius"
            )
    return model


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


def model_identity(options: Any) -> str:
    """What tells the code of models apart in a cache: a name, with a version where it is not built in."""
    if options.model_path:
        return f"file {image_hash(Path(options.model_path))}"
    point = None if options.model in _BUILT_IN else _entry_points().get(options.model)
    version = f" {point.dist.version}" if point is not None and point.dist is not None else ""
    return str(options.model) + version


def _image_model() -> type[FeatureModel]:
    from pixcli.features.image import ImageModel

    return ImageModel


def _dsift_model() -> type[FeatureModel]:
    from pixcli.features.dsift import DenseSiftModel

    return DenseSiftModel


def _compact_model() -> type[FeatureModel]:
    from pixcli.features.compact import CompactModel

    return CompactModel


def _gradients_model() -> type[FeatureModel]:
    from pixcli.features.gradients import GradientsModel

    return GradientsModel


def _vgg_model() -> type[FeatureModel]:
    from pixcli.features.vgg import VggModel

    return VggModel


def _s2dnet_model() -> type[FeatureModel]:
    from pixcli.features.vgg import S2dnetModel

    return S2dnetModel


_BUILT_IN = {
    "image": _image_model,
    "compact": _compact_model,
    "gradients": _gradients_model,
    "dsift": _dsift_model,
    "s2dnet": _s2dnet_model,
    "vgg16": _vgg_model,
}


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _class_by_name(name: str) -> type[FeatureModel]:
    if name in _BUILT_IN:
        try:
            return _BUILT_IN[name]()
        except ImportError:
            raise UserError(
                f"DenseFeatures.model {name} needs torch: pip install 'pixcli[learned]', or choose compact"
            ) from None
    if "+" in name:
        raise UserError(
            f"DenseFeatures.model {name} is a chain, which the strategies affine and surface take: "
            "name one model"
        )
    installed = _entry_points()
    if name not in installed:
        known = sorted({*_BUILT_IN, *installed})
        raise UserError(
            f"DenseFeatures.model is '{name}', which is none of {', '.join(known)}. "
            f"{did_you_mean(name, known)} A model of your own is given by --DenseFeatures.model_path."
        )
    try:
        return _checked(installed[name].load(), f"the entry point {ENTRY_POINTS}:{name}")
    except ImportError as error:
        raise UserError(f"the model '{name}' cannot be imported ({error}): install what it needs") from None


def _class_from_file(path: Path) -> type[FeatureModel]:
    spec = importlib.util.spec_from_file_location("pixcli_user_model", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"{path}: no such model; DenseFeatures.model_path names a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # any error that the user's code has
        raise UserError(f"{path}: the model cannot be imported ({type(error).__name__}: {error})") from error
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, FeatureModel) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise UserError(f"{path}: holds {len(classes)} classes derived from FeatureModel; it must be one")
    return _checked(classes[0], str(path))


def _checked(value: Any, where: str) -> type[FeatureModel]:
    if not (isinstance(value, type) and issubclass(value, FeatureModel)):
        raise UserError(f"{where}: a model is a class derived from pixcli.features.model.FeatureModel")
    if missing := sorted(value.__abstractmethods__):
        raise UserError(f"{where}: the model {value.__name__} lacks the method {missing[0]}")
    return value
