"""COLMAP's part of a reconstruction, by pycolmap: features, matches, verification, mapping, triangulation.

Reproducible: images get their numbers by name, seeds are set, and mapping takes one thread unless told
otherwise.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pixcli.adapters.verification import geometry_options, match_counts
from pixcli.errors import UserError
from pixcli.options.colmap import applied, check
from pixcli.options.reconstruction import ChainOptions
from pixcli.reconstruction.reference import read_reference
from pixcli.reconstruction.vocabulary import build_vocabulary_tree

import pycolmap


def check_options(options: ChainOptions) -> None:
    """Raises UserError, before anything is computed, where COLMAP would refuse its options or lack a file."""
    for group in vars(options).values():
        if hasattr(group, "_pycolmap_paths"):
            check(group)
    reader, retrieval, sequential = (
        vars(group)
        for group in (options.image_reader, options.vocab_tree_matching, options.sequential_matching)
    )
    for path, option in (
        (reader["mask_path"], "ImageReader.mask_path"),
        (reader["camera_mask_path"], "ImageReader.camera_mask_path"),
        (retrieval["vocab_tree_path"], "VocabTreeMatching.vocab_tree_path"),
        (sequential["vocab_tree_path"], "SequentialMatching.vocab_tree_path"),
    ):
        if path and not Path(path).exists():
            raise UserError(f"there is no {path}: check --{option}")


def extract_features(
    database_path: Path, image_path: Path, names: Sequence[str], options: ChainOptions, seed: int
) -> dict[str, int]:
    """SIFT features of these images, into a database that may hold some of them already."""
    reader = applied(options.image_reader, pycolmap.ImageReaderOptions())
    extraction = applied(options.feature_extraction, pycolmap.FeatureExtractionOptions())
    applied(options.sift_extraction, extraction.sift)
    mode = options.image_reader.camera_mode
    pycolmap.set_random_seed(seed)
    # Imported before their features, images get the same numbers in every run.
    pycolmap.import_images(database_path, image_path, mode, list(names), reader)
    pycolmap.extract_features(database_path, image_path, list(names), mode, reader, extraction)
    with pycolmap.Database.open(database_path) as database:
        images = database.read_all_images()
        known = {image.name for image in images}
        if missing := sorted(set(names) - known):
            raise UserError(
                f"{image_path / missing[0]}: COLMAP could not read this image; does it fit the options "
                "ImageReader.camera_model, camera_params and single_camera?"
            )
        return {
            "images": len(images),
            "cameras": database.num_cameras(),
            "keypoints": database.num_keypoints(),
        }


def images_without_features(database_path: Path) -> tuple[list[str], list[str]]:
    """All images of a database, and those that have no features yet.

    None lacks any if there are keypoints without descriptors: they are not of COLMAP, which could not add to
    them.
    """
    with pycolmap.Database.open(database_path) as database:
        images = database.read_all_images()
        bare = {image.name for image in images if not database.exists_keypoints(image.image_id)}
        is_foreign = any(
            image.name not in bare and not database.exists_descriptors(image.image_id) for image in images
        )
    return [image.name for image in images], [] if is_foreign else sorted(bare)


def match_images(database_path: Path, options: ChainOptions, seed: int) -> dict[str, int]:
    """Matches and verifies the images of a database, but for pairs that it has already."""
    matching = applied(options.feature_matching, pycolmap.FeatureMatchingOptions())
    applied(options.sift_matching, matching.sift)
    pycolmap.set_random_seed(seed)
    verification = geometry_options(options.two_view_geometry, seed)
    match options.reconstruction.matcher:
        case "exhaustive":
            exhaustive = applied(options.exhaustive_matching, pycolmap.ExhaustivePairingOptions())
            pycolmap.match_exhaustive(database_path, matching, exhaustive, verification)
        case "sequential":
            sequential = applied(options.sequential_matching, pycolmap.SequentialPairingOptions())
            if sequential.loop_detection:
                sequential.vocab_tree_path = _vocabulary_tree(sequential, database_path)
            pycolmap.match_sequential(database_path, matching, sequential, verification)
        case "vocab_tree":
            retrieval = applied(options.vocab_tree_matching, pycolmap.VocabTreePairingOptions())
            retrieval.vocab_tree_path = _vocabulary_tree(retrieval, database_path)
            pycolmap.match_vocabtree(database_path, matching, retrieval, verification)
    return match_counts(database_path)


def matching_parts(options: ChainOptions, num_images: int) -> int:
    """What COLMAP counts while it matches: blocks of pairs, or images."""
    if options.reconstruction.matcher == "exhaustive":
        return int(-(-num_images // options.exhaustive_matching.block_size)) ** 2  # type: ignore[attr-defined]
    return num_images


def clear_matches(database_path: Path) -> None:
    """Removes all matches and two-view geometries."""
    with pycolmap.Database.open(database_path) as database:
        database.clear_matches()
        database.clear_two_view_geometries()


def map_images(
    database_path: Path, image_path: Path, output_path: Path, options: ChainOptions, seed: int
) -> dict[str, Any]:
    """Maps a database; writes all models into the folder as 0, 1, ..., the one with most images first.

    Raises:
        UserError: no image pair could be reconstructed; says what was tried.
    """
    mapper: Any
    folder = output_path.parent
    with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=folder) as temporary:
        work, made = Path(temporary) / "work", Path(temporary) / "models"
        work.mkdir()
        made.mkdir()
        pycolmap.set_random_seed(seed)
        if options.reconstruction.mapper == "incremental":
            mapper = applied(options.mapper, pycolmap.IncrementalPipelineOptions())
            mapper.random_seed = mapper.mapper.random_seed = mapper.triangulation.random_seed = seed
            mapper.mapper.num_threads = mapper.num_threads
            models = pycolmap.incremental_mapping(database_path, image_path, work, mapper)
        else:
            mapper = applied(options.global_mapper, pycolmap.GlobalPipelineOptions())
            mapper.random_seed = mapper.mapper.random_seed = seed
            mapper.mapper.rotation_averaging.random_seed = seed
            mapper.mapper.global_positioning.random_seed = seed
            mapper.mapper.retriangulation.random_seed = seed
            mapper.mapper.num_threads = mapper.num_threads
            models = pycolmap.global_mapping(database_path, image_path, work, mapper)
        found = [model for model in models.values() if model.num_reg_images() >= 2 and model.num_points3D()]
        if not found:
            raise UserError(_nothing_mapped(database_path, options))
        found.sort(key=lambda model: -int(model.num_reg_images()))
        for k, model in enumerate(found):
            (made / str(k)).mkdir()
            model.write_binary(made / str(k))
        put_folder(made, output_path)
    return {"images": [int(model.num_reg_images()) for model in found], **model_figures(found[0])}


def triangulate(
    reference_path: Path,
    database_path: Path,
    image_path: Path,
    output_path: Path,
    options: ChainOptions,
    seed: int,
) -> dict[str, Any]:
    """Triangulates the matches of a database at the poses of a model that has its ids; writes the model.

    Raises:
        UserError: not a single point could be triangulated.
    """
    mapper = applied(options.mapper, pycolmap.IncrementalPipelineOptions())
    mapper.random_seed = mapper.mapper.random_seed = mapper.triangulation.random_seed = seed
    mapper.mapper.num_threads = mapper.num_threads
    reference = read_reference(reference_path)
    with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=output_path.parent) as temporary:
        work, made = Path(temporary) / "work", Path(temporary) / "models"
        work.mkdir()
        (made / "0").mkdir(parents=True)
        pycolmap.set_random_seed(seed)
        model = pycolmap.triangulate_points(reference, database_path, image_path, work, True, mapper)
        if model.num_points3D() == 0:
            counts = match_counts(database_path)
            raise UserError(
                f"no point could be triangulated from {counts['inlier_matches']} verified matches in "
                f"{counts['verified_pairs']} pairs: do poses, cameras and image names of --reference_path "
                "belong to these images?"
            )
        model.write_binary(made / "0")
        put_folder(made, output_path)
    return {"images": [int(model.num_reg_images())], **model_figures(model)}


def model_figures(model: pycolmap.Reconstruction) -> dict[str, Any]:
    """What a table says of a model."""
    model.update_point_3d_errors()
    errors = [point.error for point in model.points3D.values() if point.error >= 0]
    return {
        "registered": int(model.num_reg_images()),
        "points": int(model.num_points3D()),
        "observations": int(model.compute_num_observations()),
        "track_length": float(model.compute_mean_track_length()),
        "reprojection_error": float(np.median(errors)) if errors else None,
    }


def put_folder(source: Path, target: Path) -> None:
    """Moves a folder to where another may be, which disappears."""
    if target.exists():
        with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=target.parent) as old:
            target.rename(Path(old) / "old")
            source.rename(target)
    else:
        source.rename(target)


def remove(path: Path) -> None:
    """Removes a file or folder, if it is there, with what SQLite keeps beside a database."""
    if path.is_dir():
        shutil.rmtree(path)
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        file.unlink(missing_ok=True)


def _vocabulary_tree(pairing: Any, database_path: Path) -> Path:
    """The tree that was given, or one of the features in the database, made beside it."""
    if pairing.vocab_tree_path != Path():
        return Path(pairing.vocab_tree_path)
    path = database_path.with_name("vocab_tree.bin")
    build_vocabulary_tree(database_path, path, pairing.num_threads)
    return path


def _nothing_mapped(database_path: Path, options: ChainOptions) -> str:
    with pycolmap.Database.open(database_path) as database:
        images = database.num_images()
        _, inliers = database.read_two_view_geometry_num_inliers()
    mapper = options.reconstruction.mapper
    enough = sum(count >= options.mapper.init_min_num_inliers for count in inliers)  # type: ignore[attr-defined]
    return (
        f"no model could be made of the {images} images by the {mapper} mapper: {len(inliers)} pairs have "
        f"verified matches, the best one {max(inliers, default=0)}, and {enough} have enough to begin with. "
        "The database is kept; give images that overlap more, another --matcher or --mapper, or lower "
        "--Mapper.init_min_num_inliers and --Mapper.init_min_tri_angle"
    )
