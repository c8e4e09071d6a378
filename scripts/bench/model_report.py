"""What featuremetric_bundle_adjuster says of its results: images that got worse, residual fields, and
where truth is exact, errors against their covariances; on synthetic_court and real photos (sacre_coeur).

The data sets lie in the folder PIXCLI_DATA; PIXCLI_TOOLS names the folder of evaluators.
"""

import json
import zlib  # noqa: F401  before pycolmap
from pathlib import Path

import h5py
import numpy as np
from accuracy import raw_baseline
from common import CACHE, Bench, arguments, folder_from
from model_accuracy import FIXED, adjust

import pycolmap


def normalised_errors(truth: pycolmap.Reconstruction, model: Path, covariances: Path) -> np.ndarray:
    """Mean squared error of each camera centre in units of its covariance, for one coordinate."""
    refined = pycolmap.Reconstruction(model)
    with h5py.File(covariances) as file:
        names = [name.decode() for name in file["poses/image_name"][()]]
        of_centres = file["poses/covariance"][()][:, 3:, 3:]
    ours, true = (
        np.array([model.find_image_with_name(name).projection_center() for name in names])
        for model in (refined, truth)
    )
    # Errors in the frame of the model, which the covariance is in.
    error = ours - pycolmap.estimate_sim3d(true, ours) * true
    return np.array([e @ np.linalg.solve(c, e) / 3 for e, c in zip(error, of_centres, strict=True)])


def main() -> None:
    args = arguments(__doc__).parse_args()
    bench = Bench("model_report")
    data, tools = folder_from("PIXCLI_DATA"), folder_from("PIXCLI_TOOLS")
    if data is None or tools is None:
        bench.finish(args)
        return
    work = CACHE / "models"
    for scene, options in (("synthetic_court", FIXED), ("sacre_coeur", [])):
        raw = raw_baseline(tools, data / scene) / "sparse"
        output, covariances = work / "reported", work / "covariance.h5"
        figures = ["--report_path", str(work / "report.json"), "--covariance_path", str(covariances)]
        adjust(raw, data / scene / "images", output, *options, *figures)
        report = json.loads((work / "report.json").read_text(encoding="utf-8"))
        for name, part in (("cost", "images"), ("residual", "image_residuals")):
            worse = sum(image["after"] > image["before"] for image in report[part])
            bench.row(f"{scene}: images whose {name} rose", worse, "", "<= 0")
        restored = sum(image["restored"] for image in report["images"])
        bench.row(f"{scene}: images back at their pose", restored, "")
        fields = report["residual_fields"]
        bench.row(f"{scene}: largest systematic residual", max(f["systematic"] for f in fields), "px")
        bench.row(f"{scene}: lens models that are too simple", sum(f["too_simple"] for f in fields), "")
        if scene == "synthetic_court":
            errors = normalised_errors(pycolmap.Reconstruction(data / scene / "gt"), output, covariances)
            bench.row(f"{scene}: squared errors of centres over predicted, mean", errors.mean(), "")
    bench.finish(args)


if __name__ == "__main__":
    main()
