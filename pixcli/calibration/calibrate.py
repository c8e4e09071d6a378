"""Calibration of a model: which lens explains its observations, and which cameras are one.

A camera climbs from its own model through richer ones. Every candidate is adjusted to one half of a sample of
the points and judged by the other; the simplest one that no other beats is taken.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixcli.calibration.held_out import cells_of, part_of, split_points
from pixcli.calibration.lens_priors import FocalPrior, FocalPriors
from pixcli.calibration.lenses import Rung, converted, is_sound, ladder_of
from pixcli.calibration.search import Candidate, Search
from pixcli.calibration.sharing import alike, may_share, share
from pixcli.geometry.observations import Observations, points_of
from pixcli.geometry.point_fit import fit_points
from pixcli.options.bundle_adjustment import BundleAdjustmentOptions
from pixcli.options.calibration import CalibrationOptions

import pycolmap

log = logging.getLogger(__name__)

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_FEWEST_IMAGES = 3  # of cameras that are alike: with fewer, they stay what they are
_HOPELESS = -6.0  # standard errors: models that were so far behind are not tried again

Ladders = Mapping[int, Sequence[Rung]]
"""By camera: what to try, its own model first."""


Adjust = Callable[[pycolmap.Reconstruction, Sequence[float], Collection[int]], object]
"""Refines poses, points and the lenses of the cameras to calibrate, with Cauchy losses of these scales
(pixels) and weak priors on the lenses. The principal points of the cameras named are held."""


@dataclass(frozen=True)
class LensChoice:
    """What became of cameras that are alike: of one camera model and size."""

    cameras: list[int]
    """Those that are left, if some share now."""
    before: str
    model: str
    centred: bool
    """Their principal points are held: free ones are not better."""
    candidates: list[Candidate]
    merged: list[list[int]]
    """Cameras that became one, under the first id of each group."""
    differences: Mapping[int, Float64]
    """(k,) by camera: how much the lenses of two halves of the sample differ."""
    part: float
    """Observations of a half among all."""


_Group = tuple[tuple[Rung, ...], int, int]
"""What to try, width and height."""


def centred_cameras(choices: Sequence[LensChoice]) -> frozenset[int]:
    """Ids of the cameras whose principal point is held near the middle."""
    return frozenset(k for choice in choices if choice.centred for k in choice.cameras)


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
        return {}
    used = {model.images[image_id].camera_id for image_id in model.reg_image_ids()}
    flat = {k for k in used if not model.cameras[k].is_spherical()}
    if not flat:
        log.info("lenses are kept: the cameras are spherical, there is nothing to calibrate")
    elif not flat - set(constant):
        log.info("lenses are kept: all cameras are held constant")
    return {k: FocalPrior.of(model.cameras[k]) for k in sorted(flat - set(constant))}


def ladders_of(
    model: pycolmap.Reconstruction,
    options: CalibrationOptions,
    adjustment: BundleAdjustmentOptions,
    cameras: Iterable[int],
) -> Ladders:
    """What to try for cameras, as the model has them before anything is calibrated."""
    if options.model not in ("auto", "keep"):
        return {k: [Rung(options.model)] for k in cameras}
    ladders = {k: ladder_of(model.cameras[k], options.candidate_models) for k in cameras}
    if adjustment.refine_principal_point:
        return {k: [rung for rung in ladder if not rung.centred] for k, ladder in ladders.items()}
    return ladders


def without_hopeless(ladders: Ladders, choices: Sequence[LensChoice]) -> Ladders:
    """The models worth trying again with better observations, and the own ones to compare with."""
    hopeless = {
        (camera_id, Rung(candidate.model, candidate.centred))
        for choice in choices
        for camera_id in choice.cameras
        for candidate in choice.candidates
        if candidate.ahead < _HOPELESS
    }
    return {
        k: [*ladder[:1], *(rung for rung in ladder[1:] if (k, rung) not in hopeless)]
        for k, ladder in ladders.items()
    }


def calibrate(
    model: pycolmap.Reconstruction,
    observations: Observations,
    measured: Bool,
    ladders: Ladders,
    adjust: Adjust,
    scales: Sequence[float],
) -> list[LensChoice]:
    """Find the lenses of a model and put them into it, with poses and points that go with them.

    Args:
        observations: of the model; xy as its 2D points have them.
        measured: (n,) those that judge; the others may be anywhere.
        ladders: of the cameras to calibrate.
        adjust: see there.
        scales: of the losses, in pixels; with the last one, candidates are compared.
    """
    groups = _groups(model, observations, ladders)
    halves = Halves(model, observations, measured)
    searches = _search(halves, groups, adjust, scales)
    chosen = {key: search.chosen for key, search in searches.items()}
    for key, cameras in groups.items():
        become(model, cameras, chosen[key].model)
    adjust(model, scales, _centred(groups, chosen))
    return [
        LensChoice(
            cameras=cameras,
            before=key[0][0].model,
            model=chosen[key].model,
            centred=chosen[key].centred,
            candidates=searches[key].candidates(),
            merged=[],
            differences=searches[key].differences,
            part=halves.part,
        )
        for key, cameras in groups.items()
    ]


def share_lenses(
    model: pycolmap.Reconstruction, choices: Sequence[LensChoice], covariances: Mapping[int, Float64]
) -> list[LensChoice]:
    """Make one camera of those that agree, before the model is adjusted once more; what the choices are then.

    Args:
        covariances: of the cameras, by the observations that the model was adjusted to.
    """
    merged = [agreeing(model, choice, covariances) for choice in choices]
    share(model, [group for found in merged for group in found])
    gone = {camera_id for found in merged for group in found for camera_id in group[1:]}
    return [
        replace(choice, cameras=[k for k in choice.cameras if k not in gone], merged=found)
        for choice, found in zip(choices, merged, strict=True)
    ]


def inflation(choice: LensChoice, covariances: Mapping[int, Float64]) -> float:
    """How many times further the lenses of two halves of the points are apart than predicted, at least 1.

    Neighbours have errors in common, which residuals do not show.

    Args:
        covariances: of the lenses from all observations.
    """
    squares, count = 0.0, 0
    for camera_id, difference in choice.differences.items():
        if camera_id in covariances and covariances[camera_id].shape == (len(difference),) * 2:
            predicted = 2 * covariances[camera_id] / max(choice.part, 1e-9)
            squares += float(difference @ np.linalg.solve(predicted, difference))
            count += len(difference)
    return float(np.sqrt(max(squares / count, 1.0))) if count else 1.0


def agreeing(
    model: pycolmap.Reconstruction, choice: LensChoice, covariances: Mapping[int, Float64]
) -> list[list[int]]:
    """Groups of two cameras or more that, by their parameters, may be one."""
    factor = inflation(choice, covariances) ** 2
    cameras = [k for k in choice.cameras if k in covariances and may_share(model, k)]
    params = {k: np.array(model.cameras[k].params) for k in cameras}
    groups = alike(params, {k: factor * covariances[k] for k in cameras})
    return [group for group in groups if len(group) > 1]


@dataclass
class _Half:
    """One half of the points in a model of their own, and the other to judge it by."""

    model: pycolmap.Reconstruction
    held_out: Observations
    rows: NDArray[np.int64]
    """(n,) of the held-out observations among all."""
    measured: Bool
    points: Float64
    """Where the held-out points were found last."""

    def judge(self, scale: float) -> Float64:
        """(n,) residuals of the held-out observations in pixels, each point where it fits best."""
        self.points, errors = fit_points(self.model, self.held_out, self.points, self.measured, scale)
        return errors


class Halves:
    """Both halves, and what their held-out observations have in common."""

    def __init__(self, model: pycolmap.Reconstruction, observations: Observations, measured: Bool) -> None:
        cell = cells_of(model, observations)
        split = split_points(cell, observations, measured)
        self.halves = [_half(model, observations, measured, *pair) for pair in (split, split[::-1])]
        rows = np.concatenate([half.rows for half in self.halves])
        self.measured = measured[rows]
        self.cell = cell[rows]
        self.camera = np.array([model.images[k].camera_id for k in observations.image_ids[rows].tolist()])
        self.part = len(rows) / 2 / max(len(observations.image_ids), 1)
        """Observations of a half among all."""

    def of(self, cameras: Sequence[int]) -> Bool:
        """(n,) measured observations of these cameras."""
        return np.asarray(self.measured & np.isin(self.camera, cameras))

    def judge(self, scale: float) -> Float64:
        """(n,) residuals of the held-out observations of both, in pixels."""
        return np.concatenate([half.judge(scale) for half in self.halves])


def _search(
    halves: Halves, groups: Mapping[_Group, list[int]], adjust: Adjust, scales: Sequence[float]
) -> dict[_Group, Search]:
    searches = {key: Search(key[0]) for key in groups}
    remaining = scales
    while any(search.next is not None for search in searches.values()):
        trial = {key: search.next or search.chosen for key, search in searches.items()}
        for half in halves.halves:
            for key, cameras in groups.items():
                become(half.model, cameras, trial[key].model)
            adjust(half.model, remaining, _centred(groups, trial))
        remaining = scales[-1:]
        errors = halves.judge(scales[-1])
        for key, cameras in groups.items():
            if searches[key].next is not None:
                mine = halves.of(cameras)
                lenses = [[half.model.cameras[k] for k in cameras] for half in halves.halves]
                fits = [
                    {k: np.array(half.model.cameras[k].params) for k in cameras} for half in halves.halves
                ]
                sound = all(is_sound(lens) for half in lenses for lens in half)
                searches[key].judge(errors[mine] if sound else None, halves.cell[mine], fits)
    return searches


def _centred(groups: Mapping[_Group, list[int]], rungs: Mapping[_Group, Rung]) -> set[int]:
    """The cameras whose principal point is held."""
    return {camera_id for key, cameras in groups.items() if rungs[key].centred for camera_id in cameras}


def _groups(
    model: pycolmap.Reconstruction, observations: Observations, ladders: Ladders
) -> dict[_Group, list[int]]:
    """The cameras to calibrate by what they may become and size: alike, they are judged together."""
    used = {model.images[image_id].camera_id for image_id in observations.by_image}
    groups: dict[_Group, list[int]] = {}
    for camera_id in sorted(used & ladders.keys()):
        camera = model.cameras[camera_id]
        groups.setdefault((tuple(ladders[camera_id]), camera.width, camera.height), []).append(camera_id)
    count = Counter(model.images[image_id].camera_id for image_id in observations.by_image)
    few = {key for key, cameras in groups.items() if sum(count[k] for k in cameras) < _FEWEST_IMAGES}
    return {(key[0][:1], *key[1:]) if key in few else key: cameras for key, cameras in groups.items()}


def become(model: pycolmap.Reconstruction, cameras: Iterable[int], name: str) -> None:
    """Give cameras this camera model, projecting as they did as far as it can; those that have it stay."""
    for camera_id in cameras:
        camera = model.cameras[camera_id]
        if camera.model.name != name:
            lens = converted(camera, name)
            camera.model = lens.model
            camera.params = lens.params


def _half(
    model: pycolmap.Reconstruction,
    observations: Observations,
    measured: Bool,
    fitted: NDArray[np.int64],
    held_out: NDArray[np.int64],
) -> _Half:
    work = pycolmap.Reconstruction(model)
    kept = {*observations.point_ids[fitted].tolist()}
    for point_id in sorted(work.point3D_ids() - kept):
        work.delete_point3D(point_id)
    part, rows = part_of(observations, held_out)
    return _Half(work, part, rows, measured[rows], points_of(model, part))
