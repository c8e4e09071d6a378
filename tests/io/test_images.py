"""Images of every kind that COLMAP reads: same grid, same values; one clear line for broken ones."""

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixcli.errors import UserError
from pixcli.io.images import check_image, check_image_size, fit_size, image_hash, read_image, resize_image

import pycolmap

WIDTH, HEIGHT = 61, 40


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def save(tmp_path: Path, name: str, image: Image.Image, **options: object) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


def variants(rgb: NDArray[np.uint8]) -> dict[str, Image.Image]:
    image = Image.fromarray(rgb)
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(rgb[..., 0]))
    deep = Image.fromarray(rgb[..., 0].astype(np.uint16) * 256 + rgb[..., 1])
    return {
        "rgb.png": image,
        "rgb.jpg": image,
        "rgb.tif": image,
        "grey.png": image.convert("L"),
        "grey.jpg": image.convert("L"),
        "cmyk.jpg": image.convert("CMYK"),
        "cmyk.tif": image.convert("CMYK"),
        "palette.png": image.quantize(64),
        "alpha.png": alpha,
        "grey_alpha.png": alpha.convert("LA"),
        "bits.png": image.convert("1"),
        "deep.png": deep,
        "deep.tif": deep,
    }


def test_every_mode_has_the_values_that_colmap_reads(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    for name, image in variants(rgb).items():
        path = save(tmp_path, name, image)
        colmap = pycolmap.Bitmap.read(path, True).to_array().astype(np.float64)
        color = read_image(path, color=True, expected_size=(WIDTH, HEIGHT))
        assert color.dtype == np.float32
        assert color.shape == (HEIGHT, WIDTH, 3)
        # COLMAP rounds 16 bits to 8; everything else is the same to the bit.
        assert np.abs(color - colmap).max() <= (0.5001 if name.startswith("deep") else 0), name
        grey = read_image(path)
        assert grey.shape == (HEIGHT, WIDTH)
        np.testing.assert_allclose(grey, color @ np.array([0.299, 0.587, 0.114]), atol=1e-4, err_msg=name)


def test_sixteen_bits_are_not_rounded(tmp_path: Path) -> None:
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 26
    path = save(tmp_path, "deep.png", Image.fromarray(values))
    np.testing.assert_allclose(read_image(path), values / 257.0, rtol=1e-6)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_rotation_is_ignored(tmp_path: Path, rgb: NDArray[np.uint8], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, "turned.jpg", Image.fromarray(rgb), exif=exif)
    image = read_image(path, color=True, expected_size=(WIDTH, HEIGHT))
    np.testing.assert_array_equal(image, pycolmap.Bitmap.read(path, True).to_array())


@pytest.mark.parametrize("resize", ["lanczos", "bicubic", "bilinear", "area"])
def test_resizing_keeps_the_edges_of_the_image_in_place(tmp_path: Path, resize: str) -> None:
    # The ramp is half the x of COLMAP's coordinates, so that the resized one tells which x a sample has.
    size = (405, 205)
    ramp = np.broadcast_to((np.arange(size[0]) + 0.5) / 2, (size[1], size[0]))
    path = save(tmp_path, "ramp.jpg", Image.fromarray(np.round(ramp).astype(np.uint8)), quality=100)
    image = read_image(path, max_edge=100, resize=resize)
    assert image.shape == (51, 100)
    expected = (np.arange(100) + 0.5) * 4.05 / 2
    inner = slice(10, 90)
    np.testing.assert_allclose(image.mean(0)[inner], expected[inner], atol=0.55)
    # A grid shifted by half a sample would be off by a constant of 1.
    assert abs((image.mean(0) - expected)[inner].mean()) < 0.05


def test_resize_image_agrees_with_reading_reduced(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = save(tmp_path, "rgb.png", Image.fromarray(rgb))
    reduced = read_image(path, color=True, max_edge=30, resize="area")
    np.testing.assert_array_equal(resize_image(read_image(path, color=True), (30, 20), "area"), reduced)
    assert read_image(path, max_edge=1000).shape == (HEIGHT, WIDTH)


def test_fit_size() -> None:
    assert fit_size((3000, 2000), 1600) == (1600, 1067)
    assert fit_size((1000, 800), 1600) == (1000, 800)
    assert fit_size((1000, 800), 0, 0.5) == (500, 400)
    assert fit_size((2, 4000), 100) == (1, 100)


def test_a_wrong_size_names_image_sizes_and_remedy(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = save(tmp_path, "a.png", Image.fromarray(rgb))
    with pytest.raises(UserError, match=r"a\.png: the image is 61x40, but .* 62x40; use the very images"):
        read_image(path, expected_size=(62, 40))
    with pytest.raises(UserError, match="turned by 90 degrees"):
        read_image(path, expected_size=(40, 61))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, on tags
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_truncated_images_are_refused(tmp_path: Path, rgb: NDArray[np.uint8], suffix: str) -> None:
    whole = save(tmp_path, f"whole.{suffix}", Image.fromarray(rgb)).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for kept in (0, 1, 10, 100, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match=rf"cut\.{suffix}: the image cannot be read"):
            read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, on tags
def test_broken_bytes_never_raise_anything_but_a_user_error(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "broken"
    for name in ("png", "jpeg", "tiff"):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, name)
        for _ in range(60):
            data = bytearray(buffer.getvalue())
            for at in rng.integers(0, 200, 8):
                data[at] = rng.integers(0, 256)
            path.write_bytes(data)
            with contextlib.suppress(UserError):
                read_image(path)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jpg: no such image"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(UserError, match=r"none\.jpg"):
        image_hash(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(UserError, match=r"text\.jpg: the image cannot be read \(not an image\)"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path)


def test_hash_depends_on_content_only(tmp_path: Path) -> None:
    for name, content in (("a", b"x" * 3000000), ("b", b"x" * 3000000), ("c", b"x" * 2999999 + b"y")):
        (tmp_path / name).write_bytes(content)
    assert image_hash(tmp_path / "a") == image_hash(tmp_path / "b")
    assert image_hash(tmp_path / "a") != image_hash(tmp_path / "c")


def test_the_size_limit_of_the_host_process_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger images are read all the same, by many threads at a time, and without a warning."""
    path = save(tmp_path, "large.png", Image.new("L", (90, 60), 7))
    assert Image.MAX_IMAGE_PIXELS is not None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with ThreadPoolExecutor(8) as executor:
        for pixels in executor.map(read_image, [path] * 40):
            assert (pixels == 7).all()
    check_image(path)
    check_image_size(path, (90, 60))
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
