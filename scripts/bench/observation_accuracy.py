"""How exact the observations of refined models are: measured ones and those of completion on synthetic_court,
against exact truth; and how well those of real photos (sacre_coeur) fit two-view geometry.

The data sets lie in the folder PIXCLI_DATA and are judged by the evaluators in PIXCLI_TOOLS.
"""

import zlib  # noqa: F401  before pycolmap
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from accuracy import copy_database, evaluate, raw_baseline
from common import CACHE, Bench, arguments, folder_from
from model_accuracy import FIXED, adjust

import pycolmap

Rows = dict[int, np.ndarray]
"""By image, a flag for each 2D point."""
COMPLETED = ["--FeaturemetricBundleAdjustment.write_completed", "model"]


def measured_rows(raw: pycolmap.Reconstruction, model: pycolmap.Reconstruction) -> tuple[Rows, Rows]:
    """2D points that were moved, and those that were added."""
    moved, added = {}, {}
    for image_id, image in model.images.items():
        old, new = (np.array([p.xy for p in i.points2D]) for i in (raw.images[image_id], image))
        added[image_id] = np.arange(len(new)) >= len(old)
        moved[image_id] = np.append((new[: len(old)] != old).any(1), np.zeros(len(new) - len(old), bool))
    return moved, added


def write_matches(
    raw_database: Path,
    model: pycolmap.Reconstruction,
    target: Path,
    wanted: Callable[[tuple[int, int], tuple[int, int]], bool],
) -> Path:
    """A database of the model's 2D points, matched where the same point has both and the pair is wanted."""
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for point in model.points3D.values():
        track = sorted((element.image_id, element.point2D_idx) for element in point.track.elements)
        for k, first in enumerate(track):
            for second in track[k + 1 :]:
                if first[0] != second[0] and wanted(first, second):
                    pairs[first[0], second[0]].append((first[1], second[1]))
    target.unlink(missing_ok=True)
    copy_database(raw_database, target)
    with pycolmap.Database.open(target) as database:
        database.clear_two_view_geometries()
        for image_id, image in model.images.items():
            database.update_keypoints(image_id, np.array([p.xy for p in image.points2D], np.float32))
        for pair, matches in pairs.items():
            geometry = pycolmap.TwoViewGeometry()
            geometry.inlier_matches = np.array(matches, np.uint32)
            database.write_two_view_geometry(*pair, geometry)
    return target


def court(bench: Bench, tools: Path, scene: Path) -> None:
    baseline, work = raw_baseline(tools, scene), CACHE / "models"
    output = adjust(baseline / "sparse", scene / "images", work / "completed", *FIXED, *COMPLETED)
    raw, model = pycolmap.Reconstruction(baseline / "sparse"), pycolmap.Reconstruction(output)
    moved, added = measured_rows(raw, model)

    def errors(wanted: Callable[[tuple[int, int], tuple[int, int]], bool], *more: object) -> dict[str, float]:
        database = write_matches(baseline / "database.db", model, work / "matches.db", wanted)
        result = evaluate(tools, "eval_keypoints", scene / "gt", database, scene / "depth", *more)
        return {name: result[name] for name in ("median_px", "mean_px", "outliers")}

    def both_moved(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return bool(moved[a[0]][a[1]] and moved[b[0]][b[1]])

    def one_added(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return bool((added[a[0]][a[1]] and moved[b[0]][b[1]]) or (moved[a[0]][a[1]] and added[b[0]][b[1]]))

    accepted = errors(both_moved)
    bench.row("court: two views of measured observations, median", accepted["median_px"], "px", "<= 0.055")
    bench.row("court: two views of measured observations, mean", accepted["mean_px"], "px", "<= 0.085")
    share = 100 * sum(map(np.count_nonzero, added.values())) / raw.compute_num_observations()
    bench.row("court: observations added", share, "% of those there")
    completed = errors(one_added)
    bench.row("court: an added and a measured observation, median", completed["median_px"], "px")
    far = errors(one_added, "--outlier", 0.3)["outliers"]
    bench.row("court: of these, off by over .3 px", 100 * far, "%", "<= 1")


def sacre(bench: Bench, tools: Path, scene: Path) -> None:
    baseline, work = raw_baseline(tools, scene), CACHE / "models"
    refined = work / "sacre.db"
    refined.unlink(missing_ok=True)
    paths = ["--database_path", baseline / "database.db", "--output_database_path", refined]
    output = adjust(baseline / "sparse", scene / "images", work / "sacre", *FIXED, *map(str, paths))
    raw, model = pycolmap.Reconstruction(baseline / "sparse"), pycolmap.Reconstruction(output)

    def nothing_dropped(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return True

    matches = write_matches(baseline / "database.db", raw, work / "sacre_matches.db", nothing_dropped)
    for name, database, target in (("raw", baseline / "database.db", None), ("refined", refined, "<= 0.09")):
        fit = evaluate(tools, "eval_epipolar", database, "--matches-from", matches)
        bench.row(f"sacre_coeur: Sampson residual, median, {name}", fit["median_px"], "px", target)
        bench.row(f"sacre_coeur: over 2 px, {name}", 100 * fit["share_above_2px"], "%")
    bench.row("sacre_coeur: images lost", raw.num_reg_images() - model.num_reg_images(), "", "<= 0")
    higher = sum(residual_of(model, k) > residual_of(raw, k) for k in raw.reg_image_ids())
    bench.row("sacre_coeur: images with a higher residual than raw", higher, "", "<= 0")


def residual_of(model: pycolmap.Reconstruction, image_id: int) -> float:
    """The median reprojection error of an image's observations, in pixels."""
    image = model.images[image_id]
    seen = [point for point in image.points2D if point.has_point3D()]
    projected = [image.project_point(model.points3D[point.point3D_id].xyz) for point in seen]
    pairs = [(p.xy, q) for p, q in zip(seen, projected, strict=True) if q is not None]
    return float(np.median([np.linalg.norm(a - b) for a, b in pairs]))


def main() -> None:
    args = arguments(__doc__).parse_args()
    bench = Bench("observation_accuracy")
    data, tools = folder_from("PIXCLI_DATA"), folder_from("PIXCLI_TOOLS")
    if data is not None and tools is not None:
        court(bench, tools, data / "synthetic_court")
        sacre(bench, tools, data / "sacre_coeur")
    bench.finish(args)


if __name__ == "__main__":
    main()
