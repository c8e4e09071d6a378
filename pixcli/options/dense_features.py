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
        "Verify that the model keeps what it declares: shapes, tiles as the whole image, the same values "
        "again, half precision. Prints what it costs; reads and writes no files.",
        short="check_model",
    )


@dataclass(frozen=True)
class DenseFeaturesOptions(OptionGroup):
    """How images become feature maps, and how much of these is kept."""

    group = "DenseFeatures"

    model: str = option(
        "image",
        "image (intensities), compact (learned, comes with pixcli), gradients, dsift (dense SIFT), "
        "s2dnet, vgg16 or an installed model. A chain, such as image+compact, hands on what the first "
        "rejects (affine and surface strategies).",
    )
    model_path: str = option("", "Python file with a model of your own; overrides the model's name.")
    weights_path: str = option("", "s2dnet, vgg16: file with their weights, .pth or .safetensors.")
    num_layers: int = option(
        1, "s2dnet: levels: conv1_2 alone, and conv3_3, and conv5_3.", minimum=1, maximum=3
    )
    layers: str = option(
        "conv1_2,conv3_3,conv5_3", "vgg16: layers whose activations are levels, from the first on."
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto",
        "Where a network in torch runs; auto: on a GPU if there is one, and its memory suffices.",
        affects_result=False,
    )
    gpu_index: int = option(-1, "Which GPU; -1: the first.", minimum=-1, affects_result=False)
    precision: Literal["auto", "float"] = option(
        "auto",
        "In which a network in torch is computed; auto: half on a GPU, bfloat16 on a CPU made for it, if the "
        "features then differ by at most 2 % of their deviation.",
    )
    num_threads: int = option(
        -1,
        "Threads of the extraction, and of what measures in the images; -1: all cores.",
        minimum=-1,
        affects_result=False,
    )
    max_edge: int = option(1600, "Longest side over which images are scaled down, in pixels.", minimum=16)
    resize: Literal["lanczos", "bicubic", "bilinear", "area"] = option("lanczos", "How they are scaled down.")
    fast_image_load: bool = option(False, "Let the JPEG decoder scale down: faster, less exact.")
    tile_size: int = option(
        1024, "Longest side of what is computed at a time, in pixels.", minimum=64, affects_result=False
    )
    pyramid_scales: str = option(
        "1.0", "Scales of the image at which features are computed, finest first.", parse=_parse_scales
    )
    l2_normalize: bool = option(True, "Scale every feature vector to unit length.")
    sparse: bool = option(True, "Keep patches around keypoints only, not whole maps.")
    patch_size: int = option(
        16, "Width and height of a patch, in samples of the map.", minimum=4, maximum=256
    )
    dtype: Literal["auto", "half", "float", "double", "int8", "int4"] = option(
        "auto",
        "Precision in which features are kept. int8, int4: integers of so many bits with a gain for each "
        "patch and channel; auto: int4 for compact, half for others. Grey images of the affine and surface "
        "strategies are always kept in bytes.",
    )
    use_cache: bool = option(
        False, "Keep the features in a file that later runs use again.", affects_result=False
    )
    cache_path: str = option("", "That file; needed with use_cache.", affects_result=False)
    overwrite_cache: bool = option(
        False, "Replace a cache that was made from other options or images.", affects_result=False
    )
    color: bool = option(False, "image: RGB instead of grey.")
    spatial_bin_size: int = option(4, "dsift: side of one of the 4x4 bins, in pixels.", minimum=1, maximum=64)
    rootsift: bool = option(True, "dsift: square root of the L1-normalized descriptor.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_cache and not self.cache_path:
            raise UserError("DenseFeatures.use_cache is set: name the file by DenseFeatures.cache_path")

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
