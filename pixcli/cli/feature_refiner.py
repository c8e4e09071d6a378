"""pixcli feature_refiner"""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from pixcli.adapters.match_input import MatchInput
from pixcli.adapters.refine_database import Refinement, RefinerFiles, refine_database
from pixcli.adapters.refine_hloc import refine_hloc
from pixcli.cli.params import command
from pixcli.cli.terminal import print_phases, print_table
from pixcli.io.files import check_distinct, check_writable
from pixcli.io.report import write_report
from pixcli.options import CommonOptions, FeatureRefinerOptions, TwoViewGeometryOptions
from pixcli.progress import Progress


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
    options: FeatureRefinerOptions,
    two_view_geometry: TwoViewGeometryOptions,
    common: CommonOptions,
    progress: Progress,
) -> None:
    """Refine the keypoints of a COLMAP database, or of hloc's files.

    Shifts matched keypoints until their surrounding image patches agree, and verifies the matches again.
    Run it between COLMAP's matcher and mapper. Without --output_path the database is refined in place.

    Instead of a database, hloc's --features_path and --matches_path may be given, and --pairs_path to select
    pairs: then the output is a file of features like the given one, with other positions.
    """
    features = options.dense_features
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
    matches = MatchInput(database_path, features_path, matches_path, pairs_path)
    matches.require("features_path", "matches_path")
    refine = (
        partial(refine_hloc, matches) if database_path is None else partial(refine_database, database_path)
    )
    refinement = refine(
        image_path,
        output_path,
        options,
        two_view_geometry,
        files=RefinerFiles(image_list_path, constant_image_list_path, covariance_path=covariance_path),
        seed=common.default_random_seed,
        progress=progress,
    )
    if report_path is not None:
        groups = {group.group: asdict(group) for group in (*vars(options).values(), two_view_geometry)}
        values = {**groups, "default_random_seed": common.default_random_seed}
        write_report(report_path, "feature_refiner", {"options": values, **refinement.contents()})
    _print_summary(refinement)


def _print_summary(refinement: Refinement) -> None:
    result = refinement.keypoints
    figures = result.contents()
    statuses = [(f"  {status.label}", count) for status, count in result.counts.items() if count]
    moved_by = result.moved_by.items() if len(result.moved_by) > 1 else ()
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
            ("images", figures["input"]["images"]),
            ("matches", figures["input"]["edges"]),
            ("tracks", figures["input"]["tracks"]),
            ("keypoints", figures["input"]["keypoints"]),
            *statuses,
            *by_model,
            *verified,
        ],
    )
    print_table(
        "Alignment",
        ["", "value"],
        [
            ("shift, median (pixels)", f"{figures['shift']['median']:.3f}"),
            ("shift, 90th percentile (pixels)", f"{figures['shift']['p90']:.3f}"),
            ("shift, largest (pixels)", f"{figures['shift']['max']:.3f}"),
            ("cost before", f"{result.cost_before:.6g}"),
            ("cost after", f"{result.cost_after:.6g}"),
            ("epipolar residual before, median (pixels)", f"{result.epipolar.before:.3f}"),
            ("epipolar residual after, median (pixels)", f"{result.epipolar.after:.3f}"),
        ],
    )
    print_phases(refinement.phases)
