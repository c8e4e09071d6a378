"""Feature models inside the warp: on synthetic_court of PIXCLI_DATA (six images of it, then all), and in
changing light.

The scenes of changing light are made on the spot (--images of --width), from two seeds. SIFT would match
there what looks alike, and nothing would be left to gain. Learned detectors and matchers see through light:
keypoints and matches are those that COLMAP finds in the same scene under one light, with the noise of such
detectors (1 px) and without frames, which they do not give.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
from common import CACHE, Bench, arguments, folder_from

from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.database import read_match_graph
from pixcli.io.image_list import read_image_list
from pixcli.keypoint_adjustment.keypoint_result import KeypointResult
from pixcli.keypoint_adjustment.refine import Plan, plan_refinement
from pixcli.options import FeatureRefinerOptions, SyntheticOptions
from pixcli.options.fields import build_all
from pixcli.options.presets import read_preset
from pixcli.progress import Progress
from pixcli.sampling.status import Status
from pixcli.synthetic.baseline import build_database
from pixcli.synthetic.dataset import generate_dataset
from pixcli.synthetic.evaluation import keypoint_errors

WRONG = 5.0  # pixels: matches further off are wrong ones
DETECTION_NOISE = 1.0  # pixels, root mean square, of a learned detector


def refine(
    database: Path, images: Path, values: dict, chosen: Path | None = None
) -> tuple[Plan, KeypointResult, float]:
    """What keypoint adjustment makes of a database under some options, and its CPU seconds.

    Args:
        chosen: list of the images that take part.
    """
    start = time.process_time()
    graph = read_match_graph(database)
    only = chosen and read_image_list(chosen, graph.names)
    options = build_all(FeatureRefinerOptions, values)
    plan = plan_refinement(graph, images, options, only=only, progress=Progress())
    result = plan.run(Progress(), guard=True)
    return plan, result, time.process_time() - start


def matched_errors(
    truth: pycolmap.Reconstruction, graph: MatchGraph, xy: np.ndarray, depth: Path
) -> np.ndarray:
    return keypoint_errors(truth, graph.with_positions(xy), depth)


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
    for model, dtype, images in (
        ("image", "half", chosen),  # in bytes, whatever the option
        ("compact", "half", chosen),
        ("compact", "int4", chosen),
        ("gradients", "half", chosen),
        ("dsift", "half", chosen),
        ("compact", "int4", None),
    ):
        values = {"DenseFeatures.model": model, "DenseFeatures.dtype": dtype}
        plan, result, seconds = refine(database, scene / "images", values, images)
        before = matched_errors(truth, plan.graph, plan.graph.xy, scene / "depth")
        after = matched_errors(truth, plan.graph, result.xy, scene / "depth")
        right = np.isfinite(before) & (before < WRONG) & np.isfinite(after)
        if model == "image" or images is None:
            bench.row(f"court, {_count(images)}, raw, median", float(np.median(before[right])), "px")
        label = f"court, {_count(images)}, {model} {dtype}"
        compact = model == "compact"
        bench.row(f"{label}, median", float(np.median(after[right])), "px", "<= 0.12" if compact else None)
        bench.row(f"{label}, mean", float(after[right].mean()), "px")
        bench.row(f"{label}, moved", int((result.status == Status.MOVED).sum()), "keypoints")
        stored = plan.alignment.bytes_per_keypoint / 1024
        bench.row(f"{label}, stored", stored, "KiB a keypoint", "<= 2.5" if dtype == "int4" else None)
        bench.row(f"{label}, CPU", seconds, "s")


def _count(images: Path | None) -> str:
    return "all images" if images is None else "six images"


def change_keypoints(database: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replaces the keypoints of every image by what `change` makes of them."""
    with pycolmap.Database.open(database) as opened:
        for image in opened.read_all_images():
            opened.update_keypoints(image.image_id, change(opened.read_keypoints(image.image_id)))


def displaced(bench: Bench, data: Path) -> None:
    """Keypoints displaced by 3 px at random, as of a detector with large noise."""
    scene = data / "synthetic_court"
    truth = pycolmap.Reconstruction(scene / "gt")
    raw = CACHE / "feature_models" / "court.db"
    rng = np.random.default_rng(0)

    def move(keypoints: np.ndarray) -> np.ndarray:
        angle = rng.uniform(0, 2 * np.pi, len(keypoints))
        keypoints[:, :2] += 3 * np.stack([np.cos(angle), np.sin(angle)], 1)
        return keypoints

    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "displaced.db"
        database.write_bytes(raw.read_bytes())
        change_keypoints(database, move)
        chosen = some_images(scene)
        for name, values in (
            ("pixsfm_eth3d_d2net", {}),
            ("pixsfm_eth3d_d2net, image+compact", {"DenseFeatures.model": "image+compact"}),
        ):
            values = {**read_preset("pixsfm_eth3d_d2net"), **values}
            plan, result, _ = refine(database, scene / "images", values, chosen)
            before = graph_of(raw, chosen)
            exact = matched_errors(truth, before, before.xy, scene / "depth")
            after = matched_errors(truth, plan.graph, result.xy, scene / "depth")
            right = np.isfinite(exact) & (exact < 1) & np.isfinite(after)
            share = 100 * float((after[right] < 0.5).mean())
            bench.row(f"displaced by 3 px, {name}: back within .5 px", share, "%", ">= 85")


def graph_of(database: Path, chosen: Path) -> MatchGraph:
    graph = read_match_graph(database)
    return graph.restricted_to(graph.indices(read_image_list(chosen, graph.names)))


def make_changing_light(folder: Path, seed: int, images: int, width: int) -> tuple[Path, Path]:
    """A scene of which every image has a light of its own, and a database as of a learned matcher."""
    one_light = SyntheticOptions(seed=seed, num_images=images, width=width, height=width * 3 // 4)
    generate_dataset(folder / "one_light", one_light)
    generate_dataset(folder / "scene", replace(one_light, appearance_change=1.0))
    database, plain = folder / "raw.db", folder / "one_light"
    build_database(pycolmap.Reconstruction(plain / "gt"), plain / "images", database)
    rng = np.random.default_rng(seed)

    def detected(keypoints: np.ndarray) -> np.ndarray:
        noise = DETECTION_NOISE / 2**0.5 * rng.standard_normal((len(keypoints), 2))
        return np.ascontiguousarray((keypoints[:, :2] + noise).astype(np.float32))

    change_keypoints(database, detected)
    return folder / "scene", database


def changing_light(bench: Bench, seed: int, images: int, width: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene, database = make_changing_light(Path(folder), seed, images, width)
        truth = pycolmap.Reconstruction(scene / "gt")
        plan, grey, _ = refine(database, scene / "images", {})
        _, chain, _ = refine(database, scene / "images", read_preset("appearance_change"))
        graph = plan.graph
        label = f"changing light {seed}"
        raw = matched_errors(truth, graph, graph.xy, scene / "depth")
        right = np.isfinite(raw) & (raw < WRONG)
        by_grey, by_chain = grey.status == Status.MOVED, chain.status == Status.MOVED
        aligned = (grey.status != Status.UNMATCHED) & (grey.status != Status.ROOT)
        bench.row(f"{label}, raw, mean of all", float(raw[right].mean()), "px")
        bench.row(f"{label}, grey, accepted", 100 * by_grey.sum() / aligned.sum(), "%")
        mean = mean_error(truth, graph, grey, scene, right)
        bench.row(f"{label}, grey, mean of all", mean, "px")
        ratio = float(by_chain.sum() / by_grey.sum())
        bench.row(f"{label}, appearance_change, accepted against grey", ratio, "x", ">= 1.3")
        of_chain = mean_error(truth, graph, chain, scene, right)
        bench.row(f"{label}, appearance_change, mean of all", of_chain, "px", f"<= {mean:.4f}")
        error = matched_errors(truth, graph, chain.xy, scene / "depth")
        added = (by_chain & ~by_grey)[graph.edges].any(1) & right & np.isfinite(error)
        gain = float(np.median(error[added]) / np.median(raw[added]))
        bench.row(f"{label}, added, median against raw", gain, "x", "<= 0.5")


def mean_error(
    truth: pycolmap.Reconstruction, graph: MatchGraph, result: KeypointResult, scene: Path, right: np.ndarray
) -> float:
    error = matched_errors(truth, graph, result.xy, scene / "depth")
    return float(error[right & np.isfinite(error)].mean())


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
