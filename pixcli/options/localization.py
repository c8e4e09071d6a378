"""Options of localization."""

from dataclasses import dataclass
from typing import Literal

from pixcli.options.fields import OptionGroup, option


@dataclass(frozen=True)
class LocalizationOptions(OptionGroup):
    """How a query image is localized against a model."""

    group = "Localization"

    strategy: Literal["surface", "featuremetric"] = option(
        "surface",
        "surface: measure the map's points in the query by the warps that their surfaces induce. "
        "featuremetric: adjust the query's keypoints, then its pose, by features.",
    )
    densify: Literal["auto", "always", "never"] = option(
        "auto",
        "surface: whether map points are measured that no match names. auto: where fewer than "
        "densify_below matches were measured.",
    )
    densify_below: int = option(2000, "surface: so many measured matches serve without more.", minimum=0)
    max_num_points: int = option(
        5000, "surface: so many points of the map are measured in a query at most.", minimum=12
    )
    refine_focal_length: bool = option(False, "Refine the focal length of the query's camera.")
    refine_principal_point: bool = option(False, "Refine its principal point.")
    refine_extra_params: bool = option(False, "Refine its distortion.")
    covisibility_clustering: bool = option(
        False,
        "Files of hloc: localize a query in each place that its pairs show, and keep the best.",
        short="covisibility_clustering",
    )
    prepend_camera_name: bool = option(
        False,
        "Files of hloc: results name a query by its folder and file, as benchmark servers want it for rigs.",
        short="prepend_camera_name",
    )
    overwrite: bool = option(False, "Replace what is at the output path.")
    num_threads: int = option(-1, "Queries localized at a time; -1: one on each core.", minimum=-1)


@dataclass(frozen=True)
class AbsolutePoseOptions(OptionGroup):
    """How the first pose is found from matches, with COLMAP's names and defaults."""

    group = "AbsolutePose"

    estimate_focal_length: bool = option(
        True, "Estimate the focal length too, for cameras without a prior of it."
    )
    max_error: float = option(12.0, "Largest reprojection error of an inlier, in pixels.", minimum=1e-6)
    min_inlier_ratio: float = option(
        0.1, "Share of inliers that the number of trials must do for.", minimum=0, maximum=1
    )
    confidence: float = option(
        0.99999, "Stop when a sample without outliers was drawn with this probability.", minimum=0, maximum=1
    )
    dyn_num_trials_multiplier: float = option(3.0, "Times as many trials as that takes.", minimum=0)
    min_num_trials: int = option(100, "Trials at least.", minimum=0)
    max_num_trials: int = option(10000, "Trials at most.", minimum=1)
    min_num_inliers: int = option(4, "A query with fewer inliers has failed.", minimum=4)
