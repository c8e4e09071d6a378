"""The JSON report of a run."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .files import replacing

SCHEMA = 1
"""Raised by one whenever a key changes its meaning or disappears; new keys do not count."""


def write_report(path: str | os.PathLike[str], command: str, contents: Mapping[str, Any]) -> None:
    """Write {"schema", "command", **contents}, in this order, as JSON.

    Contents may hold dataclasses, enums, paths, NumPy scalars and arrays. JSON knows no NaN and no infinity:
    they become null. A report of feature_refiner holds: `options` (by group), `input` (images, keypoints,
    pairs, edges, tracks), `keypoints` (count for each status), `shift` (median, p90, max in pixels), `cost`
    (before, after), `verification`, `phases` (list of name, seconds, peak_memory_mb).

    One of featuremetric_bundle_adjuster holds: `options`, `model` (images, missing_images, points,
    observations), `residual` (before, after: median over the points of their mean reprojection error in
    pixels), `cost` (before, after: sums over the images, of the last loop), `rounds` (see SurfaceRound),
    `gated` (count for each reason), `textureless_points`, `restored_points`, `loops` (see TrackRevision),
    `database` (see DatabaseChange), `prior_distance`, `images` (name, observations, before, after, restored:
    see ImageCost), `image_residuals` (name, before, after: see ResidualChange), `poses` (name, rotation,
    centre, baselines, jumped: see PoseChange), `focal_lengths` (camera, change, jumped), `residual_fields`
    (see ResidualField), `phases`.
    """
    report = {"schema": SCHEMA, "command": command, **contents}
    with replacing(path) as temporary:
        text = json.dumps(plain(report), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_figure(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write (h, w, 3) RGB as a PNG file, which goes with a report."""
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG")


def plain(value: Any) -> Any:
    """The same value, of nothing but what JSON knows; NaN and infinity become null."""
    if isinstance(value, Enum):
        return value.name.lower()
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
