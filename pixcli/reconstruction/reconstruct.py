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

from pixcli.adapters.match_input import MatchInput
from pixcli.adapters.refine_database import RefinerFiles, refine_database
from pixcli.adapters.refine_model import ModelFiles, refine_model
from pixcli.io.files import replacing
from pixcli.io.image_folder import find_images
from pixcli.io.report import write_report
from pixcli.options import ChainOptions, FeatureRefinerOptions, TriangulationChainOptions
from pixcli.options.bundle_adjustment import FeaturemetricBundleAdjusterOptions
from pixcli.options.fields import OptionGroup, part_of
from pixcli.progress import Progress
from pixcli.reconstruction import colmap_steps as colmap
from pixcli.reconstruction.chain import Chain, ChainInput
from pixcli.reconstruction.database_steps import make_database
from pixcli.reconstruction.reference import read_reference, reference_images
from pixcli.reconstruction.run_report import make_report
from pixcli.reconstruction.steps import Steps

import pycolmap

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
    matches: MatchInput = MatchInput(),
    *,
    options: ChainOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reconstructed:
    """Make the most accurate model of a folder of images.

    Called again, it takes up what was interrupted, and repeats only what follows from a change.

    Args:
        output_path: a new folder, or that of an earlier run on the same input.
        matches: a COLMAP database to start from, of which what it lacks of features and matches is made, or
            hloc's files; by default features and matches are made from the images.
        options: all groups of options.
        seed: of every random choice.

    Raises:
        UserError: something about the input cannot be used, or the images could not be mapped. What earlier
            steps have made is kept.
    """
    chosen = options or ChainOptions()
    return _run(
        ChainInput(Path(image_path), matches), Path(output_path), chosen, seed, progress or Progress()
    )


def triangulate(
    reference_path: Path | str,
    image_path: Path | str,
    output_path: Path | str,
    matches: MatchInput = MatchInput(),
    *,
    options: TriangulationChainOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reconstructed:
    """Make the points of a scene whose cameras and poses a model gives, matched by the names of images.

    These stay as they are, unless the options of bundle adjustment say otherwise. Images without a pose are
    an error, unless they are to be skipped. All else is as in `reconstruct`.
    """
    given = ChainInput(Path(image_path), matches, Path(reference_path))
    chosen = options or TriangulationChainOptions()
    return _run(given, Path(output_path), chosen, seed, progress or Progress())


def _run(
    given: ChainInput, folder: Path, options: ChainOptions, seed: int, progress: Progress
) -> Reconstructed:
    given.check()
    colmap.check_options(options)
    reference = None if given.reference_path is None else read_reference(given.reference_path)
    names = find_images(given.image_path)
    if reference is not None:
        skip = options.reconstruction.skip_images_without_pose
        names = reference_images(reference, given.reference_path or Path(), names, skip)
    paths = {name: str(path.resolve()) for name, path in given.paths.items()}
    with Steps(folder, paths, options.reconstruction.overwrite) as steps:
        chain = Chain(given, folder, options, seed, progress, steps)
        make_database(chain, names, reference)
        database = _refine_keypoints(chain)
        _map(chain, database)
        _adjust(chain, database)
        report = _report(chain, database)
    return Reconstructed(folder / "model", folder / "sparse", database, report, chain.done)


def _refine_keypoints(chain: Chain) -> Path:
    """The database to map: with refined keypoints, if they are to be refined."""
    raw, refined = chain.folder / "database.db", chain.folder / "refined.db"
    options = chain.options
    if not options.keypoint_adjustment.apply:
        colmap.remove(refined)
        return raw

    def refine(resume: bool) -> Mapping[str, Any]:
        with replacing(refined) as temporary:
            refinement = refine_database(
                raw,
                chain.input.image_path,
                temporary,
                FeatureRefinerOptions(
                    options.keypoint_adjustment, chain.features("keypoints"), options.interpolation
                ),
                options.two_view_geometry,
                files=RefinerFiles(scores_path=chain.input.matches.matches_path),
                seed=chain.seed,
                progress=chain.phases(),
            )
        return refinement.contents()

    groups = (
        options.keypoint_adjustment,
        options.dense_features,
        options.interpolation,
        options.two_view_geometry,
    )
    chain.step("keypoints", groups, [refined], refine)
    return refined


def _map(chain: Chain, database: Path) -> None:
    options, sparse = chain.options, chain.folder / "sparse"
    images = chain.input.image_path

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
        given = (chain.input.reference_path, database, images, sparse, options, chain.seed)
        with chain.progress.phase("triangulate"):
            return chain.colmap("triangulating", colmap.triangulate, *given)

    if chain.input.reference_path is not None:
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
        how = replace(options.featuremetric_bundle_adjustment, overwrite=True)
        chosen = replace(
            part_of(options, FeaturemetricBundleAdjusterOptions),
            featuremetric_bundle_adjustment=how,
            dense_features=chain.features("adjustment"),
        )
        files = ModelFiles(
            chain.folder / "sparse" / "0", model, chain.input.image_path, database_path=database
        )
        refined = refine_model(files, chosen, chain.phases())
        return {**refined.contents(), **colmap.model_figures(refined.reconstruction)}

    def copy(resume: bool) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=chain.folder) as temporary:
            copied = Path(temporary) / "model"
            shutil.copytree(chain.folder / "sparse" / "0", copied)
            colmap.put_folder(copied, model)
        return colmap.model_figures(pycolmap.Reconstruction(model))

    if options.featuremetric_bundle_adjustment.apply:
        groups = vars(part_of(options, FeaturemetricBundleAdjusterOptions)).values()
        chain.step("adjustment", groups, [model], adjust)
    else:
        chain.step("model", [], [model], copy)


def _report(chain: Chain, database: Path) -> Mapping[str, Any]:
    path, pictures = chain.folder / "report.json", chain.folder / "report"
    draw = chain.options.reconstruction.report_pictures

    def make(resume: bool) -> Mapping[str, Any]:
        with chain.progress.phase("report"):
            return make_report(chain.folder, chain.input.image_path, database, draw)

    chain.step("report", [], [pictures] if draw else [], make, pictures=draw)
    command = "reconstructor" if chain.input.reference_path is None else "triangulator"
    report = {
        "source": chain.input.paths,
        "options": {group.group: asdict(group) for group in _groups(chain.options)},
        "seed": chain.seed,
        "steps": chain.figures,
        "done": chain.done,
    }
    write_report(path, command, report)
    return report


def _groups(options: ChainOptions) -> list[OptionGroup]:
    return list(vars(options).values())
