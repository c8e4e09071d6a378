"""Images of ETH3D's scenes localized in models of the others: AUC of position errors at 0.1, 1 and 10 cm.

usage: localization.py --data FOLDER [--scenes facade ...] [--methods sift ...] [--tag raw|refined|NAME]
                       [--preset NAME] [Group.name=value ...]

Of every scene, up to ten images, evenly spaced, are queries; the map is triangulated at the true poses of
the others. Methods are as in triangulation.py; sift is matched exhaustively. Errors below 1 mm, which the
truth cannot tell, count as zero.
"""

import sys
from pathlib import Path

import numpy as np
import pycolmap
from common import (
    THRESHOLDS,
    arguments,
    calibration,
    hloc_files,
    print_table,
    scenes_of,
    values_of,
    write_results,
)

import pixcli
from pixcli.errors import UserError
from pixcli.evaluation.poses import area_under_curve
from pixcli.io.hloc import MatchFile, short_names, write_pairs
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
from pixcli.options.fields import Value, build, build_all
from pixcli.reconstruction.colmap import extract_features, match_images
from pixcli.reconstruction.reference import read_reference, write_reference

QUERIES = 10
QUERY_GROUPS = (
    LocalizationOptions,
    AbsolutePoseOptions,
    DenseFeaturesOptions,
    InterpolationOptions,
    QueryKeypointAdjustmentOptions,
    QueryBundleAdjustmentOptions,
)


def main() -> None:
    parser = arguments(__doc__)
    args = parser.parse_intermixed_args()
    values = values_of(args)
    options = build_all(TriangulationChainOptions, values)
    rows = []
    for method in args.methods:
        every = []
        for scene in scenes_of(args):
            images, reference = args.data / scene / "images", calibration(args.data / scene)
            assert reference is not None
            folder = args.outputs / "localization" / scene
            folder.mkdir(parents=True, exist_ok=True)
            truth = read_reference(reference)
            queries = chosen_queries(truth)
            mapped = without(reference, queries, folder / "map_poses")
            out = folder / f"{method}_{args.tag}"
            files: dict[str, Path | None] = hloc_files(args, scene, method)
            if method == "sift":
                files = {"database_path": folder / "sift.db"}
                if not (folder / "sift.db").is_file():
                    make_database(truth, images, folder / "sift.db", options)
            result = pixcli.triangulate(mapped, images, out, **files, options=options)
            given = query_files(truth, queries, folder / f"{method}_queries", files)
            poses = localized(result.model_path, images, out, given, queries, values)
            errors = np.array([error(truth, name, poses) for name in queries])
            every.append(errors)
            found = {"queries": queries, "errors": errors.tolist()}
            write_results(args, "localization", scene, method, found)
            rows.append(row(f"{method} {args.tag}", scene, errors))
        rows.append(row(f"{method} {args.tag}", "all", np.concatenate(every)))
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


def query_files(
    truth: pycolmap.Reconstruction, queries: list[str], stem: Path, files: dict[str, Path | None]
) -> QueryFiles:
    """What localization reads: a list of queries and, with hloc's files, their intrinsics and pairs."""
    listed, pairs = stem.with_suffix(".txt"), stem.with_suffix(".pairs.txt")
    if "database_path" in files:
        listed.write_text("".join(f"{name}\n" for name in queries), encoding="utf-8")
        return QueryFiles(files["database_path"], listed, None, None, None, None)
    lines = []
    for name in queries:
        camera = truth.find_image_with_name(name).camera
        numbers = " ".join(map(repr, camera.params.tolist()))
        lines.append(f"{name} {camera.model.name} {camera.width} {camera.height} {numbers}\n")
    listed.write_text("".join(lines), encoding="utf-8")
    features, matches = files["features_path"], files["matches_path"]
    assert features is not None
    assert matches is not None
    with MatchFile(matches) as file:
        known = file.pairs(image.name for image in truth.images.values())
    both_ways = [*known, *((b, a) for a, b in known)]
    write_pairs(pairs, [(a, b) for a, b in both_ways if a in queries and b not in queries])
    return QueryFiles(None, None, listed, features, matches, pairs)


def localized(
    model: Path, images: Path, folder: Path, files: QueryFiles, queries: list[str], values: dict[str, Value]
) -> dict[str, np.ndarray]:
    """(3, 4) cam_from_world of the queries that were localized."""
    output = folder / ("localized" if files.database_path else "poses.txt")
    localize_images(model, images, output, files, *(build(group, values) for group in QUERY_GROUPS))
    if files.database_path:
        found = pycolmap.Reconstruction(output)
        return {i.name: np.asarray(i.cam_from_world().matrix()) for i in found.images.values() if i.has_pose}
    names = dict(zip(short_names(queries, False), queries, strict=True))
    poses = {}
    for line in output.read_text(encoding="utf-8").splitlines():
        name, *numbers = line.rsplit(maxsplit=7)
        w, x, y, z, *translation = map(float, numbers)
        poses[names[name]] = pycolmap.Rigid3d(pycolmap.Rotation3d([x, y, z, w]), translation).matrix()
    return poses


def error(truth: pycolmap.Reconstruction, name: str, poses: dict[str, np.ndarray]) -> float:
    """Distance of a query's centre from the true one, in metres."""
    if name not in poses:
        return float("inf")
    pose = poses[name]
    centre = truth.find_image_with_name(name).projection_center()
    return float(np.linalg.norm(-pose[:, :3].T @ pose[:, 3] - centre))


def row(method: str, scene: str, errors: np.ndarray) -> list[str]:
    areas = 100 * area_under_curve(errors, THRESHOLDS, floor=0.001)
    return [
        method,
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
