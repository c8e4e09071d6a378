"""What a journal holds of a localized query."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.io.journal import Journal
from pixcli.localization.batch import Localized
from pixcli.localization.localized import LocalizationResult, Step

import pycolmap


def append_query(journal: Journal, localized: Localized) -> None:
    """Add a query to a journal."""
    journal.append(*_to_record(localized))


def read_queries(journal: Journal) -> Iterator[Localized]:
    """What a journal holds, one query at a time."""
    return (_from_record(contents, arrays) for contents, arrays in journal.records())


_ARRAYS = ("inliers", "keypoints")


def _to_record(localized: Localized) -> tuple[Mapping[str, Any], Mapping[str, npt.NDArray[Any]]]:
    result = localized.result
    contents = {
        "name": localized.name,
        "success": result.success,
        "reason": result.reason,
        "undone": result.undone,
        "camera": [int(result.camera.model), result.camera.width, result.camera.height],
        "steps": [[s.name, s.seconds, s.measurements, s.cost_before, s.cost_after] for s in result.steps],
    }
    arrays = {
        "point2D_idxs": localized.point2D_idxs,
        "point3D_ids": localized.point3D_ids,
        "params": np.array(result.camera.params, np.float64),
        **{name: getattr(result, name) for name in _ARRAYS},
    }
    if result.cam_from_world is not None:
        arrays["pose"] = np.array(result.cam_from_world.params, np.float64)
    if result.covariance is not None:
        arrays["covariance"] = result.covariance
    return contents, arrays


def _from_record(contents: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Localized:
    model, width, height = contents["camera"]
    camera = pycolmap.Camera(
        model=pycolmap.CameraModelId(model), width=width, height=height, params=arrays["params"]
    )
    pose = arrays.get("pose")
    result = LocalizationResult(
        success=contents["success"],
        reason=contents["reason"],
        camera=camera,
        cam_from_world=None
        if pose is None
        else pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:4].copy()), pose[4:].copy()),
        covariance=arrays.get("covariance"),
        **{name: arrays[name] for name in _ARRAYS},
        undone=contents["undone"],
        steps=[Step(*values) for values in contents["steps"]],
    )
    return Localized(contents["name"], arrays["point2D_idxs"], arrays["point3D_ids"], result)
