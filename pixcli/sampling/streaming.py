"""Items of all images: decoded ahead, made one image after the other, kept in memory or in a cache file."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.io.images import image_hash, read_image
from pixcli.io.patch_store import Contents, Items, PatchStore, check_disk, open_store
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress
from pixcli.system import available_memory

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_UNUSED = "no keypoints"  # In place of the hash of an image that nothing is made of.
_MAX_DECODERS = 4  # Enough to keep a model busy; each holds an image in full size.


class ImageFile(NamedTuple):
    """An image and the (width, height) that its camera claims."""

    name: str
    path: Path
    size: tuple[int, int]
    missing: bool = False
    """Not on disk: nothing can be measured in it."""


CACHE_OR = "keep patches in a file with --DenseFeatures.use_cache 1 and --DenseFeatures.cache_path, or "
"""What helps where memory is short, if there is a cache."""


@dataclass(frozen=True)
class Estimate:
    """What a computation takes, in bytes."""

    memory: int
    """Beyond what the libraries take."""
    disk: int

    def announce(self, remedy: str) -> None:
        """Logs what is to come. Raises UserError, with the remedy, if less memory is free."""
        disk = f" and {self.disk / 1e6:.0f} MB of disk" if self.disk else ""
        log.info("expecting to use %.0f MB of memory%s", self.memory / 1e6, disk)
        available = available_memory()
        if available is not None and self.memory > available:
            raise UserError(
                f"this needs {self.memory / 1e9:.1f} GB of memory, but {available / 1e9:.1f} GB are free: "
                f"{remedy}"
            )


@dataclass(frozen=True)
class ImageItems:
    """What is made of images and where it is kept; nothing is computed or written before fill()."""

    images: Sequence[ImageFile]
    contents: Contents
    make: Callable[[int, NDArray[np.float32]], list[Items]]
    """The items of an image, all levels, from its index and its pixels."""
    options: DenseFeaturesOptions
    """Where they are kept, and how many threads decode."""
    color: bool = False
    max_edge: int = 0
    """Longer images are reduced to it; 0: none."""
    concurrent: bool = False
    """make() runs for several images at a time, on the threads that decode."""

    @property
    def cache(self) -> Path | None:
        """The file that keeps the items; None: they stay in memory."""
        if not self.options.use_cache:
            return None
        if not self.options.cache_path:
            raise UserError("DenseFeatures.use_cache is set: name the file by DenseFeatures.cache_path")
        return Path(self.options.cache_path)

    def estimate(self) -> Estimate:
        """What fill() takes beside make(). Raises UserError if a new cache does not fit on its disk."""
        pixels = max((image.size[0] * image.size[1] for image in self.images), default=0)
        decoders, bytes_per_pixel = self._num_decoders, 12 if self.color else 4
        images = pixels * (decoders * 3 + (decoders + 2) * bytes_per_pixel)
        if self.cache is None:
            return Estimate(images + self.contents.num_bytes, 0)
        if not self.cache.exists():
            check_disk(self.cache, self.contents)
        return Estimate(images, self.contents.num_bytes)

    def fill(self, progress: Progress) -> PatchStore:
        """The complete store: what a cache has of it, and the rest made now."""
        store = open_store(self.cache, self.contents, self._hash_of, overwrite=self.options.overwrite_cache)
        try:
            missing, threads = store.missing, self._num_decoders
            with progress.phase("features", len(missing)) as update:
                work = self._decode_and_make if self.concurrent else self._decode
                results: Iterator[tuple[Any, str]] = ahead(work, missing, threads)
                for done, (index, (result, digest)) in enumerate(zip(missing, results, strict=True)):
                    # Made here, items are gone before those of the next image are made.
                    store.write(index, digest, result if self.concurrent else self._made(index, result))
                    update(done + 1)
        except BaseException:
            store.close()
            raise
        return store

    def of_pixels(self, pixels: NDArray[np.float32]) -> PatchStore:
        """The items of a single image whose pixels are there already, in memory."""
        store = PatchStore(self.contents, None, [""])
        store.write(0, "in memory", self.make(0, pixels))
        return store

    def _made(self, index: int, image: NDArray[np.float32]) -> list[Items]:
        return self.make(index, image) if self._is_used(index) else []

    def _decode_and_make(self, index: int) -> tuple[list[Items], str]:
        image, digest = self._decode(index)
        return self._made(index, image), digest

    def _decode(self, index: int) -> tuple[NDArray[np.float32], str]:
        if not self._is_used(index):
            return np.empty((0, 0), np.float32), _UNUSED
        file = self.images[index]
        image = read_image(
            file.path,
            color=self.color,
            expected_size=file.size,
            max_edge=self.max_edge,
            resize=self.options.resize,
        )
        # The hash is of use in a file only.
        return image, image_hash(file.path) if self.cache else "in memory"

    def _hash_of(self, index: int) -> str:
        return image_hash(self.images[index].path) if self._is_used(index) else _UNUSED

    def _is_used(self, index: int) -> bool:
        """Whether anything is made of an image: its file may be missing otherwise."""
        return bool(self.contents.ptr[index + 1] > self.contents.ptr[index])

    @property
    def _num_decoders(self) -> int:
        threads = self.options.num_threads
        return min(threads if threads > 0 else cpu_count() or 1, _MAX_DECODERS)


def ahead(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """work(item) for each item in turn, computed on threads while earlier results are used."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
