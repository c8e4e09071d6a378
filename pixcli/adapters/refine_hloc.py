"""hloc's features, refined: HDF5 in, HDF5 out."""

import tempfile
from pathlib import Path

from pixcli.adapters.hloc_import import import_features, with_scores
from pixcli.adapters.isolation import isolated
from pixcli.adapters.match_input import MatchInput
from pixcli.adapters.refine_database import FilePath, Refinement, RefinerFiles
from pixcli.adapters.verification import verify_matches
from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.database import read_match_graph
from pixcli.io.files import check_writable
from pixcli.io.hloc import write_refined_features
from pixcli.io.image_folder import find_images
from pixcli.keypoint_adjustment.keypoint_result import KeypointResult
from pixcli.keypoint_adjustment.refine import check_refinement, refine_keypoints
from pixcli.options import FeatureRefinerOptions, ImageReaderOptions, TwoViewGeometryOptions
from pixcli.options.colmap import check
from pixcli.progress import Progress

import pycolmap


def refine_hloc(
    matches: MatchInput,
    images: FilePath,
    output_path: FilePath | None,
    options: FeatureRefinerOptions = FeatureRefinerOptions(),
    two_view_geometry: TwoViewGeometryOptions | None = None,
    *,
    files: RefinerFiles = RefinerFiles(),
    seed: int = 0,
    progress: Progress | None = None,
) -> Refinement:
    """Shift the matched keypoints of hloc's features until their surrounding image patches agree.

    The matches are verified first, under cameras that COLMAP guesses, unless KeypointAdjustment.match_source
    is raw. Their scores weigh them.

    Args:
        matches: hloc's features and matches.
        images: the folder that the names of images are relative to.
        output_path: a file of features with the new positions and all else of the given one; None refines
            that in place.
        two_view_geometry: how matches are verified.
        seed: of the random samples of verification.

    Raises:
        UserError: something about the input cannot be used; nothing has been written.
    """
    progress = progress or Progress()
    geometry = two_view_geometry or TwoViewGeometryOptions()
    matches.require("features_path", "matches_path")
    assert matches.features_path is not None
    if output_path is not None and Path(output_path).exists():
        raise UserError(f"{output_path} exists already: remove it, or give another --output_path")
    target = Path(output_path or matches.features_path)
    check_writable(target)
    files.check()
    check(geometry)
    check_refinement(images, options)
    with progress.phase("read"):
        graph = _read(matches, Path(images), options, geometry, seed)
        selection = files.selection(graph)
    result = refine_keypoints(graph, images, options, **selection, progress=progress)
    files.write_covariances(result)
    _write(matches.features_path, target, graph, result)
    return Refinement(result, None, progress.phases)


def _read(
    matches: MatchInput,
    image_path: Path,
    options: FeatureRefinerOptions,
    geometry: TwoViewGeometryOptions,
    seed: int,
) -> MatchGraph:
    """The graph of the matches that count; COLMAP verifies them in a database of its own."""
    assert matches.matches_path is not None
    source = options.keypoint_adjustment.match_source
    with tempfile.TemporaryDirectory(prefix="pixcli-") as folder:
        database = Path(folder) / "matches.db"
        pycolmap.Database.open(database).close()
        names = find_images(image_path)
        given = (database, image_path, names, matches, ImageReaderOptions())
        isolated("importing features", Path(folder), import_features, *given)
        if source == "inlier" and verify_matches(database, geometry, seed)["verified_pairs"] == 0:
            raise UserError(
                f"{matches.matches_path}: no pair of images has verified matches: do they belong to these "
                "features and images? A lower --TwoViewGeometry.min_num_inliers may find some"
            )
        graph = read_match_graph(database, source)
    return with_scores(graph, matches.matches_path)


def _write(features_path: Path, target: Path, graph: MatchGraph, result: KeypointResult) -> None:
    moved, refined = graph.moved(result.xy), graph.with_positions(result.xy).xy
    positions = {
        name: refined[graph.rows_of(k)] for k, name in enumerate(graph.names) if moved[graph.rows_of(k)].any()
    }
    write_refined_features(features_path, target, positions)
