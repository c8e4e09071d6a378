"""Many queries at once, localized on threads."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from os import cpu_count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.localization.localized import LocalizationResult, failed
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
    image_path: Path | str,
    num_done: int = 0,
    num_threads: int = -1,
    progress: Progress | None = None,
) -> Iterator[Localized]:
    """Localize queries in their order, but for those that an earlier run has done already.

    What comes out does not depend on the number of threads, nor on interruptions.
    """
    threads = num_threads if num_threads > 0 else cpu_count() or 1

    def localize(frame: Sequence[Query]) -> list[Localized]:
        if len(frame) == 1:
            return [_localize(localizer, frame[0], Path(image_path) / frame[0].name)]
        return _localize_frame(localizer, frame, Path(image_path))

    frames = [list(names) for _, names in groupby(queries.names, queries.frame_of)]
    # A frame of which a part is done is localized again: it is one.
    ends = np.cumsum([len(names) for names in frames])
    first = int(np.searchsorted(ends, num_done, "right"))
    skipped = num_done - int(ends[first - 1] if first else 0)
    with (progress or Progress()).phase("localize", len(queries.names)) as update:
        update(num_done)
        for localized in ahead(localize, _read(queries, frames[first:]), threads):
            yield from localized[skipped:]
            num_done += len(localized) - skipped
            skipped = 0
            update(num_done)


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
