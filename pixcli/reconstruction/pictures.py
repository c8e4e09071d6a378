"""The pictures of a report, drawn with Pillow."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.images import read_image

import pycolmap

Array = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

INK, GREY, PAPER = (30, 30, 30), (150, 150, 150), (255, 255, 255)
COLOURS: tuple[Colour, ...] = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
)  # told apart by the colour-blind, too
_FONT = ImageFont.load_default(15)

_HALF = 10
"""Half the width of a zoomed patch, in pixels of the image."""
_ZOOM = 9
_PATCHES = 6


def draw_shifts(
    path: Path,
    graph: MatchGraph,
    pair: int,
    before: Sequence[Array],
    after: Sequence[Array],
    image_path: Path,
) -> None:
    """Two images with the shifts of their matched keypoints, and some keypoints before and after, enlarged.

    Args:
        pair: index of the pair in the graph.
        before, after: (n_i, 2) positions of the keypoints of each image.
    """
    indices = graph.pairs[pair].tolist()
    edges = graph.edges[graph.pair_ptr[pair] : graph.pair_ptr[pair + 1]]
    edges = np.where((graph.image_index[edges[:, 0]] == indices[0])[:, None], edges, edges[:, ::-1])
    rows = [edges[:, side] - graph.offsets[image] for side, image in enumerate(indices)]
    used = np.all([np.isfinite(after[i][rows[side]]).all(axis=1) for side, i in enumerate(indices)], axis=0)
    rows = [some[used] for some in rows]
    grey = [read_image(image_path / graph.images[i].name) for i in indices]
    old = [before[i][rows[side]] for side, i in enumerate(indices)]
    new = [after[i][rows[side]] for side, i in enumerate(indices)]

    width, margin = 1440, 16
    tall = min(700, round(width / sum(image.shape[1] / image.shape[0] for image in grey)))
    scales = [tall / image.shape[0] for image in grey]
    widths = [round(image.shape[1] * scale) for image, scale in zip(grey, scales, strict=True)]
    chosen = _patches(old, new)
    size = (width + 3 * margin, 0)
    step = (size[0] - 2 * margin) // max(len(chosen), 1)
    cell = min((2 * _HALF + 1) * _ZOOM, step // 2 - 6)
    size = (size[0], tall + 106 + 2 * cell + 34 + margin)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    magnified = 25.0
    for side, image in enumerate(grey):
        left, scale = margin + side * (widths[0] + margin), scales[side]
        tone = np.clip(110 + 0.55 * image, 0, 255).astype(np.uint8)
        shown = Image.fromarray(tone).resize((widths[side], tall))
        canvas.paste(shown.convert("RGB"), (left, 40))
        for a, b in zip(old[side], new[side], strict=True):
            start, shift = a * scale + (left, 40), (b - a) * scale * magnified
            end = np.clip(start + shift, (left, 40), (left + widths[side], 40 + tall))
            draw.line([*start, *end], fill=COLOURS[0])
            draw.ellipse([*(start - 1.5), *(start + 1.5)], fill=COLOURS[1])
        draw.text((left, 14), _drawable(graph.images[indices[side]].name), fill=INK, font=_FONT)
    y = 50 + tall
    longer = f"{magnified:.0f} times as long"
    text = f"Shifts of {len(old[0])} matched keypoints from where they were (dots), {longer}"
    draw.text((margin, y), text, INK, _FONT)
    y += 26
    text = "Some of them, enlarged, in the first and in the second image: before (above) and after (below)"
    draw.text((margin, y), text, fill=INK, font=_FONT)
    y += 30
    for column, k in enumerate(chosen):
        for row, positions in enumerate((old, new)):
            for side in (0, 1):
                corner = (margin + column * step + side * (cell + 4), y + row * (cell + 34))
                canvas.paste(_zoomed(grey[side], positions[side][k], cell), corner)
        shift = np.linalg.norm(new[1][k] - old[1][k]), np.linalg.norm(new[0][k] - old[0][k])
        label = f"{shift[1]:.2f} and {shift[0]:.2f} px"
        draw.text((margin + column * step, y + cell + 6), label, fill=GREY, font=_FONT)
    canvas.save(path)


def draw_histograms(path: Path, residuals: Mapping[str, Array]) -> None:
    """Epipolar residuals of the stages, over a logarithmic axis."""
    width, left = 900, 70
    first, top = 72, 96 + 20 * len(residuals)  # the names of the stages, above what is drawn of them
    bottom = top + 320
    canvas = Image.new("RGB", (width, bottom + 80), PAPER)
    draw = ImageDraw.Draw(canvas)
    edges = np.geomspace(0.003, 10, 61)
    share = {
        name: np.histogram(np.minimum(values, edges[-1]), edges)[0] / max(len(values), 1)
        for name, values in residuals.items()
    }
    most = max((values.max() for values in share.values()), default=1.0) or 1.0
    x = left + (width - left - 30) * np.arange(61) / 60
    for tick in (0.01, 0.03, 0.1, 0.3, 1, 3, 10):
        at = np.interp(np.log(tick), np.log(edges), x)
        draw.line([at, top, at, bottom], fill=(230, 230, 230))
        draw.text((at, bottom + 8), f"{tick:g}", fill=INK, font=_FONT, anchor="ma")
    for number, (name, values) in enumerate(share.items()):
        y = bottom - (bottom - top) * values / most
        colour = COLOURS[number % len(COLOURS)]
        draw.line([point for k in range(60) for point in ((x[k], y[k]), (x[k + 1], y[k]))], colour, 3)
        median = np.median(residuals[name]) if len(residuals[name]) else np.nan
        label = f"{name}: median {median:.3f} px"
        draw.text((left, first + 20 * number), label, fill=colour, font=_FONT)
    draw.line([left, bottom, width - 30, bottom], fill=INK)
    draw.text((left, 20), "Distance of matches from their pair's own best epipolar geometry", INK, _FONT)
    draw.text((left, 42), "share of matches of the final model, by Sampson distance", GREY, _FONT)
    draw.text(((left + width) / 2, bottom + 34), "pixels", fill=INK, font=_FONT, anchor="ma")
    canvas.save(path)


def draw_camera_path(path: Path, mapped: pycolmap.Reconstruction, final: pycolmap.Reconstruction) -> None:
    """The cameras from above, before and after refinement; what moved is drawn larger than it is."""
    ids = sorted(set(mapped.reg_image_ids()) & set(final.reg_image_ids()))
    old, new = (np.array([m.images[i].projection_center() for i in ids]) for m in (mapped, final))
    sim = pycolmap.estimate_sim3d(old, new) if len(ids) >= 3 else None
    old = np.asarray(sim * old) if sim is not None else old
    points = np.array([point.xyz for point in final.points3D.values()])
    centre = new.mean(axis=0)
    axes = np.linalg.svd(np.concatenate([new, np.median(points, axis=0)[None]]) - centre)[2][:2]
    flat = [(values - centre) @ axes.T for values in (old, new, points)]
    moved = np.linalg.norm(new - old, axis=1)
    extent = np.ptp(flat[1], axis=0).max() or 1.0
    factor = 0.1 * extent / max(float(moved.max()), 1e-12)
    factor = 10.0 ** np.floor(np.log10(factor)) if factor > 1 else 1.0

    width, margin, top = 900, 60, 60
    shown = np.concatenate([flat[1], np.percentile(flat[2], (5, 95), axis=0)])
    low, span = shown.min(axis=0), np.ptp(shown, axis=0)
    scale = (width - 2 * margin) / (span.max() or 1.0)
    canvas = Image.new("RGB", (width, round(scale * span[1]) + 2 * margin + top), PAPER)
    draw = ImageDraw.Draw(canvas)

    def at(xy: Array) -> Array:
        return np.asarray(margin + scale * (xy - low) + (0, top))

    for point in at(flat[2][:: max(1, len(points) // 10000)]):
        if point[1] > top:
            draw.rectangle([*point, *(point + 1)], fill=(200, 200, 200))
    draw.line([tuple(point) for point in at(flat[1])], fill=(200, 215, 235))
    for a, b in zip(flat[0], flat[1], strict=True):
        end, start = at(b), at(b + factor * (a - b))
        draw.line([*start, *end], fill=COLOURS[0], width=2)
        draw.ellipse([*(end - 4), *(end + 4)], fill=COLOURS[1])
    longer = f"{factor:g} times as long" if factor > 1 else "to scale"
    text = f"{len(ids)} cameras after refinement, and how they got there, {longer}"
    draw.text((20, 14), text, fill=INK, font=_FONT)
    text = f"moved by {np.median(moved):.3g} in the median, {moved.max():.3g} at most (units of the model)"
    draw.text((20, 36), text, fill=GREY, font=_FONT)
    canvas.save(path)


def _drawable(name: str) -> str:
    """A name in the letters that the font has."""
    letters = unicodedata.normalize("NFKD", name)
    return "".join(c if c.isascii() else "?" for c in letters if not unicodedata.combining(c))


def _patches(old: Sequence[Array], new: Sequence[Array]) -> list[int]:
    """Matches to show: spread over the image, of clear but not extreme shift in the second one."""
    shift = np.linalg.norm(new[1] - old[1], axis=1) + np.linalg.norm(new[0] - old[0], axis=1)
    if len(shift) == 0:
        return []
    order = np.argsort(-shift, kind="stable")[int(0.02 * len(shift)) :]
    apart = 0.1 * float(np.ptp(new[0], axis=0).max())
    chosen: list[int] = []
    for k in order.tolist():
        if all(np.linalg.norm(new[0][k] - new[0][other]) > apart for other in chosen):
            chosen.append(k)
        if len(chosen) == _PATCHES:
            break
    return chosen


def _zoomed(image: npt.NDArray[np.float32], centre: Array, size: int) -> Image.Image:
    """What surrounds a position (COLMAP pixels), enlarged, with a cross that marks it."""
    x, y = centre
    box = (x - _HALF - 0.5, y - _HALF - 0.5, x + _HALF + 0.5, y + _HALF + 0.5)
    whole = Image.fromarray(image, "F")
    patch = np.asarray(whole.transform((size, size), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC))
    low, high = np.percentile(patch, (1, 99))
    tone = np.clip(255 * (patch - low) / max(high - low, 1e-6), 0, 255).astype(np.uint8)
    shown = Image.fromarray(tone).convert("RGB")
    draw, middle = ImageDraw.Draw(shown), size / 2
    for gap, end in ((5, middle), (-5, -middle)):
        draw.line([middle + gap, middle, middle + end, middle], fill=COLOURS[0])
        draw.line([middle, middle + gap, middle, middle + end], fill=COLOURS[0])
    return shown
