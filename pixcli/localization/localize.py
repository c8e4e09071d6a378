"""Localization of the images of a database, or of hloc's files, from reading to writing."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixcli.errors import UserError
from pixcli.io.files import check_writable
from pixcli.io.hloc import short_names, write_log, write_poses
from pixcli.io.journal import Journal
from pixcli.io.models import check_model_output, read_model, writing_model
from pixcli.localization.batch import Localized, localize_batch, read_batch
from pixcli.localization.localized import Step
from pixcli.localization.localizer import QueryLocalizer
from pixcli.localization.queries import DatabaseQueries, HlocQueries, Queries
from pixcli.localization.registration import register_queries
from pixcli.options import (
    AbsolutePoseOptions,
    DenseFeaturesOptions,
    InterpolationOptions,
    LocalizationOptions,
    QueryBundleAdjustmentOptions,
    QueryKeypointAdjustmentOptions,
)
from pixcli.options.fields import OptionGroup, result_options
from pixcli.progress import PhaseStats, Progress

import pycolmap

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueryFiles:
    """Where queries and their matches are: a database, or hloc's files."""

    database_path: Path | None = None
    image_list_path: Path | None = None
    """Of the database's images, those to localize; None: all that the model has not registered."""
    queries_path: Path | None = None
    features_path: Path | None = None
    matches_path: Path | None = None
    pairs_path: Path | None = None

    def __post_init__(self) -> None:
        hloc = {name: getattr(self, name) for name in _HLOC_PATHS}
        given = [name for name, path in hloc.items() if path is not None]
        missing = [name for name, path in hloc.items() if path is None]
        if self.database_path is not None and given:
            raise UserError(
                f"--database_path and --{given[0]} exclude each other: matches come from one of them"
            )
        if self.database_path is None and missing:
            wanted = " and ".join(f"--{name}" for name in missing)
            raise UserError(
                f"give {wanted}" if given else f"give --database_path, or else hloc's files: {wanted}"
            )
        if self.database_path is None and self.image_list_path is not None:
            raise UserError(
                "--image_list_path selects images of a database: --queries_path names the queries here"
            )

    def open(self, model: pycolmap.Reconstruction, cluster: bool) -> Queries:
        """The queries, as a context manager."""
        if self.database_path is not None:
            return DatabaseQueries(self.database_path, model, self.image_list_path)
        queries, features, matches, pairs = (getattr(self, name) for name in _HLOC_PATHS)
        return HlocQueries(queries, features, matches, pairs, model, cluster)


_HLOC_PATHS = ("queries_path", "features_path", "matches_path", "pairs_path")


@dataclass(frozen=True)
class QueryOutcome:
    """What a report tells of a query."""

    name: str
    success: bool
    reason: str
    undone: str
    matches: int
    inliers: int
    position_deviation: float
    """Standard deviation of the camera's centre that the covariance predicts, units of the model."""
    rotation_deviation: float
    """Degrees."""
    seconds: float
    steps: list[Step]


@dataclass(frozen=True)
class Localization:
    """What a run of localization did."""

    references: str
    """Where those of the map are from."""
    queries: list[QueryOutcome]
    phases: list[PhaseStats]

    @property
    def num_localized(self) -> int:
        """Queries that have a pose."""
        return sum(query.success for query in self.queries)

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them."""
        return {
            "references": self.references,
            "localized": self.num_localized,
            "queries": self.queries,
            "phases": self.phases,
        }


def localize_images(
    input_path: Path,
    image_path: Path,
    output_path: Path,
    files: QueryFiles,
    options: LocalizationOptions,
    absolute_pose: AbsolutePoseOptions,
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
    keypoint_adjustment: QueryKeypointAdjustmentOptions,
    bundle_adjustment: QueryBundleAdjustmentOptions,
    *,
    references_path: Path | None = None,
    random_seed: int = 0,
    progress: Progress | None = None,
) -> Localization:
    """Localize query images against a COLMAP model and write their poses.

    Of a database's queries, the output is a folder: the model with the queries registered, and poses.txt.
    Of hloc's, it is a text file of poses, with a log of the matches and inliers of each query (HDF5) beside
    it. An interrupted run goes on where it stopped if it is started again.

    Raises:
        UserError: something about the input cannot be used, or no query could be localized; nothing has been
            written.
    """
    progress = progress or Progress()
    _check_output(files, input_path, output_path, options)
    if not image_path.is_dir():
        raise UserError(f"there is no folder {image_path}: check --image_path")
    groups = (options, absolute_pose, features, interpolation, keypoint_adjustment, bundle_adjustment)
    made_with = _made_with(groups, files, input_path, image_path, references_path, random_seed)
    with ExitStack() as stack:
        with progress.phase("read"):
            model = read_model(input_path)
            queries = files.open(model, options.covisibility_clustering)
            stack.enter_context(queries)
        journal_path = output_path.with_name(f"{output_path.name}.journal")
        journal = stack.enter_context(Journal(journal_path, {**made_with, "queries": list(queries.names)}))
        if journal.count:
            log.info("going on with %s, which has %d queries", journal_path, journal.count)
        localizer = QueryLocalizer(
            model,
            options,
            references=references_path,
            image_path=image_path,
            absolute_pose=absolute_pose,
            features=features,
            interpolation=interpolation,
            keypoint_adjustment=keypoint_adjustment,
            bundle_adjustment=bundle_adjustment,
            random_seed=random_seed,
            progress=progress,
        )
        localize_batch(localizer, queries, image_path, journal, options.num_threads, progress)
        outcomes = [_outcome(localized) for localized in read_batch(journal)]
        if not any(outcome.success for outcome in outcomes):
            journal.remove()
            (reason, count), *_ = Counter(outcome.reason for outcome in outcomes).most_common(1)
            of = f" ({count} of {len(outcomes)} queries)" if len(outcomes) > 1 else f" ({outcomes[0].name})"
            raise UserError(f"nothing was localized: {reason}{of}")
        with progress.phase("write"):
            _write(output_path, model, queries, options.prepend_camera_name, lambda: read_batch(journal))
        journal.remove()
    return Localization(localizer.map.source, outcomes, progress.phases)


def _check_output(
    files: QueryFiles, input_path: Path, output_path: Path, options: LocalizationOptions
) -> None:
    if files.database_path is not None:
        check_model_output(input_path, output_path, options.overwrite, "Localization.overwrite")
        return
    check_writable(output_path)
    if output_path.exists() and not options.overwrite:
        raise UserError(
            f"--output_path {output_path} exists already: name another file, or set "
            "--Localization.overwrite 1"
        )


def _made_with(
    groups: Iterable[OptionGroup], files: QueryFiles, *others: Path | int | None
) -> dict[str, Any]:
    """Everything that decides what is localized: options, and which files in which state."""
    paths = [path for path in (*asdict(files).values(), *others) if isinstance(path, Path)]
    inputs = sorted({file for path in paths for file in (path, *path.glob("*.bin"), *path.glob("*.txt"))})
    states = [
        [str(file), (stat := file.stat()).st_size, stat.st_mtime_ns] for file in inputs if file.is_file()
    ]
    return {
        "options": result_options(*groups),
        "paths": [str(path) for path in paths],
        "files": states,
        "others": [other for other in others if isinstance(other, int)],
    }


def _write(
    output_path: Path,
    model: pycolmap.Reconstruction,
    queries: Queries,
    prepend_camera_name: bool,
    batch: Callable[[], Iterator[Localized]],
) -> None:
    if isinstance(queries, DatabaseQueries):
        with writing_model(output_path) as folder:
            register_queries(model, queries, batch())
            model.write_binary(str(folder))
            write_poses(folder / "poses.txt", _poses(batch(), {}))
        return
    names = list(queries.names)
    short = short_names(names, prepend_camera_name)
    if short == names and any("/" in name for name in names):
        log.warning("two queries would have the same name in %s: it has whole names instead", output_path)
    write_log(output_path.with_name(f"{output_path.name}_logs.h5"), map(_log_entry, batch()))
    write_poses(output_path, _poses(batch(), dict(zip(names, short, strict=True))))


def _poses(batch: Iterable[Localized], names: Mapping[str, str]) -> Iterator[tuple[str, pycolmap.Rigid3d]]:
    for localized in batch:
        if localized.result.success:
            yield names.get(localized.name, localized.name), localized.result.cam_from_world


def _log_entry(localized: Localized) -> tuple[str, dict[str, Any]]:
    result = localized.result
    return localized.name, {
        "success": result.success,
        "reason": result.reason,
        "num_matches": len(localized.point3D_ids),
        "num_inliers": result.num_inliers,
        "point2D_idxs": localized.point2D_idxs,
        "point3D_ids": localized.point3D_ids,
        "inliers": result.inliers,
        "keypoints": result.keypoints,
    }


def _outcome(localized: Localized) -> QueryOutcome:
    result = localized.result
    rotation = position = float("nan")
    if result.cam_from_world is not None and result.covariance is not None:
        # The centre is -Rᵀt, and (w, v) move it by -Rᵀ(v + t × w).
        x, y, z = result.cam_from_world.translation
        across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        derivative = np.hstack([across, np.eye(3)])
        rotation = float(np.degrees(np.sqrt(np.trace(result.covariance[:3, :3]))))
        position = float(np.sqrt(np.trace(derivative @ result.covariance @ derivative.T)))
    return QueryOutcome(
        localized.name,
        result.success,
        result.reason,
        result.undone,
        len(localized.point3D_ids),
        result.num_inliers,
        position,
        rotation,
        result.seconds,
        list(result.steps),
    )
