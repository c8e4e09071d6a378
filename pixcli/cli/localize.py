"""pixcli localize"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pixcli.cli.params import command
from pixcli.cli.terminal import print_phases, print_table
from pixcli.io.files import check_writable
from pixcli.io.report import write_report
from pixcli.localization.localize import Localization, QueryFiles, localize_images
from pixcli.options import (
    AbsolutePoseOptions,
    CommonOptions,
    DenseFeaturesOptions,
    InterpolationOptions,
    LocalizationOptions,
    QueryBundleAdjustmentOptions,
    QueryKeypointAdjustmentOptions,
)
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
    options: LocalizationOptions,
    absolute_pose: AbsolutePoseOptions,
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
    keypoint_adjustment: QueryKeypointAdjustmentOptions,
    bundle_adjustment: QueryBundleAdjustmentOptions,
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
    groups = (options, absolute_pose, features, interpolation, keypoint_adjustment, bundle_adjustment)
    localization = localize_images(
        input_path,
        image_path,
        output_path,
        QueryFiles(database_path, image_list_path, queries_path, features_path, matches_path, pairs_path),
        *groups,
        references_path=references_path,
        random_seed=common.default_random_seed,
        progress=progress,
    )
    if report_path is not None:
        values = {group.group: asdict(group) for group in groups}
        write_report(report_path, "localize", {"options": values, **localization.contents()})
    _print_summary(localization)


def _print_summary(localization: Localization) -> None:
    queries = localization.queries
    localized = [query for query in queries if query.success]
    reasons = Counter(query.reason for query in queries if not query.success)
    undone = Counter(query.undone for query in localized if query.undone)
    print_table(
        "Queries",
        ["", "value"],
        [
            ("references of the map from", localization.references),
            ("queries", len(queries)),
            ("localized", localization.num_localized),
            *((f"failed: {reason}", count) for reason, count in reasons.most_common(_MAX_REASONS)),
            *((f"refinement undone: {reason}", count) for reason, count in undone.most_common(_MAX_REASONS)),
            ("matches, median", _median([query.matches for query in localized])),
            ("inliers, median", _median([query.inliers for query in localized])),
            (
                "predicted deviation of the centre, median (units of the model)",
                _median([query.position_deviation for query in localized]),
            ),
            (
                "predicted deviation of the rotation, median (degrees)",
                _median([query.rotation_deviation for query in localized]),
            ),
        ],
    )
    names = dict.fromkeys(step.name for query in localized for step in query.steps)
    of_step = {name: [s for query in localized for s in query.steps if s.name == name] for name in names}
    print_table(
        "Steps of a query, medians",
        ["", "milliseconds", "measurements", "cost before", "cost after"],
        [
            (
                name,
                _median([1000 * step.seconds for step in steps]),
                *(_median([getattr(step, key) for step in steps]) for key in _STEP_COLUMNS),
            )
            for name, steps in of_step.items()
        ],
    )
    print_phases(localization.phases)


_MAX_REASONS = 8
_STEP_COLUMNS = ("measurements", "cost_before", "cost_after")


def _median(values: list[float] | list[int]) -> str:
    known = np.array(values, float)[np.isfinite(values)]
    return f"{np.median(known):.4g}" if len(known) else ""
