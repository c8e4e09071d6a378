"""hloc's features and matches: into a COLMAP database, and refined."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError, did_you_mean
from pixcli.io.database import read_match_graph
from pixcli.io.files import check_writable
from pixcli.io.hloc import FeatureFile, MatchFile, read_pairs, write_refined_features
from pixcli.keypoint_adjustment.refine import Refinement, refine_keypoints
from pixcli.options import (
    ChainOptions,
    DenseFeaturesOptions,
    InterpolationOptions,
    KeypointAdjustmentOptions,
)
from pixcli.options.colmap import applied
from pixcli.progress import Progress
from pixcli.reconstruction.colmap_steps import verify_matches
from pixcli.reconstruction.image_folder import find_images
from pixcli.reconstruction.isolation import isolated

import pycolmap


def import_features(
    database_path: Path,
    image_path: Path,
    names: Sequence[str],
    features_path: Path,
    matches_path: Path,
    pairs_path: Path | None,
    options: ChainOptions,
    seed: int,
    has_images: bool = False,
) -> dict[str, int]:
    """Keypoints and matches of hloc's files, into a new database, and verified.

    Args:
        names: the images of the folder. Those that the pairs name take part.
        pairs_path: without it, all pairs of the matches count.
        has_images: the database has these images already, and pairs with others are left out.

    Raises:
        UserError: an image of the pairs has no file or no keypoints, or matches do not fit the keypoints.
    """
    with FeatureFile(features_path) as features, MatchFile(matches_path) as matches:
        pairs = _pairs(matches, features, pairs_path, names, has_images)
        used = sorted({name for pair in pairs for name in pair})
        keypoints = {name: features.read(name).xy for name in used}
        if not has_images:
            _import_images(database_path, image_path, used, options)
        with pycolmap.Database.open(database_path) as database, pycolmap.DatabaseTransaction(database):
            ids = {image.name: image.image_id for image in database.read_all_images()}
            for name in used:
                database.write_keypoints(ids[name], keypoints[name].astype(np.float32))
            for pair in pairs:
                found = matches.read(*pair)
                if found is None:
                    raise UserError(
                        f"{matches_path} has no matches of {pair[0]} and {pair[1]}: match them first"
                    )
                sizes = len(keypoints[pair[0]]), len(keypoints[pair[1]])
                rows, scores = found
                if len(rows) and (rows.max(axis=0) >= sizes).any():
                    raise UserError(
                        f"{matches_path}: matches of {pair[0]} and {pair[1]} name keypoints up to "
                        f"{tuple(rows.max(axis=0).tolist())}, but {features_path} has {sizes[0]} and "
                        f"{sizes[1]}: match again with these features"
                    )
                database.write_matches(*(ids[name] for name in pair), one_to_one(rows, scores))
    counts = verify_matches(database_path, options.two_view_geometry, seed)
    return {"images": len(used), "keypoints": sum(map(len, keypoints.values())), **counts}


def refine_features(
    features_path: Path,
    matches_path: Path,
    pairs_path: Path | None,
    image_path: Path,
    output_path: Path | None,
    features: DenseFeaturesOptions = DenseFeaturesOptions(),
    interpolation: InterpolationOptions = InterpolationOptions(),
    adjustment: KeypointAdjustmentOptions = KeypointAdjustmentOptions(),
    *,
    image_list_path: Path | None = None,
    constant_image_list_path: Path | None = None,
    covariance_path: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Refinement:
    """Move the matched keypoints of hloc's features until what surrounds them agrees between images.

    The matches are verified first, under cameras that are guessed as COLMAP does.

    Args:
        pairs_path: only these pairs count; None: all that have matches.
        output_path: a file of features with the new positions and all else of the given one; None refines
            that in place.

    For the other arguments and errors see `refine_keypoints`.
    """
    progress = progress or Progress()
    if output_path is not None and output_path.exists():
        raise UserError(f"{output_path} exists already: remove it, or give another --output_path")
    target = output_path or features_path
    check_writable(target)
    with tempfile.TemporaryDirectory(prefix="pixcli-") as folder:
        raw, refined = Path(folder) / "raw.db", Path(folder) / "refined.db"
        pycolmap.Database.open(raw).close()
        with progress.phase("import"):
            names = find_images(image_path)
            given = (raw, image_path, names, features_path, matches_path, pairs_path, ChainOptions(), seed)
            isolated("importing features", Path(folder), import_features, *given)
        refinement = refine_keypoints(
            raw,
            image_path,
            refined,
            features,
            interpolation,
            adjustment,
            image_list_path=image_list_path,
            constant_image_list_path=constant_image_list_path,
            covariance_path=covariance_path,
            seed=seed,
            progress=progress,
        )
        before, after = (read_match_graph(path, "raw") for path in (raw, refined))
    moved = {
        image.name: new[:, :2].astype(np.float64)
        for image, old, new in zip(before.images, before.keypoints, after.keypoints, strict=True)
        if (old != new).any()
    }
    write_refined_features(features_path, target, moved)
    return refinement


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


def _import_images(
    database_path: Path, image_path: Path, names: Sequence[str], options: ChainOptions
) -> None:
    reader = applied(options.image_reader, pycolmap.ImageReaderOptions())
    pycolmap.import_images(database_path, image_path, options.image_reader.camera_mode, list(names), reader)
