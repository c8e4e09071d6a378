"""pixcli reconstructor"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixcli.adapters.match_input import MatchInput
from pixcli.cli.params import command
from pixcli.cli.terminal import print_table
from pixcli.options import ChainOptions, CommonOptions
from pixcli.progress import Progress
from pixcli.reconstruction.reconstruct import Reconstructed, reconstruct


@command
def reconstructor(
    image_path: Path,
    output_path: Path,
    database_path: Path | None,
    features_path: Path | None,
    matches_path: Path | None,
    pairs_path: Path | None,
    options: ChainOptions,
    common: CommonOptions,
    progress: Progress,
) -> None:
    """Make a refined model of a folder of images.

    Extracts and matches features by COLMAP, or takes those of a database or of hloc's files; refines the
    keypoints, verifies the matches, maps by COLMAP and refines the largest model. The output folder gets
    database.db, refined.db, sparse/ (all models), model/ (the result), report.json and report/ (pictures).
    Run again, it takes up what was interrupted and repeats only what follows from a change.
    """
    result = reconstruct(
        image_path,
        output_path,
        MatchInput(database_path, features_path, matches_path, pairs_path),
        options=options,
        seed=common.default_random_seed,
        progress=progress,
    )
    print_result(result)


def print_result(result: Reconstructed) -> None:
    """Prints what each stage was like, from raw to final, and what each step took."""
    steps: Mapping[str, Any] = result.report["steps"]
    features = next(steps[name] for name in ("features", "database", "import") if name in steps)
    matches = next(steps[name] for name in ("matches", "database", "import") if name in steps)
    keypoints = steps.get("keypoints")
    mapped = steps.get("mapping") or steps["triangulation"]
    final = steps.get("adjustment") or steps["model"]
    report = steps["report"]
    verified = keypoints and keypoints["verification"]
    sampson = report["sampson"]
    rows = [
        ("images", features.get("images", ""), "", mapped["registered"], final["registered"]),
        ("pairs with verified matches", matches["verified_pairs"], "", "", ""),
        (
            "verified matches",
            matches["inlier_matches"],
            verified["inliers_after"] if verified else "",
            "",
            "",
        ),
        (
            "distance from epipolar geometry, median (pixels)",
            _number(sampson.get("raw")),
            _number(sampson.get("keypoints refined")),
            "",
            _number(sampson.get("model")),
        ),
        (
            "shift from raw keypoints, median (pixels)",
            "",
            f"{keypoints['shift']['median']:.3f}" if keypoints else "",
            "",
            f"{report['shift']['median']:.3f}",
        ),
        ("points", "", "", mapped["points"], final["points"]),
        ("observations", "", "", mapped["observations"], final["observations"]),
        ("track length, mean", "", "", f"{mapped['track_length']:.2f}", f"{final['track_length']:.2f}"),
        (
            "reprojection error of points, median (pixels)",
            "",
            "",
            _number(mapped["reprojection_error"]),
            _number(final["reprojection_error"]),
        ),
    ]
    print_table("From raw to final", ["", "raw", "keypoints refined", "mapped", "model refined"], rows)
    print_table(
        "Steps",
        ["", "seconds", "peak memory (MB)", "this time"],
        [
            (
                name,
                f"{figures['seconds']:.1f}",
                f"{figures['peak_memory_mb']:.0f}",
                "done" if name in result.done else "was there",
            )
            for name, figures in steps.items()
        ],
    )
    sizes = mapped["images"]
    if len(sizes) > 1:
        models = [(f"sparse/{k}", size, "kept" if k else "refined") for k, size in enumerate(sizes)]
        print_table("Models", ["", "images", ""], models)
    print(f"The refined model is in {result.model_path}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
