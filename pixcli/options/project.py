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
    features_path: str = option("", "hloc's keypoints (HDF5): of the images or, in localize, of the queries.")
    matches_path: str = option("", "hloc's matches of image pairs (HDF5); in localize, a query is the first.")
    pairs_path: str = option("", "hloc's pairs, two image names a line; in localize, a query is the first.")
    image_path: str = option("", "Folder that the image names of the database are relative to.")
    image_list_path: str = option("", "Text file with one image name a line: only these images are used.")
    constant_image_list_path: str = option("", "Text file with one image name a line: these stay.")
    queries_path: str = option(
        "", "hloc's list of queries: name, camera model, width, height, parameters on each line."
    )
    constant_camera_list_path: str = option("", "Text file with one camera id a line: these stay.")
    constant_rig_list_path: str = option(
        "", "Text file with one rig id a line: where the sensors are in these stays."
    )
    constant_point_list_path: str = option("", "Text file with one 3D point id a line: these stay.")
    output_path: str = option("", "Where the result is written.")
    output_database_path: str = option(
        "",
        "Copy of --database_path with the keypoints of the written model; the same file: in place.",
    )
    covariance_path: str = option(
        "", "HDF5 file for covariances: of keypoints, or of a model's poses and points."
    )
    references_path: str = option(
        "",
        "HDF5 file of references, what the features of every point look like: used if it is there, else "
        "written for the refined model.",
    )
    write_normals_path: str = option("", "PLY file for the points with their normals.")
    report_path: str = option("", "JSON file for the figures of the closing summary.")
    texture_path: str = option("", "Folder of photos that surfaces are textured with.")


@dataclass(frozen=True)
class CommonOptions(OptionGroup):
    """What every command takes, beside --project_path and --preset."""

    group = ""

    default_random_seed: int = option(0, "Seed of every random choice.", minimum=0, maximum=2**31 - 1)
    log_level: int = option(
        0, "0: information, 1: details too, -1: warnings, -2: errors only.", minimum=-2, maximum=1
    )
    log_target: Literal["stderr", "stdout", "file", "stderr_and_file"] = option(
        "stderr", "Where the log goes."
    )
    log_path: str = option("", "The log file, for the targets with a file.")
