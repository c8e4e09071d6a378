"""Patches of feature maps around the keypoints of all images."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.features.model import FeatureModel
from pixcli.features.registry import model_identity
from pixcli.features.tiling import halo
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.images import image_hash
from pixcli.io.patch_store import Contents, Items, Patches, PatchStore
from pixcli.options import DenseFeaturesOptions, InterpolationOptions
from pixcli.options.fields import fields
from pixcli.progress import Progress
from pixcli.sampling.map_patches import Extractor
from pixcli.sampling.streaming import Estimate, ImageFile, ImageItems

# Options that say how much of the features is kept, and in which precision.
_KEEPING = {"sparse", "patch_size", "dtype"}
# Options of the built-in models: they count where the model in use knows them.
_OF_MODELS = {"color", "spatial_bin_size", "rootsift", "weights_path", "num_layers", "layers", "precision"}


class Extraction:
    """Patches of the needed keypoints of all images; nothing is computed or written before it is asked for.

    Args:
        keypoints: for each image (n_i, 2 or more) with x and y first, COLMAP pixels; they may lie anywhere.
        needed: (n,) which of all keypoints, image after image, get patches; None: all.
    """

    def __init__(
        self,
        images: Sequence[ImageFile],
        keypoints: Sequence[NDArray[Any]],
        options: DenseFeaturesOptions,
        needed: NDArray[np.bool_] | None = None,
    ) -> None:
        self._images = images
        self._options = options
        # Whole maps are of use in a file only.
        self._cuts = options.sparse or not options.use_cache
        self._extractor = Extractor(options)
        ends = np.cumsum([len(rows) for rows in keypoints], dtype=np.int64)
        mask = np.ones(int(ends[-1]) if len(ends) else 0, bool) if needed is None else needed
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(mask, dtype=np.int64)])
        self._rows = np.where(mask, before[:-1], -1)
        self._ptr = before[np.concatenate([np.zeros(1, np.int64), ends])]
        # A keypoint at no finite position gets some patch, so that rows stay simple; nobody can use it.
        self._xy = [
            np.nan_to_num(rows[mask[end - len(rows) : end], :2].astype(np.float64), posinf=0, neginf=0)
            for rows, end in zip(keypoints, ends, strict=True)
        ]

    @property
    def num_keypoints(self) -> int:
        """Keypoints that get patches."""
        return int(self._ptr[-1])

    @property
    def num_levels(self) -> int:
        """Levels of the features, at all scales."""
        return len(self._extractor.outputs)

    @property
    def num_channels(self) -> int:
        """Channels of the features of all levels, at most."""
        return max(output.level.channels for output in self._extractor.outputs)

    @property
    def num_bytes(self) -> int:
        """Bytes of the patches of all levels."""
        return self.contents.num_bytes

    def check_distinct(self, interpolation: InterpolationOptions) -> None:
        """Raises UserError if features look alike everywhere once they are interpolated."""
        per_vector = interpolation.l2_normalize and not interpolation.ncc_normalize
        per_sample = self._options.l2_normalize and self._extractor.model.normalizable
        if self.num_channels == 1 and (per_sample or per_vector):
            keys = ["DenseFeatures.l2_normalize"] * per_sample + ["Interpolation.l2_normalize"] * per_vector
            raise UserError(
                f"a single channel of unit length is 1 everywhere: set --DenseFeatures.model dsift, or "
                f"{' and '.join(f'--{key} 0' for key in keys)}"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the features at a position, ready for JSON."""
        return identity_of(self._extractor.model, self._options)

    def estimate(self) -> Estimate:
        """What patches() will take. Raises UserError if a new cache does not fit on its disk."""
        estimate = self._stored.estimate()
        kept = 0 if self._cuts else self.contents.num_bytes
        return Estimate(estimate.memory + kept + self._working_bytes(), estimate.disk)

    def fill_cache(self, progress: Progress | None = None) -> None:
        """Makes the cache, or what an interrupted run left out of it."""
        self._stored.fill(progress or Progress()).close()

    def patches(self, progress: Progress | None = None) -> list[tuple[Patches, NDArray[np.int64]]]:
        """The patches of each level, the widest basin first, and (n,) the patch of each keypoint, -1 without.

        A patch is shifted where it would reach over the border of its map, and continued by the border's
        samples where the map itself is smaller. With a cache, patches are a memory map of its file; not
        `sparse`, the file has whole maps, which serve any keypoints, and patches are cut from them.
        """
        progress = progress or Progress()
        if self._cuts:
            store = self._stored.fill(progress)
        else:
            store = PatchStore(self.contents, None, [""] * len(self._images))
            with self._stored.fill(progress) as maps:
                for index, (file, xy) in enumerate(zip(self._images, self._xy, strict=True)):
                    whole = [maps.item(level, index) for level in range(len(self._extractor.outputs))]
                    patches = self._extractor.patches_of_maps(whole, file.size, xy)
                    store.write(index, maps.hashes[index], patches)
        store.close()
        return [(store.patches(level), self._rows) for level in range(len(self._extractor.outputs))]

    @cached_property
    def _stored(self) -> ImageItems:
        """What is made of the images: patches, or whole maps to cut them from."""
        contents = self.contents if self._cuts else self._map_contents
        color, max_edge = self._extractor.model.color, self._options.max_edge
        return ImageItems(self._images, contents, self._make, self._options, color, max_edge)

    def _make(self, index: int, image: NDArray[np.float32]) -> list[Items]:
        size = self._images[index].size
        if self._cuts:
            return self._extractor.patches(image, size, self._xy[index])
        return self._extractor.maps(image, size)

    @cached_property
    def contents(self) -> Contents:
        """What a sparse store holds: one item for each needed keypoint, image after image."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self._rows, *self._xy):
            digest.update(array.tobytes())
        shapes = np.full((self.num_keypoints, 2), self._options.patch_size, np.int32)
        return self._contents(self._ptr, digest.hexdigest(), [shapes] * len(self._extractor.outputs))

    @cached_property
    def _map_contents(self) -> Contents:
        """One item for each image: the whole map."""
        extractor = self._extractor
        shapes = [
            np.array([extractor.map_size(file.size, output)[::-1] for file in self._images], np.int32)
            for output in extractor.outputs
        ]
        return self._contents(np.arange(len(self._images) + 1), "whole maps", shapes)

    def _contents(self, ptr: NDArray[np.int64], items: str, shapes: Sequence[NDArray[np.int32]]) -> Contents:
        values = self.identity | {key: getattr(self._options, key) for key in sorted(_KEEPING)}
        values["dtype"] = self._extractor.kept_as
        levels = [
            self._extractor.layout(output, sizes)
            for output, sizes in zip(self._extractor.outputs, shapes, strict=True)
        ]
        return Contents(values, [file.name for file in self._images], ptr, items, levels)

    def _working_bytes(self) -> int:
        """What is at work at a time beside the images: a tile, and the patches or maps of one image."""
        if not self._images:
            return 0
        options, model = self._options, self._extractor.model
        width, height = max((file.size for file in self._images), key=lambda size: size[0] * size[1])
        reduced = self._extractor.scaled_size((width, height), 1.0)
        margin = 2 * halo(model) + options.patch_size * max(level.stride for level in model.levels)
        columns, rows = (min(self._extractor.tile_size + margin, edge) for edge in reduced)
        tile = sum(4 * level.channels * columns * rows // level.stride**2 for level in model.levels)
        stored = self._stored.contents
        items = sum(
            int(np.diff(level.starts[stored.ptr]).max()) * level.channels * level.dtype.itemsize
            for level in stored.levels
        )
        return tile + items


def identity_of(model: FeatureModel, options: DenseFeaturesOptions) -> dict[str, Any]:
    """The model, its options and the scaling: what decides features at a position, ready for JSON."""
    neutral = {field.name for field in fields(DenseFeaturesOptions) if not field.affects_result}
    skipped = neutral | _OF_MODELS | _KEEPING | {"model_path"}
    values = {key: value for key, value in asdict(options).items() if key not in skipped}
    values["model"] = model_identity(options)
    values |= {key: value for key, value in model.options.items() if key not in neutral}
    if path := values.pop("weights_path", ""):
        values["weights"] = image_hash(Path(path))  # of the file's bytes, wherever it lies
    return values


def image_files(graph: MatchGraph, image_path: Path) -> list[ImageFile]:
    """The images of a graph in their folder."""
    return [
        ImageFile(image.name, image_path / image.name, (image.width, image.height)) for image in graph.images
    ]


def extraction_for(graph: MatchGraph, image_path: Path, options: DenseFeaturesOptions) -> Extraction:
    """Patches of all keypoints that have a match: made alike by all commands, so that they share a cache."""
    needed = np.zeros(int(graph.offsets[-1]), bool)
    needed[graph.edges] = True
    return Extraction(image_files(graph, image_path), graph.keypoints, options, needed)
