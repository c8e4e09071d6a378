"""Pairs of views of photographs, each under a light of its own, for scripts/train_features.py."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

Tensor = torch.Tensor

SIZE = 96  # pixels a side of a view


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Tensor:
    """(size, size) of about unit deviation that varies over size / cells pixels."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, cells + 3, cells + 3)).astype(np.float32))
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)[0, 0] * 1.3


def relit(rgb: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """(3, S, S) in 0..1 as another camera would see it under another light; grey (S, S) in 0..255."""
    size = rgb.shape[1]
    light = rgb.clamp(1e-4, 1) ** 2.2
    light = light * torch.exp(torch.from_numpy(rng.normal(0, 0.25 * strength, (3, 1, 1)).astype(np.float32)))
    light = light * torch.exp(0.3 * strength * smooth_noise(rng, size, 2))
    for _ in range(rng.integers(0, 3)):
        if rng.random() > 0.6 * strength:
            continue
        # A shadow: the side of a bent line, or what a canopy leaves dark; its edge is more or less sharp.
        field = smooth_noise(rng, size, int(rng.integers(1, 7)))
        if rng.random() < 0.5:
            angle = uniform(rng, 0, 2 * np.pi)
            axis = torch.linspace(-1, 1, size)
            field = (
                np.cos(angle) * axis + np.sin(angle) * axis[:, None] + 0.2 * field + uniform(rng, -0.5, 0.5)
            )
        slope = torch.sqrt(field.diff(dim=0)[:, :-1] ** 2 + field.diff(dim=1)[:-1] ** 2).mean()
        edge = torch.sigmoid(field / (slope * uniform(rng, 0.4, 6)))
        light = light * (1 - edge * uniform(rng, 0.3, 0.9))
    if rng.random() < 0.3 * strength:
        x, y = (
            (torch.arange(size)[None] - uniform(rng, 0, size)),
            (torch.arange(size)[:, None] - uniform(rng, 0, size)),
        )
        radius = uniform(rng, 3, 20)
        light = light + uniform(rng, 0.2, 1.5) * torch.exp(-(x * x + y * y) / (2 * radius * radius))
    weights = torch.tensor([0.299, 0.587, 0.114]) * torch.from_numpy(
        rng.uniform(1 - 0.4 * strength, 1 + 0.4 * strength, 3).astype(np.float32)
    )
    grey = (light * weights[:, None, None]).sum(0)
    if rng.random() < 0.6:
        sigma = uniform(rng, 0.2, 1.0)
        offsets = torch.arange(-3, 4)
        kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
        kernel = kernel / kernel.sum()
        grey = F.conv2d(F.pad(grey[None, None], (3, 3, 3, 3), "reflect"), kernel.view(1, 1, 7, 1))
        grey = F.conv2d(grey, kernel.view(1, 1, 1, 7))[0, 0]
    # The sensor: fewer photons in the dark, then gain.
    full_well = 10 ** uniform(rng, 4.0 - 1.3 * strength, 4.5)
    exposure = uniform(rng, 0.8, 1.4) / float(torch.quantile(grey, 0.95).clamp_min(1e-3))
    grey = (grey * exposure).clamp(0, 1)
    noise = torch.from_numpy(rng.standard_normal((size, size)).astype(np.float32))
    grey = (grey + noise * torch.sqrt(grey / full_well + (3e-3 * (1 + strength)) ** 2 * 0.3)).clamp(0, 1)
    gamma = np.exp(uniform(rng, -0.5, 0.5) * strength) / 2.2
    grey = grey**gamma
    contrast = uniform(rng, -0.4, 0.6) * strength  # of an S-shaped curve
    grey = grey + contrast * grey * (1 - grey) * (2 * grey - 1)
    grey = grey * uniform(rng, 1 - 0.6 * strength, 1) + uniform(rng, 0, 0.1 * strength)
    pixels = (grey.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    if rng.random() < 0.6:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=int(rng.integers(40, 96)))
        pixels = np.asarray(Image.open(stream))
    return torch.from_numpy(pixels.astype(np.float32))


def random_homography(rng: np.random.Generator) -> np.ndarray:
    """(3, 3) about the middle of a view, in pixels: rotation, scale, shear, perspective and a shift."""
    angle = rng.normal(0, np.radians(12)) if rng.random() < 0.85 else rng.uniform(-np.pi, np.pi)
    scale, stretch = np.exp(rng.uniform(-0.2, 0.2)), np.exp(rng.uniform(-0.35, 0.35))
    axis = rng.uniform(0, np.pi)

    def turn(a: float) -> np.ndarray:
        return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])

    linear = turn(angle) @ turn(axis) @ np.diag([scale * stretch, scale / stretch]) @ turn(-axis)
    h = np.eye(3)
    h[:2, :2], h[:2, 2], h[2, :2] = linear, rng.uniform(-1, 1, 2), rng.normal(0, 8e-4, 2)
    return h


def view_of(photo: Tensor, from_view: np.ndarray) -> Tensor:
    """(3, SIZE, SIZE) of a photo (3, H, W); from_view maps view pixels, about its middle, to photo pixels."""
    axis = torch.arange(SIZE, dtype=torch.float32) + 0.5 - SIZE / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    h = torch.from_numpy(from_view.astype(np.float32))
    points = torch.stack([x, y, torch.ones_like(x)], -1) @ h.T
    xy = points[..., :2] / points[..., 2:]
    grid = xy * 2 / torch.tensor([photo.shape[2], photo.shape[1]]) - 1
    return F.grid_sample(photo[None], grid[None], "bicubic", "reflection", align_corners=False)[0].clamp(0, 1)


def make_pair(photos: list[Tensor], rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """Two grey views (2, SIZE, SIZE) and the homography (3, 3) from the first to the second, in pixels."""
    photo = photos[rng.integers(len(photos))]
    if rng.random() < 0.5:  # in the middle between sharp and soft
        factor = uniform(rng, 0.5, 1)
        photo = F.interpolate(photo[None], scale_factor=factor, mode="bilinear", antialias=True)[0]
    height, width = photo.shape[1:]
    place = np.eye(3)
    place[:2, 2] = rng.uniform(SIZE / 2, width - SIZE / 2), rng.uniform(SIZE / 2, height - SIZE / 2)
    second_from_first = random_homography(rng)
    strength = uniform(rng, 0.1, 1)
    first = relit(view_of(photo, place), rng, strength)
    second = relit(view_of(photo, place @ np.linalg.inv(second_from_first)), rng, strength)
    middle = np.array([[1, 0, -SIZE / 2], [0, 1, -SIZE / 2], [0, 0, 1]])
    return torch.stack([first, second]), np.linalg.inv(middle) @ second_from_first @ middle
