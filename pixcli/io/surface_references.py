"""What the points of a model look like, each as a small plane, in one HDF5 file that is read as a memory map.

/            attributes: format, version, made_with (JSON: what decides the maps of each model of the chain)
             point_id, point, normal, deviation, covariance, ptr: by point
             image_id, view: by observation; those of point k are ptr[k]:ptr[k + 1]
0, 1, ...    level, corner, sample, gain of each model of the chain, by observation

The arrays are those of SurfaceReferences and its Templates. Large ones lie in the file as they lie in memory,
and are not read before they are used.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.io.files import replacing

FORMAT = "pixcli surface references"
VERSION = 2
_MAPPED = ("view", "level", "corner", "sample", "gain")  # large, and read here and there
_KEYS = ("level", "corner", "sample", "gain")


@dataclass(frozen=True)
class Templates:
    """What n observations look like on L levels of the maps of one feature model, or of the scale space."""

    level: npt.NDArray[np.int32]
    """(n, L)"""
    corner: npt.NDArray[np.int32]
    """(n, L, 2) column and row of the first sample of each template on its level."""
    sample: npt.NDArray[Any]
    """(n, S) samples of the square templates of all levels, one behind the other; of features (n, S, C)."""
    gain: npt.NDArray[np.float32]
    """(n, L, C) what samples of features in bytes are multiples of; otherwise (n, 0, 0)."""


@dataclass(frozen=True)
class SurfaceReferences:
    """p points with n observations that may serve as templates."""

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
    templates: tuple[Templates, ...]
    """Of each model of the chain."""
    made_with: tuple[dict[str, Any], ...]
    """What decides its maps, by option."""


_ARRAYS = tuple(
    field.name for field in fields(SurfaceReferences) if field.name not in ("templates", "made_with")
)


def write_surface_references(
    path: Path,
    references: SurfaceReferences,
    samples: Sequence[Iterable[tuple[npt.NDArray[Any], npt.NDArray[np.float32]]]],
) -> None:
    """Write references, whole or not at all.

    Args:
        references: with templates that have no samples and gains.
        samples: sample and gain of each model's templates, in parts that follow each other.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        made_with = json.dumps(references.made_with)
        file.attrs.update({"format": FORMAT, "version": VERSION, "made_with": made_with})
        for name in _ARRAYS:
            file[name] = getattr(references, name)
        for k, (templates, parts) in enumerate(zip(references.templates, samples, strict=True)):
            group = file.create_group(str(k))
            group["level"], group["corner"] = templates.level, templates.corner
            done = 0
            for part in parts:
                for name, values in zip(("sample", "gain"), part, strict=True):
                    if name not in group:
                        group.create_dataset(name, (len(templates.level), *values.shape[1:]), values.dtype)
                    if values.size:
                        group[name][done : done + len(values)] = values
                done += len(part[0])
            for name in ("sample", "gain"):
                if name not in group:  # there are no observations
                    group[name] = getattr(templates, name)


def read_surface_references(path: Path) -> SurfaceReferences:
    """References from their file; UserError if it is damaged, or holds something else."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT:
                raise UserError(f"{path}: this HDF5 file holds no surface references of pixcli")
            if (version := int(file.attrs["version"])) != VERSION:
                raise UserError(
                    f"{path}: format version {version}, but this pixcli reads {VERSION}; make it again"
                )
            made_with = tuple(json.loads(file.attrs["made_with"]))
            templates = tuple(Templates(**_read(path, file[str(k)], _KEYS)) for k in range(len(made_with)))
            references = SurfaceReferences(
                **_read(path, file, _ARRAYS), templates=templates, made_with=made_with
            )
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file of references") from None
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: the references are damaged ({error}); make them again") from None
    if not _fit(references):
        raise UserError(f"{path}: the references are damaged (their arrays do not fit); make them again")
    return references


def _read(path: Path, group: h5py.Group, names: Sequence[str]) -> dict[str, Any]:
    return {name: _mapped(path, group[name]) if name in _MAPPED else group[name][()] for name in names}


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
    by_observation = [references.view]
    for templates in references.templates:
        by_observation += [templates.level, templates.corner, templates.sample, templates.gain]
    return bool(
        all(len(array) == p for array in by_point)
        and all(len(array) == n for array in by_observation)
        and len(ptr) == p + 1
        and (ptr[0], ptr[-1]) == (0, n)
        and (np.diff(ptr) >= 0).all()
        and (np.diff(references.point_id) > 0).all()
    )
