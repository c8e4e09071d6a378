"""Images of ETH3D's scenes localized in models of the others: AUC of position errors at 0.1, 1 and 10 cm.

usage: localization.py --data FOLDER [--scenes facade ...] [--tag raw|refined|NAME] [Group.name=value ...]

Of every scene, up to ten images, evenly spaced, are queries; the map is triangulated at the true poses of
the others. Features are SIFT, matched exhaustively. Errors below 1 mm, which the truth cannot tell, count as
zero.
"""

import sys
from pathlib import Path

import numpy as np
import pycolmap
from common import arguments, calibration, print_table, scenes_of, values_of, write_results

import pixcli
from pixcli.errors import UserError
from pixcli.evaluation.poses import area_under_curve
from pixcli.localization.localize import QueryFiles, localize_images
from pixcli.options import (
    AbsolutePoseOptions,
    DenseFeaturesOptions,
    InterpolationOptions,
    LocalizationOptions,
    QueryBundleAdjustmentOptions,
    QueryKeypointAdjustmentOptions,
    TriangulationChainOptions,
)
from pixcli.options.fields import build, build_all
from pixcli.reconstruction.colmap import extract_features, match_images
from pixcli.reconstruction.reference import read_reference, write_reference

THRESHOLDS = np.array([0.001, 0.01, 0.1])
QUERIES = 10


def main() -> None:
    parser = arguments(__doc__)
    args = parser.parse_intermixed_args()
    values = values_of(args)
    options = build_all(TriangulationChainOptions, values)
    rows, every = [], []
    for scene in scenes_of(args):
        images, reference = args.data / scene / "images", calibration(args.data / scene)
        assert reference is not None
        folder = args.outputs / "localization" / scene
        folder.mkdir(parents=True, exist_ok=True)
        truth = read_reference(reference)
        database = folder / "sift.db"
        if not database.is_file():
            make_database(truth, images, database, options)
        queries = chosen_queries(truth)
        mapped = without(reference, queries, folder / "map_poses")
        out = folder / f"sift_{args.tag}"
        result = pixcli.triangulate(mapped, images, out, database_path=database, options=options)
        listed = folder / "queries.txt"
        listed.write_text("".join(f"{name}\n" for name in queries), encoding="utf-8")
        files = QueryFiles(database, listed, None, None, None, None)
        poses = localized(
            result.model_path, images, out / "localized", files, build(LocalizationOptions, values)
        )
        errors = np.array([error(truth, name, poses) for name in queries])
        every.append(errors)
        write_results(args, "localization", scene, "sift", {"queries": queries, "errors": errors.tolist()})
        rows.append(row(args.tag, scene, errors))
    rows.append(row(args.tag, "all", np.concatenate(every)))
    names = [f"AUC {100 * t:g} cm" for t in THRESHOLDS]
    print_table("Localization, %", ["method", "scene", "queries", "median (mm)", *names], rows)


def make_database(
    truth: pycolmap.Reconstruction, images: Path, database: Path, options: TriangulationChainOptions
) -> None:
    """SIFT and matches of all images, under the ids of the true model."""
    partial = database.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    pycolmap.Database.open(partial).close()
    write_reference(truth, partial)
    extract_features(partial, images, sorted(image.name for image in truth.images.values()), options, 0)
    match_images(partial, options, 0)
    partial.rename(database)


def chosen_queries(truth: pycolmap.Reconstruction) -> list[str]:
    names = sorted(image.name for image in truth.images.values())
    count = min(QUERIES, max(1, len(names) // 4))  # enough images stay for the map
    return [names[k] for k in np.unique(np.linspace(0, len(names) - 1, count + 2)[1:-1].round().astype(int))]


def without(reference: Path, queries: list[str], folder: Path) -> Path:
    """The true poses of the images of the map."""
    model = read_reference(reference)
    for name in queries:
        model.deregister_frame(model.find_image_with_name(name).frame_id)
    folder.mkdir(exist_ok=True)
    model.write_text(folder)
    return folder


def localized(
    model: Path, images: Path, output: Path, files: QueryFiles, options: LocalizationOptions
) -> dict[str, np.ndarray]:
    """(3, 4) cam_from_world of the queries that were localized."""
    groups = (
        AbsolutePoseOptions(),
        DenseFeaturesOptions(),
        InterpolationOptions(),
        QueryKeypointAdjustmentOptions(),
        QueryBundleAdjustmentOptions(),
    )
    localize_images(model, images, output, files, options, *groups)
    found = pycolmap.Reconstruction(output)
    return {i.name: np.asarray(i.cam_from_world().matrix()) for i in found.images.values() if i.has_pose}


def error(truth: pycolmap.Reconstruction, name: str, poses: dict[str, np.ndarray]) -> float:
    """Distance of a query's centre from the true one, in metres."""
    if name not in poses:
        return float("inf")
    pose = poses[name]
    centre = truth.find_image_with_name(name).projection_center()
    return float(np.linalg.norm(-pose[:, :3].T @ pose[:, 3] - centre))


def row(tag: str, scene: str, errors: np.ndarray) -> list[str]:
    areas = 100 * area_under_curve(errors, THRESHOLDS, floor=0.001)
    return [
        f"sift {tag}",
        scene,
        str(len(errors)),
        f"{1000 * np.median(errors):.3f}",
        *(f"{a:.2f}" for a in areas),
    ]


if __name__ == "__main__":
    try:
        main()
    except UserError as failure:
        sys.exit(f"localization.py: {failure}")
