"""pixcli synthetic_dataset_generator"""

from pathlib import Path

from pixcli.cli.params import command
from pixcli.options import SyntheticOptions
from pixcli.progress import Progress
from pixcli.synthetic.dataset import generate_dataset


@command
def synthetic_dataset_generator(
    output_path: Path, texture_path: Path | None, options: SyntheticOptions, progress: Progress
) -> None:
    """Render a scene with exactly known geometry.

    The output folder gets images/; gt/, the exact COLMAP model without points; depth/, for each image an .npz
    with "depth", metres along z at the pixel centres, 0 where nothing is; surface.npz, "points" and "normals"
    that two images or more see; and scene.json, the options.
    With --layout eth3d images, model and laser scans lie as in the ETH3D benchmark.
    """
    generate_dataset(output_path, options, texture_path, progress)
