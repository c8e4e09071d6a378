"""How fast feature maps are made: megapixels a second, against plain NumPy or torch in the same run, memory.

Networks have made-up weights; their rows need torch, and memory is that of a process of its own.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from common import Bench, arguments, best_time, time_ratio
from numpy.typing import NDArray
from PIL import Image

from pixcli.features.registry import load_model
from pixcli.features.tiling import Region, alignment_of, maps_of_regions, region_maps, tiles
from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.extraction import Extraction, ImageFile
from pixcli.sampling.map_patches import Extractor

SIZE = (1536, 1024)
PHOTO = (1600, 1200)
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


def made_up_s2dnet(path: Path) -> None:
    """Weights of S2DNet's first level, as its authors lay them out."""
    import torch

    torch.manual_seed(0)
    shapes = {
        "encoder.0": (64, 3, 3, 3),
        "encoder.2": (64, 64, 3, 3),
        "adaptation_layers.adap_layer_0.0": (64, 64, 1, 1),
        "adaptation_layers.adap_layer_0.2": (128, 64, 5, 5),
    }
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5
        state[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"adaptation_layers.adap_layer_0.3.{part}"] = torch.rand(128) + 0.5
    torch.save({"state_dict": state}, path)


def network_options(name: str, folder: Path) -> DenseFeaturesOptions:
    if name != "s2dnet":
        return DenseFeaturesOptions(model=name)
    path = folder / "s2dnet.pth"
    if not path.is_file():
        made_up_s2dnet(path)
    return DenseFeaturesOptions(model=name, weights_path=str(path))


def plain_pass(name: str, options: DenseFeaturesOptions, image: NDArray[np.float32]) -> Callable[[], object]:
    """A forward pass of the same network in float over the whole image, as one writes it with torch.nn."""
    import torch
    from torch import nn

    torch.set_num_threads(os.cpu_count() or 1)
    if name == "compact":
        from pixcli.features.compact import LAYERS, OFFSET

        x, inputs, layers = torch.from_numpy(image)[None, None], 1, []
        for layer in LAYERS:
            layers += [nn.Conv2d(inputs, layer.channels, layer.size, layer.stride, layer.padding), nn.ReLU()]
            inputs = layer.channels
        network = nn.Sequential(*layers[:-1])
        prepared = lambda: torch.log(x / 255 + OFFSET)  # noqa: E731
    else:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
        network = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
            nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 128, 5, padding=2), nn.BatchNorm2d(128),
        )  # fmt: skip
        prepared = lambda: x / 255  # noqa: E731
    network.eval()

    def run() -> object:
        with torch.inference_mode():
            return network(prepared())

    return run


def maps_by_tile(options: DenseFeaturesOptions, image: NDArray[np.float32]) -> Callable[[], object]:
    """The maps of the image as the product makes them, without keeping them."""
    extractor = Extractor(options)
    height, width = image.shape[:2]
    regions = list(tiles(height, width, extractor.tile_size, alignment_of(extractor.model)))

    def run() -> object:
        return sum(1 for _ in maps_of_regions(extractor.model, image, regions))

    return run


def memory(bench: Bench) -> None:
    """First of all: a process counts the peak of the one that starts it as its own."""
    for name in ("compact", "s2dnet"):
        command = [sys.executable, __file__, "--memory_of", name]
        taken = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        figure = f"{name}, patches of 2000 keypoints at 1600x1200, above the libraries"
        bench.row(figure, taken, "MB", "<= 300" if name == "compact" else "<= 1000")


def networks(bench: Bench, size: tuple[int, int], repeats: int) -> None:
    photo = texture(*size).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("compact", "s2dnet"):
            image = photo if name == "compact" else np.repeat(photo[..., None], 3, 2)
            options = network_options(name, Path(folder))
            ours = maps_by_tile(options, image)
            ours()
            ratio = time_ratio(plain_pass(name, options, image), ours, repeats)
            bench.row(f"{name}, tiles, against a plain pass of torch in float", ratio, "x", ">= 1.5")
            bench.row(f"{name}, tiles", image.shape[0] * image.shape[1] / 1e6 / best_time(ours, 1), "Mpx/s")


def print_memory(name: str) -> None:
    """The peak above what a tiny image takes, in MB: run in a process of its own."""

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        options = network_options(name, Path(folder))
        for width, height, count in ((64, 48, 1), (*PHOTO, 2000)):
            path = Path(folder, f"{width}.png")
            Image.fromarray(texture(width, height)).save(path)
            points = [(rng.random((count, 2)) * (width, height)).astype(np.float32)]
            before = peak()
            made = Extraction([ImageFile(path.name, path, (width, height))], points, options).patches()
    kept = sum(patches.data.nbytes for patches, _ in made)
    print((peak() - before - kept) / 1e6)


def main() -> None:
    """Prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=["networks"], help="one part")
    parser.add_argument("--width", type=int, default=PHOTO[0], help="of the image for networks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory_of", help="print what a network takes, and no more")
    args = parser.parse_args()
    if args.memory_of:
        print_memory(args.memory_of)
        return
    bench = Bench("extraction")
    has_torch = find_spec("torch") is not None
    if has_torch:
        memory(bench)
    else:
        print("SKIPPED: networks, which need torch", file=sys.stderr)
    if args.only is None:
        without_networks(bench)
    if has_torch:
        networks(bench, (args.width, args.width * 3 // 4), args.repeats)
    bench.finish(args)


def without_networks(bench: Bench) -> None:
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


if __name__ == "__main__":
    main()
