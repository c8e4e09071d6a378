"""Covariances in HDF5.

Of keypoints: a group for each image, of its name, with the data set `covariance`. Of models:

/                attributes: format, version, deviation, convention
/poses           frame_id (f,), image_name (f,) of a first image of each, covariance (f, 6, 6)
/points          point3D_id (p,), covariance (p, 3, 3)
/cameras/<id>    covariance (k, k) of the parameters of a camera
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .files import replacing

_FORMAT = "pixcli keypoint covariance"
_MODEL_FORMAT = "pixcli model covariance"
_VERSION = 1


def write_covariances(
    path: str | os.PathLike[str],
    names: Sequence[str],
    offsets: npt.NDArray[np.int64],
    covariance: npt.NDArray[np.float32],
) -> None:
    """Write (n, 3) xx xy yy in pixels squared, NaN where unmeasured, of the keypoints of all images.

    Rows offsets[i]:offsets[i + 1] belong to names[i], in the order of its keypoints in the database.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = _FORMAT
        file.attrs["version"] = _VERSION
        file.attrs["columns"] = ["xx", "xy", "yy"]
        file.attrs["units"] = "pixels squared"
        file.attrs["convention"] = (
            "covariance of the refined position (x right, y down) of each keypoint row of the database; "
            "NaN where nothing was measured"
        )
        for i, name in enumerate(names):
            group = file.require_group(name)
            group.attrs["image_name"] = name  # HDF5 takes "./a" and "a" for one path
            rows = np.ascontiguousarray(covariance[offsets[i] : offsets[i + 1]], np.float32)
            group.create_dataset("covariance", data=rows, track_times=False)


def write_model_covariances(
    path: str | os.PathLike[str],
    frame_ids: npt.NDArray[np.int64],
    image_names: Sequence[str],
    poses: npt.NDArray[np.float64],
    point_ids: npt.NDArray[np.int64],
    points: npt.NDArray[np.float64],
    cameras: Mapping[int, npt.NDArray[np.float64]],
    deviation: float,
) -> None:
    """Write what pixcli.bundle_adjustment.model_covariance.ModelCovariance holds.

    Args:
        image_names: of an image of each frame.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = _MODEL_FORMAT
        file.attrs["version"] = _VERSION
        file.attrs["deviation"] = deviation
        file.attrs["convention"] = (
            "poses: of rig_from_world (cam_from_world where there is no rig), first the rotation vector w in "
            "radians along the axes of the rig, as in exp([w]) R, then the projection centre in the world. "
            "points: x, y, z in the world. Units of the written model; errors are counted after alignment to "
            "the truth by the projection centres, or in the frame of constant poses. 0: held; NaN: unknown"
        )
        arrays = {
            "poses/frame_id": frame_ids,
            "poses/covariance": poses,
            "points/point3D_id": point_ids,
            "points/covariance": points,
            **{f"cameras/{camera_id}/covariance": value for camera_id, value in cameras.items()},
        }
        for name, array in arrays.items():
            file.create_dataset(name, data=array, track_times=False)
        names = file.create_dataset(
            "poses/image_name", shape=len(image_names), dtype=h5py.string_dtype(), track_times=False
        )
        names[:] = list(image_names)


def read_covariances(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[np.float32]]:
    """(n_i, 3) xx xy yy in pixels squared for each image name, NaN where unmeasured."""
    path = Path(path)
    covariances: dict[str, npt.NDArray[np.float32]] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            covariances[str(item.parent.attrs["image_name"])] = item[()]

    if not path.is_file():
        raise UserError(f"there is no covariance file {path}: check --covariance_path")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != _FORMAT or file.attrs.get("version") != _VERSION:
                raise UserError(f"{path} is not a covariance file of this version of pixcli: make it again")
            file.visititems(visit)
    except OSError as error:
        raise UserError(f"{path} is not a whole HDF5 file: make it again ({error})") from error
    return covariances
