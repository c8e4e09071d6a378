"""Keypoint covariances in HDF5: a group for each image, of its name, with the data set `covariance`."""

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .files import replacing

_FORMAT = "pixcli keypoint covariance"
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
