"""Options of localization."""

from dataclasses import dataclass, field
from typing import Literal

from pixcli.options.dense_features import DenseFeaturesOptions
from pixcli.options.fields import OptionGroup, option
from pixcli.options.interpolation import InterpolationOptions

FeatureLoss = Literal["trivial", "cauchy", "huber", "soft_l1", "arctan", "tukey"]
TargetReference = Literal["nearest", "robust_mean", "all_observations", "full"]


_STRATEGY = "Localization.strategy"
_SURFACE = {_STRATEGY: ("surface",)}
_FEATUREMETRIC = {_STRATEGY: ("featuremetric",)}


@dataclass(frozen=True)
class LocalizationOptions(OptionGroup):
    """How a query image is localized in a model."""

    group = "Localization"

    strategy: Literal["surface", "featuremetric"] = option(
        "surface",
        "surface: measure map points in the query through the warps induced by their surfaces. "
        "featuremetric: adjust the query's keypoints, then its pose, by feature distances.",
    )
    densify: Literal["auto", "always", "never"] = option(
        "auto",
        "Whether to measure map points that have no match. auto: if fewer than 2000 matches were measured.",
        advanced=True,
        used_with=_SURFACE,
    )
    max_num_points: int = option(
        5000,
        "Maximum number of map points measured per query.",
        minimum=12,
        advanced=True,
        used_with=_SURFACE,
    )
    target_reference: TargetReference = option(  # noqa: RUF009
        "nearest",
        "What a keypoint is compared with. nearest: the observation of its point that looks most similar. "
        "robust_mean: the observation nearest to the mean of all. all_observations: each of them. full: "
        "nodes around the reference of the point, warped into the query by a plane that faces it.",
        advanced=True,
        used_with=_FEATUREMETRIC,
    )
    refine_focal_length: bool = option(False, "Refine the focal length of the query's camera.")
    refine_principal_point: bool = option(False, "Refine its principal point.")
    refine_extra_params: bool = option(False, "Refine its lens distortion.")
    covisibility_clustering: bool = option(
        False,
        "hloc's files: localize a query in each place that its pairs show, and keep the best.",
        short="covisibility_clustering",
    )
    prepend_camera_name: bool = option(
        False,
        "hloc's files: name results by folder and file, as benchmark servers expect for rigs.",
        short="prepend_camera_name",
        affects_result=False,
        advanced=True,
    )
    overwrite: bool = option(False, "Replace what is at the output path.", affects_result=False)
    num_threads: int = option(
        -1,
        "Number of queries localized in parallel; -1: one on each core.",
        minimum=-1,
        affects_result=False,
    )


@dataclass(frozen=True)
class AbsolutePoseOptions(OptionGroup):
    """How the first pose is estimated from matches, with COLMAP's names and defaults."""

    group = "AbsolutePose"

    estimate_focal_length: bool = option(
        True, "Estimate the focal length too, for cameras without a prior focal length.", advanced=True
    )
    max_error: float = option(12.0, "Largest reprojection error of an inlier, in pixels.", minimum=1e-6)
    min_inlier_ratio: float = option(
        0.1, "Smallest inlier ratio RANSAC must be able to handle.", minimum=0, maximum=1, advanced=True
    )
    confidence: float = option(
        0.99999,
        "Stop RANSAC once a sample without outliers was drawn with this probability.",
        minimum=0,
        maximum=1,
        advanced=True,
    )
    dyn_num_trials_multiplier: float = option(
        3.0, "Multiplier on the estimated number of RANSAC trials.", minimum=0, advanced=True
    )
    min_num_trials: int = option(100, "Minimum number of RANSAC trials.", minimum=0, advanced=True)
    max_num_trials: int = option(10000, "Maximum number of RANSAC trials.", minimum=1, advanced=True)
    min_num_inliers: int = option(4, "Smallest number of inliers of a localized query.", minimum=4)


@dataclass(frozen=True)
class QueryKeypointAdjustmentOptions(OptionGroup):
    """How a query's keypoints are moved to where its features agree with the map."""

    group = "QueryKeypointAdjustment"
    used_with = _FEATUREMETRIC

    apply: bool = option(True, "Adjust the matched keypoints.", advanced=True)
    feature_inlier_thresh: float = option(
        -1.0,
        "Leave a keypoint where it is if its feature distance exceeds this; -1: never.",
        minimum=-1,
        advanced=True,
    )
    stack_correspondences: bool = option(
        False, "Fit a keypoint that matches several points to all of them at once.", advanced=True
    )
    bound: float = option(
        4.0, "Largest shift of a keypoint along x and along y, in pixels.", minimum=0, advanced=True
    )
    loss: FeatureLoss = option("trivial", "Robust loss on the feature distance.", advanced=True)  # noqa: RUF009
    loss_scale: float = option(0.25, "Scale of the loss.", minimum=1e-6, advanced=True)
    max_iterations: int = option(100, "Maximum number of solver iterations.", minimum=1, advanced=True)
    parameter_tolerance: float = option(
        1e-5, "Stop at steps smaller than this, in pixels.", minimum=0, advanced=True
    )


@dataclass(frozen=True)
class QueryBundleAdjustmentOptions(OptionGroup):
    """How a query's pose is moved to where its features agree with the map."""

    group = "QueryBundleAdjustment"
    used_with = _FEATUREMETRIC

    apply: bool = option(True, "Refine the pose by feature distances.", advanced=True)
    unique_inliers: Literal["min_error", "all"] = option(
        "min_error",
        "Which inliers to use. min_error: for each keypoint and for each point the match that projects "
        "nearest. all: every match.",
        advanced=True,
    )
    loss: FeatureLoss = option("cauchy", "Robust loss on the feature distance.", advanced=True)  # noqa: RUF009
    loss_scale: float = option(0.25, "Scale of the loss.", minimum=1e-6, advanced=True)
    max_iterations: int = option(100, "Maximum number of solver iterations.", minimum=1, advanced=True)
    function_tolerance: float = option(
        1e-6, "Stop where no step promises a larger relative decrease of the cost.", minimum=0, advanced=True
    )


@dataclass(frozen=True)
class LocalizeOptions:
    """All groups of localization."""

    localization: LocalizationOptions = field(default_factory=LocalizationOptions)
    absolute_pose: AbsolutePoseOptions = field(default_factory=AbsolutePoseOptions)
    dense_features: DenseFeaturesOptions = field(default_factory=DenseFeaturesOptions)
    interpolation: InterpolationOptions = field(default_factory=InterpolationOptions)
    query_keypoint_adjustment: QueryKeypointAdjustmentOptions = field(
        default_factory=QueryKeypointAdjustmentOptions
    )
    query_bundle_adjustment: QueryBundleAdjustmentOptions = field(
        default_factory=QueryBundleAdjustmentOptions
    )

    @property
    def refines(self) -> bool:
        """Whether the first pose of a query is refined."""
        adjusts = self.query_keypoint_adjustment.apply or self.query_bundle_adjustment.apply
        return self.localization.strategy != "featuremetric" or adjusts
