"""Options of the synthetic scenes."""

from dataclasses import dataclass
from typing import Literal

from pixcli.options.fields import OptionGroup, option

CameraModel = Literal[
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_DIVISION",
    "DIVISION",
    "SIMPLE_FISHEYE",
    "FISHEYE",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "OPENCV_FISHEYE",
    "THIN_PRISM_FISHEYE",
    "RAD_TAN_THIN_PRISM_FISHEYE",
    "EUCM",
]


@dataclass(frozen=True)
class SyntheticOptions(OptionGroup):
    """What a synthetic scene holds and how its images are taken."""

    group = "Synthetic"

    seed: int = option(0, "Another seed gives another scene; the same gives the same bytes.", minimum=0)
    scene: Literal["court", "relief", "mixed", "flat"] = option(
        "court",
        "court: facade, ground, bodies; relief: bumpy surfaces; mixed: planes, columns, balls, a relief; "
        "flat: a single plane.",
    )
    path: Literal["arc", "turntable", "flight", "forward"] = option(
        "arc",
        "How the camera moves. arc: around the scene, near and far; turntable: around it at one distance and "
        "height; flight: in strips before the facade, facing it, like a drone; forward: towards it.",
    )
    num_images: int = option(24, "Images along the path.", minimum=2, maximum=9999)
    width: int = option(1024, "Width of an image in pixels.", minimum=16)
    height: int = option(768, "Height of an image in pixels.", minimum=16)
    num_cameras: int = option(2, "Cameras; the images take turns.", minimum=1)
    camera_model: CameraModel = option("OPENCV", "COLMAP's camera model.")  # noqa: RUF009
    distortion: float = option(
        1.0, "Strength of the lens distortion; 0: none, 1: as a common lens.", minimum=0, maximum=1.5
    )
    focal_ratio: float = option(
        1.0, "Focal length over image width, of the first camera.", minimum=0.5, maximum=5
    )
    samples: int = option(3, "Rays along each side of a pixel, against aliasing.", minimum=1, maximum=8)
    noise: float = option(3.0, "Standard deviation of the noise in grey levels.", minimum=0, maximum=100)
    blur: float = option(0.0, "Standard deviation of the blur in pixels.", minimum=0, maximum=20)
    illumination: float = option(
        0.6, "Strength of the change of light from image to image; 0: none.", minimum=0, maximum=1.5
    )
    appearance_change: float = option(
        0.0,
        "Strength of cast shadows, tone curves, colour casts, highlights and darkness that differ from image "
        "to image; 0: none, 1: as between sun and dusk.",
        minimum=0,
        maximum=1.5,
        short="appearance_change",
    )
    format: Literal["jpg", "png"] = option("jpg", "Image files.")
    output_type: Literal["text", "binary"] = option("text", "Files of the exact model.")
    layout: Literal["plain", "eth3d"] = option(
        "plain", "eth3d: folders, names and laser scans as the ETH3D benchmark has them.", short="layout"
    )
    surface_spacing: float = option(
        0.015, "Distance between the points of the surface sample, in metres.", minimum=0.001
    )
    num_threads: int = option(-1, "Threads that render; -1: all cores.", minimum=-1, affects_result=False)
