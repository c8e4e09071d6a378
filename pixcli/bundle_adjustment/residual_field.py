"""The residual field of a camera: whether what is left of its residuals says that its model is too simple.

Where a lens model fits, residuals average out in every part of the image. What does not average out is in all
images of the camera alike, and no number of observations makes up for it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from pixcli.calibration.diagnosis import Cause
from pixcli.geometry.observations import Observations, reprojection_errors

import pycolmap

log = logging.getLogger(__name__)

Float64 = NDArray[np.float64]

NEXT_MODEL = {
    "SIMPLE_PINHOLE": "SIMPLE_RADIAL",
    "PINHOLE": "OPENCV",
    "SIMPLE_RADIAL": "RADIAL",
    "RADIAL": "OPENCV",
    "OPENCV": "FULL_OPENCV",
    "SIMPLE_DIVISION": "RADIAL",
    "DIVISION": "OPENCV",
    "SIMPLE_FISHEYE": "SIMPLE_RADIAL_FISHEYE",
    "FISHEYE": "OPENCV_FISHEYE",
    "SIMPLE_RADIAL_FISHEYE": "RADIAL_FISHEYE",
    "RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "FOV": "OPENCV_FISHEYE",
    "EUCM": "OPENCV_FISHEYE",
    "OPENCV_FISHEYE": "THIN_PRISM_FISHEYE",
    "THIN_PRISM_FISHEYE": "RAD_TAN_THIN_PRISM_FISHEYE",
}
"""Of COLMAP's camera models, the next one that can follow more; the others have none."""

_OUTLIER = 4.0  # times the median residual: observations beyond say nothing about the lens
_PER_CELL = 30  # observations, on average
_MAX_CELLS = 108  # twelve by nine
_FEWEST = 8  # observations in a cell for its mean to count
_SIGNIFICANCE = 1e-3
_LEAST_SYSTEMATIC = 0.015  # pixels; less is not worth another lens model


@dataclass(frozen=True)
class ResidualField:
    """The mean residual (observed minus projected) of a camera over a grid of its image, r x c cells."""

    camera: int
    model: str
    size: tuple[int, int]
    """Width and height in pixels."""
    images: int
    observations: int
    """Without outliers."""
    noise: float
    """Standard deviation of their residuals in one coordinate, in pixels."""
    count: NDArray[np.int64]
    """(r, c)"""
    mean: Float64
    """(r, c, 2) x and y in pixels; NaN where there are too few observations."""
    standard_error: Float64
    """(r, c, 2)"""
    systematic: float
    """Root mean square length of the field in pixels, without what its standard errors explain."""
    p_value: float
    """How probable such a field is if the residuals average out everywhere."""
    significant: bool
    """The field is no chance, and large enough to matter."""
    held: bool
    """Parameters that are held would explain it, by held-out observations."""
    too_simple: bool
    """So would next_model, and better."""
    next_model: str | None
    """The camera model of COLMAP that can follow more; None if there is no other of its kind."""


Explain = Callable[[Mapping[int, str | None]], Mapping[int, Cause]]
"""What explains the fields of cameras, given with their next model; see find_causes()."""


def residual_fields(
    model: pycolmap.Reconstruction,
    observations: Observations,
    accepted: NDArray[np.bool_],
    explain: Explain | None = None,
) -> list[ResidualField]:
    """The fields of the cameras that have accepted observations, by ascending id; the log explains bad ones.

    Args:
        observations: of the model; xy is what its projections are compared with.
        accepted: (n,) observations that count.
        explain: asked only where fields are significant.
    """
    residual = -reprojection_errors(model, observations)
    counts = accepted & np.isfinite(residual).all(axis=1)
    by_camera: dict[int, list[NDArray[np.int64]]] = {}
    for image_id, rows in observations.by_image.items():
        if counts[rows].any():
            by_camera.setdefault(model.images[image_id].camera_id, []).append(rows[counts[rows]])
    fields = [
        _field(model.cameras[camera_id], images, observations, residual)
        for camera_id, images in sorted(by_camera.items())
    ]
    doubtful = {field.camera: field.next_model for field in fields if field.significant}
    if doubtful and explain is not None:
        causes = explain(doubtful)
        fields = [_explained(field, causes.get(field.camera)) for field in fields]
        _warn(fields)
    return fields


def _explained(field: ResidualField, cause: Cause | None) -> ResidualField:
    if cause is None:
        return field
    return replace(field, held=cause.held, too_simple=cause.model is not None)


def _warn(fields: Sequence[ResidualField]) -> None:
    """One line for each reason, whatever the number of cameras."""
    reasons = {
        "parameters of their lenses are held that would explain it": [f for f in fields if f.held],
        "their camera models are too simple": [f for f in fields if f.too_simple],
    }
    for reason, bad in reasons.items():
        if bad:
            worst = max(bad, key=lambda field: field.systematic)
            models = sorted({f"{f.model}, try {f.next_model}" if f.too_simple else f.model for f in bad})
            log.warning(
                "residuals of %d of %d cameras are systematic (camera %d: %.3f pixels), and %s (%s): "
                "see --Calibration.model auto",
                *(len(bad), len(fields), worst.camera, worst.systematic, reason, "; ".join(models)),
            )


def _field(
    camera: pycolmap.Camera,
    images: Sequence[NDArray[np.int64]],
    observations: Observations,
    residual: Float64,
) -> ResidualField:
    rows = np.concatenate(images)
    image = np.repeat(np.arange(len(images)), [len(members) for members in images])
    length = np.linalg.norm(residual[rows], axis=1)
    kept = length <= _OUTLIER * np.median(length)
    rows, image, r = rows[kept], image[kept], residual[rows[kept]]
    num_rows, num_columns = _grid(len(rows), camera.width, camera.height)
    column = (observations.xy[rows, 0] * num_columns / camera.width).astype(int).clip(0, num_columns - 1)
    row = (observations.xy[rows, 1] * num_rows / camera.height).astype(int).clip(0, num_rows - 1)
    cell, cells = row * num_columns + column, num_rows * num_columns
    count = np.bincount(cell, minlength=cells)
    mean, error = _means(r, cell, count, image, len(images))
    known = count >= _FEWEST
    mean[~known], error[~known] = np.nan, np.nan
    # Fitted cameras have taken up part of the field: with the full degrees of freedom, the test is cautious.
    statistic = float(np.square(mean[known] / error[known]).sum())
    p_value = float(chdtrc(2 * known.sum(), statistic)) if known.any() else 1.0
    excess = (np.square(mean[known]) - np.square(error[known])).sum(axis=1)
    systematic = float(np.sqrt(max(np.average(excess, weights=count[known]), 0))) if known.any() else 0.0
    name = camera.model.name
    return ResidualField(
        camera=camera.camera_id,
        model=name,
        size=(camera.width, camera.height),
        images=len(images),
        observations=len(rows),
        noise=float(np.sqrt(np.mean(np.square(r)))),
        count=count.reshape(num_rows, num_columns),
        mean=mean.reshape(num_rows, num_columns, 2),
        standard_error=error.reshape(num_rows, num_columns, 2),
        systematic=systematic,
        p_value=p_value,
        significant=p_value < _SIGNIFICANCE and systematic > _LEAST_SYSTEMATIC,
        held=False,
        too_simple=False,
        next_model=NEXT_MODEL.get(name),
    )


def _grid(observations: int, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of cells that are about square."""
    cells = float(np.clip(observations / _PER_CELL, 4, _MAX_CELLS))
    rows = max(round(np.sqrt(cells * height / width)), 1)
    return rows, max(round(cells / rows), 1)


def _means(
    residual: Float64,
    cell: NDArray[np.int64],
    count: NDArray[np.int64],
    image: NDArray[np.int64],
    num_images: int,
) -> tuple[Float64, Float64]:
    """(cells, 2) means and their standard errors.

    The larger of two estimates: from all residuals, as if they were independent, and from the sums of each
    image, as residuals of one image may have an error in common.
    """
    mean, error = np.zeros((len(count), 2)), np.zeros((len(count), 2))
    many = np.maximum(count, 1)
    key = image * len(count) + cell
    clusters = np.bincount(np.unique(key) % len(count), minlength=len(count))
    for axis, values in enumerate(residual.T):
        mean[:, axis] = np.bincount(cell, values, len(count)) / many
        rest = values - mean[cell, axis]
        variance = np.bincount(cell, rest**2, len(count)) / np.maximum(count - 1, 1) / many
        sums = np.bincount(key, rest, num_images * len(count)).reshape(num_images, len(count))
        between = np.square(sums).sum(axis=0) / many**2 * clusters / np.maximum(clusters - 1, 1)
        error[:, axis] = np.sqrt(np.maximum(np.maximum(variance, between), 1e-24))
    return mean, error
