"""pixcli feature_refiner"""

import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pixcli.cli.params import command
from pixcli.cli.terminal import print_table
from pixcli.errors import UserError
from pixcli.io.files import check_distinct, check_writable
from pixcli.io.report import write_report
from pixcli.keypoint_adjustment.refine import Refinement, refine_keypoints
from pixcli.options import (
    CommonOptions,
    DenseFeaturesOptions,
    InterpolationOptions,
    KeypointAdjustmentOptions,
)
from pixcli.progress import Progress
from pixcli.reconstruction.hloc_import import refine_features
from pixcli.sampling.status import Status

log = logging.getLogger(__name__)


@command
def feature_refiner(
    database_path: Path | None,
    image_path: Path,
    output_path: Path | None,
    features_path: Path | None,
    matches_path: Path | None,
    pairs_path: Path | None,
    image_list_path: Path | None,
    constant_image_list_path: Path | None,
    covariance_path: Path | None,
    report_path: Path | None,
    adjustment: KeypointAdjustmentOptions,
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
    common: CommonOptions,
    progress: Progress,
) -> None:
    """Refine the keypoints of a COLMAP database, or of hloc's files.

    Moves matched keypoints until what surrounds them agrees between images, and verifies the matches again.
    Run it between COLMAP's matcher and mapper. Without --output_path the database is refined in place.

    Instead of a database, hloc's --features_path and --matches_path may be given, and --pairs_path to select
    pairs: then the output is a file of features like the given one, with other positions.
    """
    check_distinct(
        {"--database_path": database_path or features_path},
        {
            "--output_path": output_path,
            "--DenseFeatures.cache_path": Path(features.cache_path) if features.cache_path else None,
            "--covariance_path": covariance_path,
            "--report_path": report_path,
        },
        in_place={"--output_path": "--database_path"},
    )
    if report_path is not None:
        check_writable(report_path)
    refine = _refine_what(database_path, features_path, matches_path, pairs_path)
    refinement = refine(
        image_path,
        output_path,
        features,
        interpolation,
        adjustment,
        image_list_path=image_list_path,
        constant_image_list_path=constant_image_list_path,
        covariance_path=covariance_path,
        seed=common.default_random_seed,
        progress=progress,
    )
    if report_path is not None:
        groups = {group.group: asdict(group) for group in (adjustment, features, interpolation)}
        options = {**groups, "default_random_seed": common.default_random_seed}
        write_report(report_path, "feature_refiner", {"options": options, **refinement.contents()})
    _print_summary(refinement)


def _refine_what(
    database_path: Path | None, features_path: Path | None, matches_path: Path | None, pairs_path: Path | None
) -> Callable[..., Refinement]:
    """The function that refines what is given: a database, or hloc's files."""
    hloc = {"--features_path": features_path, "--matches_path": matches_path, "--pairs_path": pairs_path}
    if database_path is not None:
        if given := [option for option, path in hloc.items() if path is not None]:
            raise UserError(f"give either --database_path or {given[0]}, not both")
        return partial(refine_keypoints, database_path)
    if features_path is None or matches_path is None:
        if missing := [option for option, path in hloc.items() if path is not None]:
            raise UserError(f"{missing[0]} is not enough: --features_path and --matches_path go together")
        raise UserError(
            "--database_path is missing: give it on the command line or in the file of --project_path, or "
            "--features_path and --matches_path"
        )
    return partial(refine_features, features_path, matches_path, pairs_path)


def _print_summary(refinement: Refinement) -> None:
    statuses = [(f"  {s.label}", refinement.statuses[s]) for s in Status if refinement.statuses[s]]
    moved_by = refinement.moved_by.items() if len(refinement.moved_by) > 1 else ()
    by_model = [(f"  moved by {model}", count) for model, count in moved_by]
    verification = refinement.verification
    verified = (
        []
        if verification is None
        else [
            ("pairs verified again", verification.updated),
            ("  inlier matches before", verification.inliers_before),
            ("  inlier matches after", verification.inliers_after),
            ("  pairs kept that would have lost all inliers", verification.lost),
        ]
    )
    print_table(
        "Keypoints",
        ["", "count"],
        [
            ("images", refinement.num_images),
            ("matches", refinement.num_edges),
            ("tracks", refinement.num_tracks),
            ("keypoints", refinement.num_keypoints),
            *statuses,
            *by_model,
            *verified,
        ],
    )
    print_table(
        "Alignment",
        ["", "value"],
        [
            ("shift, median (pixels)", f"{refinement.shift_median:.3f}"),
            ("shift, 90th percentile (pixels)", f"{refinement.shift_p90:.3f}"),
            ("shift, largest (pixels)", f"{refinement.shift_max:.3f}"),
            ("cost before", f"{refinement.cost_before:.6g}"),
            ("cost after", f"{refinement.cost_after:.6g}"),
            ("epipolar residual before, median (pixels)", f"{refinement.epipolar.before:.3f}"),
            ("epipolar residual after, median (pixels)", f"{refinement.epipolar.after:.3f}"),
        ],
    )
    print_table(
        "Phases",
        ["", "seconds", "peak memory (MB)"],
        [(phase.name, f"{phase.seconds:.2f}", f"{phase.peak_memory_mb:.0f}") for phase in refinement.phases],
    )
