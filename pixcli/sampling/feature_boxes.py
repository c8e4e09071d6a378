"""Boxes of feature maps, made of images at scales half an octave apart.

Features know one scale only. So that views of different scale are compared alike, the map of the finer view
is made of its image reduced to the other's scale: a level numbers an output of the model at one such scale.
"""

import hashlib
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.features.tiling import Region, aligned, alignment_of, maps_of_regions
from pixcli.io.patch_store import Contents, Items
from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.extraction import identity_of
from pixcli.sampling.map_patches import Extractor, by_tile
from pixcli.sampling.resampling import resampled
from pixcli.sampling.streaming import ImageFile, ImageItems

LEVELS_PER_OCTAVE = 2
MAX_LEVEL = 6 * LEVELS_PER_OCTAVE

_SIGMA = 3**-0.5  # of the blur that images of all scales have in common, in their samples
_PER_OUTPUT = 16  # more levels than an output has

Int32 = NDArray[np.int32]
Float64 = NDArray[np.float64]


class BoxExtractor:
    """Makes boxes of the maps of all images; nothing is computed before its items are filled."""

    def __init__(self, images: Sequence[ImageFile], options: DenseFeaturesOptions) -> None:
        if options.dtype == "double":
            raise UserError(
                "DenseFeatures.dtype double: the affine and surface strategies take the others; float is "
                "more exact than what they measure"
            )
        self._options = options
        self._extractor = Extractor(options)
        self._take(images)

    def of_images(self, images: Sequence[ImageFile]) -> "BoxExtractor":
        """The same maps of other images."""
        other = copy(self)
        other._take(images)
        return other

    def _take(self, images: Sequence[ImageFile]) -> None:
        self._images = images
        edge = np.array([max(file.size) for file in images]) / self._options.max_edge
        # Larger images are reduced to max_edge: their finest levels are not used.
        self._least = np.ceil(LEVELS_PER_OCTAVE * np.log2(np.maximum(edge, 1))).astype(np.int32)

    @property
    def num_outputs(self) -> int:
        """Levels of the model at all scales of the pyramid, the widest basin first."""
        return len(self._extractor.outputs)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides features, ready for JSON."""
        return identity_of(self._extractor.model, self._options)

    @property
    def color(self) -> bool:
        """Whether the model takes RGB."""
        return self._extractor.model.color

    @property
    def comparison(self) -> str:
        """How features are compared; see FeatureModel."""
        return self._extractor.model.comparison

    def pitch_at(self, output: int, reduction: float = 1.0) -> float:
        """The distance of an output's samples in pixels of the image, where that has been reduced."""
        of = self._extractor.outputs[output]
        return of.level.stride / of.scale * reduction

    def level_of(self, output: int, number: Float64, image: Int32) -> Int32:
        """The level of an output of an image reduced by `number` half octaves."""
        number = np.maximum(np.clip(number, 0, MAX_LEVEL), self._least[image])
        return (output * _PER_OUTPUT + number).astype(np.int32)

    def reduction_of(self, level: Int32) -> Float64:
        """By how much images are reduced for a level."""
        return np.asarray(2.0 ** (level % _PER_OUTPUT / LEVELS_PER_OCTAVE))

    def pitch_of(self, level: Int32) -> Float64:
        """The distance of a level's samples in pixels of the image."""
        pitches = np.array([self.pitch_at(output) for output in range(self.num_outputs)])
        return np.asarray(pitches[level // _PER_OUTPUT] * self.reduction_of(level))

    def items(self, level: Int32, corner: Int32, shape: Int32, image: Int32) -> ImageItems:
        """Boxes of levels (n,) with the first sample at corner (n, 2), column and row, ordered by image (n,).

        Args:
            shape: (n, 2) rows and columns. The items of an output are its boxes, and boxes of no size in
                place of the others'.
        """
        ptr = np.searchsorted(image, np.arange(len(self._images) + 1)).astype(np.int64)
        digest = hashlib.blake2b(digest_size=16)
        for array in (level, corner, shape):
            digest.update(np.ascontiguousarray(array).tobytes())
        layouts = []
        for output, of in enumerate(self._extractor.outputs):
            own = (level // _PER_OUTPUT == output)[:, None]
            sizes = np.where(own, shape, 0).astype(np.int32)
            layouts.append(self._extractor.layout(of, sizes))
        names = [file.name for file in self._images]
        options = {**self.identity, "patches": "boxes"}
        contents = Contents(options, names, ptr, digest.hexdigest(), layouts)
        scales = np.repeat(1 / self.pitch_of(level)[:, None], 2, 1)

        def make(index: int, pixels: NDArray[np.float32]) -> list[Items]:
            rows = slice(int(ptr[index]), int(ptr[index + 1]))
            cut = self._cut(pixels, level[rows], corner[rows], shape[rows])
            return [(data, corner[rows], scales[rows]) for data in cut]

        return ImageItems(self._images, contents, make, self._options, self._extractor.model.color)

    def _cut(
        self, image: NDArray[np.float32], level: Int32, corner: Int32, shape: Int32
    ) -> list[NDArray[np.float32]]:
        """(samples, C) of each output: its boxes, one behind the other."""
        model, outputs = self._extractor.model, self._extractor.outputs
        area = shape.prod(1, dtype=np.int64)
        output = level // _PER_OUTPUT
        data, start = [], np.zeros(len(level), np.int64)
        for k, of in enumerate(outputs):
            size = np.where(output == k, area, 0)
            ends = np.cumsum(size)
            start[output == k] = (ends - size)[output == k]
            data.append(np.empty((int(ends[-1]) if len(ends) else 0, of.level.channels), np.float32))
        strides = np.array([of.level.stride for of in outputs])
        for reduction, rows in self._by_image(level, area > 0):
            scaled = _reduced(image, reduction)
            height, width = scaled.shape[:2]
            stride = strides[output[rows]][:, None]
            low, high = corner[rows] * stride, (corner[rows] + shape[rows, ::-1]) * stride
            groups = list(by_tile((low + high) / 2, (width, height), self._extractor.tile_size))
            bounds = [Region(*low[some].min(0).tolist(), *high[some].max(0).tolist()) for some in groups]
            regions = [aligned(bound, height, width, alignment_of(model)) for bound in bounds]
            made = maps_of_regions(model, scaled, regions)
            for some, region in zip(groups, regions, strict=True):
                maps = [self._extractor.finished(values) for values in next(made)]
                for row in rows[some]:
                    of = outputs[output[row]]
                    x, y = corner[row] - np.array([region.x0, region.y0]) // of.level.stride
                    rows_, columns = shape[row]
                    box = maps[of.index][y : y + rows_, x : x + columns].reshape(area[row], -1)
                    data[output[row]][start[row] : start[row] + area[row]] = box
                del maps, box  # before the next are made
        return data

    def _by_image(self, level: Int32, used: NDArray[np.bool_]) -> Iterator[tuple[float, NDArray[np.int64]]]:
        """By how much the image is reduced, and the boxes made of it then."""
        scale = np.array([of.scale for of in self._extractor.outputs])[level // _PER_OUTPUT]
        reduction = self.reduction_of(level) / scale
        for value in np.unique(reduction[used]):
            yield float(value), np.flatnonzero(used & (reduction == value))


def _reduced(image: NDArray[np.float32], reduction: float) -> NDArray[np.float32]:
    """An image, (H, W) or (H, W, 3), with samples further apart."""
    if reduction == 1:
        return image
    sigma = _SIGMA * max(reduction**2 - 1, 0.0) ** 0.5
    if image.ndim == 2:
        return resampled(image, reduction, sigma)
    channels = [
        resampled(np.ascontiguousarray(channel), reduction, sigma) for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, 2)
