"""What a run has made of its images, from raw to final: figures and pictures."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixcli.evaluation.epipolar import pair_residuals
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.database import read_match_graph
from pixcli.reconstruction import pictures
from pixcli.reconstruction.colmap_steps import put_folder, remove

import pycolmap

Array = npt.NDArray[np.float64]

_PAIRS = 30
_MATCHES = 400
"""So many pairs, and so many matches of each, stand for all: more would take longer than the steps."""


@dataclass(frozen=True)
class Stage:
    """Where the keypoints lie at one stage of the chain."""

    name: str
    positions: list[Array]
    """(n_i, 2) COLMAP pixels for each image of the graph; NaN for what the final model does not use."""


def make_report(folder: Path, image_path: Path, database: Path, draw: bool) -> dict[str, Any]:
    """Measures the stages of a run in its folder; with `draw`, puts pictures into folder/report."""
    graph = read_match_graph(folder / "database.db", "inlier")
    mapped = pycolmap.Reconstruction(folder / "sparse" / "0")
    final = pycolmap.Reconstruction(folder / "model")
    stages = _stages(graph, final, folder / "database.db", database)
    cameras = {
        image.image_id: final.images[image.image_id].camera
        for image in graph.images
        if final.exists_image(image.image_id) and final.images[image.image_id].has_pose
    }
    registered = np.array([image.image_id in cameras for image in graph.images])
    usable = np.flatnonzero(registered[graph.pairs].all(axis=1))
    count = np.diff(graph.pair_ptr)[usable]
    chosen = np.sort(usable[np.argsort(-count, kind="stable")[:_PAIRS]])
    default = pycolmap.Camera.create_from_model_name(0, "SIMPLE_PINHOLE", 1.0, 1, 1)
    by_id = {image.image_id: cameras.get(image.image_id, default) for image in graph.images}
    residuals = {
        stage.name: [
            pair.residuals
            for pair in pair_residuals(
                graph, by_id, stage.positions, max_matches=_MATCHES, pairs=chosen.tolist()
            )
        ]
        for stage in stages
    }
    pooled = {name: np.concatenate(found) if found else np.empty(0) for name, found in residuals.items()}
    raw, last = stages[0].positions, stages[-1].positions
    shifts = np.concatenate([np.linalg.norm(b - a, axis=1) for a, b in zip(raw, last, strict=True)])
    shifts = shifts[shifts > 0]
    if draw:
        with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=folder) as temporary:
            drawn = Path(temporary) / "report"
            drawn.mkdir()
            for number, pair in enumerate(_two_pairs(graph, chosen), start=1):
                path = drawn / f"keypoint_shifts_{number}.png"
                pictures.draw_shifts(path, graph, pair, raw, last, image_path)
            pictures.draw_histograms(drawn / "epipolar_residuals.png", pooled)
            pictures.draw_camera_path(drawn / "camera_path.png", mapped, final)
            put_folder(drawn, folder / "report")
    else:
        remove(folder / "report")  # pictures of what was there before
    return {
        "sampson": {name: float(np.median(found)) if len(found) else None for name, found in pooled.items()},
        "sampson_pairs": len(next(iter(residuals.values()))),
        "shift": {
            "median": float(np.median(shifts)) if len(shifts) else 0.0,
            "p90": float(np.percentile(shifts, 90)) if len(shifts) else 0.0,
        },
    }


def _stages(graph: MatchGraph, final: pycolmap.Reconstruction, raw: Path, mapped: Path) -> list[Stage]:
    """Raw keypoints, refined ones if there are any, and the observations of the final model."""
    positions: list[Array] = []
    for image in graph.images:
        rows = np.full((len(graph.keypoints[len(positions)]), 2), np.nan)
        if final.exists_image(image.image_id):
            points = final.images[image.image_id].points2D
            for k in range(min(len(rows), len(points))):
                if points[k].has_point3D():
                    rows[k] = points[k].xy
        positions.append(rows)
    used = [np.isfinite(rows) for rows in positions]

    def of_database(path: Path) -> list[Array]:
        keypoints = graph.keypoints if path == raw else read_match_graph(path, "raw").keypoints
        return [
            np.where(mask, rows[:, :2].astype(np.float64), np.nan)
            for rows, mask in zip(keypoints, used, strict=True)
        ]

    stages = [Stage("raw", of_database(raw))]
    if mapped != raw:
        stages.append(Stage("keypoints refined", of_database(mapped)))
    return [*stages, Stage("model", positions)]


def _two_pairs(graph: MatchGraph, pairs: npt.NDArray[np.int64]) -> list[int]:
    """The pair with most matches, and the one with most among those that share no image with it."""
    order = pairs[np.argsort(-np.diff(graph.pair_ptr)[pairs], kind="stable")]
    apart = [k for k in order[1:] if not set(graph.pairs[k]) & set(graph.pairs[order[0]])]
    return [int(k) for k in (*order[:1], *(apart or order[1:])[:1])]
