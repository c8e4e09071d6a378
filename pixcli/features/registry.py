"""How feature models are found: built in, installed as entry points, or in a file of their own."""

import importlib
import importlib.util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

from pixcli.errors import UserError, did_you_mean
from pixcli.features.model import MAX_CHANNELS, FeatureModel, Level, own_errors
from pixcli.io.images import image_hash

ENTRY_POINTS = "pixcli.features"


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


def model_identity(options: Any) -> str:
    """What tells the code of models apart in a cache: a name, with a version where it is not built in."""
    if options.model_path:
        return f"file {image_hash(Path(options.model_path))}"
    point = None if options.model in _BUILT_IN else _entry_points().get(options.model)
    version = f" {point.dist.version}" if point is not None and point.dist is not None else ""
    return str(options.model) + version


# Imported when they are asked for: the networks need torch.
_BUILT_IN = {
    "image": ("image", "ImageModel"),
    "compact": ("compact", "CompactModel"),
    "gradients": ("gradients", "GradientsModel"),
    "dsift": ("dsift", "DenseSiftModel"),
    "s2dnet": ("vgg", "S2dnetModel"),
    "vgg16": ("vgg", "VggModel"),
}


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _class_by_name(name: str) -> type[FeatureModel]:
    if name in _BUILT_IN:
        try:
            module, model = _BUILT_IN[name]
            return cast(
                type[FeatureModel], getattr(importlib.import_module(f"pixcli.features.{module}"), model)
            )
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
