"""From images to a refined model: every step of the chain, each left in the output folder and repeated only
when what it is made from has changed.

    database.db   features and verified matches
    refined.db    the same with refined keypoints
    vocab_tree.bin for retrieval, if that is asked for and no other tree is given
    sparse/       all models that were mapped, the one with most images in sparse/0
    model/        the largest, refined: the result
    report.json   figures from raw to final; report/ has pictures
    steps.json    what each step was made from
"""

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pycolmap

from pixcli.adjustment.adjust import refine_model
from pixcli.alignment.refine import refine_keypoints
from pixcli.errors import UserError
from pixcli.io.database import copy_database
from pixcli.io.files import replacing
from pixcli.io.report import write_report
from pixcli.options import ChainOptions, TriangulationChainOptions
from pixcli.options.fields import OptionGroup
from pixcli.progress import Progress
from pixcli.reconstruction import colmap
from pixcli.reconstruction.chain import Chain, Source
from pixcli.reconstruction.hloc import import_features
from pixcli.reconstruction.images import find_images, readable_images
from pixcli.reconstruction.reference import (
    copy_features,
    read_reference,
    reference_images,
    write_reference,
)
from pixcli.reconstruction.report import make_report
from pixcli.reconstruction.steps import Steps

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconstructed:
    """Where the results of a reconstruction are, and what they are like."""

    model_path: Path
    """The refined model."""
    sparse_path: Path
    """All models as they were mapped, in folders 0, 1, ..., the largest first."""
    database_path: Path
    """The database that was mapped."""
    report: Mapping[str, Any]
    """The contents of report.json."""
    done: Sequence[str]
    """The steps that were not there yet, and so were done now."""

    def model(self) -> pycolmap.Reconstruction:
        """The refined model."""
        return pycolmap.Reconstruction(self.model_path)


def reconstruct(
    image_path: Path | str,
    output_path: Path | str,
    *,
    database_path: Path | str | None = None,
    features_path: Path | str | None = None,
    matches_path: Path | str | None = None,
    pairs_path: Path | str | None = None,
    options: ChainOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reconstructed:
    """Make the most accurate model of a folder of images.

    Called again, it takes up what was interrupted, and repeats only what follows from a change.

    Args:
        output_path: a new folder, or that of an earlier run on the same input.
        database_path: COLMAP database to start from; what it lacks of features and matches is made.
        features_path, matches_path, pairs_path: hloc's files to start from; without pairs, all matches count.
        options: all groups of options.
        seed: of every random choice.

    Raises:
        UserError: something about the input cannot be used, or the images could not be mapped. What earlier
            steps have made is kept.
    """
    paths = map(_path, (database_path, features_path, matches_path, pairs_path, None))
    source = Source(Path(image_path), *paths)
    return _run(source, Path(output_path), options or ChainOptions(), seed, progress or Progress())


def triangulate(
    reference_path: Path | str,
    image_path: Path | str,
    output_path: Path | str,
    *,
    database_path: Path | str | None = None,
    features_path: Path | str | None = None,
    matches_path: Path | str | None = None,
    pairs_path: Path | str | None = None,
    options: TriangulationChainOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reconstructed:
    """Make the points of a scene whose cameras and poses a model gives, matched by the names of images.

    These stay as they are, unless the options of bundle adjustment say otherwise. Images without a pose are
    an error, unless they are to be skipped. All else is as in `reconstruct`.
    """
    paths = map(_path, (database_path, features_path, matches_path, pairs_path, reference_path))
    source = Source(Path(image_path), *paths)
    chosen = options or TriangulationChainOptions()
    return _run(source, Path(output_path), chosen, seed, progress or Progress())


def _run(source: Source, folder: Path, options: ChainOptions, seed: int, progress: Progress) -> Reconstructed:
    source.check()
    colmap.check_options(options)
    reference = None if source.reference_path is None else read_reference(source.reference_path)
    given = {name: path and str(path.resolve()) for name, path in asdict(source).items() if path}
    names = find_images(source.image_path)
    if reference is not None:
        skip = options.reconstruction.skip_images_without_pose
        names = reference_images(reference, source.reference_path or Path(), names, skip)
    with Steps(folder, given, options.reconstruction.overwrite) as steps:
        chain = Chain(source, folder, options, seed, progress, steps)
        _make_database(chain, names, reference)
        database = _refine_keypoints(chain)
        _map(chain, database)
        _adjust(chain, database)
        report = _report(chain, database)
    return Reconstructed(folder / "model", folder / "sparse", database, report, chain.done)


def _make_database(chain: Chain, names: list[str], reference: pycolmap.Reconstruction | None) -> None:
    """Features, matches and their verification, from wherever they come."""
    source, options, database = chain.source, chain.options, chain.folder / "database.db"
    extraction = (options.image_reader, options.feature_extraction, options.sift_extraction)
    matcher = options.reconstruction.matcher
    matching = (
        options.feature_matching,
        options.sift_matching,
        options.two_view_geometry,
        getattr(options, f"{matcher}_matching"),
    )
    files = {name: chain.steps.hash_of(source.image_path / name) for name in names}
    for path in (source.database_path, source.features_path, source.matches_path, source.pairs_path):
        if path is not None:
            files[str(path)] = chain.steps.hash_of(path)
    if source.reference_path is not None:
        for path in sorted(source.reference_path.glob("*.*")):
            files[str(path)] = chain.steps.hash_of(path)
    inputs = {"files": files, "seed": chain.seed}

    def new_database() -> None:
        colmap.remove(database)
        pycolmap.Database.open(database).close()
        if reference is not None:
            write_reference(reference, database)

    def extract_features(names: list[str]) -> dict[str, Any]:
        arguments = (database, source.image_path, names, options, chain.seed)
        with chain.progress.phase("extract", len(names)) as update:
            return chain.colmap("extracting features", colmap.extract_features, *arguments, update=update)

    def match_images(num_images: int) -> dict[str, Any]:
        parts = colmap.matching_parts(options, num_images)
        arguments = (database, options, chain.seed)
        with chain.progress.phase("match", parts) as update:
            figures = chain.colmap("matching", colmap.match_images, *arguments, update=update)
            update(parts)
        return figures

    def extract(resume: bool) -> Mapping[str, Any]:
        if not resume or not database.is_file():
            new_database()
        skip = options.reconstruction.skip_unreadable_images
        with chain.progress.phase("check images", len(names)) as update:
            readable = readable_images(source.image_path, names, skip, update)
        return extract_features(readable)

    def match(resume: bool) -> Mapping[str, Any]:
        if not resume:
            colmap.clear_matches(database)
        return _checked(match_images(chain.figures["features"]["images"]))

    def complete_database(resume: bool) -> Mapping[str, Any]:
        assert source.database_path is not None
        with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=chain.folder) as temporary:
            copied = Path(temporary) / "database.db"
            copy_database(source.database_path, copied)
            counts = colmap.match_counts(copied)
            is_matched = counts["matches"] > 0 or counts["verified_pairs"] > 0
            if is_matched or not resume or not database.is_file():
                new_database()
                if reference is None:
                    copied.replace(database)
                else:
                    copy_features(copied, database)
        stored, lacking = colmap.images_without_features(database)
        figures: dict[str, Any] = {"images": len(stored or names)}
        if lacking or not stored:
            figures = extract_features(stored or names)
        if lacking or not is_matched:
            counts = match_images(figures["images"])
        elif counts["verified_pairs"] == 0:
            with chain.progress.phase("verify"):
                counts = chain.colmap(
                    "verifying", colmap.verify_matches, database, options.two_view_geometry, chain.seed
                )
        return {**figures, **_checked(counts)}

    def from_hloc(resume: bool) -> Mapping[str, Any]:
        assert source.features_path is not None
        assert source.matches_path is not None
        new_database()
        with chain.progress.phase("import"):
            figures = chain.colmap(
                "importing features",
                import_features,
                database,
                source.image_path,
                names,
                source.features_path,
                source.matches_path,
                source.pairs_path,
                options,
                chain.seed,
                reference is not None,
            )
        return _checked(figures)

    if source.features_path is not None:
        groups = (options.image_reader, options.two_view_geometry)
        chain.step("import", groups, [database], from_hloc, **inputs)
    elif source.database_path is not None:
        chain.step(
            "database", (*extraction, *matching), [database], complete_database, **inputs, matcher=matcher
        )
    else:
        chain.step("features", extraction, [database], extract, **inputs)
        chain.step("matches", matching, [database], match, matcher=matcher)


def _refine_keypoints(chain: Chain) -> Path:
    """The database to map: with refined keypoints, if they are to be refined."""
    raw, refined = chain.folder / "database.db", chain.folder / "refined.db"
    options = chain.options
    if not options.keypoint_adjustment.apply:
        colmap.remove(refined)
        return raw

    def refine(resume: bool) -> Mapping[str, Any]:
        with replacing(refined) as temporary:
            refinement = refine_keypoints(
                raw,
                chain.source.image_path,
                temporary,
                chain.features("keypoints"),
                options.interpolation,
                options.keypoint_adjustment,
                seed=chain.seed,
                progress=chain.phases(),
            )
        return refinement.contents()

    groups = (options.keypoint_adjustment, options.dense_features, options.interpolation)
    chain.step("keypoints", groups, [refined], refine)
    return refined


def _map(chain: Chain, database: Path) -> None:
    options, sparse = chain.options, chain.folder / "sparse"
    images = chain.source.image_path

    def map_images(resume: bool) -> Mapping[str, Any]:
        num_images = next(
            chain.figures[name]["images"]
            for name in ("features", "database", "import")
            if name in chain.figures
        )
        given = (database, images, sparse, options, chain.seed)
        with chain.progress.phase("map", num_images) as update:
            figures = chain.colmap("mapping", colmap.map_images, *given, update=update)
            update(figures["registered"])
        return figures

    def triangulate_points(resume: bool) -> Mapping[str, Any]:
        given = (chain.source.reference_path, database, images, sparse, options, chain.seed)
        with chain.progress.phase("triangulate"):
            return chain.colmap("triangulating", colmap.triangulate, *given)

    if chain.source.reference_path is not None:
        chain.step("triangulation", [options.mapper], [sparse], triangulate_points)
        return
    mapper = options.reconstruction.mapper
    group = options.mapper if mapper == "incremental" else options.global_mapper
    chain.step("mapping", [group], [sparse], map_images, mapper=mapper)
    sizes = chain.figures["mapping"]["images"]
    if len(sizes) > 1:
        log.warning("%d models, with %s images: the first is refined", len(sizes), ", ".join(map(str, sizes)))


def _adjust(chain: Chain, database: Path) -> None:
    options, model = chain.options, chain.folder / "model"

    def adjust(resume: bool) -> Mapping[str, Any]:
        adjustment = refine_model(
            chain.folder / "sparse" / "0",
            model,
            chain.source.image_path,
            chain.features("adjustment"),
            replace(options.featuremetric_bundle_adjustment, overwrite=True),
            options.interpolation,
            options.bundle_adjustment,
            options.bundle_adjustment_ceres,
            tracks=options.tracks,
            pose_priors=options.pose_priors,
            database_path=database,
            progress=chain.phases(),
        )
        return {**adjustment.contents(), **colmap.model_figures(pycolmap.Reconstruction(model))}

    def copy(resume: bool) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=chain.folder) as temporary:
            copied = Path(temporary) / "model"
            shutil.copytree(chain.folder / "sparse" / "0", copied)
            colmap.put_folder(copied, model)
        return colmap.model_figures(pycolmap.Reconstruction(model))

    if options.featuremetric_bundle_adjustment.apply:
        groups = (
            options.featuremetric_bundle_adjustment,
            options.bundle_adjustment,
            options.bundle_adjustment_ceres,
            options.tracks,
            options.pose_priors,
            options.dense_features,
            options.interpolation,
        )
        chain.step("adjustment", groups, [model], adjust)
    else:
        chain.step("model", [], [model], copy)


def _report(chain: Chain, database: Path) -> Mapping[str, Any]:
    path, pictures = chain.folder / "report.json", chain.folder / "report"
    draw = chain.options.reconstruction.report_pictures

    def make(resume: bool) -> Mapping[str, Any]:
        with chain.progress.phase("report"):
            return make_report(chain.folder, chain.source.image_path, database, draw)

    chain.step("report", [], [pictures] if draw else [], make, pictures=draw)
    command = "reconstructor" if chain.source.reference_path is None else "triangulator"
    report = {
        "source": asdict(chain.source),
        "options": {group.group: asdict(group) for group in _groups(chain.options)},
        "seed": chain.seed,
        "steps": chain.figures,
        "done": chain.done,
    }
    write_report(path, command, report)
    return report


def _groups(options: ChainOptions) -> list[OptionGroup]:
    return list(vars(options).values())


def _checked(counts: dict[str, int]) -> Mapping[str, int]:
    if counts["verified_pairs"] == 0:
        raise UserError(
            f"no pair of images has verified matches ({counts['pairs']} pairs have {counts['matches']} raw "
            "ones): do the images show the same scene? Another --matcher or a lower "
            "--TwoViewGeometry.min_num_inliers may find some"
        )
    return counts


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)
