"""Options without a group: paths, and what every command takes."""

from dataclasses import dataclass
from typing import Literal

from pixcli.options.fields import OptionGroup, option


@dataclass(frozen=True)
class PathOptions(OptionGroup):
    """All paths that commands take. A command names those that it uses; empty means not given."""

    group = ""

    database_path: str = option("", "COLMAP database with keypoints and verified matches.")
    input_path: str = option("", "Folder of a COLMAP model.")
    reference_path: str = option("", "Folder of a COLMAP model with the cameras and poses to keep.")
    features_path: str = option("", "hloc's keypoints (HDF5) of the images or, in localize, of the queries.")
    matches_path: str = option(
        "", "hloc's matches of image pairs (HDF5); in localize, the query comes first."
    )
    pairs_path: str = option(
        "", "hloc's pairs, two image names per line; in localize, the query comes first."
    )
    image_path: str = option("", "Folder that image names are relative to.")
    image_list_path: str = option("", "Image names, one per line: only these images are used.")
    constant_image_list_path: str = option("", "Image names, one per line, held fixed.")
    queries_path: str = option(
        "", "hloc's query list: name, camera model, width, height and parameters, one query per line."
    )
    constant_camera_list_path: str = option("", "Camera ids, one per line, whose intrinsics are held fixed.")
    constant_rig_list_path: str = option("", "Rig ids, one per line, whose sensor poses are held fixed.")
    constant_point_list_path: str = option("", "3D point ids, one per line, held fixed.")
    output_path: str = option("", "Where to write the result.")
    output_database_path: str = option(
        "",
        "Copy of --database_path that gets the keypoints of the refined model; the same file: updated in "
        "place.",
    )
    covariance_path: str = option(
        "", "HDF5 file for the covariances of keypoints, or of a model's poses, points and cameras."
    )
    references_path: str = option(
        "",
        "HDF5 file with the appearance of every point (references): read if it exists, else written for the "
        "refined model.",
    )
    write_normals_path: str = option("", "PLY file for the points with normals.")
    report_path: str = option("", "JSON file for the figures of the closing tables.")
    texture_path: str = option("", "Folder of photos used as textures.")


@dataclass(frozen=True)
class CommonOptions(OptionGroup):
    """What every command takes, beside --project_path and --preset."""

    group = ""

    default_random_seed: int = option(0, "Random seed.", minimum=0, maximum=2**31 - 1)
    log_level: int = option(
        0, "Verbosity. 0: information, 1: details too, -1: warnings, -2: errors only.", minimum=-2, maximum=1
    )
    log_target: Literal["stderr", "stdout", "file", "stderr_and_file"] = option(
        "stderr", "Where the log goes.", advanced=True
    )
    log_path: str = option("", "The log file, for targets with a file.", advanced=True)
