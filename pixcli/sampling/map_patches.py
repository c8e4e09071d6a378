"""The patches, or the whole feature maps, of one image."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.features.model import FeatureModel, Level
from pixcli.features.registry import load_model
from pixcli.features.tiling import Region, aligned, alignment_of, halo, maps_of_regions, tiles
from pixcli.io.images import fit_size, resize_image
from pixcli.io.patch_store import Items, LevelLayout
from pixcli.options import DenseFeaturesOptions

_TILE_BYTES = 128e6  # of the maps of a tile; what makes them takes several times that

_DTYPES = {"half": np.float16, "float": np.float32, "double": np.float64, "int8": np.int8, "int4": np.uint8}


@dataclass(frozen=True)
class Output:
    """One level of the model at one scale of the image pyramid."""

    scale: float
    index: int
    level: Level


class Extractor:
    """Makes patches or maps of images as DenseFeaturesOptions say. A size is a (width, height) in pixels."""

    def __init__(self, options: DenseFeaturesOptions) -> None:
        self.options = options
        self.model: FeatureModel = load_model(options)
        self.kept_as = self.model.kept_as if options.dtype == "auto" else options.dtype
        self.dtype = np.dtype(_DTYPES[self.kept_as])
        # Stores make integers of what they are given.
        self._made = np.dtype(np.float32) if self.kept_as in ("int8", "int4") else self.dtype

    @cached_property
    def outputs(self) -> list[Output]:
        """What is made of every image, the widest basin (in pixels of the unscaled image) first."""
        levels = list(enumerate(self.model.levels))
        outputs = [Output(scale, index, level) for scale in self.options.scales for index, level in levels]
        return sorted(outputs, key=lambda output: -(output.level.basin or output.level.stride) / output.scale)

    @cached_property
    def tile_size(self) -> int:
        """Longest side of what is computed at a time: less than the option where a map of it would be large,
        but no less than four halos."""
        bytes_per_pixel = sum(4 * level.channels / level.stride**2 for level in self.model.levels)
        edge = max(math.isqrt(int(_TILE_BYTES / bytes_per_pixel)), 4 * halo(self.model))
        return min(self.options.tile_size, edge)

    def layout(self, output: Output, shapes: NDArray[np.int32]) -> LevelLayout:
        """How items of (n, 2) rows and columns of an output are stored."""
        bits = 4 if self.kept_as == "int4" else 8 * self.dtype.itemsize
        return LevelLayout(output.level.channels, self.dtype, shapes, bits)

    def scaled_size(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        """The size in which the model sees an image."""
        return fit_size(size, self.options.max_edge, scale)

    def map_size(self, size: tuple[int, int], output: Output) -> tuple[int, int]:
        """The (columns, rows) of an image's map."""
        width, height = self.scaled_size(size, output.scale)
        return width // output.level.stride, height // output.level.stride

    def map_scales(self, size: tuple[int, int], output: Output) -> NDArray[np.float64]:
        """(s_x, s_y): samples of the map for a pixel of the image."""
        scaled = self.scaled_size(size, output.scale)
        return np.divide(scaled, size, dtype=np.float64) / output.level.stride

    def patches(
        self, image: NDArray[np.float32], size: tuple[int, int], xy: NDArray[np.float64]
    ) -> list[Items]:
        """(n, P, P, C) patches of each output around xy, (n, 2) in pixels of the image of that size.

        The image itself may have been reduced to max_edge. Only tiles that hold keypoints are computed.
        """
        result = [self._uncut(size, output, xy) for output in self.outputs]
        for scaled, members in self._scaled(image, size) if len(xy) else ():
            height, width = scaled.shape[:2]
            positions = xy * (width / size[0], height / size[1])
            groups = list(by_tile(positions, (width, height), self.tile_size))
            bounds = [self._bounds({k: result[k][1][rows] for k in members}) for rows in groups]
            regions = [aligned(bound, height, width, alignment_of(self.model)) for bound in bounds]
            made = maps_of_regions(self.model, scaled, regions)
            for rows, region in zip(groups, regions, strict=True):
                maps = next(made)
                for k in members:
                    output = self.outputs[k]
                    origin = np.array([region.x0, region.y0]) // output.level.stride
                    for row, corner in zip(rows, result[k][1][rows] - origin, strict=True):
                        result[k][0][row] = self.finished(self._cut(maps[output.index], corner))
                del maps  # before the next are made
        return result

    def maps(self, image: NDArray[np.float32], size: tuple[int, int]) -> list[Items]:
        """The (1, rows, columns, C) map of each output, computed tile by tile."""
        result: list[Items] = []
        for output in self.outputs:
            columns, rows = self.map_size(size, output)
            data = np.empty((1, rows, columns, output.level.channels), self._made)
            result.append((data, np.zeros((1, 2), np.int32), self.map_scales(size, output)[None]))
        for scaled, members in self._scaled(image, size):
            height, width = scaled.shape[:2]
            regions = list(tiles(height, width, self.tile_size, alignment_of(self.model)))
            made = maps_of_regions(self.model, scaled, regions)
            for region in regions:
                maps = next(made)
                for k in members:
                    output = self.outputs[k]
                    values = self.finished(maps[output.index])
                    x, y = region.x0 // output.level.stride, region.y0 // output.level.stride
                    result[k][0][0, y : y + values.shape[0], x : x + values.shape[1]] = values
                del maps, values  # before the next are made
        return result

    def patches_of_maps(
        self, maps: list[NDArray[Any]], size: tuple[int, int], xy: NDArray[np.float64]
    ) -> list[Items]:
        """What patches() gives, from the (rows, columns, C) of maps()."""
        result = [self._uncut(size, output, xy) for output in self.outputs]
        for values, (data, corners, _) in zip(maps, result, strict=True):
            for row, corner in enumerate(corners):
                data[row] = self._cut(values, corner)
        return result

    def _scaled(
        self, image: NDArray[np.float32], size: tuple[int, int]
    ) -> Iterator[tuple[NDArray[np.float32], list[int]]]:
        """The image at each scale of the pyramid, with the indices of the outputs made from it."""
        for scale in self.options.scales:
            scaled = resize_image(image, self.scaled_size(size, scale), self.options.resize)
            yield scaled, [k for k, output in enumerate(self.outputs) if output.scale == scale]

    def _uncut(self, size: tuple[int, int], output: Output, xy: NDArray[np.float64]) -> Items:
        """Room for patches, and where they lie: centred on the keypoint, but shifted into the map."""
        edge = self.options.patch_size
        limit = np.array(self.map_size(size, output))
        if limit.min() == 0 and len(xy):
            name = self.options.model_path or self.options.model
            raise UserError(
                f"an image of {size[0]}x{size[1]} is too small for the model {name} at the scale "
                f"{output.scale:g}, which takes at least {output.level.stride} pixels"
            )
        scales = self.map_scales(size, output)
        corners = np.floor(xy * scales - 0.5 - (edge - 1) / 2 + 0.5)
        corners = np.clip(corners, 0, np.maximum(limit - edge, 0)).astype(np.int32)
        data = np.empty((len(xy), edge, edge, output.level.channels), self._made)
        return data, corners, np.tile(scales, (len(xy), 1))

    def _bounds(self, corners: dict[int, NDArray[np.int32]]) -> Region:
        """What part of the scaled image patches with these corners, by output, cover."""
        edge = self.options.patch_size
        stride = {k: self.outputs[k].level.stride for k in corners}
        first = np.min([rows.min(axis=0) * stride[k] for k, rows in corners.items()], axis=0)
        last = np.max([(rows.max(axis=0) + edge) * stride[k] for k, rows in corners.items()], axis=0)
        return Region(int(first[0]), int(first[1]), int(last[0]), int(last[1]))

    def _cut(self, values: NDArray[Any], corner: NDArray[np.int32]) -> NDArray[Any]:
        """A (P, P, C) patch; a map smaller than that is continued by its border."""
        edge = self.options.patch_size
        patch = values[corner[1] : corner[1] + edge, corner[0] : corner[0] + edge]
        if patch.shape[:2] != (edge, edge):
            missing = [(0, edge - patch.shape[0]), (0, edge - patch.shape[1]), (0, 0)]
            patch = np.pad(patch, missing, mode="edge")
        return patch

    def finished(self, values: NDArray[Any]) -> NDArray[Any]:
        """(..., C) features scaled to unit length where that is wanted, and checked."""
        if self.options.l2_normalize and self.model.normalizable:
            norms = np.sqrt(np.einsum("...c,...c->...", values, values, dtype=np.float32))[..., None]
            values = values / np.maximum(norms, np.float32(1e-12))
        # Float16 comes from dense SIFT, finite by construction: the check would cost more than the rest.
        if values.dtype != np.float16 and not np.isfinite(values).all():
            raise UserError(f"the model {type(self.model).__name__} made values that are not finite")
        return values


def by_tile(xy: NDArray[np.float64], size: tuple[int, int], tile_size: int) -> Iterator[NDArray[np.int64]]:
    """Rows of xy that lie in the same tile of an image, for each tile that holds some."""
    tile = np.clip(xy, 0, np.array(size) - 1).astype(np.int64) // tile_size
    index = tile[:, 1] * (size[0] // tile_size + 1) + tile[:, 0]
    order = np.argsort(index, kind="stable")
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    yield from np.split(order, starts[1:]) if len(order) else ()
