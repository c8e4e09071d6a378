"""What the points of a model look like, each as a small plane, in one HDF5 file that is read as a memory map.

/            attributes: format, version, levels (of the scale space, that the templates are cut from)
             point_id, point, normal, deviation, covariance, ptr: by point
             image_id, view, corner, template: by observation; those of point k are ptr[k]:ptr[k + 1]

The arrays are those of SurfaceReferences. Templates lie in the file as they lie in memory, and are not read
before they are used.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.io.files import replacing

FORMAT = "pixcli surface references"
VERSION = 1
_MAPPED = ("view", "corner", "template")  # large, and read here and there


@dataclass(frozen=True)
class SurfaceReferences:
    """p points with n observations that may serve as templates, on L levels of the scale space."""

    levels: tuple[int, ...]
    point_id: npt.NDArray[np.int64]
    """(p,) ascending."""
    point: npt.NDArray[np.float64]
    """(p, 3) of the world: where the observations, as they were measured, see it."""
    normal: npt.NDArray[np.float64]
    """(p, 3) unit vectors of the world towards the cameras; NaN where no surface was found."""
    deviation: npt.NDArray[np.float64]
    """(p,) pixels: how far measured observations lie from the point."""
    covariance: npt.NDArray[np.float64]
    """(p, 3, 3) of the point."""
    ptr: npt.NDArray[np.int64]
    """(p + 1,)"""
    image_id: npt.NDArray[np.int32]
    """(n,)"""
    view: npt.NDArray[Any]
    """(n,) _core.surface_view_dtype: the camera's projection near the point."""
    corner: npt.NDArray[np.int32]
    """(n, L, 2) column and row of the first sample of each template on its level."""
    template: npt.NDArray[np.uint8]
    """(n, S) samples of the square templates of all levels, one behind the other."""


_ARRAYS = tuple(field.name for field in fields(SurfaceReferences) if field.name != "levels")


def write_surface_references(
    path: Path, references: SurfaceReferences, templates: Iterable[npt.NDArray[np.uint8]]
) -> None:
    """Write references, whole or not at all.

    Args:
        references: with templates of no rows (0, S).
        templates: all of them, in parts that follow each other.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "levels": list(references.levels)})
        for name in _ARRAYS:
            if name != "template":
                file[name] = getattr(references, name)
        shape = (len(references.image_id), references.template.shape[1])
        mapped = file.create_dataset("template", shape, np.uint8)
        done = 0
        for part in templates:
            mapped[done : done + len(part)] = part
            done += len(part)


def read_surface_references(path: Path) -> SurfaceReferences:
    """References from their file; UserError if it is damaged, or holds something else."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT:
                raise UserError(f"{path}: this HDF5 file holds no surface references of pixcli")
            if (version := int(file.attrs["version"])) != VERSION:
                raise UserError(f"{path}: format version {version}, but this pixcli reads {VERSION}")
            levels = tuple(int(level) for level in file.attrs["levels"])
            arrays = {
                name: _mapped(path, file[name]) if name in _MAPPED else file[name][()] for name in _ARRAYS
            }
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file of references") from None
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: the references are damaged ({error}); make them again") from None
    references = SurfaceReferences(levels, **arrays)
    if not _fit(references):
        raise UserError(f"{path}: the references are damaged (their arrays do not fit); make them again")
    return references


def _mapped(path: Path, dataset: h5py.Dataset) -> npt.NDArray[Any]:
    """A dataset as it lies in the file; read when it is used."""
    if 0 in dataset.shape:
        return np.empty(dataset.shape, dataset.dtype)
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(f"{dataset.name} does not lie in one piece")
    return np.asarray(np.memmap(path, dataset.dtype, "r", offset, dataset.shape))


def _fit(references: SurfaceReferences) -> bool:
    p, n, ptr = len(references.point_id), len(references.image_id), references.ptr
    by_point = (references.point, references.normal, references.deviation, references.covariance)
    by_observation = (references.view, references.corner, references.template)
    return bool(
        all(len(array) == p for array in by_point)
        and all(len(array) == n for array in by_observation)
        and len(ptr) == p + 1
        and (ptr[0], ptr[-1]) == (0, n)
        and (np.diff(ptr) >= 0).all()
        and (np.diff(references.point_id) > 0).all()
    )
