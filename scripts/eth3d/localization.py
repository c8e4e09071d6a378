"""Images of ETH3D's scenes localized in models of the others: AUC of position errors at 0.1, 1 and 10 cm.

usage: localization.py --data FOLDER [--scenes facade ...] [--methods sift ...] [--tag raw|refined|NAME]
                       [--queries FILE] [--hold_out 2] [--preset NAME] [Group.name=value ...]

Of every scene, up to ten images are queries: those that a text file names, one a line, or else evenly spaced
ones. For each, a map is triangulated at the true poses of the others, without those (--hold_out) that share
most points of the true model with it. Methods are as in triangulation.py; sift is matched exhaustively.
Errors below 1 mm, which the truth cannot tell, count as zero.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
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
from pixcli.adapters.localize_queries import QueryFiles, localize_queries
from pixcli.adapters.match_input import MatchInput
from pixcli.errors import UserError
from pixcli.evaluation.poses import area_under_curve
from pixcli.io.hloc import MatchFile, write_pairs
from pixcli.io.models import read_model
from pixcli.options import TriangulationChainOptions
from pixcli.options.fields import Value, build_all
from pixcli.options.localization import LocalizeOptions
from pixcli.reconstruction.colmap_steps import extract_features, match_images
from pixcli.reconstruction.reference import read_reference, write_reference

import pycolmap

QUERIES = 10


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--queries", type=Path, help="names of images, below images/ of their scenes")
    parser.add_argument("--hold_out", type=int, default=2, help="neighbours that a query's map lacks too")
    args = parser.parse_intermixed_args()
    values = values_of(args)
    values.setdefault("Localization.overwrite", True)
    options = build_all(TriangulationChainOptions, values)
    listed = args.queries.read_text(encoding="utf-8").splitlines() if args.queries else []
    rows = []
    for method in args.methods:
        every = []
        for scene in scenes_of(args):
            reference = calibration(args.data / scene)
            assert reference is not None
            folder = args.outputs / "localization" / scene
            folder.mkdir(parents=True, exist_ok=True)
            truth = read_model(reference, option="--data", needs_points=False)
            queries = chosen_queries(truth, listed)
            files: dict[str, Path | None] = hloc_files(args, scene, method)
            if method == "sift":
                files = {"database_path": folder / "sift.db"}
                if not (folder / "sift.db").is_file():
                    make_database(reference, args.data / scene / "images", folder / "sift.db", options)
            found = []
            for number, query in enumerate(queries):
                held_out = [query, *neighbours(truth, query, args.hold_out)]
                out = folder / f"{method}_{args.tag}" / str(number)
                out.mkdir(parents=True, exist_ok=True)
                mapped = without(reference, held_out, out / "poses")
                images = args.data / scene / "images"
                result = pixcli.triangulate(mapped, images, out / "map", MatchInput(**files), options=options)
                given = query_paths(truth, query, held_out, out / "query", files)
                output = out / ("localized" if "database_path" in given else "poses.txt")
                query_files = QueryFiles(result.model_path, images, output, **given)
                pose = localized(query_files, query, values)
                found.append(error(truth, query, pose))
            errors = np.array(found)
            every.append(errors)
            write_results(args, "localization", scene, method, {"queries": queries, "errors": found})
            rows.append(row(f"{method} {args.tag}", scene, errors))
        rows.append(row(f"{method} {args.tag}", "all", np.concatenate(every)))
    names = [f"AUC {100 * t:g} cm" for t in THRESHOLDS]
    print_table("Localization, %", ["method", "scene", "queries", "median (mm)", *names], rows)


def make_database(reference: Path, images: Path, database: Path, options: TriangulationChainOptions) -> None:
    """SIFT and matches of all images, under the ids of the true model."""
    truth = read_reference(reference)
    partial = database.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    pycolmap.Database.open(partial).close()
    write_reference(truth, partial)
    extract_features(partial, images, sorted(image.name for image in truth.images.values()), options, 0)
    match_images(partial, options, 0)
    partial.rename(database)


def chosen_queries(truth: pycolmap.Reconstruction, listed: list[str]) -> list[str]:
    names = sorted(image.name for image in truth.images.values())
    if chosen := sorted(set(names) & set(listed)):
        return chosen
    count = min(QUERIES, max(1, len(names) // 4))  # enough images stay for the map
    return [names[k] for k in np.unique(np.linspace(0, len(names) - 1, count + 2)[1:-1].round().astype(int))]


def neighbours(truth: pycolmap.Reconstruction, name: str, count: int) -> list[str]:
    """The images that share most points with one; none where the model has no points."""
    query = truth.find_image_with_name(name)
    shared = Counter(
        element.image_id
        for point in query.points2D
        if point.has_point3D()
        for element in truth.points3D[point.point3D_id].track.elements
        if element.image_id != query.image_id
    )
    return [truth.images[image_id].name for image_id, _ in shared.most_common(count)]


def without(reference: Path, held_out: list[str], folder: Path) -> Path:
    """The true poses of the images of the map."""
    model = read_reference(reference)
    for name in held_out:
        model.deregister_frame(model.find_image_with_name(name).frame_id)
    folder.mkdir(exist_ok=True)
    model.write_text(folder)
    return folder


def query_paths(
    truth: pycolmap.Reconstruction, query: str, held_out: list[str], stem: Path, files: dict[str, Path | None]
) -> dict[str, Path | None]:
    """What localization reads: a list of one query and, with hloc's files, its intrinsics and pairs."""
    listed, pairs = stem.with_suffix(".txt"), stem.with_suffix(".pairs.txt")
    if "database_path" in files:
        listed.write_text(f"{query}\n", encoding="utf-8")
        return {"database_path": files["database_path"], "image_list_path": listed}
    camera = truth.find_image_with_name(query).camera
    numbers = " ".join(map(repr, camera.params.tolist()))
    line = f"{query} {camera.model.name} {camera.width} {camera.height} {numbers}\n"
    listed.write_text(line, encoding="utf-8")
    features, matches = files["features_path"], files["matches_path"]
    assert features is not None
    assert matches is not None
    with MatchFile(matches) as file:
        known = file.pairs(image.name for image in truth.images.values())
    both_ways = [*known, *((b, a) for a, b in known)]
    write_pairs(pairs, [(a, b) for a, b in both_ways if a == query and b not in held_out])
    return {
        "queries_path": listed,
        "features_path": features,
        "matches_path": matches,
        "pairs_path": pairs,
    }


def localized(files: QueryFiles, query: str, values: dict[str, Value]) -> np.ndarray | None:
    """(3, 4) cam_from_world of the query; None where it was not localized."""
    output = files.output_path
    localize_queries(files, build_all(LocalizeOptions, values))
    if files.database_path:
        image = pycolmap.Reconstruction(output).find_image_with_name(query)
        return np.asarray(image.cam_from_world().matrix()) if image is not None and image.has_pose else None
    for line in output.read_text(encoding="utf-8").splitlines():
        w, x, y, z, *translation = map(float, line.rsplit(maxsplit=7)[1:])
        return np.asarray(pycolmap.Rigid3d(pycolmap.Rotation3d([x, y, z, w]), translation).matrix())
    return None


def error(truth: pycolmap.Reconstruction, name: str, pose: np.ndarray | None) -> float:
    """Distance of a query's centre from the true one, in metres."""
    if pose is None:
        return float("inf")
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
