"""Images as COLMAP sees them: the pixel grid as stored, EXIF rotation not applied, alpha dropped.

COLMAP pixel coordinates: the centre of the top-left pixel is (0.5, 0.5). Resizing keeps the outer edges of
the image in place, so a position x in an image of width w lies at x * w' / w in one resized to width w'.
"""

import hashlib
import threading
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pixcli.errors import UserError

ResizeFilter = Literal["lanczos", "bicubic", "bilinear", "area"]
_FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}

_LIMIT = threading.Lock()


def fit_size(size: tuple[int, int], max_edge: int, scale: float = 1.0) -> tuple[int, int]:
    """The (width, height) of an image reduced to a longer edge of `max_edge` (0: as it is), times `scale`."""
    longest = max(size)
    factor = scale * (min(1.0, max_edge / longest) if max_edge > 0 else 1.0)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def read_image(
    path: Path,
    *,
    color: bool = False,
    expected_size: tuple[int, int] | None = None,
    max_edge: int = 0,
    resize: ResizeFilter = "lanczos",
) -> NDArray[np.float32]:
    """Decodes an image to float32 in 0..255: (H, W) luma with weights .299 .587 .114, or (H, W, 3) RGB.

    16-bit images are scaled to 0..255 without rounding. `expected_size` is the (width, height) that the
    camera has in the database; another size is a UserError. With `max_edge` > 0 a longer image is reduced to
    it.
    """
    try:
        with open_image(path) as file:
            size = file.size
            if expected_size is not None and size != tuple(expected_size):
                raise _wrong_size(path, size, expected_size)
            target = fit_size(size, max_edge)
            bands = [_resized(band, target, resize) for band in _bands(file, color)]
            return np.stack(bands, axis=-1) if color else bands[0]
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such image; give the folder in which images have the names that the database uses"
        ) from None
    except Exception as error:  # broken files make Pillow raise nearly anything, SyntaxError included
        raise _unreadable(path, error) from None


def check_image_size(path: Path, expected: tuple[int, int]) -> None:
    """Raises UserError if an image cannot be opened or is not of this (width, height); decodes no pixels."""
    try:
        with open_image(path) as file:
            size = file.size
    except Exception as error:
        raise _unreadable(path, error) from None
    if size != tuple(expected):
        raise _wrong_size(path, size, expected)


def resize_image(
    image: NDArray[np.float32], size: tuple[int, int], resize: ResizeFilter = "lanczos"
) -> NDArray[np.float32]:
    """An (H, W) or (H, W, C) float32 image resized to (width, height), low-pass filtered when reduced."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    if image.ndim == 3:
        return np.stack([resize_image(image[..., c], size, resize) for c in range(image.shape[2])], axis=-1)
    return _resized(Image.fromarray(image), size, resize)


def open_image(path: Path) -> Image.Image:
    """Opens an image of any size, as a context manager; pixels are decoded when they are asked for.

    Pillow refuses images over 180 megapixels, as attacks on web servers; aerial photographs are larger. Its
    limit belongs to the whole process and is checked as a header is read: it is lifted that long, by one
    thread at a time.
    """
    with _LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_image(path: Path) -> None:
    """Raises UserError unless an image can be decoded to its end."""
    try:
        with open_image(path) as file:
            file.load()
    except Exception as error:  # see read_image
        raise _unreadable(path, error) from None


def image_hash(path: Path) -> str:
    """A hash of the file's bytes (32 hexadecimal digits): caches are bound to it."""
    try:
        with path.open("rb") as file:
            digest = hashlib.blake2b(digest_size=16)
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: the image cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def _bands(image: Image.Image, color: bool) -> list[Image.Image]:
    """One float band (Pillow's mode F, 0..255) for grey, three for RGB."""
    if image.mode.startswith("I"):  # 16 bits: I;16 and its byte orders, or I in older versions of Pillow
        grey = Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(257))
    elif image.mode == "F":  # COLMAP takes floating-point images as 0..1
        grey = Image.fromarray(np.clip(np.asarray(image), 0, 1) * np.float32(255))
    elif image.mode in ("1", "L", "LA", "La"):
        grey = image.convert("L").convert("F")
    elif color:
        return [band.convert("F") for band in image.convert("RGB").split()]
    else:
        return [image.convert("RGB").convert("F")]  # Pillow weighs by .299 .587 .114 here, without rounding
    return [grey, grey, grey] if color else [grey]


def _resized(band: Image.Image, size: tuple[int, int], resize: ResizeFilter) -> NDArray[np.float32]:
    if size != band.size:
        band = band.resize(size, _FILTERS[resize])
    return np.array(band, dtype=np.float32)


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
    return UserError(
        f"{path}: the image cannot be read ({reason}); replace it by a complete JPEG, PNG or TIFF file"
    )


def _wrong_size(path: Path, size: tuple[int, int], expected: tuple[int, int]) -> UserError:
    turned = size == (expected[1], expected[0])
    return UserError(
        f"{path}: the image is {size[0]}x{size[1]}, but its camera has"
        f" {expected[0]}x{expected[1]}"
        + (", turned by 90 degrees (COLMAP ignores EXIF rotation)" if turned else "")
        + "; use the very images that the database or model was made from"
    )
