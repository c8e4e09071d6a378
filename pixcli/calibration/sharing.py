"""Sharing: which cameras of a model are one and the same, and how they become one in it."""

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

import pycolmap

Float64 = NDArray[np.float64]

_PROBABLE = 1e-4  # cameras whose parameters differ by what is less probable are two


def may_share(model: pycolmap.Reconstruction, camera_id: int) -> bool:
    """Whether the camera is the only sensor of its rigs: cameras of a real rig stay apart."""
    images = [image for image in model.images.values() if image.camera_id == camera_id and image.has_pose]
    return bool(images) and all(image.frame.rig.num_sensors() == 1 for image in images)


def alike(params: Mapping[int, Float64], covariances: Mapping[int, Float64]) -> list[list[int]]:
    """Groups of cameras whose parameters agree within their errors, ids ascending; cameras on their own too.

    The best determined camera begins; the others join the group they agree with best, which then knows its
    parameters better.

    Args:
        params: (k,) of each camera, all of one camera model.
        covariances: (k, k) of these.
    """
    information = {k: np.asarray(np.linalg.inv(covariances[k]), np.float64) for k in params}
    order = sorted(params, key=lambda k: (np.linalg.slogdet(covariances[k])[1], k))
    groups: list[list[int]] = []
    sums: list[tuple[Float64, Float64]] = []
    for camera_id in order:
        best, probability = -1, _PROBABLE
        for index, (total, weighted) in enumerate(sums):
            covariance = np.linalg.inv(total)
            difference = params[camera_id] - covariance @ weighted
            square = difference @ np.linalg.solve(covariance + covariances[camera_id], difference)
            if (p := float(chdtrc(len(difference), square))) > probability:
                best, probability = index, p
        mine = information[camera_id]
        if best < 0:
            groups.append([camera_id])
            sums.append((mine, mine @ params[camera_id]))
        else:
            groups[best].append(camera_id)
            total, weighted = sums[best]
            sums[best] = (total + mine, weighted + mine @ params[camera_id])
    return sorted(sorted(group) for group in groups)


def share(model: pycolmap.Reconstruction, groups: Sequence[Sequence[int]]) -> None:
    """Make one camera of each group of cameras: the first one, with the median of their parameters.

    The others leave the model, and so do their rigs.

    Args:
        groups: cameras of one model and size that may_share().
    """
    kept = {camera_id: group[0] for group in groups for camera_id in group}
    for group in groups:
        params = np.median([model.cameras[camera_id].params for camera_id in group], axis=0)
        model.cameras[group[0]].params = params
    gone = {camera_id for camera_id, first in kept.items() if camera_id != first}
    if not gone:
        return
    of_camera = {
        rig.ref_sensor_id.id: rig_id
        for rig_id, rig in sorted(model.rigs.items(), reverse=True)
        if rig.num_sensors() == 1
    }
    frames = []
    for _, frame in sorted(model.frames.items()):
        fresh = pycolmap.Frame()
        fresh.frame_id, fresh.rig_id = frame.frame_id, frame.rig_id
        for data in sorted(frame.data_ids, key=lambda data: data.id):
            sensor = data.sensor_id
            if sensor.id in gone:  # the only one of its rig
                sensor = model.cameras[kept[sensor.id]].sensor_id
                fresh.rig_id = of_camera[sensor.id]
            fresh.add_data_id(pycolmap.data_t(sensor, data.id))
        if frame.has_pose:
            fresh.rig_from_world = frame.rig_from_world
        frames.append(fresh)
    rigs = [
        copy(rig)
        for _, rig in sorted(model.rigs.items())
        if not (rig.num_sensors() == 1 and rig.ref_sensor_id.id in gone)
    ]
    for image in model.images.values():
        if image.camera_id in gone:
            camera = model.cameras[kept[image.camera_id]]
            image.reset_camera_ptr()
            image.camera_id = camera.camera_id
            image.camera = camera
    model.set_rigs_and_frames(rigs, frames)
    for camera_id in sorted(gone):
        del model.cameras[camera_id]
