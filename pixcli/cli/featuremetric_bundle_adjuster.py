"""pixcli featuremetric_bundle_adjuster"""

from dataclasses import asdict
from pathlib import Path

from pixcli.adjustment.adjust import Adjustment, refine_model
from pixcli.cli.params import command
from pixcli.cli.progress import print_table
from pixcli.io.files import check_writable
from pixcli.io.report import write_report
from pixcli.options import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    DenseFeaturesOptions,
    FeaturemetricBundleAdjustmentOptions,
    InterpolationOptions,
    PosePriorOptions,
    TrackOptions,
)
from pixcli.progress import Progress


@command
def featuremetric_bundle_adjuster(
    input_path: Path,
    output_path: Path,
    image_path: Path,
    database_path: Path | None,
    output_database_path: Path | None,
    constant_image_list_path: Path | None,
    constant_camera_list_path: Path | None,
    constant_rig_list_path: Path | None,
    constant_point_list_path: Path | None,
    write_normals_path: Path | None,
    report_path: Path | None,
    options: FeaturemetricBundleAdjustmentOptions,
    adjustment: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    tracks: TrackOptions,
    pose_priors: PosePriorOptions,
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
    progress: Progress,
) -> None:
    """Refine the cameras, poses and points of a COLMAP model.

    Measures in the images where every point of the model really is, and adjusts the model to that. Run it
    after COLMAP's mapper, with or without feature_refiner before it. The written model has the refined
    observations.
    """
    for path in (report_path, write_normals_path):
        if path is not None:
            check_writable(path)
    refined = refine_model(
        input_path,
        output_path,
        image_path,
        features,
        options,
        interpolation,
        adjustment,
        ceres,
        tracks=tracks,
        pose_priors=pose_priors,
        database_path=database_path,
        output_database_path=output_database_path,
        constant_image_list_path=constant_image_list_path,
        constant_camera_list_path=constant_camera_list_path,
        constant_rig_list_path=constant_rig_list_path,
        constant_point_list_path=constant_point_list_path,
        normals_path=write_normals_path,
        progress=progress,
    )
    if report_path is not None:
        used = (options, adjustment, ceres, tracks, pose_priors, features, interpolation)
        groups = {group.group: asdict(group) for group in used}
        write_report(report_path, "featuremetric_bundle_adjuster", {"options": groups, **refined.contents()})
    _print_summary(refined)


def _print_summary(refined: Adjustment) -> None:
    measured = [
        (f"round {k + 1}: {name}", value)
        for k, round_ in enumerate(refined.rounds)
        for name, value in (
            ("surfaces refined", round_.surfaces),
            *((f"observations, {status}", count) for status, count in round_.statuses.items()),
            ("observations completed", round_.completed),
            ("residual before (pixels)", f"{round_.residual_before:.4f}"),
            ("residual after (pixels)", f"{round_.residual_after:.4f}"),
        )
    ]
    chain = [
        (f"loop {k + 1}: observations {name}", value)
        for k, loop in enumerate(refined.loops)
        for name, value in asdict(loop).items()
    ]
    if refined.num_missing_images:
        chain.append(("images that are not on disk", refined.num_missing_images))
    if refined.database is not None:
        chain.append(("keypoints moved in the database", refined.database.moved))
        chain.append(("keypoints appended to the database", refined.database.appended))
    if refined.prior_distance is not None:
        chain.append(
            ("median distance of images from their prior positions", f"{refined.prior_distance:.4g}")
        )
    largest = max(refined.poses, key=lambda pose: pose.centre)
    print_table(
        "Model",
        ["", "value"],
        [
            ("images", refined.num_images),
            ("points", refined.num_points),
            ("observations", refined.num_observations),
            ("mean reprojection error of points, median before (pixels)", f"{refined.residual_before:.4f}"),
            ("mean reprojection error of points, median after (pixels)", f"{refined.residual_after:.4f}"),
            *measured,
            *chain,
            ("largest move of a camera (units of the model)", f"{largest.centre:.5g} ({largest.name})"),
            ("images that moved far more than others", sum(pose.jumped for pose in refined.poses)),
        ],
    )
    print_table(
        "Phases",
        ["", "seconds", "peak memory (MB)"],
        [(phase.name, f"{phase.seconds:.2f}", f"{phase.peak_memory_mb:.0f}") for phase in refined.phases],
    )
