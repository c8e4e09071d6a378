"""Dense SIFT against its definition written down with matrices, which shares nothing with the native code."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pixcli import _core


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Smooth noise with a flat patch, 0..255."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.random((height // 4 + 1, width // 4 + 1)), np.ones((4, 4)))[:height, :width]
    image = 180 * coarse + 60 * rng.random((height, width))
    image[: height // 3, : width // 3] = 128
    return image.astype(np.float32)


def dense_sift(image, bin_size=4, rootsift=True, half=True, num_threads=-1):
    return _core.dense_sift(image, bin_size=bin_size, rootsift=rootsift, half=half, num_threads=num_threads)


def dense_sift_by_definition(image: NDArray[np.float32], b: int, rootsift: bool) -> NDArray[np.float64]:
    height, width = image.shape
    padded = np.pad(image.astype(np.float64), 1, mode="edge")
    gx = padded[1:-1, 2:] - padded[1:-1, :-2]
    gy = padded[2:, 1:-1] - padded[:-2, 1:-1]
    directions = np.arange(8) * np.pi / 4
    distance = np.angle(np.exp(1j * (np.arctan2(gy, gx)[..., None] - directions)))
    planes = np.hypot(gx, gy)[..., None] * np.maximum(0, 1 - np.abs(distance) / (np.pi / 4))

    def windows(length: int) -> NDArray[np.float64]:
        """(4, length, length): weight of a pixel (last) in bin k (first) of the descriptor at a pixel."""
        centres = np.arange(length)[None, :, None] + b * (np.arange(4) - 1.5)[:, None, None]
        return np.maximum(0, 1 - np.abs(np.arange(length) - centres) / b)

    bins = np.einsum("iyr,jxc,rco->yxijo", windows(height), windows(width), planes, optimize=True)
    gauss = np.exp(-0.5 * ((np.arange(4) - 1.5) / 2) ** 2)
    flat = (bins * gauss[:, None, None] * gauss[:, None]).reshape(height, width, 128)
    unit = flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-9)
    limited = np.minimum(unit, 0.2)
    if rootsift:
        return np.sqrt(limited / np.maximum(limited.sum(-1, keepdims=True), 1e-9))
    return limited / np.maximum(np.linalg.norm(limited, axis=-1, keepdims=True), 1e-9)


@pytest.mark.parametrize("rootsift", [True, False])
@pytest.mark.parametrize("bin_size", [1, 2, 3, 4, 5, 8])
def test_agrees_with_the_definition(bin_size: int, rootsift: bool) -> None:
    image = texture(61, 50)
    expected = dense_sift_by_definition(image, bin_size, rootsift)
    exact = dense_sift(image, bin_size=bin_size, rootsift=rootsift, half=False)
    assert exact.dtype == np.float32
    # The square root magnifies rounding near zero.
    power = 2 if rootsift else 1
    np.testing.assert_allclose(exact**power, expected**power, atol=3e-6)
    half = dense_sift(image, bin_size=bin_size, rootsift=rootsift)
    np.testing.assert_array_equal(half, exact.astype(np.float16))


def test_unit_length_except_where_the_image_is_flat() -> None:
    image = texture(90, 90)
    norms = np.linalg.norm(dense_sift(image, half=False), axis=-1)
    assert (norms[:18, :18] == 0).all()
    np.testing.assert_allclose(norms[40:, 40:], 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 2)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(shape, dtype=np.float32) * 255
    expected = dense_sift_by_definition(image, 4, False)
    np.testing.assert_allclose(dense_sift(image, rootsift=False, half=False), expected, atol=3e-6)


def test_the_number_of_threads_changes_no_byte() -> None:
    image = texture(150, 120)
    one = dense_sift(image, num_threads=1)
    np.testing.assert_array_equal(one, dense_sift(image, num_threads=3))


def test_the_portable_path_gives_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", texture(61, 50))
    code = (
        "import sys, numpy as np; from pixcli import _core; from functools import partial;"
        "dense_sift = partial(_core.dense_sift, bin_size=4, rootsift=True, num_threads=-1);"
        "image = np.load(sys.argv[1] + '/image.npy');"
        "np.save(sys.argv[1] + '/half.npy', dense_sift(image, half=True));"
        "np.save(sys.argv[1] + '/float.npy', dense_sift(image, half=False));"
        "print(_core.build_config()['kernels'])"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path)],  # not from the source tree
        env={**os.environ, "PIXCLI_ISA": "baseline"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "baseline"
    portable = np.load(tmp_path / "float.npy")
    np.testing.assert_allclose(portable**2, dense_sift(texture(61, 50), half=False) ** 2, atol=1e-6)
    # Its own conversion to half precision rounds like NumPy's, subnormal numbers included.
    np.testing.assert_array_equal(np.load(tmp_path / "half.npy"), portable.astype(np.float16))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="shape"):
        dense_sift(np.zeros((3, 4, 5), np.float32))
    with pytest.raises(ValueError, match="bin_size"):
        dense_sift(np.zeros((3, 4), np.float32), bin_size=0)
