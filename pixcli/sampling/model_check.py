"""Whether a feature model keeps what it declares, and what it costs."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.features.registry import load_model
from pixcli.features.tiling import alignment_of, region_maps, tiles
from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.map_patches import Extractor
from pixcli.system import peak_memory_mb

HALF_TOLERANCE = 1e-2
"""Of what half precision loses, in units of the deviation of a level's values."""


@dataclass(frozen=True)
class ModelCheck:
    """What a model was found to be; each part passed, or UserError would have been raised."""

    levels: list[str]
    tiling: float
    """Largest difference of tiles to the whole image, in deviations of the level."""
    half: float
    """Largest loss by half precision, likewise."""
    seconds_per_megapixel: float
    """CPU time of one forward pass, all threads together."""
    memory: int
    """Bytes by which the pass raised the peak."""


def check_model(options: DenseFeaturesOptions, size: tuple[int, int] = (1216, 832)) -> ModelCheck:
    """Run a model on a synthetic image of that size, width and height, and on tiles of it.

    Raises:
        UserError: shapes are not those declared, values are not finite, a second pass differs, tiles differ
            from the whole image, or half precision loses too much.
    """
    model = load_model(options)
    name = type(model).__name__
    edge = alignment_of(model) * 2
    height, width = (length // edge * edge for length in size[::-1])
    image = _photo(height, width, model.color)
    extractor = Extractor(replace(options, use_cache=False))
    peak, start = peak_memory_mb(), time.process_time()
    whole = region_maps(model, image, next(tiles(height, width, max(height, width), 1)))
    seconds, memory = time.process_time() - start, round(1e6 * (peak_memory_mb() - peak))
    for values in whole:
        extractor.finished(values)  # raises if they are not finite
    again = region_maps(model, image, next(tiles(height, width, max(height, width), 1)))
    if not all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True)):
        raise UserError(f"the model {name} gave other values for the same image: it must be deterministic")
    deviations = [float(np.std(values, dtype=np.float32)) or 1.0 for values in whole]
    tiling = 0.0
    for region in tiles(height, width, width // 4, alignment_of(model)):
        parts = region_maps(model, image, region)
        for level, values, part, deviation in zip(model.levels, whole, parts, deviations, strict=True):
            x, y = region.x0 // level.stride, region.y0 // level.stride
            there = values[y : y + part.shape[0], x : x + part.shape[1]]
            tiling = max(tiling, _difference(there, part) / deviation)
    if tiling > model.tolerance:
        raise UserError(
            f"the model {name} gives other values on tiles than on the whole image (by {tiling:.2g} of their "
            f"deviation): a level's radius is larger than declared, or something in it sees the whole image"
        )
    with np.errstate(over="ignore"):
        losses = [_difference(values, values.astype(np.float16)) for values in whole]
    half = max(loss / deviation for loss, deviation in zip(losses, deviations, strict=True))
    if not half <= HALF_TOLERANCE:
        raise UserError(
            f"the model {name} loses {half:.2g} of its values' deviation in half precision: scale its "
            "outputs to about 1, or keep them with --DenseFeatures.dtype float"
        )
    described = [
        f"{level.channels} channels, stride {level.stride}, radius {level.radius}, {model.comparison}"
        for level in model.levels
    ]
    megapixels = height * width / 1e6
    return ModelCheck(described, tiling, half, seconds / megapixels, memory)


def _difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The largest, without whole copies in single precision."""
    return max(
        (float(np.abs(x.astype(np.float32) - y).max(initial=0)) for x, y in zip(a, b, strict=True)),
        default=0.0,
    )


def _photo(height: int, width: int, color: bool) -> NDArray[np.float32]:
    """Edges and texture at all scales, in 0..255."""
    rng = np.random.default_rng(0)
    shape = (height, width, 3) if color else (height, width)
    image = np.zeros(shape, np.float32)
    for size in (1, 8, 32, 128):
        coarse = rng.standard_normal((-(-height // size), -(-width // size), *shape[2:])).astype(np.float32)
        image += np.repeat(np.repeat(coarse, size, 0), size, 1)[:height, :width]
    return np.clip(128 + 32 * image, 0, 255).astype(np.float32)
