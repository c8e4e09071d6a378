"""Options of localization."""

from dataclasses import dataclass
from typing import Literal

from pixcli.options.fields import OptionGroup, option

FeatureLoss = Literal["trivial", "cauchy", "huber", "soft_l1", "arctan", "tukey"]
TargetReference = Literal["nearest", "robust_mean", "all_observations", "full"]


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
    target_reference: TargetReference = option(  # noqa: RUF009
        "nearest",
        "featuremetric: what a keypoint is compared with. nearest: the point's observation that looks most "
        "like it. robust_mean: the observation nearest to the mean of all. all_observations: each of them. "
        "full: nodes around the point's reference, carried into the query by a plane that faces it.",
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
        affects_result=False,
    )
    overwrite: bool = option(False, "Replace what is at the output path.", affects_result=False)
    num_threads: int = option(
        -1, "Queries localized at a time; -1: one on each core.", minimum=-1, affects_result=False
    )


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


@dataclass(frozen=True)
class QueryKeypointAdjustmentOptions(OptionGroup):
    """How a query's keypoints are moved to where its features agree with the map."""

    group = "QueryKeypointAdjustment"

    apply: bool = option(True, "featuremetric: move the matched keypoints.")
    feature_inlier_thresh: float = option(
        -1.0,
        "A keypoint stays where its features are further than this from the reference; -1: none does.",
        minimum=-1,
    )
    stack_correspondences: bool = option(
        False, "A keypoint that matches several points moves to where it agrees with all of them."
    )
    bound: float = option(4.0, "How far a keypoint may move in x and in y, in pixels.", minimum=0)
    loss: FeatureLoss = option("trivial", "Robust loss on the feature distance.")  # noqa: RUF009
    loss_scale: float = option(0.25, "Scale of the loss.", minimum=1e-6)
    max_iterations: int = option(100, "Iterations of the solver.", minimum=1)
    parameter_tolerance: float = option(1e-5, "Stop at steps smaller than this, in pixels.", minimum=0)


@dataclass(frozen=True)
class QueryBundleAdjustmentOptions(OptionGroup):
    """How a query's pose is moved to where its features agree with the map."""

    group = "QueryBundleAdjustment"

    apply: bool = option(True, "featuremetric: refine the pose by features.")
    unique_inliers: Literal["min_error", "all"] = option(
        "min_error",
        "Which inliers take part. min_error: of each keypoint and of each point the one that projects "
        "nearest. all: every one.",
    )
    loss: FeatureLoss = option("cauchy", "Robust loss on the feature distance.")  # noqa: RUF009
    loss_scale: float = option(0.25, "Scale of the loss.", minimum=1e-6)
    max_iterations: int = option(100, "Iterations of the solver.", minimum=1)
    function_tolerance: float = option(
        1e-6, "Stop where no step promises a larger relative decrease of the cost.", minimum=0
    )
