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
)
from pixcli.progress import Progress


@command
def featuremetric_bundle_adjuster(
    input_path: Path,
    output_path: Path,
    image_path: Path,
    constant_image_list_path: Path | None,
    references_path: Path | None,
    write_normals_path: Path | None,
    report_path: Path | None,
    options: FeaturemetricBundleAdjustmentOptions,
    adjustment: BundleAdjustmentOptions,
    ceres: BundleAdjustmentCeresOptions,
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
    progress: Progress,
) -> None:
    """Refine the cameras, poses and points of a COLMAP model.

    Measures in the images where every point of the model really is, and adjusts the model to that. Run it
    after COLMAP's mapper, with or without feature_refiner before it. The written model has the refined
    observations.
    """
    for path in (report_path, write_normals_path, references_path):
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
        constant_image_list_path=constant_image_list_path,
        normals_path=write_normals_path,
        references_path=references_path,
        progress=progress,
    )
    if report_path is not None:
        groups = {
            group.group: asdict(group) for group in (options, adjustment, ceres, features, interpolation)
        }
        write_report(report_path, "featuremetric_bundle_adjuster", {"options": groups, **refined.contents()})
    _print_summary(refined)


def _print_summary(refined: Adjustment) -> None:
    rounds = refined.surfaces.rounds if refined.surfaces else []
    measured = [
        (f"round {k + 1}: {name}", value)
        for k, round_ in enumerate(rounds)
        for name, value in (
            ("surfaces refined", round_.surfaces),
            *((f"observations, {status}", count) for status, count in round_.statuses.items()),
            ("observations completed", round_.completed),
            ("residual before (pixels)", f"{round_.residual_before:.4f}"),
            ("residual after (pixels)", f"{round_.residual_after:.4f}"),
        )
    ]
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
            ("largest move of a camera (units of the model)", f"{largest.centre:.5g} ({largest.name})"),
            ("images that moved far more than others", sum(pose.jumped for pose in refined.poses)),
        ],
    )
    print_table(
        "Phases",
        ["", "seconds", "peak memory (MB)"],
        [(phase.name, f"{phase.seconds:.2f}", f"{phase.peak_memory_mb:.0f}") for phase in refined.phases],
    )
