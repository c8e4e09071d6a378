"""Calibration of a model: which lens explains its observations, and its parameters.

A camera climbs from its own model through richer ones. Every candidate is adjusted to one half of a sample of
the points and judged by the other; the simplest one that no other beats is taken.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pixcli.calibration.held_out import advantage, cells_of, part_of, split_points
from pixcli.calibration.lenses import converted, is_sound, ladder_of
from pixcli.calibration.priors import FocalPrior, FocalPriors
from pixcli.geometry.observations import Observations, points_of
from pixcli.geometry.point_fit import fit_points
from pixcli.options.bundle_adjustment import BundleAdjustmentOptions
from pixcli.options.calibration import CalibrationOptions

log = logging.getLogger(__name__)

Ladders = dict[int, list[str]]
"""By camera: the models to try, its own first."""

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_BETTER = 3.0  # standard errors: a rich model that is ahead by less is not taken
_LEAST = 200  # observations of a group on either side; fewer judge nothing

Adjust = Callable[[pycolmap.Reconstruction, Sequence[float]], None]
"""Adjusts a model in place with Cauchy losses of these scales, in pixels."""


_Group = tuple[tuple[str, ...], int, int]
"""Camera models to try, width and height."""


@dataclass(frozen=True)
class Candidate:
    """A camera model that was tried."""

    model: str
    held_out: float
    """Median residual of held-out observations, in pixels."""
    ahead: float
    """Of the simplest that is as good, in standard errors."""
    chosen: bool


@dataclass(frozen=True)
class LensChoice:
    """What became of cameras that were alike."""

    cameras: list[int]
    model: str
    candidates: list[Candidate]


@dataclass
class _Half:
    """One half of the points in a model of their own, and the other to judge it by."""

    model: pycolmap.Reconstruction
    held_out: Observations
    rows: NDArray[np.int64]
    """(n,) of the held-out observations among all."""
    usable: Bool
    points: Float64
    """Where the held-out points were found last."""

    def judge(self, scale: float) -> Float64:
        """(n,) residuals of the held-out observations in pixels, each point where it fits best."""
        self.points, errors = fit_points(self.model, self.held_out, self.points, self.usable, scale)
        return errors


def cameras_to_calibrate(
    model: pycolmap.Reconstruction,
    options: CalibrationOptions,
    adjustment: BundleAdjustmentOptions,
    constant: Collection[int],
) -> FocalPriors:
    """The cameras whose lens is to be found, with their focal lengths; the log says why there are none.

    Args:
        constant: ids of cameras that stay as they are.
    """
    if options.model == "keep":
        return {}
    if not (adjustment.refine_focal_length and adjustment.refine_extra_params):
        log.info("the lenses are kept, as focal lengths or distortion are held")
        return {}
    used = {model.images[image_id].camera_id for image_id in model.reg_image_ids()}
    flat = {k for k in used if not model.cameras[k].is_spherical()}
    if not flat:
        log.info("all cameras are spherical: there is nothing to calibrate")
    elif not flat - set(constant):
        log.info("all cameras are held constant: there is nothing to calibrate")
    return {k: FocalPrior.of(model.cameras[k]) for k in sorted(flat - set(constant))}


def ladders(
    model: pycolmap.Reconstruction, options: CalibrationOptions, lenses: FocalPriors
) -> Ladders:
    """The camera models to try for the cameras of a model as it was read."""
    return {k: _ladder(model.cameras[k], options) for k in sorted(lenses)}


def calibrate(
    model: pycolmap.Reconstruction,
    observations: Observations,
    usable: Bool,
    ladders: Ladders,
    adjust: Adjust,
    scales: Sequence[float],
) -> list[LensChoice]:
    """Find the lenses of a model and put them into it, with poses and points that go with them.

    Args:
        observations: of the model; xy as its 2D points have them.
        usable: (n,) those that are to judge; the others may be anywhere.
        ladders: of the cameras to calibrate.
        adjust: refines poses, points and these cameras with a free principal point.
        scales: of its losses, in pixels; the last one is that of the residuals.
    """
    groups = _groups(model, observations, ladders)
    cell = cells_of(model, observations)
    split = split_points(cell, observations, usable)
    halves = [_half(model, observations, usable, *pair) for pair in (split, split[::-1])]
    rows = np.concatenate([half.rows for half in halves])
    camera_of = np.array([model.images[k].camera_id for k in observations.image_ids[rows].tolist()])
    counts = usable[rows]
    tried: dict[_Group, dict[str, Float64]] = {key: {} for key in groups}
    steps = max(len(names) for names, *_ in groups)
    for step in range(steps if steps > 1 else 0):
        names = {key: key[0][min(step, len(key[0]) - 1)] for key in groups}
        for half in halves:
            for key, cameras in groups.items():
                for camera_id in cameras:
                    _become(half.model, camera_id, names[key])
            adjust(half.model, scales)
        found = np.concatenate([half.judge(scales[-1]) for half in halves])
        for key, cameras in groups.items():
            sound = all(is_sound(half.model.cameras[k]) for half in halves for k in cameras)
            if sound and names[key] not in tried[key]:
                tried[key][names[key]] = found
    choices = []
    for key, cameras in groups.items():
        mine = counts & np.isin(camera_of, cameras)
        choices.append(_choose(cameras, key[0], tried[key], mine, cell[rows]))
    # The lenses, poses and points of one half are near to those of the whole.
    for choice in choices:
        for camera_id in choice.cameras:
            _become(model, camera_id, choice.model)
    adjust(model, scales)
    return choices


def _groups(
    model: pycolmap.Reconstruction, observations: Observations, ladders: Ladders
) -> dict[_Group, list[int]]:
    """The cameras to calibrate by what they may become and size: alike, they are judged together."""
    used = {model.images[image_id].camera_id for image_id in observations.by_image}
    groups: dict[_Group, list[int]] = {}
    for camera_id in sorted(used & ladders.keys()):
        camera = model.cameras[camera_id]
        groups.setdefault((tuple(ladders[camera_id]), camera.width, camera.height), []).append(camera_id)
    return groups


def _ladder(camera: pycolmap.Camera, options: CalibrationOptions) -> list[str]:
    if options.model == "keep":
        return [camera.model.name]
    if options.model != "auto":
        return [options.model]
    return ladder_of(camera, options.candidate_models)


def _become(model: pycolmap.Reconstruction, camera_id: int, name: str) -> None:
    camera = model.cameras[camera_id]
    if camera.model.name != name:
        lens = converted(camera, name)
        camera.model = lens.model
        camera.params = lens.params


def _half(
    model: pycolmap.Reconstruction,
    observations: Observations,
    usable: Bool,
    fitted: NDArray[np.int64],
    held_out: NDArray[np.int64],
) -> _Half:
    work = pycolmap.Reconstruction(model)
    kept = {*observations.point_ids[fitted].tolist()}
    for point_id in sorted(work.point3D_ids() - kept):
        work.delete_point3D(point_id)
    part, rows = part_of(observations, held_out)
    return _Half(work, part, rows, usable[rows], points_of(model, part))


def _choose(
    cameras: list[int],
    ladder: tuple[str, ...],
    tried: dict[str, Float64],
    mine: Bool,
    block: NDArray[np.int64],
) -> LensChoice:
    """The simplest model of those tried, in their order, that none is better than."""
    names = list(tried)
    if mine.sum() < _LEAST or not names:
        return LensChoice(cameras, ladder[0], [])
    errors = {name: tried[name][mine] for name in names}
    medians = {name: float(np.median(errors[name])) for name in names}
    scale = 2 * max(min(medians.values()), 0.01)
    chosen = names[0]
    for name in names[1:]:
        if advantage(errors[chosen], errors[name], scale, block[mine]) > _BETTER:
            chosen = name
    ahead = {name: advantage(errors[chosen], errors[name], scale, block[mine]) for name in names}
    return LensChoice(
        cameras,
        chosen,
        [Candidate(name, medians[name], ahead[name], name == chosen) for name in names],
    )
