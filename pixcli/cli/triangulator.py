"""pixcli triangulator"""

from pathlib import Path

from pixcli.adapters.match_input import MatchInput
from pixcli.cli.params import command
from pixcli.cli.reconstructor import print_result
from pixcli.options import CommonOptions, TriangulationChainOptions
from pixcli.progress import Progress
from pixcli.reconstruction.reconstruct import triangulate


@command
def triangulator(
    reference_path: Path,
    image_path: Path,
    output_path: Path,
    database_path: Path | None,
    features_path: Path | None,
    matches_path: Path | None,
    pairs_path: Path | None,
    options: TriangulationChainOptions,
    common: CommonOptions,
    progress: Progress,
) -> None:
    """Make refined points at the cameras and poses of a given model.

    Images and poses are matched by name. Cameras and poses stay as they are, unless
    --BundleAdjustment.refine_... says otherwise. All else is as in reconstructor.
    """
    result = triangulate(
        reference_path,
        image_path,
        output_path,
        MatchInput(database_path, features_path, matches_path, pairs_path),
        options=options,
        seed=common.default_random_seed,
        progress=progress,
    )
    print_result(result)
