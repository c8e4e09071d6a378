"""pixcli localize"""

from dataclasses import asdict
from pathlib import Path

from pixcli.adapters.localize_queries import Localization, QueryFiles, localize_queries, median
from pixcli.cli.params import command
from pixcli.cli.terminal import print_phases, print_table
from pixcli.io.files import check_writable
from pixcli.io.report import write_report
from pixcli.options import CommonOptions
from pixcli.options.localization import LocalizeOptions
from pixcli.progress import Progress


@command
def localize(
    input_path: Path,
    image_path: Path,
    output_path: Path,
    database_path: Path | None,
    image_list_path: Path | None,
    queries_path: Path | None,
    features_path: Path | None,
    matches_path: Path | None,
    pairs_path: Path | None,
    references_path: Path | None,
    report_path: Path | None,
    options: LocalizeOptions,
    common: CommonOptions,
    progress: Progress,
) -> None:
    """Find the poses of new images in a COLMAP model.

    Of the images of a database that the model has not registered, matched with colmap: writes the model with
    these images added, and poses.txt. Or of hloc's files (queries, features, matches and pairs): writes a
    file of poses, and a log beside it. A line of poses is `name qw qx qy qz tx ty tz`, cam_from_world.
    Started again after an interruption, it goes on where it stopped.
    """
    if report_path is not None:
        check_writable(report_path)
    files = QueryFiles(
        input_path,
        image_path,
        output_path,
        database_path,
        image_list_path,
        queries_path,
        features_path,
        matches_path,
        pairs_path,
        references_path,
    )
    localization = localize_queries(files, options, random_seed=common.default_random_seed, progress=progress)
    if report_path is not None:
        values = {group.group: asdict(group) for group in vars(options).values()}
        write_report(report_path, "localize", {"options": values, **localization.contents()})
    _print_summary(localization)


def _print_summary(localization: Localization) -> None:
    print_table("Queries", ["", "value"], list(localization.summary().items()))
    localized = [query for query in localization.queries if query.success]
    names = dict.fromkeys(step.name for query in localized for step in query.steps)
    of_step = {name: [s for query in localized for s in query.steps if s.name == name] for name in names}
    print_table(
        "Steps of a query, medians",
        ["", "milliseconds", "measurements", "cost before", "cost after"],
        [
            (
                name,
                median([1000 * step.seconds for step in steps]),
                *(median([getattr(step, key) for step in steps]) for key in _STEP_COLUMNS),
            )
            for name, steps in of_step.items()
        ],
    )
    print_phases(localization.phases)


_STEP_COLUMNS = ("measurements", "cost_before", "cost_after")
