"""Measures a model, or a database of matches, against exact poses, depths and surfaces.

usage: evaluate.py GT MODEL|DATABASE [options]

A model: errors of its poses (aligned, and pairwise with AUC), held-out reprojection errors at the true poses,
the random part of the centres' error, and with --surface the distance of its points. A database: Sampson
residuals of its verified matches under each pair's own best fundamental matrix and, with --depth, their exact
two-view errors. Prints JSON; --out also writes it. Centres are in units of GT times --unit_scale.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from pixcli.errors import UserError
from pixcli.evaluation.epipolar import pair_residuals
from pixcli.evaluation.poses import aligned_errors, area_under_curve, pair_errors
from pixcli.evaluation.triangulation import held_out_errors, noise_floor
from pixcli.io.database import read_match_graph
from pixcli.io.models import read_model
from pixcli.synthetic.evaluation import keypoint_errors, surface_errors

import pycolmap

ANGLES = np.array([0.01, 0.02, 0.05, 0.1, 0.5, 1, 3, 5])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("gt", type=Path, help="COLMAP model with the true cameras and poses")
    parser.add_argument("estimate", type=Path, help="COLMAP model (a folder) or database (a file)")
    parser.add_argument("--surface", type=Path, help="surface.npz of a synthetic scene")
    parser.add_argument("--depth", type=Path, help="folder with the depth maps of a synthetic scene")
    parser.add_argument("--matches_from", type=Path, help="take the list of matches from this database")
    parser.add_argument("--fixed_poses", action="store_true", help="the model has the poses of GT")
    parser.add_argument("--robust", action="store_true", help="align so that few wrong cameras do not count")
    parser.add_argument("--splits", type=int, default=0, help="halves for the random part; 0: leave it out")
    parser.add_argument("--unit_scale", type=float, default=1000.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pycolmap.logging.minloglevel = 2
    try:
        for option, path in (("surface", args.surface), ("depth", args.depth)):
            if path is not None and not path.exists():
                raise UserError(f"there is no {path}: check --{option}")
        truth = read_model(args.gt, option="GT", needs_points=False)
        figures = evaluate_model(truth, args) if args.estimate.is_dir() else evaluate_database(truth, args)
    except UserError as error:
        parser.exit(1, f"evaluate.py: {error}\n")
    text = json.dumps(figures, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def evaluate_model(truth: pycolmap.Reconstruction, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of poses and points."""
    model = read_model(args.estimate, option="MODEL")
    figures: dict[str, Any] = {
        "images": {"true": truth.num_reg_images(), "registered": model.num_reg_images()},
        "points": int(model.num_points3D()),
        "track_length": float(model.compute_mean_track_length()),
    }
    if not args.fixed_poses:
        errors = aligned_errors(truth, model, args.robust)
        figures["centres"] = _statistics(args.unit_scale * errors.centres)
        figures["rotations_deg"] = _statistics(errors.rotations)
        rotations, directions = pair_errors(truth, model)
        worse = np.fmax(rotations, directions)
        figures["pairs_deg"] = {
            "rotation": _statistics(rotations[np.isfinite(rotations)]),
            "direction": _statistics(directions[np.isfinite(directions)]),
            "auc": dict(zip(map(str, ANGLES), 100 * area_under_curve(worse, ANGLES), strict=True)),
        }
    held_out = held_out_errors(truth, model)
    figures["held_out_px"] = _statistics(np.minimum(held_out, 20.0)) | _shares(held_out, (0.25, 0.5, 1, 2))
    if args.splits:
        floor = noise_floor(truth, model, args.splits)
        figures["random_part_of_centres"] = args.unit_scale * floor
    if args.surface:
        distance = surface_errors(truth, model, args.surface)
        figures["surface"] = _statistics(distance) | _shares(
            distance, (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
        )
    return figures


def evaluate_database(truth: pycolmap.Reconstruction, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of keypoints."""
    graph = read_match_graph(args.matches_from or args.estimate, "inlier")
    keypoints = read_match_graph(args.estimate, "raw").keypoints
    positions = [rows[:, :2].astype(np.float64) for rows in keypoints]
    cameras = {}
    for image in graph.images:
        true = truth.find_image_with_name(image.name)
        if true is None:
            raise UserError(f"image {image.name} of the database is not in {args.gt}")
        cameras[image.image_id] = true.camera
    pairs = list(pair_residuals(graph, cameras, positions))
    pooled = np.concatenate([pair.residuals for pair in pairs]) if pairs else np.empty(0)
    figures: dict[str, Any] = {
        "pairs": len(pairs),
        "sampson_px": _statistics(pooled) | _shares(pooled, (0.05, 0.1, 0.25, 0.5, 1)),
    }
    if args.depth:
        moved = type(graph)(
            graph.images, keypoints, graph.offsets, graph.edges, graph.pairs, graph.pair_ptr, graph.scores
        )
        errors = keypoint_errors(truth, moved, args.depth)
        errors = errors[np.isfinite(errors)]
        figures["two_view_px"] = _statistics(errors[errors < 4]) | {"wrong": float((errors >= 4).mean())}
    return figures


def _statistics(values: np.ndarray) -> dict[str, float | None]:
    if len(values) == 0:
        return {"mean": None, "median": None, "max": None}
    return {"mean": float(values.mean()), "median": float(np.median(values)), "max": float(values.max())}


def _shares(values: np.ndarray, thresholds: tuple[float, ...]) -> dict[str, Any]:
    return {"share_below": {str(t): float((values < t).mean()) if len(values) else None for t in thresholds}}


if __name__ == "__main__":
    main()
