"""Strong change of appearance from image to image: cast shadows, tone curves, colour casts, highlights."""

import numpy as np
from numpy.typing import NDArray

from pixcli.synthetic.render import RayGrid
from pixcli.synthetic.scene import View

Colour = NDArray[np.float32]


def relight(
    rng: np.random.Generator,
    colour: Colour,
    depth: NDArray[np.float32],
    view: View,
    grid: RayGrid,
    strength: float,
) -> Colour:
    """An image (h, w, 3) in grey levels as it would be under a light of its own.

    Shadows are cast on the surfaces, by leaves and bars between them and a light that differs from image to
    image; highlights belong to the view. Strength 1: sun against overcast, day against dusk.
    """
    height, width = depth.shape
    rays = grid.centers(np.arange(height * width))
    in_camera = np.concatenate([rays, np.ones((1, rays.shape[1]))]) * depth.ravel()
    points = view.rotation.T @ (in_camera - view.translation[:, None])
    lit = colour * (1 - _shadow(rng, points, strength).reshape(height, width, 1))
    x, y = np.arange(width), np.arange(height)[:, None]
    for _ in range(rng.poisson(3 * strength)):
        radius = width * rng.uniform(0.01, 0.05)
        square = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2
        lit += (rng.uniform(30, 120) * strength * np.exp(-square / (2 * radius**2)))[..., None]
    cast = np.exp(0.2 * strength * rng.standard_normal(3))
    exposure = np.exp(rng.uniform(-0.9, 0.2) * strength)
    gamma = np.exp(rng.normal(0, 0.3) * strength)
    bend = rng.uniform(-0.4, 0.6) * strength  # of an S-shaped curve
    tone = np.clip(lit * cast * exposure / 255, 0, 1) ** gamma
    tone = tone + bend * tone * (1 - tone) * (2 * tone - 1)
    return np.asarray(255 * tone, np.float32)


def _shadow(rng: np.random.Generator, points: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """How much of its light each point (3, n) loses, 0 to 1."""
    light = rng.standard_normal(3)
    basis = np.linalg.svd(light[None])[2][1:]  # across the light
    across = basis @ points
    lost = np.zeros(points.shape[1])
    for _ in range(2):
        field, slope = np.zeros_like(lost), 0.0
        for _ in range(5):
            wave = rng.standard_normal(2)
            wave *= 2 * np.pi / (rng.uniform(0.25, 1.5) * np.linalg.norm(wave))  # metres
            field += np.cos(wave @ across + rng.uniform(0, 2 * np.pi))
            slope += float(np.linalg.norm(wave)) / 2
        edge = rng.uniform(0.003, 0.03) * slope  # half a centimetre to some centimetres wide
        depth = min(0.75 * strength, 0.9) * rng.uniform(0.5, 1)
        lost = np.maximum(lost, depth / (1 + np.exp(-np.clip((field - 0.8) / edge, -50, 50))))
    return lost
