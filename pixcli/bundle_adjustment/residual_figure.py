"""Residual fields as a picture: an arrow for each cell of each camera's image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixcli.bundle_adjustment.residual_field import ResidualField

_WIDTH = 560  # of the panel of a camera, in pixels of the picture
_HEADER, _MARGIN = 62, 16
_COLUMNS = 2
_MOST_CAMERAS = 24
_ROUND = np.array([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5])
_SIGNIFICANT = 3.7  # standard errors; in two dimensions, one cell in a thousand by chance
_BACKGROUND, _FRAME, _TEXT = (255, 255, 255), (150, 150, 150), (30, 30, 30)
_GREY, _RED, _RING = (130, 130, 130), (200, 30, 30), (205, 205, 205)


def draw_residual_fields(fields: Sequence[ResidualField]) -> NDArray[np.uint8]:
    """The fields, the most systematic first and at most 24 of them, drawn as (h, w, 3) RGB.

    Arrows point from where points project to where they were measured, red where that is significant. The
    ring at the tip is the standard error. Each panel says how long its arrows are.
    """
    shown = sorted(fields, key=lambda field: -field.systematic)[:_MOST_CAMERAS]
    columns = min(_COLUMNS, max(len(shown), 1))
    panels = [_panel(field) for field in shown]
    rows = [panels[k : k + columns] for k in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    picture = Image.new("RGB", (columns * _WIDTH, max(sum(heights), 1)), _BACKGROUND)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            picture.paste(panel, (column * _WIDTH, top))
        top += height
    return np.asarray(picture)


def _panel(field: ResidualField) -> Image.Image:
    width, height = field.size
    inner = _WIDTH - 2 * _MARGIN
    scale = inner / width
    panel = Image.new("RGB", (_WIDTH, _HEADER + round(height * scale) + _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(panel)
    font = ImageFont.load_default(14)
    title = f"camera {field.camera}, {field.model}, {width} x {height}: {field.images} images, "
    draw.text((_MARGIN, 6), f"{title}{field.observations} observations", _TEXT, font)
    verdict = f"systematic {field.systematic:.3f} px, noise {field.noise:.3f} px"
    if field.held:
        verdict += ": explained by parameters that are held"
    if field.too_simple:
        verdict += ": lens model too simple" + (f", try {field.next_model}" if field.next_model else "")
    draw.text((_MARGIN, 24), verdict, _RED if field.significant else _TEXT, font)
    draw.rectangle((_MARGIN, _HEADER, _MARGIN + inner, _HEADER + round(height * scale)), outline=_FRAME)
    rows, columns = field.mean.shape[:2]
    cell = np.array([inner / columns, height * scale / rows])
    length = np.linalg.norm(field.mean, axis=2)
    if not np.isfinite(length).any():
        return panel
    # A cell is as long as the longest arrows, but never less than what is noise.
    error = np.linalg.norm(field.standard_error, axis=2)
    longest = max(float(np.nanmax(length)), 2 * float(np.nanmedian(error)), 1e-6)
    magnification = 0.9 * cell.min() / longest
    for row, column in np.argwhere(np.isfinite(length)):
        middle = (np.array([column, row]) + 0.5) * cell + (_MARGIN, _HEADER)
        mean, errors = field.mean[row, column], field.standard_error[row, column]
        significant = np.linalg.norm(mean / errors) > _SIGNIFICANT
        tip = middle + magnification * mean
        radii = magnification * errors
        draw.ellipse((*(tip - radii), *(tip + radii)), outline=_RING)
        _arrow(draw, middle, tip, _RED if significant else _GREY)
    key = float(_ROUND[np.abs(np.log(_ROUND / (0.6 * longest))).argmin()])
    start = np.array([_MARGIN, 51.0])
    _arrow(draw, start, start + np.array([key * magnification, 0]), _TEXT)
    draw.text((start[0] + key * magnification + 8, 43), f"{key:g} px", _TEXT, font)
    return panel


def _arrow(
    draw: ImageDraw.ImageDraw,
    start: NDArray[np.float64],
    tip: NDArray[np.float64],
    colour: tuple[int, int, int],
) -> None:
    along = tip - start
    length = float(np.linalg.norm(along))
    draw.line((*start, *tip), colour, width=2)
    if length < 3:
        return
    along /= length
    across = np.array([-along[1], along[0]])
    head = min(7.0, 0.5 * length)
    base = tip - head * along
    left, right = base + 0.5 * head * across, base - 0.5 * head * across
    draw.polygon((*tip, *left, *right), fill=colour)
