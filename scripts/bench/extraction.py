"""How fast feature maps are made: megapixels a second, and against plain NumPy in the same run."""

import tempfile
from pathlib import Path

import numpy as np
from common import Bench, arguments, best_time, time_ratio
from numpy.typing import NDArray
from PIL import Image

from pixcli.features.extraction import Extraction, ImageFile
from pixcli.features.model import load_model
from pixcli.features.tiling import Region, region_maps
from pixcli.options import DenseFeaturesOptions

SIZE = (1536, 1024)
TILE = 512


def texture(width: int, height: int) -> NDArray[np.uint8]:
    """Something between noise and a photograph."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8), dtype=np.uint8))
    noise = rng.integers(-20, 21, (height, width))
    return np.clip(np.asarray(small.resize((width, height))) + noise, 0, 255).astype(np.uint8)


def numpy_dense_sift(image: NDArray[np.float32]) -> NDArray[np.float16]:
    """Dense SIFT with bins of 4 pixels as one writes it with whole arrays."""
    gx, gy = np.gradient(image, axis=(1, 0))
    angle = np.arctan2(gy, gx) * (4 / np.pi)
    distance = np.abs((angle[None] - np.arange(8)[:, None, None] + 4) % 8 - 4)
    planes = np.hypot(gx, gy) * np.maximum(0, 1 - distance).astype(np.float32)
    padded = np.pad(planes, ((0, 0), (9, 9), (9, 9)))
    height, width = image.shape
    weights = [1 - abs(t) / 4 for t in range(-3, 4)]
    across = sum(w * padded[:, :, t : t + width + 12] for t, w in enumerate(weights))
    smooth = sum(w * across[:, t : t + height + 12] for t, w in enumerate(weights))
    bins = [smooth[:, y : y + height, x : x + width] for y in (0, 4, 8, 12) for x in (0, 4, 8, 12)]
    flat = np.concatenate(bins)
    unit = np.minimum(flat / np.maximum(np.linalg.norm(flat, axis=0), 1e-6), 0.2)
    return np.moveaxis(np.sqrt(unit / np.maximum(unit.sum(axis=0), 1e-6)), 0, 2).astype(np.float16)


def main() -> None:
    """Prints the table."""
    args = arguments(__doc__).parse_args()
    bench = Bench("extraction")
    pixels = texture(*SIZE)
    tile = np.ascontiguousarray(pixels[:TILE, :TILE]).astype(np.float32)
    model = load_model(DenseFeaturesOptions(model="dsift"))
    seconds = best_time(lambda: region_maps(model, tile, Region(0, 0, TILE, TILE)))
    bench.row("dsift, maps, all cores", TILE**2 / 1e6 / seconds, "Mpx/s", ">= 1")
    one = load_model(DenseFeaturesOptions(model="dsift", num_threads=1))
    ratio = time_ratio(lambda: numpy_dense_sift(tile), lambda: one.forward(tile), repeats=3)
    bench.row("dsift, maps, one core, against NumPy", ratio, "x")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.jpg")
        Image.fromarray(pixels).save(path, quality=90)
        files = [ImageFile("image.jpg", path, SIZE)] * 4
        rng = np.random.default_rng(0)
        points = [(rng.random((2000, 2)) * SIZE).astype(np.float32) for _ in files]
        for name in ("image", "dsift"):
            options = DenseFeaturesOptions(model=name)
            seconds = best_time(lambda o=options: Extraction(files, points, o).patches(), repeats=3)
            target = ">= 1" if name == "dsift" else None
            figure = f"{name}, decoded, patches of 2000 keypoints an image"
            bench.row(figure, len(files) * pixels.size / 1e6 / seconds, "Mpx/s", target)
    bench.finish(args)


if __name__ == "__main__":
    main()
