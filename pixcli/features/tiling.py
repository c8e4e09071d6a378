"""Feature maps of parts of an image, exactly as if the whole image had been computed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixcli.errors import UserError
from pixcli.features.model import FeatureModel, own_errors


@dataclass(frozen=True)
class Region:
    """Columns x0 to x1 and rows y0 to y1 (ends excluded) of an image, in pixels."""

    x0: int
    y0: int
    x1: int
    y1: int


def tiles(height: int, width: int, tile_size: int, alignment: int) -> Iterator[Region]:
    """Regions of at most tile_size (rounded down to the alignment) that cover an image once, row by row."""
    step = max(tile_size // alignment, 1) * alignment
    for y in range(0, height, step):
        for x in range(0, width, step):
            yield Region(x, y, min(x + step, width), min(y + step, height))


def alignment_of(model: FeatureModel) -> int:
    """The pixels by which regions of this model must start, so that all its levels have the same samples."""
    return math.lcm(*(level.stride for level in model.levels))


def aligned(region: Region, height: int, width: int, alignment: int) -> Region:
    """The region grown to multiples of the alignment, inside the image."""
    return Region(
        max(region.x0 // alignment * alignment, 0),
        max(region.y0 // alignment * alignment, 0),
        min(-(-region.x1 // alignment) * alignment, width),
        min(-(-region.y1 // alignment) * alignment, height),
    )


def halo(model: FeatureModel) -> int:
    """How far around a region the image is needed, in pixels."""
    return max(level.radius for level in model.levels)


def region_maps(model: FeatureModel, image: NDArray[np.float32], region: Region) -> list[NDArray[Any]]:
    """The map of each level inside an aligned region, (rows, columns, C), computed from it and its halo only.

    To the bit what the whole image gives, if the model keeps to its radius and to one order of arithmetic.
    """
    return next(maps_of_regions(model, image, [region]))


def maps_of_regions(
    model: FeatureModel, image: NDArray[np.float32], regions: Sequence[Region]
) -> Iterator[list[NDArray[Any]]]:
    """What region_maps gives for each region, in turn; batched where the model gains by that."""
    height, width = image.shape[:2]
    alignment, margin = alignment_of(model), halo(model)
    windows = [
        aligned(Region(r.x0 - margin, r.y0 - margin, r.x1 + margin, r.y1 + margin), height, width, alignment)
        for r in regions
    ]
    if model.batched:
        windows = _alike(windows, height, width, alignment)
    parts = [np.ascontiguousarray(image[w.y0 : w.y1, w.x0 : w.x1]) for w in windows]
    made = iter(model.forward_all(parts))
    for region, window, part in zip(regions, windows, parts, strict=True):
        # Nothing here keeps the maps while the next ones are made.
        yield _inside(model, region, window, _checked(model, part, made))


def _inside(
    model: FeatureModel, region: Region, window: Region, maps: Sequence[NDArray[Any]]
) -> list[NDArray[Any]]:
    """What maps (C, rows, columns) of a window have of a region in it, channels last."""
    result = []
    for level, whole in zip(model.levels, maps, strict=True):
        x, y = (region.x0 - window.x0) // level.stride, (region.y0 - window.y0) // level.stride
        columns = region.x1 // level.stride - region.x0 // level.stride
        rows = region.y1 // level.stride - region.y0 // level.stride
        result.append(np.moveaxis(whole, 0, 2)[y : y + rows, x : x + columns])
    return result


def _alike(windows: Sequence[Region], height: int, width: int, alignment: int) -> list[Region]:
    """The windows grown to one size, inside the image."""

    def edge(needed: int, whole: int) -> int:
        # As much as the whole over a multiple of the alignment: the last one then starts at such a multiple.
        return whole - (whole - needed) // alignment * alignment

    across = edge(max((w.x1 - w.x0 for w in windows), default=0), width)
    down = edge(max((w.y1 - w.y0 for w in windows), default=0), height)
    corners = [(min(w.x0, width - across), min(w.y0, height - down)) for w in windows]
    return [Region(x, y, x + across, y + down) for x, y in corners]


def _checked(
    model: FeatureModel, image: NDArray[np.float32], made: Iterator[Sequence[ArrayLike]]
) -> list[NDArray[Any]]:
    """What the model makes of an image, if that is what it declares."""
    name = type(model).__name__
    with own_errors(type(model), f"the model {name} failed on an image of {image.shape}"):
        maps = [np.asarray(values) for values in next(made)]
    expected = [
        (level.channels, image.shape[0] // level.stride, image.shape[1] // level.stride)
        for level in model.levels
    ]
    shapes = [values.shape for values in maps]
    if shapes != expected:
        raise UserError(
            f"the model {name} made maps of the shapes {shapes} from an image of {image.shape}, "
            f"but its levels declare {expected}"
        )
    if wrong := [str(values.dtype) for values in maps if values.dtype.kind not in "fiub"]:
        raise UserError(f"the model {name} made values of the type {wrong[0]}: they must be real numbers")
    return maps
