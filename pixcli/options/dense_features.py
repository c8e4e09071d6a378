"""Options of dense feature maps and of the patches cut from them."""

from dataclasses import dataclass, replace
from typing import Literal

from pixcli.errors import UserError
from pixcli.options.fields import OptionGroup, option, parse_numbers


def _parse_scales(text: str) -> tuple[float, ...]:
    scales = parse_numbers(text)
    if not all(0 < scale <= 1 for scale in scales):
        raise ValueError("every scale must be over 0 and at most 1")
    return scales


@dataclass(frozen=True)
class ModelCheckOptions(OptionGroup):
    """A look at a feature model instead of work with it."""

    group = "ModelCheck"

    check_model: bool = option(
        False,
        "Check that the feature model keeps its declared contract (shapes, tiles equal to the whole image, "
        "repeatable values, half precision) and print its cost. Reads and writes no files.",
        short="check_model",
    )


_PATCHES = {
    "KeypointAdjustment.strategy": ("featuremetric", "topological_reference"),
    "FeaturemetricBundleAdjustment.strategy": ("feature_reference", "costmaps", "patch_warp"),
    "Localization.strategy": ("featuremetric",),
}
"""The strategies that cut patches of one size around keypoints."""


@dataclass(frozen=True)
class DenseFeaturesOptions(OptionGroup):
    """How images become feature maps, and how much of the maps is kept."""

    group = "DenseFeatures"

    model: str = option(
        "image",
        "image (intensities), compact (learned, included), gradients, dsift (dense SIFT), s2dnet, vgg16 "
        "or an installed model. In a chain such as image+compact, each model takes what those before it "
        "rejected (strategies affine and surface).",
    )
    model_path: str = option("", "Python file with your own feature model, used instead of the named one.")
    weights_path: str = option(
        "", "s2dnet, vgg16: file with the network's weights, .pth or .safetensors.", advanced=True
    )
    num_layers: int = option(
        1,
        "s2dnet: number of levels, conv1_2 first, then conv3_3 and conv5_3.",
        minimum=1,
        maximum=3,
        advanced=True,
    )
    layers: str = option(
        "conv1_2,conv3_3,conv5_3",
        "vgg16: layers whose activations are the levels, in network order.",
        advanced=True,
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto",
        "Device of a torch network. auto: a GPU if there is one and its memory suffices.",
        affects_result=False,
    )
    gpu_index: int = option(
        -1, "Index of the GPU; -1: the first.", minimum=-1, affects_result=False, advanced=True
    )
    precision: Literal["auto", "float"] = option(
        "auto",
        "Precision of a torch network. auto: half on a GPU, bfloat16 on a CPU that supports it, if the "
        "features then differ by at most 2 % of their standard deviation.",
        advanced=True,
    )
    num_threads: int = option(
        -1,
        "Number of threads for feature extraction and for measuring in images; -1: all cores.",
        minimum=-1,
        affects_result=False,
    )
    max_edge: int = option(
        1600,
        "Scale images down to this longest side before a feature model sees them, in pixels.",
        minimum=16,
    )
    resize: Literal["lanczos", "bicubic", "bilinear", "area"] = option(
        "lanczos", "Filter for scaling down.", advanced=True
    )
    tile_size: int = option(
        1024,
        "Longest side of a tile computed at a time, in pixels.",
        minimum=64,
        affects_result=False,
        advanced=True,
    )
    pyramid_scales: str = option(
        "1.0",
        "Scales of the image at which features are computed, finest first.",
        parse=_parse_scales,
        advanced=True,
        used_with=_PATCHES,
    )
    l2_normalize: bool = option(True, "Scale every feature vector to unit length.", advanced=True)
    sparse: bool = option(
        True, "Keep patches around keypoints instead of whole maps.", advanced=True, used_with=_PATCHES
    )
    patch_size: int = option(
        16,
        "Width and height of a patch, in samples of the map.",
        minimum=4,
        maximum=256,
        advanced=True,
        used_with=_PATCHES,
    )
    dtype: Literal["auto", "half", "float", "double", "int8", "int4"] = option(
        "auto",
        "Precision in which features are kept. int8, int4: integers with a gain for each patch and channel. "
        "auto: int4 for compact, half for others. The strategies affine and surface always keep grey images "
        "in bytes.",
        advanced=True,
    )
    use_cache: bool = option(False, "Keep features in a file instead of in memory.", affects_result=False)
    cache_path: str = option(
        "",
        "The file, which later runs reuse. Without a name, it lies beside the output and is removed at "
        "the end.",
        affects_result=False,
    )
    overwrite_cache: bool = option(
        False,
        "Replace a cache that was made with other options or from other images.",
        affects_result=False,
        advanced=True,
    )
    color: bool = option(False, "image: use RGB instead of grey.", advanced=True)
    spatial_bin_size: int = option(
        4, "dsift: side of one of the 4x4 bins, in pixels.", minimum=1, maximum=64, advanced=True
    )
    rootsift: bool = option(
        True, "dsift: take the square root of the L1-normalized descriptor.", advanced=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.models)) < len(self.models):
            raise UserError(f"DenseFeatures.model is '{self.model}': a chain names every model once")

    @property
    def models(self) -> tuple[str, ...]:
        """The models of a chain; a file of one's own stands alone."""
        return (self.model,) if self.model_path else tuple(part.strip() for part in self.model.split("+"))

    def of_model(self, model: str) -> "DenseFeaturesOptions":
        """The options of one model of a chain. Later ones have a cache beside that of the first."""
        if len(self.models) == 1:
            return self
        later = self.use_cache and model != self.models[0]
        return replace(
            self, model=model, cache_path=f"{self.cache_path}.{model}" if later else self.cache_path
        )

    @property
    def scales(self) -> tuple[float, ...]:
        """pyramid_scales as numbers, each in (0, 1]."""
        return _parse_scales(self.pyramid_scales)
