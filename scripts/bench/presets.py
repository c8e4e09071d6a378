"""What every preset of keypoint adjustment costs and gains, as a table for the documentation.

Two scenes: some images (--images) of synthetic_court of PIXCLI_DATA, and one of changing light, made on the
spot (see feature_models.py). Errors are those of keypoints in their matches, by the exact truth.
"""

import tempfile
from pathlib import Path

import numpy as np
from common import CACHE, Bench, arguments, folder_from
from feature_models import WRONG, make_changing_light, matched_errors, refine

from pixcli.options.presets import preset_names, read_preset
from pixcli.sampling.status import Status
from pixcli.synthetic.baseline import build_database

import pycolmap


def compare(bench: Bench, label: str, scene: Path, database: Path, num_images: int) -> None:
    """Rows of one scene: the defaults, and every preset that adjusts keypoints."""
    truth = pycolmap.Reconstruction(scene / "gt")
    names = sorted(path.name for path in (scene / "images").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        chosen = Path(folder) / "images.txt"
        chosen.write_text(
            "\n".join(names[:: max(len(names) // num_images, 1)][:num_images]) + "\n", encoding="utf-8"
        )
        for name in ("defaults", *preset_names()):
            values = {} if name == "defaults" else read_preset(name)
            if not values.get("KeypointAdjustment.apply", True):
                continue
            if values.get("DenseFeatures.use_cache"):
                values = {**values, "DenseFeatures.cache_path": f"{folder}/{name}.h5"}
            plan, result, seconds = refine(database, scene / "images", values, chosen)
            before = matched_errors(truth, plan.graph, plan.graph.xy, scene / "depth")
            after = matched_errors(truth, plan.graph, result.xy, scene / "depth")
            right = np.isfinite(before) & (before < WRONG) & np.isfinite(after)
            if name == "defaults":
                bench.row(f"{label}, raw, median", float(np.median(before[right])), "px")
            bench.row(f"{label}, {name}, median", float(np.median(after[right])), "px")
            bench.row(f"{label}, {name}, mean", float(after[right].mean()), "px")
            stored = plan.alignment.bytes_per_keypoint / 1024
            bench.row(f"{label}, {name}, stored", stored, "KiB a keypoint")
            bench.row(f"{label}, {name}, moved", int((result.status == Status.MOVED).sum()), "keypoints")
            bench.row(f"{label}, {name}, CPU", seconds, "s")


def main() -> None:
    """Prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=6, help="of each scene")
    parser.add_argument("--width", type=int, default=800, help="of the scene of changing light")
    parser.add_argument("--only", choices=["court", "light"], help="one scene")
    args = parser.parse_args()
    pycolmap.logging.minloglevel = 2
    bench = Bench("presets")
    data = folder_from("PIXCLI_DATA")
    if data is not None and args.only in (None, "court"):
        scene, database = data / "synthetic_court", CACHE / "feature_models" / "court.db"
        if not database.is_file():
            database.parent.mkdir(parents=True, exist_ok=True)
            build_database(pycolmap.Reconstruction(scene / "gt"), scene / "images", database)
        compare(bench, "court", scene, database, args.images)
    if args.only in (None, "light"):
        with tempfile.TemporaryDirectory() as folder:
            scene, database = make_changing_light(Path(folder), 1, args.images, args.width)
            compare(bench, "changing light", scene, database, args.images)
    bench.finish(args)


if __name__ == "__main__":
    main()
