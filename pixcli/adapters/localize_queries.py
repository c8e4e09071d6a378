"""Localization of the images of a database, or of hloc's files, from reading to writing."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from pixcli.adapters.query_matches import DatabaseQueries, HlocQueries
from pixcli.adapters.query_records import append_query, read_queries
from pixcli.adapters.register_queries import register_queries
from pixcli.errors import UserError
from pixcli.io.files import check_writable
from pixcli.io.hloc import short_names, write_log, write_poses
from pixcli.io.journal import Journal
from pixcli.io.models import check_model_output, read_model, writing_model
from pixcli.io.patch_store import cache_beside
from pixcli.localization.batch import Localized, localize_batch
from pixcli.localization.localized import Step
from pixcli.localization.localizer import QueryLocalizer
from pixcli.localization.queries import Queries
from pixcli.options.fields import result_options
from pixcli.options.localization import LocalizationOptions, LocalizeOptions
from pixcli.progress import PhaseStats, Progress

import pycolmap

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueryFiles:
    """Where a model, queries and their matches are, and where poses go; text or Path.

    Matches come from a database, or from hloc's files.
    """

    input_path: Path
    image_path: Path
    output_path: Path
    database_path: Path | None = None
    image_list_path: Path | None = None
    """Of the database's images, those to localize; None: all that the model has not registered."""
    queries_path: Path | None = None
    features_path: Path | None = None
    matches_path: Path | None = None
    pairs_path: Path | None = None
    references_path: Path | None = None
    """The references of the map; made from the model's images, and written, if there is no such file."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if (path := getattr(self, field.name)) is not None:
                object.__setattr__(self, field.name, Path(path))
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

    def states(self) -> list[list[str | int]]:
        """What tells whether an input has changed: all paths, and the size and time of each file."""
        inputs = [getattr(self, field.name) for field in fields(self) if field.name != "output_path"]
        given = [path for path in inputs if path is not None]
        found = {file for path in given for file in (path, *path.glob("*.bin"), *path.glob("*.txt"))}
        files = [(file, file.stat()) for file in sorted(found) if file.is_file()]
        return [
            [str(path) for path in given],
            *([str(file), stat.st_size, stat.st_mtime_ns] for file, stat in files),
        ]


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


@dataclass(frozen=True, repr=False)
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

    def summary(self) -> dict[str, str]:
        """The figures that matter most, ready to be read."""
        localized = [query for query in self.queries if query.success]
        reasons = Counter(query.reason for query in self.queries if not query.success)
        undone = Counter(query.undone for query in localized if query.undone)
        return {
            "references of the map from": self.references,
            "queries": str(len(self.queries)),
            "localized": str(len(localized)),
            **{f"failed: {reason}": str(count) for reason, count in reasons.most_common(_MAX_REASONS)},
            **{
                f"refinement undone: {reason}": str(count)
                for reason, count in undone.most_common(_MAX_REASONS)
            },
            "matches, median": median([query.matches for query in localized]),
            "inliers, median": median([query.inliers for query in localized]),
            "predicted deviation of the centre, median (units of the model)": median(
                [query.position_deviation for query in localized]
            ),
            "predicted deviation of the rotation, median (degrees)": median(
                [query.rotation_deviation for query in localized]
            ),
        }

    def __repr__(self) -> str:
        return "\n".join(["Localization", *(f"  {name}: {value}" for name, value in self.summary().items())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
            for name, value in self.summary().items()
        )
        return f"<table>{rows}</table>"

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them."""
        return {
            "references": self.references,
            "localized": self.num_localized,
            "queries": self.queries,
            "phases": self.phases,
        }


_MAX_REASONS = 8


def median(values: Sequence[float]) -> str:
    """Of those that are finite, ready to be read; empty where none is."""
    known = np.array(values, float)[np.isfinite(values)]
    return f"{np.median(known):.4g}" if len(known) else ""


def localize_queries(
    files: QueryFiles,
    options: LocalizeOptions = LocalizeOptions(),
    *,
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
    progress, how = progress or Progress(), options.localization
    _check_output(files, how)
    if not files.image_path.is_dir():
        raise UserError(f"there is no folder {files.image_path}: check --image_path")
    with ExitStack() as stack:
        with progress.phase("read"):
            model = read_model(files.input_path)
            queries = stack.enter_context(files.open(model, how.covisibility_clustering))
        journal_path = files.output_path.with_name(f"{files.output_path.name}.journal")
        journal = stack.enter_context(Journal(journal_path))
        features = stack.enter_context(cache_beside(options.dense_features, files.output_path))
        localizer = QueryLocalizer(
            model,
            replace(options, dense_features=features),
            references=files.references_path,
            image_path=files.image_path,
            random_seed=random_seed,
            progress=progress,
        )
        # Not before: the localizer may have made the file of references, which the next run finds.
        journal.resume(_made_with(files, options, queries, random_seed))
        if journal.count:
            log.info("going on with %s, which has %d queries", journal_path, journal.count)
        for localized in localize_batch(
            localizer, queries, files.image_path, journal.count, how.num_threads, progress
        ):
            append_query(journal, localized)
        outcomes = [_outcome(localized) for localized in read_queries(journal)]
        if not any(outcome.success for outcome in outcomes):
            journal.remove()
            raise _nothing_localized(outcomes)
        with progress.phase("write"):
            _write(files.output_path, model, queries, how.prepend_camera_name, lambda: read_queries(journal))
        journal.remove()
    references = localizer.map.source if localizer.map else "none: poses are not refined"
    return Localization(references, outcomes, progress.phases)


def _nothing_localized(outcomes: Sequence[QueryOutcome]) -> UserError:
    (reason, count), *_ = Counter(outcome.reason for outcome in outcomes).most_common(1)
    of = f" ({count} of {len(outcomes)} queries)" if len(outcomes) > 1 else f" ({outcomes[0].name})"
    return UserError(f"nothing was localized: {reason}{of}")


def _check_output(files: QueryFiles, options: LocalizationOptions) -> None:
    if files.database_path is not None:
        check_model_output(files.input_path, files.output_path, options.overwrite, "Localization.overwrite")
        return
    check_writable(files.output_path)
    if files.output_path.exists() and not options.overwrite:
        raise UserError(
            f"--output_path {files.output_path} exists already: name another file, or set "
            "--Localization.overwrite 1"
        )


def _made_with(
    files: QueryFiles, options: LocalizeOptions, queries: Queries, random_seed: int
) -> dict[str, Any]:
    """Everything that decides what is localized: options, and which files in which state."""
    return {
        "options": result_options(*(getattr(options, field.name) for field in fields(options))),
        "files": files.states(),
        "queries": list(queries.names),
        "random_seed": random_seed,
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
