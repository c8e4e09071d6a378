"""Many queries at once: localized on threads, journalled, and gone on with after an interruption."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.io.journal import Journal
from pixcli.localization.localized import LocalizationResult, Step, failed
from pixcli.localization.localizer import QueryLocalizer, SensorQuery
from pixcli.localization.queries import Queries, Query
from pixcli.progress import Progress
from pixcli.sampling.streaming import ahead

import pycolmap


@dataclass(frozen=True)
class Localized:
    """A query and what came of it."""

    name: str
    point2D_idxs: npt.NDArray[np.int64]
    """(m,) keypoints of the matches, and their points:"""
    point3D_ids: npt.NDArray[np.int64]
    result: LocalizationResult


def localize_batch(
    localizer: QueryLocalizer,
    queries: Queries,
    image_path: Path,
    journal: Journal,
    num_threads: int = -1,
    progress: Progress | None = None,
) -> None:
    """Localize the queries that the journal does not hold yet; it then holds all, in their order.

    What comes out does not depend on the number of threads, nor on interruptions.
    """
    threads = num_threads if num_threads > 0 else cpu_count() or 1

    def localize(frame: Sequence[Query]) -> list[Localized]:
        if len(frame) == 1:
            return [_localize(localizer, frame[0], image_path / frame[0].name)]
        return _localize_frame(localizer, frame, image_path)

    frames = [list(names) for _, names in groupby(queries.names, queries.frame_of)]
    with (progress or Progress()).phase("localize", len(queries.names)) as update:
        update(journal.count)
        # A frame of which the journal holds a part is localized again: it is one.
        ends = np.cumsum([len(names) for names in frames])
        first = int(np.searchsorted(ends, journal.count, "right"))
        skipped = journal.count - int(ends[first - 1] if first else 0)
        for localized in ahead(localize, _read(queries, frames[first:]), threads):
            for query in localized[skipped:]:
                journal.append(*_to_record(query))
            skipped = 0
            update(journal.count)


def read_batch(journal: Journal) -> Iterator[Localized]:
    """What the journal holds, one query at a time."""
    return (_from_record(contents, arrays) for contents, arrays in journal.records())


def _read(queries: Queries, frames: Iterable[Sequence[str]]) -> Iterator[list[Query]]:
    for names in frames:
        frame = []
        for name in names:
            try:
                frame.append(queries.read(name))
            except UserError as error:  # a query's own files or rows are damaged: the others are not
                frame.append(Query(name, pycolmap.Camera(), reason=str(error)))
        yield frame


def _localize_frame(localizer: QueryLocalizer, frame: Sequence[Query], image_path: Path) -> list[Localized]:
    """All images of a rig as one; those that cannot take part fail on their own, and disturb no other."""
    usable = [query for query in frame if not query.reason]
    sensors = [
        SensorQuery(
            query.keypoints,
            query.point2D_idxs,
            query.point3D_ids,
            query.camera,
            image_path / query.name,
            query.cam_from_rig,
        )
        for query in usable
    ]
    results = dict(
        zip((query.name for query in usable), localizer.localize_rig(sensors), strict=True) if usable else ()
    )
    return [
        Localized(
            query.name,
            query.point2D_idxs,
            query.point3D_ids,
            results.get(query.name, failed(query.reason, query.camera, len(query.point3D_ids))),
        )
        for query in frame
    ]


def _localize(localizer: QueryLocalizer, query: Query, image: Path) -> Localized:
    """The query's result; where its matches show several places, of the one with the most inliers."""
    best = Localized(query.name, query.point2D_idxs, query.point3D_ids, failed(query.reason, query.camera, 0))
    if query.reason:
        return best
    for place in np.unique(query.place):
        rows, points = (array[query.place == place] for array in (query.point2D_idxs, query.point3D_ids))
        try:
            result = localizer.localize(query.keypoints, rows, points, query.camera, image=image)
        except UserError as error:
            result = failed(str(error), query.camera, len(rows))
        if not best.result.reason or _quality(result) > _quality(best.result):
            best = Localized(query.name, rows, points, result)
    return best


def _quality(result: LocalizationResult) -> tuple[bool, int]:
    return result.success, result.num_inliers


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
