"""References of 3D points in one HDF5 file.

/            attributes: format, version, options (JSON: what the features were made with, by option)
/level<k>    point_id (p,), feature (p, D), image_id (p,), keypoint (p,): of the reference, by point
             and, if kept, those of all observations that counted: observation_ptr (p + 1,),
             observation_image_id (n,), observation_keypoint (n,), observation_feature (n, D)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.io.files import replacing

FORMAT = "pixcli references"
VERSION = 1


@dataclass(frozen=True)
class ObservedFeatures:
    """The features of all observations of p points, n in all."""

    ptr: NDArray[np.int64]
    """(p + 1,) the observations of point k are ptr[k]:ptr[k + 1]."""
    image_ids: NDArray[np.int64]
    """(n,)"""
    keypoints: NDArray[np.int64]
    """(n,) rows among the keypoints of the image."""
    features: NDArray[np.float32]
    """(n, D)"""


@dataclass(frozen=True)
class References:
    """What p points should look like in one level of a feature map, each as it does in one image."""

    point_ids: NDArray[np.int64]
    """(p,) ascending."""
    features: NDArray[np.float32]
    """(p, D)"""
    image_ids: NDArray[np.int64]
    """(p,) the image that the features are from."""
    keypoints: NDArray[np.int64]
    """(p,) rows among its keypoints."""
    observations: ObservedFeatures | None = None

    def rows_of(self, point_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each point, -1 for those that have no reference."""
        return rows_among(self.point_ids, point_ids)


def rows_among(known: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row of each id (n,) among the known ones, which ascend; -1 for others."""
    if not len(known):
        return np.full(len(ids), -1, np.int64)
    rows = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[rows] == ids, rows, -1)


def write_references(
    path: Path, levels: Sequence[References], options: Mapping[str, str | float | bool]
) -> None:
    """Writes the references of all levels, whole or not at all.

    Args:
        options: everything that decides the features, ready for JSON; read_references compares it.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "options": json.dumps(dict(options))})
        for index, references in enumerate(levels):
            group = file.create_group(f"level{index}")
            _write_arrays(group, "", references.image_ids, references.keypoints, references.features)
            group["point_id"] = references.point_ids
            if (observed := references.observations) is not None:
                group["observation_ptr"] = observed.ptr
                _write_arrays(
                    group, "observation_", observed.image_ids, observed.keypoints, observed.features
                )


def _write_arrays(group: h5py.Group, prefix: str, *arrays: NDArray[Any]) -> None:
    for name, array in zip(("image_id", "keypoint", "feature"), arrays, strict=True):
        group[prefix + name] = array


def read_references(path: Path, options: Mapping[str, str | float | bool] | None = None) -> list[References]:
    """The references of all levels of the feature map, from coarse to fine.

    Args:
        options: what features are made with now, see adjustment.references.references_options(); the first
            that differs is named. None: whatever the references were made with is taken.

    Raises:
        UserError: there is no such file, it is damaged, or its features were made with other options.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT:
                raise UserError(f"{path}: this HDF5 file holds no references of pixcli")
            if (version := int(file.attrs["version"])) != VERSION:
                raise UserError(f"{path}: format version {version}, but this pixcli reads {VERSION}")
            _compare(path, json.loads(file.attrs["options"]), options)
            return [_read_level(file[f"level{index}"]) for index in range(len(file))]
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file of references") from None
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path}: the references are truncated or damaged ({error}); make them again"
        ) from None


def _compare(path: Path, made_with: dict[str, Any], options: Mapping[str, Any] | None) -> None:
    wanted = made_with if options is None else json.loads(json.dumps(dict(options)))
    for key in sorted({*wanted, *made_with}):
        if made_with.get(key) != wanted.get(key):
            raise UserError(
                f"{path}: the references were made with {key} {made_with.get(key)}, but now it is "
                f"{wanted.get(key)}; make them again, or set it as it was"
            )


def _read_level(group: h5py.Group) -> References:
    point_ids = group["point_id"][:]
    image_ids, keypoints, features = _read_arrays(group, "", len(point_ids))
    if np.any(np.diff(point_ids) <= 0):
        raise ValueError("point_id does not ascend")
    observed = None
    if "observation_ptr" in group:
        ptr = group["observation_ptr"][:]
        if len(ptr) != len(point_ids) + 1 or ptr[0] != 0 or np.any(np.diff(ptr) < 0):
            raise ValueError("observation_ptr does not fit the points")
        observed = ObservedFeatures(ptr, *_read_arrays(group, "observation_", int(ptr[-1])))
    return References(point_ids, features, image_ids, keypoints, observed)


def _read_arrays(group: h5py.Group, prefix: str, count: int) -> Any:
    arrays = [group[prefix + name][:] for name in ("image_id", "keypoint", "feature")]
    if any(len(array) != count for array in arrays) or arrays[2].ndim != 2:
        raise ValueError(f"{group.name}: {prefix}* arrays are not of {count} rows")
    return arrays
