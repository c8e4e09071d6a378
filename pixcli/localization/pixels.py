"""The pixels of a query, from a file or from a program that has them already."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.io.images import ResizeFilter, read_image

import pycolmap

Pixels = Path | str | npt.NDArray[np.generic]
"""A file, or grey (h, w) or RGB (h, w, 3) pixels from 0 to 255."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def read_pixels(
    image: Pixels,
    camera: pycolmap.Camera,
    *,
    color: bool = False,
    max_edge: int = 0,
    resize: ResizeFilter = "lanczos",
) -> npt.NDArray[np.float32]:
    """(h, w) luma or (h, w, 3) RGB in 0..255, see read_image; arrays are not reduced to max_edge.

    Raises:
        UserError: there is no such image, it is damaged, or its size is not the camera's.
    """
    size = (camera.width, camera.height)
    if isinstance(image, (str, Path)):
        return read_image(Path(image), color=color, expected_size=size, max_edge=max_edge, resize=resize)
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or pixels.shape[:2] != size[::-1] or pixels.shape[2:] not in ((), (3,)):
        raise UserError(f"its image has the shape {pixels.shape}, but its camera is {size[0]}x{size[1]}")
    values = np.asarray(pixels, np.float32)
    if values.ndim == 3 and not color:
        values = values @ _LUMA
    elif values.ndim == 2 and color:
        values = np.repeat(values[..., None], 3, axis=2)
    return np.ascontiguousarray(values)
