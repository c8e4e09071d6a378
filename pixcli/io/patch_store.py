"""Patches of feature maps, in memory or in one HDF5 file that is read as a memory map.

A store holds *items*, small maps of (rows, columns, C), image after image: the patches around keypoints, or
one whole map for each image. Items of a level lie one behind the other in a flat (samples, C) array, so they
may differ in size. In the file each array is one contiguous block that is allocated when the file is made and
filled image by image, the image's hash last: a run that was killed leaves a sound file, and the next one goes
on where it stopped.

    /            attributes: format, version, options (JSON), items (what the items are, hashed)
    /images      name, ptr (items of each image), hash (of the file's bytes; empty until its items are there)
    /level<k>    data (samples, C), corners (items, 2), scales (items, 2), shapes (items, 2)
"""

import io
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.options import DenseFeaturesOptions
from pixcli.system import lock

FORMAT = "pixcli features"
VERSION = 1
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HASH_LENGTH = 32
_REMEDY = "set --DenseFeatures.overwrite_cache 1 to replace it, or name another --DenseFeatures.cache_path"


@dataclass(frozen=True)
class Patches:
    """Patches of one level of a feature map, one for each keypoint."""

    data: NDArray[Any]
    """(n, P, P, C) float16, float32 or float64, C-contiguous; an array or a memory map."""
    corners: NDArray[np.int32]
    """(n, 2) column and row of sample [0, 0] in the feature map."""
    scales: NDArray[np.float64]
    """(n, 2) s_x and s_y: the image's x lies in the map at u = x s_x - 0.5, in the patch at u - corner."""


def writable(patches: Patches) -> Patches:
    """The same patches to be changed: those of a cache are copied as they are written to, not in its file."""
    if patches.data.flags.writeable:
        return patches
    file = mapped_file(patches.data)
    assert file is not None
    data = np.memmap(str(file.filename), file.dtype, "c", file.offset, file.shape)
    return Patches(np.asarray(data).reshape(patches.data.shape), patches.corners.copy(), patches.scales)


def mapped_file(array: NDArray[Any]) -> Any:
    """The np.memmap of a file, to be read only, that an array is in; None if it is in memory."""
    base: Any = array
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    return base if base is not None and not array.flags.writeable else None


def release(patches: Patches) -> None:
    """Lets go of what was read of patches in a file; it is read again when it is needed."""
    file = mapped_file(patches.data)
    if file is not None and hasattr(mmap, "MADV_DONTNEED"):
        file._mmap.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class LevelLayout:
    """The size of everything in one level of a store."""

    channels: int
    dtype: np.dtype[Any]
    shapes: NDArray[np.int32]
    """(items, 2) rows and columns of each item."""
    bits: int = 0
    """Of a sample; 4: two channels share a byte. 0: what the type has."""

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(items + 1,) where each item starts in the flat array, in samples."""
        sizes = self.shapes.prod(axis=1, dtype=np.int64)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])

    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and type of the arrays that are filled image by image."""
        count, width = len(self.shapes), (self.channels + 1) // 2 if self.bits == 4 else self.channels
        arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "data": ((int(self.starts[-1]), width), self.dtype),
            "corners": ((count, 2), np.dtype(np.int32)),
            "scales": ((count, 2), np.dtype(np.float64)),
        }
        if self.quantized:
            arrays["gains"] = ((count, self.channels), np.dtype(np.float32))
        return arrays

    @property
    def quantized(self) -> bool:
        """Whether samples are integers, multiples of a gain for each item and channel."""
        return self.dtype == np.int8 or self.bits == 4

    def integers(self, data: NDArray[Any]) -> NDArray[Any]:
        """The (..., C) integers of quantized data, whatever their bits."""
        if self.bits != 4:
            return data
        pairs = np.stack([data & 15, data >> 4], -1).astype(np.int8) - np.int8(8)
        return pairs.reshape(*data.shape[:-1], -1)[..., : self.channels]


@dataclass(frozen=True)
class Contents:
    """What a store holds. A file serves a run only if all of this is the same."""

    options: Mapping[str, Any]
    """Everything that decides the values of the items, ready for JSON."""
    images: Sequence[str]
    """Names."""
    ptr: NDArray[np.int64]
    """(images + 1,) the items of image i are ptr[i]:ptr[i + 1]."""
    items: str
    """A hash of what the items are: the keypoints' positions."""
    levels: Sequence[LevelLayout]

    @property
    def num_bytes(self) -> int:
        """Bytes that the store takes, in memory or on disk."""
        arrays = [array for level in self.levels for array in level.arrays().values()]
        items = sum(8 * len(level.shapes) for level in self.levels)
        names = sum(len(name) + 64 for name in self.images)
        return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in arrays) + items + names


@dataclass(frozen=True)
class BoxSamples:
    """Items of a level, one behind the other."""

    samples: NDArray[Any]
    """(samples, C) float16, float32 or int8. Of 4 bits, (samples, (C + 1) // 2) uint8: the first channel of
    two is in the lower half, and 8 stands for 0."""
    gains: NDArray[np.float32] | None
    """(items, C) where samples are integers: what each is a multiple of."""
    starts: NDArray[np.int64]
    """(items + 1,) where each item starts in the samples."""
    shapes: NDArray[np.int32]
    """(items, 2) rows and columns."""


Items = tuple[NDArray[Any], NDArray[np.int32], NDArray[np.float64]]
"""Data, (items, rows, columns, C) or (samples, C), corners and scales of an image's items of one level."""


class PatchStore:
    """The items of all images; made by open_store, a context manager that closes the file."""

    def __init__(self, contents: Contents, path: Path | None, hashes: Sequence[str]) -> None:
        self.contents = contents
        self.hashes = list(hashes)
        """Of the image files whose items are there, "" for the others."""
        self._path = path
        self._file: io.FileIO | None = None
        self._levels: list[dict[str, NDArray[Any]]] = []
        self._offsets: list[dict[str, int]] = []
        if path is None:
            for level in contents.levels:
                arrays = level.arrays().items()
                self._levels.append({name: np.empty(shape, dtype) for name, (shape, dtype) in arrays})
        else:
            self._map_file(path)

    def __enter__(self) -> "PatchStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def missing(self) -> list[int]:
        """Indices of the images whose items are not there yet."""
        return [index for index, digest in enumerate(self.hashes) if not digest]

    def write(self, image: int, image_hash: str, levels: Sequence[Items]) -> None:
        """Stores the items of an image, all its levels, and then that they are there."""
        first = int(self.contents.ptr[image])
        for index, (data, corners, scales) in enumerate(levels):
            layout = self.contents.levels[index]
            samples = data.reshape(-1, layout.channels)
            if layout.quantized:
                begin, end = layout.starts[[first, first + len(corners)]]
                starts = layout.starts[first : first + len(corners)] - begin
                samples, gains = _quantized(samples[: end - begin], starts, layout.bits)
                self._put(index, "gains", first, gains)
            self._put(index, "data", int(layout.starts[first]), samples)
            self._put(index, "corners", first, corners)
            self._put(index, "scales", first, scales)
        self.hashes[image] = image_hash
        if self._path is not None:
            digest = image_hash.encode().ljust(_HASH_LENGTH)
            self._write_file(digest, self._hash_offset + image * _HASH_LENGTH)

    def patches(self, level: int) -> Patches:
        """All items of a level whose items are of one size, without a copy unless they are quantized."""
        layout, arrays = self.contents.levels[level], self._levels[level]
        rows, columns = layout.shapes[0] if len(layout.shapes) else (1, 1)
        if (layout.shapes != (rows, columns)).any():
            raise ValueError("the items of this level differ in size")
        data = arrays["data"].reshape(len(layout.shapes), rows, columns, arrays["data"].shape[1])
        if layout.quantized:
            data = layout.integers(data)
            data = np.multiply(data, arrays["gains"][:, None, None], dtype=np.float32).astype(np.float16)
        return Patches(data, arrays["corners"], arrays["scales"])

    def flat(self, level: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """All samples of a level of one channel, and (items + 1,) where each item starts in them."""
        return self._levels[level]["data"].reshape(-1), self.contents.levels[level].starts

    def boxes(self, level: int) -> "BoxSamples":
        """All samples of a level of any number of channels, as they are stored."""
        arrays, layout = self._levels[level], self.contents.levels[level]
        return BoxSamples(arrays["data"], arrays.get("gains"), layout.starts, layout.shapes)

    def item(self, level: int, index: int) -> NDArray[Any]:
        """One item, (rows, columns, C), without a copy unless it is quantized."""
        layout = self.contents.levels[level]
        starts = layout.starts
        flat = self._levels[level]["data"][starts[index] : starts[index + 1]]
        if layout.quantized:
            flat = layout.integers(flat) * self._levels[level]["gains"][index]
        return flat.reshape(*layout.shapes[index], layout.channels)

    def close(self) -> None:
        """Closes the file; arrays that were handed out stay valid."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put(self, level: int, name: str, row: int, values: NDArray[Any]) -> None:
        array = self._levels[level][name]
        if values.shape[1:] != array.shape[1:] or row + len(values) > len(array):
            raise ValueError(f"{name} of the shape {values.shape} do not fit into {array.shape} at {row}")
        if self._path is None:
            array[row : row + len(values)] = values
        elif values.size:
            offset = self._offsets[level][name] + row * array.strides[0]
            self._write_file(np.ascontiguousarray(values, dtype=array.dtype), offset)

    def _map_file(self, path: Path) -> None:
        with h5py.File(path, "r", locking=False) as file:
            self._hash_offset = file["images/hash"].id.get_offset() or 0
            for index, level in enumerate(self.contents.levels):
                arrays, offsets = {}, {}
                for name, (shape, dtype) in level.arrays().items():
                    offset = file[f"level{index}/{name}"].id.get_offset()
                    offsets[name] = offset or 0
                    # Plain writes fill the file, not the map: a full disk is then an error, not a signal.
                    arrays[name] = (
                        np.asarray(np.memmap(path, dtype, "r", offset, shape))
                        if 0 not in shape
                        else np.empty(shape, dtype)
                    )
                self._levels.append(arrays)
                self._offsets.append(offsets)
        if self.missing:
            self._file = path.open("r+b", buffering=0)
            try:
                lock(self._file.fileno())
            except OSError:
                self.close()
                raise UserError(f"{path}: another run is filling this cache; wait for it to end") from None

    def _write_file(self, values: Any, offset: int) -> None:
        assert self._file is not None
        view = memoryview(values).cast("B")
        try:
            self._file.seek(offset)
            while len(view):
                view = view[os.write(self._file.fileno(), view) :]
        except OSError as error:
            raise UserError(
                f"{self._path}: the cache cannot be written ({error.strerror}); once that is mended, "
                "the same command goes on at this image"
            ) from None


def _quantized(
    samples: NDArray[Any], starts: NDArray[np.int64], bits: int
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """(samples, C) as integers, and (items, C) gains that they are multiples of; items start at `starts`."""
    largest = np.float32(7 if bits == 4 else 127)
    gains = np.zeros((len(starts), samples.shape[1]), np.float32)
    sizes = np.diff(starts, append=len(samples))
    filled = sizes > 0
    if filled.any():
        gains[filled] = np.maximum.reduceat(np.abs(samples), starts[filled], 0) / largest
    divisor = np.where(gains > 0, gains, 1)
    integers = np.rint(samples / np.repeat(divisor, sizes, 0)).astype(np.int8)
    if bits != 4:
        return integers, gains
    shifted = (integers + 8).astype(np.uint8)
    if shifted.shape[1] % 2:
        shifted = np.pad(shifted, ((0, 0), (0, 1)), constant_values=8)
    return shifted[:, ::2] | shifted[:, 1::2] << 4, gains


def open_store(
    path: Path | None, contents: Contents, hash_of: Callable[[int], str], *, overwrite: bool = False
) -> PatchStore:
    """The store for these contents: in memory, from the file if it has them, or in a new file.

    Args:
        hash_of: of an image's file; called for every image that the file has.
        overwrite: replaces a file of other contents; it is refused otherwise.
    """
    if path is None:
        return PatchStore(contents, None, [""] * len(contents.images))
    if not path.exists():
        return _create(path, contents)
    try:
        hashes = _read_matching(path, contents, hash_of)
    except _NotUsableError as error:
        if not overwrite:
            raise UserError(f"{path}: {error}; {_REMEDY}") from None
        return _create(path, contents)
    return PatchStore(contents, path, hashes)


@contextmanager
def cache_beside(options: DenseFeaturesOptions, output_path: Path) -> Iterator[DenseFeaturesOptions]:
    """Options whose cache has a name: one without gets a file beside the output, removed at the end."""
    if not options.use_cache or options.cache_path:
        yield options
        return
    with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=output_path.absolute().parent) as folder:
        yield replace(options, cache_path=str(Path(folder) / "cache.h5"))


def check_disk(path: Path, contents: Contents) -> None:
    """Raises UserError if a new file of these contents does not fit on its disk."""
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"{path}: the folder {folder} does not exist; make it, or name another cache_path")
    free = shutil.disk_usage(folder).free
    if contents.num_bytes > free:
        raise UserError(
            f"{path}: the cache takes {contents.num_bytes / 1e9:.2f} GB, but the disk has "
            f"{free / 1e9:.2f} GB left; name a cache_path elsewhere, or lower DenseFeatures.patch_size"
        )


class _NotUsableError(Exception):
    """The file is a cache of something else, or damaged: it may be replaced."""


def _create(path: Path, contents: Contents) -> PatchStore:
    """A file with room for everything, under its name once it is sound."""
    check_disk(path, contents)
    part = path.with_name(path.name + ".part")
    try:
        with h5py.File(part, "w", alignment_threshold=512, alignment_interval=64) as file:
            file.attrs.update({"format": FORMAT, "version": VERSION, "items": contents.items})
            file.attrs["options"] = json.dumps(contents.options)
            file["images/name"] = np.array(contents.images, dtype=h5py.string_dtype())
            file["images/ptr"] = contents.ptr
            # As one contiguous block, so that an entry can be written without HDF5.
            file["images/hash"] = np.zeros((len(contents.images), _HASH_LENGTH), np.uint8)
            for index, level in enumerate(contents.levels):
                group = file.create_group(f"level{index}")
                group["shapes"] = level.shapes
                for name, (shape, dtype) in level.arrays().items():
                    _allocate(group, name, shape, dtype)
        with part.open("r+b") as plain:
            # Takes the blocks now: a disk that fills up later cannot stop the run half-way.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(plain.fileno(), 0, part.stat().st_size)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # h5py raises the latter where a disk is full
        part.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: the cache cannot be made ({reason}); name another cache_path") from None
    return PatchStore(contents, path, [""] * len(contents.images))


def _allocate(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """A contiguous dataset whose place in the file is fixed now, and which nobody fills with zeros."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(dtype), space, properties)


def _read_matching(path: Path, contents: Contents, hash_of: Callable[[int], str]) -> list[str]:
    """The image hashes of a file with these contents; _NotUsableError says how it differs."""
    try:
        with path.open("rb") as plain:
            start = plain.read(len(_HDF5_SIGNATURE))
    except OSError as error:
        raise UserError(f"{path}: the cache cannot be read ({error.strerror})") from None
    if start not in (_HDF5_SIGNATURE, b""):
        raise UserError(f"{path}: this file is no cache of features; name another --DenseFeatures.cache_path")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT:
                raise UserError(
                    f"{path}: this HDF5 file is of another program; name another --DenseFeatures.cache_path"
                )
            _compare(file, contents)
            stored = [bytes(row).decode().strip("\0 ") for row in file["images/hash"][:]]
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise _NotUsableError(f"the cache is truncated or damaged ({error})") from None
    for index, digest in enumerate(stored):
        if digest and digest != hash_of(index):
            raise _NotUsableError(f"the image {contents.images[index]} has changed since the cache was made")
    return stored


def _compare(file: h5py.File, contents: Contents) -> None:
    if (version := int(file.attrs["version"])) != VERSION:
        raise _NotUsableError(f"the cache has format version {version}, this pixcli reads {VERSION}")
    made_with = json.loads(file.attrs["options"])
    wanted = json.loads(json.dumps(contents.options))
    for key in {**wanted, **made_with}:
        if made_with.get(key) != wanted.get(key):
            raise _NotUsableError(
                f"the cache was made with {key} {made_with.get(key)}, but now it is {wanted.get(key)}"
            )
    names = [name.decode() for name in file["images/name"][:]]
    if names != list(contents.images):
        other = sorted({*names} ^ {*contents.images})
        which = f", {other[0]} among them" if other else ""
        raise _NotUsableError(f"the cache was made from other images ({len(other)} differ{which})")
    if file.attrs["items"] != contents.items or not np.array_equal(file["images/ptr"][:], contents.ptr):
        raise _NotUsableError("the cache was made for keypoints at other positions")
    for index, level in enumerate(contents.levels):
        group = file[f"level{index}"]
        same = np.array_equal(group["shapes"][:], level.shapes) and all(
            group[name].shape == shape and group[name].dtype == dtype
            for name, (shape, dtype) in level.arrays().items()
        )
        if not same:
            raise _NotUsableError("the cache holds items of other sizes")
