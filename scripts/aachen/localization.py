"""A large scene from known poses to a submission: map, refinement, and localization of queries in hloc's way.

usage: localization.py DATA OUTPUTS [--preset NAME] [Group.name=value ...]

DATA holds, as Aachen Day-Night does, images_upright/ (images and queries), 3D-models/aachen_v_1_1/ (a COLMAP
model with the poses of the images) and queries/*_time_queries_with_intrinsics.txt. --images, --reference and
--queries name other places. --features and --matches are hloc's files of both; without them SIFT is
extracted and matched: images with those that share most points in the reference (or lie nearest to them,
where it has no points), queries by --query_pairs (hloc's retrieval), or with all images.

OUTPUTS gets map/ (see pixcli triangulator) and submission.txt: name qw qx qy qz tx ty tz. Run again, it goes
on where it was interrupted.
"""

import argparse
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np

import pixcli
from pixcli.adapters.localize_queries import QueryFiles, localize_queries
from pixcli.adapters.match_input import MatchInput
from pixcli.errors import UserError
from pixcli.io.hloc import Features, read_pairs, read_queries, write_features, write_matches, write_pairs
from pixcli.io.models import read_model
from pixcli.options import TriangulationChainOptions, all_fields
from pixcli.options.colmap import applied
from pixcli.options.fields import build_all
from pixcli.options.localization import LocalizeOptions
from pixcli.options.presets import read_preset
from pixcli.reconstruction.colmap_steps import extract_features

import pycolmap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--matches", type=Path)
    parser.add_argument("--query_pairs", type=Path)
    parser.add_argument("--num_covisible", type=int, default=20, help="partners of an image of the map")
    parser.add_argument("--preset", help="for example low_memory")
    parser.add_argument("overrides", nargs="*", help="options as Group.name=value")
    args = parser.parse_intermixed_args()
    values = dict(read_preset(args.preset)) if args.preset else {}
    for override in args.overrides:
        key, equals, text = override.partition("=")
        if not equals or key not in all_fields():
            parser.error(f"'{override}' is no option: give Group.name=value")
        values[key] = all_fields()[key].parse(text)
    values.setdefault("Reconstruction.skip_images_without_pose", True)  # queries
    values.setdefault("DenseFeatures.cache_path", str(args.outputs / "cache.h5"))
    options = build_all(TriangulationChainOptions, values)
    images = args.images or args.data / "images_upright"
    reference = args.reference or args.data / "3D-models" / "aachen_v_1_1"
    args.outputs.mkdir(parents=True, exist_ok=True)
    queries = args.queries or gathered_queries(args.data / "queries", args.outputs / "queries.txt")

    model = read_model(reference, option="--reference", needs_points=False)
    map_pairs = covisible_pairs(model, args.num_covisible)
    posed = sorted(image.name for image in model.images.values() if image.has_pose)
    retrieved = (
        read_pairs(args.query_pairs) if args.query_pairs else dict.fromkeys(read_queries(queries), posed)
    )
    query_pairs = [(query, name) for query, names in retrieved.items() for name in names]
    map_list, query_list = args.outputs / "pairs_map.txt", args.outputs / "pairs_queries.txt"
    write_pairs(map_list, map_pairs)
    write_pairs(query_list, query_pairs)
    features, matches = args.features, args.matches
    if features is None or matches is None:
        features, matches = args.outputs / "features.h5", args.outputs / "matches.h5"
        if not matches.is_file():
            sift(images, [*map_pairs, *query_pairs], args.outputs, features, matches, options)
    result = pixcli.triangulate(
        reference,
        images,
        args.outputs / "map",
        MatchInput(None, features, matches, map_list),
        options=options,
    )
    files = QueryFiles(
        result.model_path,
        images,
        args.outputs / "submission.txt",
        queries_path=queries,
        features_path=features,
        matches_path=matches,
        pairs_path=query_list,
    )
    localize_queries(files, build_all(LocalizeOptions, values))
    print(f"the map is in {result.model_path}, the poses of the queries are in {files.output_path}")


def gathered_queries(folder: Path, path: Path) -> Path:
    """All lists of a folder in one file."""
    lists = sorted(folder.glob("*_queries_with_intrinsics.txt"))
    if not lists:
        raise UserError(f"{folder} holds no *_queries_with_intrinsics.txt: name a file by --queries")
    texts = [file.read_text(encoding="utf-8").rstrip() for file in lists]
    path.write_text("\n".join([*texts, ""]), encoding="utf-8")
    return path


def covisible_pairs(model: pycolmap.Reconstruction, partners: int) -> list[tuple[str, str]]:
    """Every image with those that share most of its points or, without points, that look on from nearest."""
    images = sorted(
        (image for image in model.images.values() if image.has_pose), key=lambda image: image.name
    )
    index = {image.image_id: k for k, image in enumerate(images)}
    near = np.zeros((len(images), len(images)))
    shared: Counter[tuple[int, int]] = Counter()
    for point in model.points3D.values():
        seen = sorted({index[element.image_id] for element in point.track.elements})
        shared.update(combinations(seen, 2))
    for (i, j), count in shared.items():
        near[i, j] = near[j, i] = count
    if not shared:
        centres = np.array([image.projection_center() for image in images])
        views = np.array([image.viewing_direction() for image in images])
        near = views @ views.T - np.linalg.norm(centres[:, None] - centres, axis=2) / np.ptp(centres)
    np.fill_diagonal(near, -np.inf)
    pairs = set()
    for i, row in enumerate(near):
        for j in np.argsort(-row, kind="stable")[:partners]:
            if row[j] > 0 or not shared:
                pairs.add((images[min(i, j)].name, images[max(i, j)].name))
    return sorted(pairs)


def sift(
    images: Path,
    pairs: list[tuple[str, str]],
    folder: Path,
    features_path: Path,
    matches_path: Path,
    options: TriangulationChainOptions,
) -> None:
    """SIFT features and matches of these pairs, by COLMAP, as hloc's files."""
    database_path, listed = folder / "sift.db", folder / "pairs.txt"
    database_path.unlink(missing_ok=True)
    pycolmap.Database.open(database_path).close()
    extract_features(database_path, images, sorted({name for pair in pairs for name in pair}), options, 0)
    write_pairs(listed, pairs)
    matching = applied(options.feature_matching, pycolmap.FeatureMatchingOptions())
    matching.skip_geometric_verification = True
    pairing = pycolmap.ImportedPairingOptions(match_list_path=listed)
    pycolmap.match_image_pairs(database_path, matching, pairing)
    with pycolmap.Database.open(database_path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        xy = {name: database.read_keypoints(image_id)[:, :2].astype(float) for name, image_id in ids.items()}
        rows = {pair: database.read_matches(*(ids[name] for name in pair)) for pair in pairs}
    write_features(features_path, {name: Features(each, None, None) for name, each in xy.items()})
    write_matches(matches_path, rows, {name: len(each) for name, each in xy.items()})
    database_path.unlink()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"localization.py: {error}")
