"""Feature models inside the warp: on six images of synthetic_court of PIXCLI_DATA, and in changing light.

The scenes of changing light are made on the spot (--images of --width), from two seeds.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import pycolmap
from common import CACHE, Bench, arguments, folder_from

from pixcli.alignment.refine import Plan, plan_refinement
from pixcli.alignment.result import AlignmentResult, Status
from pixcli.io.database import MatchGraph
from pixcli.options import (
    DenseFeaturesOptions,
    InterpolationOptions,
    KeypointAdjustmentOptions,
    SyntheticOptions,
)
from pixcli.options.fields import build
from pixcli.options.presets import read_preset
from pixcli.progress import Progress
from pixcli.synthetic.baseline import build_database
from pixcli.synthetic.dataset import generate_dataset
from pixcli.synthetic.evaluation import keypoint_errors

WRONG = 5.0  # pixels: matches further off are wrong ones


class Moved:
    """A graph with its keypoints elsewhere."""

    def __init__(self, graph: MatchGraph, xy: np.ndarray) -> None:
        self._graph, self.xy = graph, xy

    def __getattr__(self, name: str) -> object:
        return getattr(self._graph, name)


def refine(
    database: Path, images: Path, values: dict, chosen: Path | None = None
) -> tuple[Plan, AlignmentResult, float]:
    """What keypoint adjustment makes of a database under some options, and its CPU seconds.

    Args:
        chosen: list of the images that take part.
    """
    start = time.process_time()
    groups = [
        build(kind, values)
        for kind in (DenseFeaturesOptions, InterpolationOptions, KeypointAdjustmentOptions)
    ]
    plan = plan_refinement(database, images, *groups, image_list_path=chosen, progress=Progress())
    result = plan.alignment.run(Progress())
    return plan, result, time.process_time() - start


def matched_errors(
    truth: pycolmap.Reconstruction, graph: MatchGraph, xy: np.ndarray, depth: Path
) -> np.ndarray:
    return keypoint_errors(truth, Moved(graph, xy), depth)


def some_images(scene: Path) -> Path:
    """A list of every fourth image: 128 channels of all would take 29 GB."""
    path = CACHE / "feature_models" / "images.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(sorted(file.name for file in (scene / "images").iterdir())[::4]) + "\n")
    return path


def court(bench: Bench, data: Path) -> None:
    scene = data / "synthetic_court"
    truth = pycolmap.Reconstruction(scene / "gt")
    database = CACHE / "feature_models" / "court.db"
    if not database.is_file():
        database.parent.mkdir(parents=True, exist_ok=True)
        build_database(truth, scene / "images", database)
    chosen = some_images(scene)
    for model, target in (("image", None), ("compact", "<= 0.12"), ("gradients", None), ("dsift", None)):
        values = {"DenseFeatures.model": model, "DenseFeatures.dtype": "half" if model == "dsift" else "int8"}
        plan, result, seconds = refine(database, scene / "images", values, chosen)
        before = matched_errors(truth, plan.graph, plan.graph.xy, scene / "depth")
        after = matched_errors(truth, plan.graph, result.xy, scene / "depth")
        right = np.isfinite(before) & (before < WRONG) & np.isfinite(after)
        if model == "image":
            bench.row("court, raw, median", float(np.median(before[right])), "px")
        bench.row(f"court, {model}, median", float(np.median(after[right])), "px", target)
        bench.row(f"court, {model}, mean", float(after[right].mean()), "px")
        bench.row(f"court, {model}, moved", int((result.status == Status.MOVED).sum()), "keypoints")
        bench.row(f"court, {model}, CPU", seconds, "s")


def displaced(bench: Bench, data: Path) -> None:
    """Keypoints displaced by 3 px at random, as of a detector with large noise."""
    scene = data / "synthetic_court"
    truth = pycolmap.Reconstruction(scene / "gt")
    raw = CACHE / "feature_models" / "court.db"
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "displaced.db"
        database.write_bytes(raw.read_bytes())
        with pycolmap.Database.open(database) as opened:
            for image in opened.read_all_images():
                keypoints = opened.read_keypoints(image.image_id)
                angle = rng.uniform(0, 2 * np.pi, len(keypoints))
                keypoints[:, :2] += 3 * np.stack([np.cos(angle), np.sin(angle)], 1)
                opened.update_keypoints(image.image_id, keypoints)
        chosen = some_images(scene)
        for name, values in (
            ("pixsfm_eth3d_d2net", {}),
            ("pixsfm_eth3d_d2net, image+compact", {"DenseFeatures.model": "image+compact"}),
        ):
            values = {**read_preset("pixsfm_eth3d_d2net"), **values}
            plan, result, _ = refine(database, scene / "images", values, chosen)
            before = graph_of(raw, scene / "images", chosen)
            exact = matched_errors(truth, before, before.xy, scene / "depth")
            after = matched_errors(truth, plan.graph, result.xy, scene / "depth")
            right = np.isfinite(exact) & (exact < 1) & np.isfinite(after)
            share = 100 * float((after[right] < 0.5).mean())
            bench.row(f"displaced by 3 px, {name}: back within .5 px", share, "%", ">= 85")


def graph_of(database: Path, images: Path, chosen: Path) -> MatchGraph:
    options = (DenseFeaturesOptions(), InterpolationOptions(), KeypointAdjustmentOptions())
    return plan_refinement(database, images, *options, image_list_path=chosen, progress=Progress()).graph


def changing_light(bench: Bench, seed: int, images: int, width: int) -> None:
    options = SyntheticOptions(
        seed=seed, num_images=images, width=width, height=width * 3 // 4, appearance_change=1.0
    )
    with tempfile.TemporaryDirectory() as folder:
        scene, database = Path(folder) / "scene", Path(folder) / "raw.db"
        generate_dataset(scene, options)
        truth = pycolmap.Reconstruction(scene / "gt")
        build_database(truth, scene / "images", database)
        plan, grey, _ = refine(database, scene / "images", {})
        _, chain, _ = refine(database, scene / "images", read_preset("appearance_change"))
        graph = plan.graph
        raw = matched_errors(truth, graph, graph.xy, scene / "depth")
        right = np.isfinite(raw) & (raw < WRONG)
        by_grey, by_chain = grey.status == Status.MOVED, chain.status == Status.MOVED
        ratio = by_chain.sum() / max(by_grey.sum(), 1)
        bench.row(f"changing light {seed}, accepted against grey alone", float(ratio), "x", ">= 1.3")
        for name, result in (("grey", grey), ("appearance_change", chain)):
            error = matched_errors(truth, graph, result.xy, scene / "depth")
            mean = float(error[right & np.isfinite(error)].mean())
            bench.row(f"changing light {seed}, {name}, mean of all", mean, "px")
            if name == "appearance_change":
                added = (by_chain & ~by_grey)[graph.edges].any(1) & right & np.isfinite(error)
                gain = float(np.median(error[added]) / np.median(raw[added])) if added.any() else float("nan")
                bench.row(f"changing light {seed}, added, median against raw", gain, "x", "<= 0.5")
        bench.row(f"changing light {seed}, accepted by grey of all aligned", 100 * by_grey.sum() / max(
            ((grey.status != Status.UNMATCHED) & (grey.status != Status.ROOT)).sum(), 1), "%")  # fmt: skip


def main() -> None:
    """Prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--width", type=int, default=800)
    parser.add_argument("--only", choices=["court", "displaced", "light"], help="one part")
    args = parser.parse_args()
    pycolmap.logging.minloglevel = 2
    bench = Bench("feature_models")
    data = folder_from("PIXCLI_DATA")
    if data is not None and args.only in (None, "court"):
        court(bench, data)
    if data is not None and args.only in (None, "displaced"):
        displaced(bench, data)
    if args.only in (None, "light"):
        for seed in (1, 2):
            changing_light(bench, seed, args.images, args.width)
    bench.finish(args)


if __name__ == "__main__":
    main()
