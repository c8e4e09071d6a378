"""The guard of a refined model: an image whose own cost rose goes back to its pose."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixcli.bundle_adjustment.problem import Constants
from pixcli.geometry.observations import Observations, points_of, reprojection_errors
from pixcli.geometry.point_fit import cauchy, fit_points

import pycolmap

log = logging.getLogger(__name__)

Costs = Mapping[int, float]
"""By image id."""

_RISE = 1e-3  # of a cost, relative: less is the solver's tolerance, not harm; ...
_POSE_PARAMETERS = 6  # ... nor is what so many observations cost: a pose fits as much of their noise
_SCALES = (0.02, 0.25)  # pixels; least and largest scale of the loss that images are judged by
_STRAY = 4.0  # pixels; COLMAP's mapper filters points whose mean reprojection error is larger
_FEW = 10  # accepted observations; an image with fewer is judged by all that it has


@dataclass(frozen=True)
class ImageCost:
    """What the observations of an image cost, in the unit of the strategy."""

    name: str
    observations: int
    """Those that count."""
    before: float
    after: float
    """As the model is written."""
    restored: bool
    """It had risen, and the image went back to its pose."""


def guard_reprojections(
    before: pycolmap.Reconstruction,
    model: pycolmap.Reconstruction,
    observations: Observations,
    accepted: NDArray[np.bool_],
    constants: Constants,
    refine_points: bool = True,
) -> list[ImageCost]:
    """Restores the images of a model that was adjusted to these observations, where their own cost rose.

    An image costs Cauchy's loss of the reprojection errors of its accepted observations, in pixels squared,
    measured alike before and after: to the same observations, with points that fit them best for the poses in
    question. Else the old poses would pay for points that were fitted to other observations.

    Args:
        before: the model as it was, aligned to what it is.
        accepted: (n,) observations that were measured; the others may be anywhere.
        refine_points: whether points may follow.
    """
    used = accepted.copy()
    for rows in observations.by_image.values():
        if accepted[rows].sum() < _FEW:
            used[rows] = True
    ids = observations.point_ids.tolist()

    errors = np.linalg.norm(reprojection_errors(model, observations)[used], axis=1)
    errors = errors[np.isfinite(errors)]
    scale = float(np.clip(np.median(errors) if errors.size else _SCALES[1], *_SCALES))

    def costs_of(state: pycolmap.Reconstruction) -> Costs:
        _, errors = fit_points(state, observations, points_of(model, observations), used, scale)
        loss = np.where(used, cauchy(errors, scale), 0)
        return {image_id: float(loss[rows].sum()) for image_id, rows in observations.by_image.items()}

    def follow(images: frozenset[int]) -> None:
        points, _ = fit_points(model, observations, points_of(model, observations), used, scale)
        seen = used & np.isin(observations.image_ids, sorted(images))
        seen &= ~np.isin(observations.point_ids, sorted(constants.points))[observations.point_index]
        for row in np.unique(observations.point_index[seen]).tolist() if refine_points else ():
            model.points3D[ids[row]].xyz = points[row]

    return _guard(before, model, observations, used, constants, costs_of, follow)


def restore_points(before: pycolmap.Reconstruction, model: pycolmap.Reconstruction) -> int:
    """Puts points back whose observations contradict each other, and counts them.

    A tight loss lets go of such a point, and it may end anywhere, behind cameras too. Those are meant whose
    mean reprojection error is beyond COLMAP's limit, larger than it was, and smaller where the point was.

    Args:
        before: the model as it was, aligned to what it is.
    """
    for state in (before, model):
        state.update_point_3d_errors()
    strays = {}
    for point_id, point in model.points3D.items():
        if point.error > _STRAY and point_id in before.points3D:
            old = before.points3D[point_id]
            if point.error > old.error:
                strays[point_id] = (point.error, np.array(point.xyz))
                point.xyz = old.xyz
    model.update_point_3d_errors()
    restored = len(strays)
    for point_id, (error, xyz) in strays.items():
        point = model.points3D[point_id]
        if not point.error < error:
            point.xyz = xyz
            restored -= 1
    return restored


def guard_features(
    before: pycolmap.Reconstruction,
    model: pycolmap.Reconstruction,
    observations: Observations,
    counts: NDArray[np.bool_],
    constants: Constants,
    costs_of: Callable[[pycolmap.Reconstruction], NDArray[np.float64]],
    adjust_points: Callable[[], object],
) -> list[ImageCost]:
    """Restores the images of a model that was adjusted to features, where their own cost rose.

    Args:
        before: the model as it was, aligned to what it is.
        counts: (n,) observations that have a cost.
        costs_of: (n,) costs of the observations in a model.
        adjust_points: moves the points of the model to where its features agree, poses and cameras held.
    """

    def by_image(state: pycolmap.Reconstruction) -> Costs:
        costs = costs_of(state)
        return {image_id: float(costs[rows].sum()) for image_id, rows in observations.by_image.items()}

    return _guard(before, model, observations, counts, constants, by_image, lambda restored: adjust_points())


def _guard(
    before: pycolmap.Reconstruction,
    model: pycolmap.Reconstruction,
    observations: Observations,
    used: NDArray[np.bool_],
    constants: Constants,
    costs_of: Callable[[pycolmap.Reconstruction], Costs],
    follow: Callable[[frozenset[int]], object],
) -> list[ImageCost]:
    """Restores frames whose cost rose, if that lowers it, until there are no more.

    The other poses stay: with a pose of before held in an adjustment, its error would spread to them. Only
    points follow, those that the restored images see. Where the pose of before costs even more among the new
    ones, the frame has paid for what others gained; it keeps its new pose, and the log says so.
    """
    members: dict[int, list[int]] = {}
    for image_id in observations.by_image:
        members.setdefault(model.images[image_id].frame_id, []).append(image_id)

    def total(costs: Costs, frame_id: int) -> float:
        return sum(costs[image_id] for image_id in members[frame_id])

    count = {image_id: int(used[rows].sum()) for image_id, rows in observations.by_image.items()}

    def rose(frame_id: int, new: Costs) -> bool:
        observed = sum(count[image_id] for image_id in members[frame_id])
        return _rose(total(old, frame_id), total(new, frame_id), observed)

    old = costs_of(before)
    new = found = costs_of(model)
    settled = {model.images[image_id].frame_id for image_id in constants.images}
    if constants.priors is not None:  # which may ask for poses that images alone would not choose
        settled |= set(members)
    restored: frozenset[int] = frozenset()
    adjusted = None
    while worse := {
        k: total(new, k) / max(total(old, k), 1e-12) - 1 for k in members.keys() - settled if rose(k, new)
    }:
        # The worst first: the others may have paid for them.
        worst = {k for k, rise in worse.items() if rise >= max(worse.values()) / 2}
        adjusted = adjusted or pycolmap.Reconstruction(model)

        def costs_with(frames: frozenset[int], adjusted: pycolmap.Reconstruction = adjusted) -> Costs:
            _mix(model, adjusted, before, frames)
            if frames:
                follow(frozenset(image_id for k in frames for image_id in members[k]))
            return costs_of(model)

        tried = costs_with(restored | worst)
        helped = {k for k in worst if total(tried, k) < total(new, k)}
        new = tried if helped == worst else costs_with(restored | helped)
        restored |= helped
        settled |= worst
    images = {image_id for k in restored for image_id in members[k]}
    result = [
        ImageCost(model.images[k].name, count[k], old[k], new[k], k in images) for k in observations.by_image
    ]
    for image_id, image in zip(observations.by_image, result, strict=True):
        costs = f"{image.before:.4g} before, {found[image_id]:.4g} adjusted, {image.after:.4g} now"
        if image.restored:
            log.warning("%s is back at its pose, as its own cost had risen: %s", image.name, costs)
        elif _rose(image.before, image.after, image.observations):
            log.warning("%s costs more, and would at its old pose: %s", image.name, costs)
    return result


def _rose(before: float, after: float, observations: int) -> bool:
    return after > before * (1 + _RISE + _POSE_PARAMETERS / max(observations, 1)) + 1e-12


def _mix(
    model: pycolmap.Reconstruction,
    adjusted: pycolmap.Reconstruction,
    before: pycolmap.Reconstruction,
    restored: frozenset[int],
) -> None:
    """Makes the model the adjusted one with these frames, and cameras and rigs of only them, as before."""
    posed = [image for image in adjusted.images.values() if image.has_pose]
    others = [image for image in posed if image.frame_id not in restored]
    cameras = {image.camera_id for image in others}
    rigs = {image.frame.rig_id for image in others}
    for frame_id in {image.frame_id for image in posed}:
        source = before if frame_id in restored else adjusted
        model.frames[frame_id].rig_from_world = source.frames[frame_id].rig_from_world
    for camera_id in {image.camera_id for image in posed}:
        source = adjusted if camera_id in cameras else before
        model.cameras[camera_id].model = source.cameras[camera_id].model
        model.cameras[camera_id].params = source.cameras[camera_id].params
    for rig_id in {image.frame.rig_id for image in posed}:
        source = adjusted if rig_id in rigs else before
        for sensor_id, sensor_from_rig in source.rigs[rig_id].non_ref_sensors.items():
            model.rigs[rig_id].set_sensor_from_rig(sensor_id, sensor_from_rig)
    for point_id, point in adjusted.points3D.items():
        model.points3D[point_id].xyz = point.xyz
