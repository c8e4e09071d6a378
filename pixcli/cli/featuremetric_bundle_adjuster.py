"""pixcli featuremetric_bundle_adjuster"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pixcli.adapters.refine_model import ModelFiles, refine_model
from pixcli.bundle_adjustment.model_result import ModelResult
from pixcli.bundle_adjustment.residual_field import ResidualField
from pixcli.bundle_adjustment.residual_figure import draw_residual_fields
from pixcli.bundle_adjustment.strategy import SurfaceRound
from pixcli.calibration.lens_report import Calibration, Parameter
from pixcli.cli.params import command
from pixcli.cli.terminal import print_phases, print_table
from pixcli.errors import UserError
from pixcli.io.files import check_distinct, check_writable
from pixcli.io.report import write_figure, write_report
from pixcli.options.bundle_adjustment import FeaturemetricBundleAdjusterOptions
from pixcli.progress import Progress
from pixcli.sampling.status import Status

_MOST_CAMERAS = 10
_MOST_NAMES = 5


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
    references_path: Path | None,
    write_normals_path: Path | None,
    covariance_path: Path | None,
    report_path: Path | None,
    options: FeaturemetricBundleAdjusterOptions,
    progress: Progress,
) -> None:
    """Refine the cameras, poses and points of a COLMAP model.

    Measures in the images where every point of the model really is, and adjusts the model to that. Run it
    after COLMAP's mapper, with or without feature_refiner before it. The written model has the refined
    observations.
    """
    files = ModelFiles(
        input_path,
        output_path,
        image_path,
        database_path,
        output_database_path,
        constant_image_list_path,
        constant_camera_list_path,
        constant_rig_list_path,
        constant_point_list_path,
        references_path,
        write_normals_path,
        covariance_path,
    )
    figure_path = None if report_path is None else report_path.with_suffix(".png")
    if report_path == figure_path is not None:
        raise UserError(
            f"{report_path} is the name of a picture, which is drawn beside the report: name a .json file"
        )
    cache = options.dense_features.cache_path
    outputs = {
        "--output_path": output_path,
        "--output_database_path": output_database_path,
        "--DenseFeatures.cache_path": Path(cache) if cache else None,
        "--references_path": references_path,
        "--write_normals_path": write_normals_path,
        "--covariance_path": covariance_path,
        "--report_path": report_path,
        "--report_path, whose picture this is": figure_path,
    }
    inputs = {f"--{name}": path for name, path in vars(files).items() if f"--{name}" not in outputs}
    in_place = {"--output_path": "--input_path", "--output_database_path": "--database_path"}
    check_distinct(inputs, outputs, in_place=in_place)
    for path in (report_path, figure_path, write_normals_path, covariance_path, references_path):
        if path is not None:
            check_writable(path)
    refined = refine_model(files, options, progress)
    if report_path is not None and figure_path is not None:
        groups = {group.group: asdict(group) for group in vars(options).values()}
        write_report(report_path, "featuremetric_bundle_adjuster", {"options": groups, **refined.contents()})
        write_figure(figure_path, draw_residual_fields(refined.residual_fields))
    _print_summary(refined)


def _print_summary(refined: ModelResult) -> None:
    restored = [image.name for image in refined.images if image.restored]
    jumped = [pose.name for pose in refined.changes.poses if pose.jumped]
    focal = [str(focal.camera) for focal in refined.changes.focal_lengths if focal.jumped]
    rows: list[tuple[str, object, object]] = [
        ("mean reprojection error, median of points (pixels)", *_before_after(refined.residual)),
        ("cost", *_before_after(refined.cost)),
    ]
    print_table("Model", ["", "before", "after"], rows)
    model, last = refined.reconstruction, refined.adjustment
    moves = sorted(refined.changes.poses, key=lambda pose: pose.baselines)
    chain: list[tuple[str, object]] = [
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
    print_table(
        "Changes",
        ["", "value"],
        [
            ("images", model.num_reg_images()),
            ("points", model.num_points3D()),
            ("observations", model.compute_num_observations()),
            *((f"  without effect: {reason}", count) for reason, count in last.gated.items() if count),
            ("points without texture", last.textureless_points),
            ("points that contradict themselves, back where they were", refined.restored_points),
            ("move of a camera, median (baselines)", f"{moves[len(moves) // 2].baselines:.2g}"),
            ("  largest", f"{moves[-1].baselines:.2g} ({moves[-1].name})"),
            ("images that moved far more than others", _named(jumped)),
            ("focal lengths that changed far more than others", _named(focal)),
            ("images whose cost had risen, back at their pose", _named(restored)),
            ("solves", len(refined.solves)),
            ("  ended before they converged", sum(not solve.converged for solve in refined.solves)),
            *chain,
        ],
    )
    if refined.rounds:
        _print_rounds(refined.rounds)
    for calibration in refined.calibrations:
        _print_calibration(calibration)
    if refined.residual_fields:
        _print_cameras(refined)
    print_phases(refined.phases)


def _print_rounds(rounds: Sequence[SurfaceRound]) -> None:
    statuses = [status.label for status in Status if any(status.label in r.statuses for r in rounds)]
    lines = [
        ("points", *(r.points for r in rounds)),
        ("  surfaces refined", *(r.surfaces for r in rounds)),
        ("observations", *(r.observations for r in rounds)),
        *((f"  {status}", *(r.statuses.get(status, 0) for r in rounds)) for status in statuses),
        ("  added where no detector found the point", *(r.completed for r in rounds)),
        ("residual of the accepted, before (pixels)", *(f"{r.residual_before:.4f}" for r in rounds)),
        ("residual of the accepted, after (pixels)", *(f"{r.residual_after:.4f}" for r in rounds)),
        ("move of projections, median (pixels)", *(f"{r.moved:.4f}" for r in rounds)),
    ]
    print_table("Rounds", ["", *(f"round {k + 1}" for k in range(len(rounds)))], lines)


def _print_calibration(calibration: Calibration) -> None:
    """The camera models that were tried, then the lenses, each parameter with its standard deviation."""
    if len(calibration.candidates) > 1:
        print_table(
            f"Camera models for {calibration.before}",
            ["", "held-out residual, median (pixels)", "ahead of the chosen (standard errors)", ""],
            [
                (
                    c.model + ", principal point held" * c.centred,
                    f"{c.held_out:.4f}",
                    f"{c.ahead:+.1f}",
                    "chosen" if c.chosen else "",
                )
                for c in calibration.candidates
            ],
        )
    lenses = calibration.lenses[:_MOST_CAMERAS]
    parameters = zip(*(lens.parameters for lens in lenses), strict=True)
    print_table(
        f"Lenses, {calibration.model}: the first {len(lenses)} of {len(calibration.lenses)}",
        ["", *(f"camera {lens.camera}" for lens in lenses)],
        [(row[0].name, *map(_with_deviation, row)) for row in parameters],
    )


def _with_deviation(parameter: Parameter) -> str:
    known = "" if parameter.deviation is None else f" ± {parameter.deviation:.1g}"
    return f"{parameter.value:.6g}{known}" + ("" if parameter.determined else " (not determined)")


def _print_cameras(refined: ModelResult) -> None:
    """The cameras whose residuals are most systematic."""
    worst = sorted(refined.residual_fields, key=lambda field: -field.systematic)[:_MOST_CAMERAS]
    focal = {change.camera: f"{change.change:+.2e}" for change in refined.changes.focal_lengths}
    print_table(
        "Cameras",
        ["", "model", "observations", "noise (pixels)", "systematic (pixels)", "focal length", "lens model"],
        [
            (
                field.camera,
                field.model,
                field.observations,
                f"{field.noise:.3f}",
                f"{field.systematic:.3f}",
                focal.get(field.camera, ""),
                _verdict(field),
            )
            for field in worst
        ],
    )


def _verdict(field: ResidualField) -> str:
    found = ["parameters held"] if field.held else []
    found += [f"too simple, try {field.next_model}"] if field.too_simple else []
    return ", ".join(found) or ("unexplained" if field.significant else "fits")


def _before_after(pair: tuple[float, float]) -> tuple[str, str]:
    return f"{pair[0]:.4g}", f"{pair[1]:.4g}"


def _named(names: Sequence[str]) -> str:
    """How many, and the first few by name."""
    some = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    return f"{len(names)} ({some})" if names else "0"
