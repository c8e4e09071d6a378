"""hloc's features and matches in a COLMAP database, and their scores in a graph."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixcli.adapters.match_input import MatchInput
from pixcli.errors import UserError, did_you_mean
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.hloc import FeatureFile, MatchFile, read_pairs
from pixcli.options.colmap import ImageReaderOptions, applied

import pycolmap


def import_features(
    database_path: Path,
    image_path: Path,
    names: Sequence[str],
    files: MatchInput,
    reader: ImageReaderOptions,
    has_images: bool = False,
) -> dict[str, int]:
    """Keypoints and raw matches of hloc's files, into a new database, with one match a keypoint and pair.

    Args:
        names: the images of the folder. Those that the pairs name take part.
        has_images: the database has these images already, and pairs with others are left out.

    Raises:
        UserError: an image of the pairs has no file or no keypoints, or matches do not fit the keypoints.
    """
    assert files.features_path is not None
    assert files.matches_path is not None
    with FeatureFile(files.features_path) as features, MatchFile(files.matches_path) as matches:
        pairs = _pairs(matches, features, files.pairs_path, names, has_images)
        used = sorted({name for pair in pairs for name in pair})
        keypoints = {name: features.read(name).xy for name in used}
        if not has_images:
            options = applied(reader, pycolmap.ImageReaderOptions())
            pycolmap.import_images(database_path, image_path, reader.camera_mode, list(used), options)
        with pycolmap.Database.open(database_path) as database, pycolmap.DatabaseTransaction(database):
            ids = {image.name: image.image_id for image in database.read_all_images()}
            for name in used:
                database.write_keypoints(ids[name], keypoints[name].astype(np.float32))
            for pair in pairs:
                found = matches.read(*pair)
                if found is None:
                    raise UserError(
                        f"{files.matches_path} has no matches of {pair[0]} and {pair[1]}: match them first"
                    )
                sizes = len(keypoints[pair[0]]), len(keypoints[pair[1]])
                rows, scores = found
                if len(rows) and (rows.max(axis=0) >= sizes).any():
                    raise UserError(
                        f"{files.matches_path}: matches of {pair[0]} and {pair[1]} name keypoints up to "
                        f"{tuple(rows.max(axis=0).tolist())}, but {files.features_path} has {sizes[0]} and "
                        f"{sizes[1]}: match again with these features"
                    )
                database.write_matches(*(ids[name] for name in pair), one_to_one(rows, scores))
    return {"images": len(used), "keypoints": sum(map(len, keypoints.values()))}


def with_scores(graph: MatchGraph, matches_path: Path) -> MatchGraph:
    """A graph of hloc's keypoints with the scores that their matches have in hloc's file.

    Matches without one count fully, 1, and those below 0 not at all. Unchanged if the file holds no scores.
    """
    scores = np.ones(len(graph.edges), np.float32)
    known = False
    with MatchFile(matches_path) as matches:
        for k, (first, second) in enumerate(graph.pairs.tolist()):
            found = matches.read(graph.images[first].name, graph.images[second].name)
            if found is None or found[1] is None or not len(found[0]):
                continue
            known = True
            of_pair = slice(int(graph.pair_ptr[k]), int(graph.pair_ptr[k + 1]))
            size = int(graph.offsets[second + 1] - graph.offsets[second])
            edges = graph.edges[of_pair].astype(np.int64) - graph.offsets[[first, second]]
            stored, wanted = (rows @ np.array([size, 1]) for rows in (found[0], edges))
            order = np.argsort(stored, kind="stable")
            nearest = order[np.searchsorted(stored[order], wanted).clip(max=len(stored) - 1)]
            hit = stored[nearest] == wanted
            values = np.nan_to_num(found[1][nearest], nan=1.0).clip(min=0)
            scores[of_pair][hit] = values[hit]
    return replace(graph, scores=scores) if known else graph


def one_to_one(
    matches: npt.NDArray[np.int64], scores: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.uint32]:
    """Of the matches (m, 2) that share a keypoint, the one of highest score; of equal ones, the first.

    Semi-dense matchers match several keypoints of an image with one of another, which would join them into a
    track that no point can have.
    """
    kept = np.argsort(-scores, kind="stable") if scores is not None else np.arange(len(matches))
    for column in (1, 0):
        kept = kept[np.sort(np.unique(matches[kept, column], return_index=True)[1])]
    return np.ascontiguousarray(matches[np.sort(kept)], np.uint32)


def _pairs(
    matches: MatchFile,
    features: FeatureFile,
    pairs_path: Path | None,
    names: Sequence[str],
    skip_others: bool,
) -> list[tuple[str, str]]:
    """Pairs of images of the folder, each once."""
    known = set(names)
    listed: Iterable[tuple[str, str]]
    if pairs_path is None:
        listed = matches.pairs(features.names())
    else:
        listed = [(a, b) for a, others in read_pairs(pairs_path).items() for b in others]
    pairs: dict[tuple[str, str], tuple[str, str]] = {}
    for pair in listed:
        if skip_others and not known.issuperset(pair):
            continue
        for name in pair:
            if name not in known:
                raise UserError(
                    f"{pairs_path or 'the matches'}: there is no image {name} in --image_path. "
                    f"{did_you_mean(name, known)}"
                )
        if pair[0] != pair[1]:
            pairs.setdefault((min(pair), max(pair)), pair)
    if not pairs:
        raise UserError(f"{pairs_path or 'the file of matches'} holds no pairs of images")
    return list(pairs.values())
