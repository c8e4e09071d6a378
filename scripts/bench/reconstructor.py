"""pixcli reconstructor and triangulator as users run them: accuracy, overhead over COLMAP, and a second run.

synthetic_court (from PIXCLI_DATA, judged by PIXCLI_TOOLS) from its images and true cameras, which a database
without features gives; sacre_coeur from its images alone. Refinement's overhead is the time of its steps over
that of extraction, matching and mapping in the same run.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from accuracy import evaluate
from common import CACHE, Bench, arguments, folder_from

from pixcli.reconstruction.reference import read_reference, write_reference

import pycolmap

FIXED = [
    *("--Mapper.ba_refine_focal_length", "0", "--Mapper.ba_refine_extra_params", "0"),
    *("--Mapper.abs_pose_refine_focal_length", "0", "--Mapper.abs_pose_refine_extra_params", "0"),
    *("--BundleAdjustment.refine_focal_length", "0", "--BundleAdjustment.refine_extra_params", "0"),
]


def run(command: str, *arguments: object) -> float:
    """Runs a command; the seconds it took."""
    start = time.perf_counter()
    program = [sys.executable, "-P", "-m", "pixcli", command, *map(str, arguments)]
    subprocess.run(program, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    args = arguments(__doc__).parse_args()
    bench = Bench("reconstructor")
    data, tools = folder_from("PIXCLI_DATA"), folder_from("PIXCLI_TOOLS")
    if data is not None and tools is not None:
        work = CACHE / "reconstructor"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        court(bench, data / "synthetic_court", tools, work)
        sacre(bench, data / "sacre_coeur", work)
    bench.finish(args)


def court(bench: Bench, scene: Path, tools: Path, work: Path) -> None:
    cameras, out = work / "cameras.db", work / "court"
    pycolmap.Database.open(cameras).close()
    write_reference(read_reference(scene / "gt"), cameras)
    paths = ["--image_path", scene / "images", "--database_path", cameras, "--output_path", out, *FIXED]
    seconds = run("reconstructor", *paths)
    poses = evaluate(tools, "eval_poses", scene / "gt", out / "model")
    bench.row("court, images registered", poses["num_registered"], "", ">= 24")
    bench.row("court, camera centres, mean", poses["aligned"]["centre"]["mean"], "mm", "<= 0.045")
    steps = json.loads((out / "report.json").read_text(encoding="utf-8"))["steps"]
    plain = steps["database"]["seconds"] + steps["mapping"]["seconds"]
    bench.row("court, whole run", seconds, "s")
    bench.row("court, extraction, matching and mapping", plain, "s")
    refinement = steps["keypoints"]["seconds"] + steps["adjustment"]["seconds"]
    bench.row("court, refinement over that", 100 * refinement / plain, "%", "<= 60")
    bench.row("court, second run", run("reconstructor", *paths), "s", "<= 3")
    triangulated = work / "triangulated"
    paths = ["--image_path", scene / "images", "--database_path", out / "database.db"]
    run("triangulator", *paths, "--reference_path", scene / "gt", "--output_path", triangulated)
    for name, model in (("raw", None), ("refined", triangulated / "model")):
        if model is None:
            off = ["--KeypointAdjustment.apply", "0", "--FeaturemetricBundleAdjustment.apply", "0"]
            model = work / "raw" / "model"
            given = [*paths, "--reference_path", scene / "gt", "--output_path", work / "raw", *off]
            run("triangulator", *given)
        surface = evaluate(
            tools, "eval_triangulation", scene / "gt", model, "--surface", scene / "surface.npz"
        )["surface"]
        target = ">= 75" if name == "refined" else None
        share = 100 * surface["accuracy"]["0.001"]
        bench.row(f"court at true poses, {name} points within 1 mm of the surface", share, "%", target)


def sacre(bench: Bench, scene: Path, work: Path) -> None:
    paths = ["--image_path", scene / "images", "--output_path", work / "sacre"]
    run("reconstructor", *paths)
    model = pycolmap.Reconstruction(work / "sacre" / "model")
    bench.row("sacre_coeur, images registered", model.num_reg_images(), "", ">= 10")


if __name__ == "__main__":
    main()
