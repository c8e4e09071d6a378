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
_HOPE = 1.0  # standard errors: where no model is ahead by more, there is no better one to be found
_HOPELESS = -6.0  # standard errors: models that were so far behind are not tried again
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


class _Search:
    """The search for the simplest camera model that no other beats, one model at a time.

    The first and the richest come first: where the richest is hardly ahead, there is nothing to find, and most
    models need not be tried.
    """

    def __init__(self, ladder: Sequence[str]) -> None:
        self._ladder = ladder
        self._errors: dict[str, Float64] = {}
        self._block = np.empty(0, np.int64)
        self._waiting = [*ladder[:1], *ladder[:0:-1][:1], *ladder[1:-1]] if len(ladder) > 1 else []
        self.chosen = ladder[0]

    @property
    def next(self) -> str | None:
        """The model to try."""
        return self._waiting[0] if self._waiting else None

    @property
    def tried(self) -> bool:
        return bool(self._errors)

    def judge(self, errors: Float64 | None, block: NDArray[np.int64]) -> None:
        """What the model to try left of held-out observations (n,), in pixels, of blocks (n,); None: no lens."""
        name = self._waiting.pop(0)
        self._block = block
        if errors is None:
            return
        self._errors[name] = errors
        if len(errors) < _LEAST:
            self._waiting = []
            return
        tried = [model for model in self._ladder if model in self._errors]
        self.chosen = tried[0]
        for model in tried[1:]:
            if self._ahead(model, self.chosen) > _BETTER:
                self.chosen = model
        best = max(tried, key=lambda model: self._ahead(model, self.chosen))
        simpler = self._ladder[: self._ladder.index(self.chosen)]
        if len(tried) > 1 and self._ahead(best, self.chosen) < _HOPE:
            self._waiting = [model for model in self._waiting if model in simpler]

    def candidates(self) -> list[Candidate]:
        """What was tried, in the order of the ladder."""
        return [
            Candidate(
                model, float(np.median(self._errors[model])), self._ahead(model, self.chosen), model == self.chosen
            )
            for model in self._ladder
            if model in self._errors and self.chosen in self._errors
        ]

    def _ahead(self, model: str, other: str) -> float:
        if model == other:
            return 0.0
        mine, theirs = self._errors[model], self._errors[other]
        scale = 2 * max(min(float(np.median(e)) for e in self._errors.values()), 0.01)
        return advantage(theirs, mine, scale, self._block)


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


def without_hopeless(ladders: Ladders, choices: Sequence[LensChoice]) -> Ladders:
    """The models worth trying again with better observations."""
    hopeless = {
        (camera_id, candidate.model)
        for choice in choices
        for camera_id in choice.cameras
        for candidate in choice.candidates
        if candidate.ahead < _HOPELESS
    }
    return {k: [name for name in names if (k, name) not in hopeless] for k, names in ladders.items()}


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
    search = {key: _Search(key[0]) for key in groups}
    while any(state.next is not None for state in search.values()):
        names = {key: state.next or state.chosen for key, state in search.items()}
        first = not any(state.tried for state in search.values())
        for half in halves:
            for key, cameras in groups.items():
                for camera_id in cameras:
                    _become(half.model, camera_id, names[key])
            adjust(half.model, scales if first else scales[-1:])
        errors = np.concatenate([half.judge(scales[-1]) for half in halves])
        for key, cameras in groups.items():
            if search[key].next is not None:
                mine = counts & np.isin(camera_of, cameras)
                sound = all(is_sound(half.model.cameras[k]) for half in halves for k in cameras)
                search[key].judge(errors[mine] if sound else None, cell[rows][mine])
    for key, cameras in groups.items():
        for camera_id in cameras:
            _become(model, camera_id, search[key].chosen)
    adjust(model, scales)
    return [LensChoice(cameras, search[key].chosen, search[key].candidates()) for key, cameras in groups.items()]


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
