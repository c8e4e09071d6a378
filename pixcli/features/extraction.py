"""Patches of all images: decoded ahead, computed one after the other, kept in memory or in a cache file."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.features.model import model_identity
from pixcli.features.patches import Extractor
from pixcli.features.tiling import halo
from pixcli.io.database import MatchGraph
from pixcli.io.images import image_hash, read_image
from pixcli.io.patch_store import Contents, Items, LevelLayout, Patches, PatchStore, check_disk, open_store
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress

# Options that say how fast features are computed and where they are kept, but do not change their values.
_NEUTRAL = {"num_threads", "device", "gpu_index", "tile_size", "use_cache", "cache_path", "overwrite_cache"}
# Options of the built-in models: they count where the model in use knows them.
_OF_MODELS = {"color", "spatial_bin_size", "rootsift"}
_UNUSED = "no keypoints"  # In place of the hash of an image that nothing is made of.
_MAX_DECODERS = 4  # Enough to keep a model busy; each holds an image in full size.


class ImageFile(NamedTuple):
    """An image and the (width, height) that its camera claims."""

    name: str
    path: Path
    size: tuple[int, int]


@dataclass(frozen=True)
class Estimate:
    """What an extraction takes, in bytes."""

    memory: int
    """Beyond what the libraries take."""
    disk: int


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
        if options.use_cache and not options.cache_path:
            raise UserError("DenseFeatures.use_cache is set: name the file by DenseFeatures.cache_path")
        self._images = images
        self._options = options
        self._cache = Path(options.cache_path) if options.use_cache else None
        # Whole maps are of use in a file only.
        self._cuts = options.sparse or self._cache is None
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

    def estimate(self) -> Estimate:
        """What patches() will take. Raises UserError if a new cache does not fit on its disk."""
        patches = self._patch_contents
        if self._cache is None:
            return Estimate(patches.num_bytes + self._working_bytes(), 0)
        cached = self._cached_contents()
        if not self._cache.exists():
            check_disk(self._cache, cached)
        kept = 0 if self._options.sparse else patches.num_bytes
        return Estimate(kept + self._working_bytes(), cached.num_bytes)

    def fill_cache(self, progress: Progress | None = None) -> None:
        """Makes the cache, or what an interrupted run left out of it."""
        self._open_cache(progress or Progress()).close()

    def patches(self, progress: Progress | None = None) -> list[tuple[Patches, NDArray[np.int64]]]:
        """The patches of each level, the widest basin first, and (n,) the patch of each keypoint, -1 without.

        A patch is shifted where it would reach over the border of its map, and continued by the border's
        samples where the map itself is smaller. With a cache, patches are a memory map of its file; not
        `sparse`, the file has whole maps, which serve any keypoints, and patches are cut from them.
        """
        progress = progress or Progress()
        if self._cuts:
            store = self._open_cache(progress)
        else:
            store = open_store(None, self._patch_contents, self._hash_of)
            with self._open_cache(progress) as maps:
                for index, (file, xy) in enumerate(zip(self._images, self._xy, strict=True)):
                    whole = [maps.item(level, index) for level in range(len(self._extractor.outputs))]
                    patches = self._extractor.patches_of_maps(whole, file.size, xy)
                    store.write(index, maps.hashes[index], patches)
        store.close()
        return [(store.patches(level), self._rows) for level in range(len(self._extractor.outputs))]

    def _open_cache(self, progress: Progress) -> PatchStore:
        """The complete store: of the cache, or in memory."""
        store = open_store(
            self._cache, self._cached_contents(), self._hash_of, overwrite=self._options.overwrite_cache
        )
        try:
            missing = store.missing
            with progress.phase("features", len(missing)) as update:
                decoded = _ahead(self._decode, missing, self._num_decoders())
                for done, (index, (image, digest)) in enumerate(zip(missing, decoded, strict=True)):
                    store.write(index, digest, self._make(index, image))
                    update(done + 1)
        except BaseException:
            store.close()
            raise
        return store

    def _make(self, index: int, image: NDArray[np.float32]) -> list[Items]:
        size = self._images[index].size
        if self._cuts:
            return self._extractor.patches(image, size, self._xy[index])
        return self._extractor.maps(image, size)

    def _decode(self, index: int) -> tuple[NDArray[np.float32], str]:
        options, file = self._options, self._images[index]
        if not self._is_used(index):
            return np.empty((0, 0), np.float32), _UNUSED
        image = read_image(
            file.path,
            color=self._extractor.model.color,
            expected_size=file.size,
            max_edge=options.max_edge,
            resize=options.resize,
            fast=options.fast_image_load,
        )
        return image, image_hash(file.path)

    def _hash_of(self, index: int) -> str:
        return image_hash(self._images[index].path) if self._is_used(index) else _UNUSED

    def _is_used(self, index: int) -> bool:
        """Whether anything is made of an image: its file may be missing otherwise."""
        return not self._cuts or len(self._xy[index]) > 0

    def _num_decoders(self) -> int:
        threads = self._options.num_threads
        return min(threads if threads > 0 else cpu_count() or 1, _MAX_DECODERS)

    def _cached_contents(self) -> Contents:
        """What the store holds that is filled from images."""
        return self._patch_contents if self._cuts else self._map_contents

    @cached_property
    def _patch_contents(self) -> Contents:
        """One item for each needed keypoint, image after image."""
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
        extractor = self._extractor
        skipped = _NEUTRAL | _OF_MODELS | {"model_path"}
        values = {key: value for key, value in asdict(self._options).items() if key not in skipped}
        values["model"] = model_identity(self._options)
        values |= {key: value for key, value in extractor.model.options.items() if key not in _NEUTRAL}
        levels = [
            LevelLayout(output.level.channels, extractor.dtype, sizes)
            for output, sizes in zip(extractor.outputs, shapes, strict=True)
        ]
        return Contents(values, [file.name for file in self._images], ptr, items, levels)

    def _working_bytes(self) -> int:
        """What is at work at a time: images decoded and waiting, a tile, the patches or maps of one image."""
        if not self._images:
            return 0
        options, model = self._options, self._extractor.model
        width, height = max((file.size for file in self._images), key=lambda size: size[0] * size[1])
        reduced = self._extractor.scaled_size((width, height), 1.0)
        decoders, bytes_per_pixel = self._num_decoders(), 12 if model.color else 4
        images = decoders * width * height * (3 + bytes_per_pixel)
        images += (decoders + 2) * reduced[0] * reduced[1] * bytes_per_pixel
        margin = 2 * halo(model) + options.patch_size * max(level.stride for level in model.levels)
        columns, rows = (min(options.tile_size + margin, edge) for edge in reduced)
        tile = sum(4 * level.channels * columns * rows // level.stride**2 for level in model.levels)
        stored = self._cached_contents()
        items = sum(
            int(np.diff(level.starts[stored.ptr]).max()) * level.channels * level.dtype.itemsize
            for level in stored.levels
        )
        return images + tile + items


def extraction_for(graph: MatchGraph, image_path: Path, options: DenseFeaturesOptions) -> Extraction:
    """Patches of all keypoints that have a match: made alike by all commands, so that they share a cache."""
    images = [
        ImageFile(image.name, image_path / image.name, (image.width, image.height)) for image in graph.images
    ]
    needed = np.zeros(int(graph.offsets[-1]), bool)
    needed[graph.edges] = True
    return Extraction(images, graph.keypoints, options, needed)


def _ahead(
    decode: Callable[[int], tuple[NDArray[np.float32], str]], indices: Iterable[int], threads: int
) -> Iterator[tuple[NDArray[np.float32], str]]:
    """decode(index) for each index in turn, computed on threads while earlier ones are used."""
    waiting: deque[Future[tuple[NDArray[np.float32], str]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for index in indices:
                waiting.append(pool.submit(decode, index))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
