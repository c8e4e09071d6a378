"""Textures of synthetic surfaces: mosaics of procedural panels or photos, sampled from a pyramid."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from pixcli.errors import UserError

Panel = NDArray[np.uint8]  # (h, w, 3)

LEVELS = 6
"""Levels of a texture pyramid; each halves the one before."""


def load_photos(folder: Path) -> list[Image.Image]:
    """All photos of a folder in the order of their names, RGB."""
    if not folder.is_dir():
        raise UserError(f"texture_path: {folder} is not a folder; give one with JPEG or PNG photos.")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise UserError(f"texture_path: {folder} holds no .jpg or .png photo.")
    photos = []
    for path in paths:
        try:
            photos.append(Image.open(path).convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"texture_path: {path} cannot be read as an image: {error}") from error
    return photos


@dataclass(frozen=True)
class Texture:
    """A colour pyramid over a rectangle of the surface's (u, v) coordinates.

    `texels` holds all levels one after the other, each texel as one word (red in the lowest byte): bilinear
    interpolation then gathers four words and not twelve bytes.
    """

    texels: NDArray[np.uint32]  # (sum of heights * widths,)
    starts: NDArray[np.int32]  # (LEVELS,) where a level starts
    widths: NDArray[np.int32]  # (LEVELS,)
    heights: NDArray[np.int32]  # (LEVELS,)
    density: float
    """Texels of the finest level per metre."""

    def sample(
        self, u: NDArray[np.float64], v: NDArray[np.float64], level: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Colours (..., 3) in 0..255 at u, v (...) metres from the texture's corner, bilinear in a level."""
        scale = self.density * np.ldexp(1.0, -level)
        width, height, start = self.widths[level], self.heights[level], self.starts[level]
        # Texel c of a level has its centre at c + 0.5; outside, the border goes on.
        x = np.clip(u * scale - 0.5, 0, width - 1.001)
        y = np.clip(v * scale - 0.5, 0, height - 1.001)
        column, row = x.astype(np.int32), y.astype(np.int32)
        fx = (x - column).astype(np.float32)[..., None]
        fy = (y - row).astype(np.float32)[..., None]
        index = row * width + column + start

        def texel(offset: NDArray[np.int32] | int) -> NDArray[np.uint8]:
            words = self.texels.take(index + offset)
            return words.view(np.uint8).reshape(*words.shape, 4)[..., :3]

        top = texel(0) * (1 - fx) + texel(1) * fx
        bottom = texel(width) * (1 - fx) + texel(width + 1) * fx
        return np.asarray(top * (1 - fy) + bottom * fy, np.float32)


def make_texture(
    rng: np.random.Generator, size: tuple[float, float], density: float, photos: list[Image.Image]
) -> Texture:
    """A mosaic of panels about a metre wide for a surface of `size` (u, v) metres."""
    width, height = (max(1, round(extent * density)) for extent in size)
    canvas = np.empty((height, width, 3), np.uint8)
    order = rng.permutation(len(photos)) if photos else rng.permutation(len(_PANELS))
    count = 0
    for top, bottom in _cuts(rng, height, density * 1.1):
        for left, right in _cuts(rng, width, density * 1.4):
            pick = order[count % len(order)]
            shape = (bottom - top, right - left)
            if photos:
                panel = np.asarray(ImageOps.fit(photos[pick], shape[::-1], Image.Resampling.LANCZOS))
            else:
                panel = _finish(rng, _PANELS[pick](rng, *shape))
            canvas[top:bottom, left:right] = panel
            count += 1
    return build_pyramid(canvas, density)


def _cuts(rng: np.random.Generator, length: int, about: float) -> list[tuple[int, int]]:
    """Splits 0..length into pieces of roughly the given size."""
    number = max(1, round(length / about))
    inner = np.arange(1, number) + rng.uniform(-0.25, 0.25, number - 1)
    ends = np.r_[0, np.round(inner * length / number), length].astype(int).tolist()
    return list(pairwise(ends))


def build_pyramid(canvas: Panel, density: float) -> Texture:
    """The texture of a canvas with `density` texels per metre."""
    block = 1 << LEVELS  # so that the last level has 2 x 2 texels or more
    pad = [(0, -n % block) for n in canvas.shape[:2]]
    level = np.pad(canvas, [*pad, (0, 0)], mode="edge").astype(np.float32)
    words, shapes = [], []
    for _ in range(LEVELS):
        bytes_ = np.zeros((*level.shape[:2], 4), np.uint8)
        bytes_[..., :3] = np.round(level)
        words.append(bytes_.view("<u4").ravel())
        shapes.append(level.shape[:2])
        level = 0.25 * (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2])
    heights, widths = np.array(shapes, np.int32).T
    starts = np.r_[0, np.cumsum([len(w) for w in words[:-1]])].astype(np.int32)
    return Texture(np.concatenate(words), starts, widths, heights, density)


# Procedural panels. Sizes are texels: about two texels fall on a pixel, so shapes of a few texels give fine
# keypoints and larger ones coarse keypoints. Shapes are drawn at twice the size and averaged: smooth edges.


def _noise(
    rng: np.random.Generator, height: int, width: int, coarsest: int, roughness: float
) -> NDArray[np.float32]:
    """Smooth noise (height, width) of mean 0, deviation 1; an octave's amplitude: cell ** -roughness."""
    total = np.zeros((height, width), np.float32)
    cell = coarsest
    while cell >= 1:
        grid = rng.standard_normal((height // cell + 4, width // cell + 4)).astype(np.float32)
        size = (grid.shape[1] * cell, grid.shape[0] * cell)
        octave = np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))
        total += octave[cell : cell + height, cell : cell + width] * float(cell) ** -roughness
        cell //= 2
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6))


def _palette(rng: np.random.Generator, number: int) -> NDArray[np.float64]:
    """Colours (number, 3) around one hue of their own, with much contrast in brightness."""
    hue = rng.uniform(0.85, 1.15, 3)
    return np.clip(rng.uniform(35, 225, (number, 1)) * hue * rng.uniform(0.9, 1.1, (number, 3)), 5, 250)


def _ground(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """A drawing ground twice the panel's size: two colours mixed by smooth noise."""
    low, high = _palette(rng, 2)
    mix = 0.5 + 0.25 * np.clip(_noise(rng, height, width, 64, -0.5), -2, 2)[..., None]
    ground = Image.fromarray((low + (high - low) * mix).astype(np.uint8))
    return ground.resize((2 * width, 2 * height), Image.Resampling.BILINEAR)


def _colour(colour: NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(c) for c in colour)
    return red, green, blue


def _leaves(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Overlapping ellipses and polygons of all sizes, as in natural images."""
    image = _ground(rng, height, width)
    draw = ImageDraw.Draw(image)
    number = height * width // 250
    colours = _palette(rng, number)
    radii = np.sort(7 * (min(height, width) / 14) ** (rng.random(number) ** 2))[::-1]  # small ones lie on top
    centres = rng.uniform(0, 1, (number, 2)) * image.size
    for (x, y), r, colour, corners in zip(centres, radii, colours, rng.integers(2, 7, number), strict=True):
        if corners == 2:
            a, b = r * rng.uniform(0.5, 1.2, 2)
            draw.ellipse((x - a, y - b, x + a, y + b), fill=_colour(colour))
        else:
            angle = np.sort(rng.uniform(0, 2 * np.pi, corners + 1))
            outline = np.c_[x + r * np.cos(angle), y + r * np.sin(angle)]
            draw.polygon([tuple(p) for p in outline.tolist()], fill=_colour(colour))
    return image


def _bricks(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Rows of bricks, each of its own shade, with mortar between and chips at the corners."""
    image = _ground(rng, height, width)
    draw = ImageDraw.Draw(image)
    rise, run = rng.uniform(40, 80), rng.uniform(90, 200)
    base = _palette(rng, 1)[0]
    for k in range(int(image.size[1] / rise) + 1):
        x, y = -rng.uniform(0, run), k * rise
        while x < image.size[0]:
            length = run * rng.uniform(0.6, 1.3)
            box = (x + rng.uniform(2, 6), y + rng.uniform(2, 6), x + length, y + rise)
            draw.rectangle(box, fill=_colour(np.clip(base * rng.uniform(0.5, 1.5), 5, 250)))
            for _ in range(4):
                cx, cy, r = rng.uniform(box[0], box[2]), rng.uniform(box[1], box[3]), rng.uniform(2, 8)
                chip = _colour(np.clip(base * rng.uniform(0.3, 1.7), 5, 250))
                draw.ellipse((cx - r, cy - r * rng.uniform(0.4, 1), cx + r, cy + r), fill=chip)
            x += length
    return image


def _tiles(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Square tiles, each with a motif of its own."""
    image = _ground(rng, height, width)
    draw = ImageDraw.Draw(image)
    side = rng.uniform(60, 130)
    for x in np.arange(0, image.size[0], side):
        for y in np.arange(0, image.size[1], side):
            colours = _palette(rng, 5)
            draw.rectangle((x + 3, y + 3, x + side - 3, y + side - 3), fill=_colour(colours[0]))
            for colour in colours[1:]:
                points = rng.uniform(0.1, 0.9, (int(rng.integers(3, 5)), 2)) * side + (x, y)
                draw.polygon([tuple(p) for p in points.tolist()], fill=_colour(colour))
    return image


def _glyphs(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Lines of invented letters, each of 5 x 7 dots, in several sizes."""
    image = _ground(rng, height, width)
    draw = ImageDraw.Draw(image)
    y = rng.uniform(4, 12)
    while y < image.size[1]:
        dot = rng.uniform(5, 14)
        ink = _colour(_palette(rng, 1)[0])
        x = rng.uniform(0, 6 * dot)
        while x < image.size[0]:
            if rng.random() < 0.85:
                for row, column in np.argwhere(rng.random((7, 5)) < 0.45).tolist():
                    left, top = x + column * dot, y + row * dot
                    draw.rectangle((left, top, left + dot, top + dot), fill=ink)
            x += 6 * dot
        y += 9 * dot
    return image


def _plaster(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Weathered wall: noise of strong contrast, cut into plateaus."""
    noise = _noise(rng, 2 * height, 2 * width, 128, -0.6)
    steps = _palette(rng, 9)
    return Image.fromarray(steps[np.clip(np.floor(4.5 + 2 * noise), 0, 8).astype(int)].astype(np.uint8))


_PANELS: list[Callable[[np.random.Generator, int, int], Image.Image]] = [
    _leaves,
    _bricks,
    _tiles,
    _glyphs,
    _plaster,
]


def _finish(rng: np.random.Generator, drawing: Image.Image) -> Panel:
    """Scratches and grain over a drawing, averaged down to the panel's size."""
    draw = ImageDraw.Draw(drawing)
    width, height = drawing.size
    for colour in _palette(rng, max(1, width * height // 40000)):
        start = rng.uniform(0, 1, 2) * (width, height)
        end = start + rng.normal(0, 60, 2)
        draw.line((*start.tolist(), *end.tolist()), fill=_colour(colour), width=int(rng.integers(2, 5)))
    panel = np.asarray(drawing.reduce(2), np.float32)
    grain = _noise(rng, panel.shape[0], panel.shape[1], 32, -0.5)[..., None]
    return np.clip(panel * (1 + 0.08 * grain), 0, 255).astype(np.uint8)
