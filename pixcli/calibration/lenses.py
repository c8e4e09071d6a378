"""Lenses: which of COLMAP's camera models may follow one another, and how one becomes another."""

from copy import copy
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from pixcli.calibration.lens_priors import distortion_deviations

import pycolmap

Float64 = NDArray[np.float64]

LADDER = (
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "OPENCV_FISHEYE",
    "FULL_OPENCV",
    "THIN_PRISM_FISHEYE",
    "RAD_TAN_THIN_PRISM_FISHEYE",
)
"""What a camera may become, simple ones first. Both families are there: they differ only in what their
polynomials are of, and a wide lens is often mapped with a perspective model."""


class Rung(NamedTuple):
    """What a camera may be: a camera model, with its principal point free or held where it is."""

    model: str
    centred: bool = False
    """Held."""

    def __str__(self) -> str:
        return f"{self.model}, principal point held" if self.centred else self.model


_GRID = 15  # points along each side of the image that a conversion fits
_SOUND = 0.5  # pixels; a pixel's ray must project back to it


def ladder_of(camera: pycolmap.Camera, candidates: tuple[str, ...] | None) -> list[Rung]:
    """What to try for a camera: its own model, centred and free, then simple ones before rich ones.

    Args:
        candidates: what it may become; None: anything of LADDER that has more parameters.
    """
    own, count = camera.model.name, len(camera.params)
    if candidates is None:
        others = [name for name in LADDER if num_params(name) > count]
    else:
        others = sorted(set(candidates), key=lambda name: (num_params(name), name))
    return [Rung(own, centred=True), Rung(own), *(Rung(name) for name in others if name != own)]


def num_params(model: str) -> int:
    """How many parameters a camera model has."""
    return len(pycolmap.Camera.create_from_model_name(0, model, 1.0, 2, 2).params)


def converted(camera: pycolmap.Camera, model: str) -> pycolmap.Camera:
    """The camera of this model that projects most alike over the image (least squares on a grid)."""
    result = copy(camera)
    if camera.model.name == model:
        return result
    focal = float(np.mean(camera.params[camera.focal_length_idxs()]))
    start = pycolmap.Camera.create_from_model_name(
        camera.camera_id, model, focal, camera.width, camera.height
    )
    params = start.params.copy()
    params[start.principal_point_idxs()] = camera.params[camera.principal_point_idxs()]
    result.model = start.model
    result.params = params
    x, y = np.meshgrid(
        np.linspace(0.5, camera.width - 0.5, _GRID), np.linspace(0.5, camera.height - 0.5, _GRID)
    )
    seen = np.stack([x.ravel(), y.ravel()], 1)
    rays = np.asarray(camera.cam_from_img(seen), float)
    known = np.isfinite(rays).all(axis=1)
    seen, rays = seen[known], np.column_stack([rays[known], np.ones(known.sum())])
    scale = _scales(result)
    trial = copy(result)

    def residuals(values: Float64) -> Float64:
        trial.params = values
        difference = np.asarray(trial.img_from_cam(rays), float) - seen
        # A weak pull towards no distortion: what the image does not tell apart stays small.
        pull = 1e-3 * (values - params) / scale
        return np.concatenate([np.nan_to_num(difference, nan=1e3).ravel(), pull])

    result.params = least_squares(residuals, params, x_scale=scale, max_nfev=50).x
    return result


def is_sound(camera: pycolmap.Camera) -> bool:
    """Whether every pixel has one ray, and parameters are those of a lens."""
    params = camera.params
    longer = max(camera.width, camera.height)
    focal = params[camera.focal_length_idxs()]
    centre = params[camera.principal_point_idxs()]
    if not (np.isfinite(params).all() and (focal > 0.1 * longer).all() and (focal < 100 * longer).all()):
        return False
    if (centre < 0).any() or (centre > (camera.width, camera.height)).any():
        return False
    x, y = np.meshgrid(np.linspace(0, camera.width, _GRID), np.linspace(0, camera.height, _GRID))
    seen = np.stack([x.ravel(), y.ravel()], 1)
    rays = np.asarray(camera.cam_from_img(seen), float)
    if not np.isfinite(rays).all():
        return False
    back = np.asarray(camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))])), float)
    return bool((np.linalg.norm(back - seen, axis=1) < _SOUND).all())


def _scales(camera: pycolmap.Camera) -> Float64:
    """What a parameter may change by, for the solver to step alike in all."""
    longer = max(camera.width, camera.height)
    scale = np.ones(len(camera.params))
    scale[camera.focal_length_idxs()] = 0.1 * camera.mean_focal_length()
    scale[camera.principal_point_idxs()] = 0.015 * longer
    scale[camera.extra_params_idxs()] = distortion_deviations(camera)
    return scale
