"""COLMAP's own option groups, under their own names, made from pycolmap's option objects.

    @mirrors(pycolmap.ExhaustivePairingOptions)
    class ExhaustiveMatchingOptions(OptionGroup):
        group = "ExhaustiveMatching"

has every option of the object that is a number, text, path, switch or choice. What is nested in the object is
flattened with the prefixes of COLMAP's command line. `applied(group, object)` carries the values back.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeVar

from pixcli.errors import UserError
from pixcli.options.fields import OptionGroup, Value, option

import pycolmap

Group = TypeVar("Group", bound=OptionGroup)

# Seeds come from --default_random_seed, images from the run; the rest is for GPUs, other kinds of features or
# reconstructions that are continued.
_LEFT_OUT = re.compile(
    r"(.*_)?(gpu.*|random_seed|image_names|image_path|snapshot_.*|type|backend|print_summary|load_all_images"
    r"|fix_existing_frames)$"
)


def mirrors(
    source: Callable[[], Any],
    prefixes: Mapping[str, str] | None = None,
    *,
    basic: Collection[str] = (),
    texts: Mapping[str, str] | None = None,
    neutral: Collection[str] = ("num_threads", "gpu_index"),
    **defaults: Value,
) -> Callable[[type[Group]], type[Group]]:
    """Gives a group the options of a pycolmap object.

    Args:
        prefixes: of the nested objects that take part, by their path ("mapper.global_positioning").
        basic: options that are not advanced.
        texts: help texts that are clearer than COLMAP's, by option.
        neutral: options that change no result.
        defaults: where pixcli's differ.
    """

    def decorate(cls: type[Group]) -> type[Group]:
        paths: dict[str, str] = {}
        annotations: dict[str, Any] = {}
        for name, path, value, help in _walk(source(), prefixes or {}):
            if name in paths or name in cls.__dict__:
                continue  # COLMAP passes the outer one on to what is nested
            paths[name] = path
            plain = _plain(value)
            annotations[name] = _choices(value) if _is_choice(value) else type(plain)
            setattr(
                cls,
                name,
                option(
                    defaults.get(name, plain),
                    (texts or {}).get(name) or help or f"COLMAP's {name}.",
                    affects_result=name not in neutral,
                    advanced=name not in basic,
                ),
            )
        cls.__annotations__ = {**annotations, **cls.__annotations__}
        cls._pycolmap_paths = paths  # type: ignore[attr-defined]
        cls._pycolmap_source = staticmethod(source)  # type: ignore[attr-defined]
        return dataclass(frozen=True)(cls)

    return decorate


def applied(group: OptionGroup, target: Any) -> Any:
    """The pycolmap object with the values of a group that mirrors it."""
    paths: Mapping[str, str] = group._pycolmap_paths  # type: ignore[attr-defined]
    for name, path in paths.items():
        owner, *nested = [target, *path.split(".")]
        for part in nested[:-1]:
            owner = getattr(owner, part)
        value, old = getattr(group, name), getattr(owner, nested[-1])
        # An empty text is an empty path; Path("") would be the working directory.
        setattr(owner, nested[-1], type(old).__members__[value] if _is_choice(old) else value)
    return target


def check(group: OptionGroup) -> None:
    """Raises UserError where COLMAP would refuse the values of a group that mirrors an object of its."""
    paths: Mapping[str, str] = group._pycolmap_paths  # type: ignore[attr-defined]
    values = [f"{group.group}.{name} {getattr(group, name)}" for name in paths if _is_changed(group, name)]
    whole = applied(group, group._pycolmap_source())  # type: ignore[attr-defined]
    nested = {path.rpartition(".")[0]: None for path in paths.values()}
    for part in [reduce(getattr, filter(None, path.split(".")), whole) for path in nested]:
        try:
            refused = hasattr(part, "check") and part.check() is False
            said = "it says above what is wrong"
        except ValueError as error:
            refused, said = True, str(error).strip()
        if refused:
            raise UserError(f"COLMAP does not take {', '.join(values)}: {said}")


def _is_changed(group: OptionGroup, name: str) -> bool:
    return bool(getattr(group, name) != getattr(type(group)(), name))


def _walk(source: Any, prefixes: Mapping[str, str], path: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Name, path, value and help of every option, those of the object itself before nested ones."""
    nested = []
    for name in source.todict():
        value, where = getattr(source, name), f"{path}.{name}".lstrip(".")
        if hasattr(value, "todict"):
            nested += [(value, where)] if where in prefixes else []
        elif (isinstance(value, Value | Path) or _is_choice(value)) and not _LEFT_OUT.match(name):
            yield prefixes.get(path, "") + name, where, value, _help(getattr(type(source), name).__doc__)
    for value, where in nested:
        yield from _walk(value, prefixes, where)


def _help(text: str | None) -> str:
    """A property's documentation without the type and default that pycolmap adds."""
    text = " ".join((text or "").split())
    text = re.sub(r" ?\([A-Za-z_.]+, default: [^()]*\)$", "", text)
    return text if not text or text.endswith(".") else f"{text}."


def _is_choice(value: Any) -> bool:
    return hasattr(type(value), "__members__")


def _choices(value: Any) -> Any:
    names = [name for name in type(value).__members__ if not name.isdigit()]
    return Literal[tuple(names)]


def _plain(value: Any) -> Value:
    if _is_choice(value):
        return str(value.name)
    if isinstance(value, Path):
        return "" if value == Path() else str(value)
    return value  # type: ignore[no-any-return]


@mirrors(
    pycolmap.ImageReaderOptions,
    basic=("camera_model", "camera_params", "mask_path"),
    texts={
        "mask_path": "Folder of masks: that of image_path/a/1.jpg is mask_path/a/1.jpg.png. No features are "
        "extracted where it is black.",
        "camera_params": "Camera parameters, separated by commas; without them, EXIF gives the focal length.",
    },
)
class ImageReaderOptions(OptionGroup):
    """How images are read and which camera they get, with COLMAP's names and defaults."""

    group = "ImageReader"

    single_camera: bool = option(False, "One camera for all images.")
    single_camera_per_folder: bool = option(False, "One camera for the images of each sub-folder.")
    single_camera_per_image: bool = option(False, "A camera for every image.", advanced=True)

    @property
    def camera_mode(self) -> pycolmap.CameraMode:
        if self.single_camera:
            return pycolmap.CameraMode.SINGLE
        if self.single_camera_per_folder:
            return pycolmap.CameraMode.PER_FOLDER
        return pycolmap.CameraMode.PER_IMAGE if self.single_camera_per_image else pycolmap.CameraMode.AUTO


@mirrors(pycolmap.FeatureExtractionOptions)
class FeatureExtractionOptions(OptionGroup):
    """How features are extracted, with COLMAP's names and defaults."""

    group = "FeatureExtraction"


@mirrors(pycolmap.SiftExtractionOptions, basic=("max_num_features",))
class SiftExtractionOptions(OptionGroup):
    """How SIFT finds features, with COLMAP's names and defaults."""

    group = "SiftExtraction"


@mirrors(pycolmap.FeatureMatchingOptions)
class FeatureMatchingOptions(OptionGroup):
    """How features are matched, with COLMAP's names and defaults."""

    group = "FeatureMatching"


@mirrors(pycolmap.SiftMatchingOptions)
class SiftMatchingOptions(OptionGroup):
    """Which SIFT matches count, with COLMAP's names and defaults."""

    group = "SiftMatching"


@mirrors(pycolmap.TwoViewGeometryOptions, {"ransac": ""})
class TwoViewGeometryOptions(OptionGroup):
    """How matches are verified, with COLMAP's names and defaults."""

    group = "TwoViewGeometry"


@mirrors(pycolmap.ExhaustivePairingOptions)
class ExhaustiveMatchingOptions(OptionGroup):
    """Matching all images with all others, with COLMAP's names and defaults."""

    group = "ExhaustiveMatching"


@mirrors(pycolmap.SequentialPairingOptions, basic=("overlap",))
class SequentialMatchingOptions(OptionGroup):
    """Matching images with those that come after them, with COLMAP's names and defaults."""

    group = "SequentialMatching"


@mirrors(pycolmap.VocabTreePairingOptions, basic=("vocab_tree_path",))
class VocabTreeMatchingOptions(OptionGroup):
    """Matching images with those that a vocabulary tree retrieves, with COLMAP's names and defaults."""

    group = "VocabTreeMatching"


# Two runs of a mapper with several threads differ.
@mirrors(
    pycolmap.IncrementalPipelineOptions,
    {"mapper": "", "triangulation": "tri_"},
    neutral=(),
    num_threads=1,
)
class MapperOptions(OptionGroup):
    """Incremental mapping, with COLMAP's names and defaults, but one thread: with more, two runs differ."""

    group = "Mapper"


@mirrors(
    pycolmap.GlobalPipelineOptions,
    {
        "mapper": "",
        "mapper.rotation_averaging": "ra_",
        "mapper.global_positioning": "gp_",
        "mapper.bundle_adjustment": "ba_",
        "mapper.retriangulation": "tri_",
    },
    neutral=(),
    num_threads=1,
)
class GlobalMapperOptions(OptionGroup):
    """Global mapping, with COLMAP's names and defaults, but one thread: with more, two runs differ."""

    group = "GlobalMapper"
