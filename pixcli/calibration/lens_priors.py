"""What is known of a lens before anything is measured: weak priors, for what measurements do not determine.

Lenses as they are made: the principal point lies within some percents of the middle, pixels are square,
distortion moves the corners of an image by a fraction of their distance. Each prior is much weaker than what
a few images of a scene with depth tell.
"""

from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli.ceres import pyceres

import pycolmap

Float64 = NDArray[np.float64]

PRINCIPAL_POINT = 0.015  # of the longer side: its standard deviation
ASPECT_RATIO = 0.01
FOCAL_LENGTH = 0.5  # of the focal length, where the mapper found it, ...
_HELD = 1e-4  # pixels; deviation of a principal point that is held
KNOWN_FOCAL_LENGTH = 0.1  # ... and where EXIF or the user said it
# By how much of its distance from the middle a parameter moves a corner of the image, standard deviation: the
# first radial one, the other radial ones, and those of lenses whose elements are tilted or off their axis.
_FIRST, _RADIAL, _DECENTRED = 0.2, 0.1, 0.003

_DECENTRED_NAMES = ("p", "s")
_FIRST_NAMES = ("k", "k0", "k1", "omega", "alpha")


@dataclass(frozen=True)
class FocalPrior:
    """The focal length of a camera as it was given."""

    length: float
    """Pixels, the mean of both axes."""
    known: bool
    """By EXIF or the user, not by the mapper."""
    centred: bool = False
    """The principal point is held where it is."""

    @classmethod
    def of(cls, camera: pycolmap.Camera) -> "FocalPrior":
        return cls(camera.mean_focal_length(), bool(camera.has_prior_focal_length))


FocalPriors = Mapping[int, FocalPrior]
"""Of the cameras that are calibrated, by id."""


def centred_lenses(priors: FocalPriors, centred: Collection[int]) -> FocalPriors:
    """The same with the principal points of these cameras held."""
    return {k: replace(prior, centred=k in centred) for k, prior in priors.items()}


def lens_prior(camera: pycolmap.Camera, focal: FocalPrior) -> tuple[Float64, Float64]:
    """(k,) mean and (k, k) covariance of the camera's parameters.

    Its own values play no part, but for a principal point that is held.
    """
    plain = pycolmap.Camera.create_from_model_name(
        camera.camera_id, camera.model.name, focal.length, camera.width, camera.height
    )
    variance = np.zeros((len(plain.params), len(plain.params)))
    spread = KNOWN_FOCAL_LENGTH if focal.known else FOCAL_LENGTH
    axes = plain.focal_length_idxs()
    along, across = (focal.length * spread) ** 2, (focal.length * ASPECT_RATIO) ** 2 / 4
    variance[np.ix_(axes, axes)] = along
    if len(axes) == 2:
        variance[np.ix_(axes, axes)] += across * np.array([[1, -1], [-1, 1]])
    mean = plain.params.copy()
    for index in plain.principal_point_idxs():
        deviation = PRINCIPAL_POINT * max(camera.width, camera.height)
        if focal.centred:
            mean[index], deviation = camera.params[index], _HELD
        variance[index, index] = deviation**2
    extra = plain.extra_params_idxs()
    variance[extra, extra] = distortion_deviations(plain) ** 2
    return mean, variance


def distortion_deviations(camera: pycolmap.Camera) -> Float64:
    """(d,) standard deviations of the distortion parameters of a camera's model, for its focal length."""
    plain = pycolmap.Camera.create_from_model_name(
        camera.camera_id, camera.model.name, camera.mean_focal_length(), camera.width, camera.height
    )
    names = [name.strip() for name in plain.params_info.split(",")]
    corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * (camera.width, camera.height)
    rays = np.asarray(plain.cam_from_img(corners), float)
    rays = np.column_stack([rays, np.ones(4)])
    half_diagonal = 0.5 * np.hypot(camera.width, camera.height)
    deviations = []
    for index in plain.extra_params_idxs():
        name = names[index]
        step = 1e-4
        bent = copy(plain)
        params = plain.params.copy()
        params[index] += step
        bent.params = params
        moved = np.asarray(bent.img_from_cam(rays), float) - np.asarray(plain.img_from_cam(rays), float)
        slope = float(np.sqrt(np.mean(np.square(moved).sum(axis=1)))) / step
        fraction = _DECENTRED if name[0] in _DECENTRED_NAMES else _FIRST if name in _FIRST_NAMES else _RADIAL
        # A parameter that moves nothing while the others are zero (EUCM's beta) is of the order of one.
        deviations.append(min(fraction * half_diagonal / max(slope, 1e-9), 10.0))
    return np.array(deviations)


def add_lens_priors(
    problem: Any,
    cameras: Mapping[int, tuple[pycolmap.Camera, FocalPrior]],
    params: Mapping[int, Float64],
    scale: float,
) -> list[Any]:
    """Adds the priors of the cameras that vary to a pyceres.Problem.

    Args:
        params: the parameter blocks of the cameras.
        scale: of the residuals' robust loss in pixels, which takes them for as exact.

    Returns:
        What must live as long as the problem.
    """
    kept = []
    for camera_id, (camera, focal) in cameras.items():
        block = params[camera_id]
        if not problem.has_parameter_block(block) or problem.is_parameter_block_constant(block):
            continue
        mean, variance = lens_prior(camera, focal)
        cost = pyceres.factors.NormalPrior(mean, variance / scale**2)
        problem.add_residual_block(cost, None, [block])
        kept.append(cost)
    return kept
