"""The surface step on one core: depth and normal a track of seven views, shifts an observation.

A plane of smooth noise, seen by cameras in a row; points start up to a pixel off, normals up to 25 degrees.
"""

import tempfile
from pathlib import Path

import numpy as np
from common import Bench, arguments, best_time
from PIL import Image
from scipy.ndimage import gaussian_filter

from pixcli import _core
from pixcli.geometry.linearisation import linearise
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress
from pixcli.sampling.streaming import ImageFile
from pixcli.surfaces.measuring import (
    REFINE_SUPPORT,
    SUPPORTS,
    SurfaceLimits,
    measure_shifts,
    refine_surfaces,
)
from pixcli.surfaces.plane_patches import cut_surface_patches
from pixcli.surfaces.planes import Surfaces, points_from_planes

import pycolmap

NUM_VIEWS, NUM_POINTS = 7, 3000
FOCAL, PARALLAX = 1000.0, 24  # pixels, from view to view
WIDTH, HEIGHT = 1200, 800
LIMITS = SurfaceLimits(num_threads=1)


def write_images(folder: Path, rng: np.random.Generator) -> list[ImageFile]:
    """The same texture in all images, shifted, with noise of their own."""
    noise = rng.standard_normal((HEIGHT, WIDTH + PARALLAX * NUM_VIEWS))
    texture = sum(s * gaussian_filter(noise, s) for s in (1.0, 2.0, 4.0))
    texture = 128 + 40 * texture / texture.std()
    files = []
    for k in range(NUM_VIEWS):
        pixels = texture[:, PARALLAX * k : PARALLAX * k + WIDTH] + rng.normal(0, 2, (HEIGHT, WIDTH))
        path = folder / f"{k}.png"
        Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).save(path)
        files.append(ImageFile(path.name, path, (WIDTH, HEIGHT)))
    return files


def make_surfaces(points: np.ndarray) -> Surfaces:
    """Points at about z = 1 in all views; the reference is the one in the middle."""
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", FOCAL, WIDTH, HEIGHT)
    views = [
        linearise(camera, np.eye(3), np.array([-PARALLAX * k / FOCAL, 0, 0]), points)
        for k in range(NUM_VIEWS)
    ]
    pairs = np.arange(NUM_VIEWS * NUM_POINTS, dtype=np.int32)
    return Surfaces(
        np.stack(views, 1).ravel(),
        pairs % NUM_VIEWS,
        np.full((NUM_VIEWS, 2), (WIDTH, HEIGHT), float),
        pairs[NUM_VIEWS // 2 :: NUM_VIEWS],
        np.arange(NUM_POINTS + 1) * NUM_VIEWS,
        pairs,
    )


def main() -> None:
    args = arguments(__doc__).parse_args()
    rng = np.random.default_rng(0)
    shown = PARALLAX * NUM_VIEWS / FOCAL
    x, y = rng.uniform(-0.4 + shown, 0.4, NUM_POINTS), rng.uniform(-0.3, 0.3, NUM_POINTS)
    true_points = np.stack([x, y, np.ones(NUM_POINTS)], 1)
    middle = np.array([PARALLAX * (NUM_VIEWS // 2) / FOCAL, 0, 0])
    depth = 1 + rng.uniform(-1, 1, NUM_POINTS) / (PARALLAX * (NUM_VIEWS // 2))
    surfaces = make_surfaces(middle + (true_points - middle) * depth[:, None])
    planes = np.zeros((NUM_POINTS, 3))
    planes[:, 1:] = rng.uniform(-0.3, 0.3, (NUM_POINTS, 2))
    used = np.ones(len(surfaces.pair_view), bool)
    options, silent = DenseFeaturesOptions(), Progress()
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder), rng)
        patches = cut_surface_patches(surfaces, planes, SUPPORTS, 3.0, files, options, silent)
    fits = refine_surfaces(surfaces, planes, patches, REFINE_SUPPORT, used, LIMITS, silent)
    error = np.abs(
        points_from_planes(surfaces, middle + (true_points - middle) * depth[:, None], fits.planes)[:, 2] - 1
    )
    bench, kernels = Bench("surface"), _core.build_config()["kernels"]
    per_track, per_shift = 1e6 / NUM_POINTS, 1e6 / (NUM_POINTS * (NUM_VIEWS - 1))
    seconds = best_time(
        lambda: refine_surfaces(surfaces, planes, patches, REFINE_SUPPORT, used, LIMITS, silent)
    )
    bench.row(
        f"depth and normal of a track of {NUM_VIEWS} views, {kernels}", seconds * per_track, "µs", "<= 40"
    )
    for support in SUPPORTS:
        seconds = best_time(
            lambda support=support: measure_shifts(
                surfaces, fits.planes, patches, [support], used, LIMITS, silent
            )
        )
        bench.row(
            f"shift of an observation, radius {support[0]}, {kernels}", seconds * per_shift, "µs", "<= 5"
        )
    bench.row("points accepted", 100 * float(fits.accepted.mean()), "%", ">= 95")
    error_px = float(np.median(error)) * PARALLAX * (NUM_VIEWS // 2)
    bench.row("median error of the depth, as a shift of the outer views", error_px, "px", "<= 0.05")
    bench.finish(args)


if __name__ == "__main__":
    main()
