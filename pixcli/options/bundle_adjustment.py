"""Options of bundle adjustment."""

from dataclasses import dataclass, field
from typing import Literal

from pixcli.options.calibration import CalibrationOptions
from pixcli.options.dense_features import DenseFeaturesOptions
from pixcli.options.fields import OptionGroup, option, parse_numbers
from pixcli.options.interpolation import InterpolationOptions


def _parse_levels(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    levels = tuple(int(number) for number in parse_numbers(text) if number.is_integer() and number >= 0)
    if len(set(levels)) != len(text.split(",")):
        raise ValueError("expected all, or different levels from 0 separated by commas, such as 0,2")
    return levels


_STRATEGY = "FeaturemetricBundleAdjustment.strategy"
_SURFACE = {_STRATEGY: ("surface",)}
_FEATURES = {_STRATEGY: ("feature_reference", "costmaps", "patch_warp")}
_WARPED = {_STRATEGY: ("patch_warp",)}


@dataclass(frozen=True)
class BundleAdjustmentOptions(OptionGroup):
    """Which parts of the model are refined, with COLMAP's names and defaults."""

    group = "BundleAdjustment"

    refine_focal_length: bool = option(True, "Refine focal lengths.")
    refine_principal_point: bool = option(False, "Refine principal points.")
    refine_extra_params: bool = option(True, "Refine lens distortion.")
    refine_rig_from_world: bool = option(True, "Refine poses of rigs, or of images without a rig.")
    refine_sensor_from_rig: bool = option(True, "Refine the poses of sensors in their rig.", advanced=True)
    refine_points3D: bool = option(True, "Refine 3D points.", advanced=True)
    min_track_length: int = option(
        2, "Leave points with fewer observations out of the adjustment.", minimum=1, advanced=True
    )


@dataclass(frozen=True)
class BundleAdjustmentCeresOptions(OptionGroup):
    """How Ceres solves the problem, with COLMAP's names."""

    group = "BundleAdjustmentCeres"

    max_num_iterations: int = option(50, "Maximum number of solver iterations.", minimum=1, advanced=True)
    max_linear_solver_iterations: int = option(
        200, "Maximum number of iterations of the iterative linear solver.", minimum=1, advanced=True
    )
    function_tolerance: float = option(
        1e-4, "Stop at this relative decrease of the cost; 0: never.", minimum=0, advanced=True
    )
    gradient_tolerance: float = option(
        1e-10, "Stop when no gradient exceeds this; 0: never.", minimum=0, advanced=True
    )
    parameter_tolerance: float = option(
        1e-8, "Stop at this relative change of the parameters; 0: never.", minimum=0, advanced=True
    )
    use_inner_iterations: bool = option(False, "Refine the points again after every step.", advanced=True)
    num_threads: int = option(
        1,
        "Number of solver threads; -1: all cores. With several threads, the order of summation and with it "
        "the last digits differ from run to run.",
        minimum=-1,
        advanced=True,
    )
    max_num_images_direct_dense_cpu_solver: int = option(
        50, "Use a dense direct linear solver up to this number of images.", minimum=0, advanced=True
    )
    max_num_images_direct_sparse_cpu_solver: int = option(
        1000,
        "Use a sparse direct linear solver up to this number of images, and an iterative one beyond.",
        minimum=0,
        advanced=True,
    )


@dataclass(frozen=True)
class FeaturemetricBundleAdjustmentOptions(OptionGroup):
    """How images take part in bundle adjustment."""

    group = "FeaturemetricBundleAdjustment"

    apply: bool = option(True, "Refine the model; 0 leaves the step out of a reconstruction.")
    strategy: Literal["surface", "feature_reference", "costmaps", "patch_warp", "geometric"] = option(
        "surface",
        "surface: measure each point as a small plane, then adjust the measured positions. "
        "feature_reference: minimise feature distances to a reference for each point. costmaps: the same on "
        "precomputed distance maps, in less memory. patch_warp: compare nodes around the reference, warped "
        "into the other views by a plane that faces it. geometric: COLMAP's reprojection error.",
    )
    overwrite: bool = option(
        False,
        "Replace a model in the output folder, or the input itself; allow updating the database in place.",
        affects_result=False,
    )
    output_type: Literal["bin", "txt"] = option(
        "bin", "Write the model as binary or as text files.", short="output_type"
    )
    num_loops: int = option(
        0,
        "After the adjustment, complete, merge and filter tracks by the matches of --database_path and "
        "adjust again, this many times.",
        minimum=0,
    )
    allow_missing_images: bool = option(
        False,
        "Leave images that are not on disk out of the adjustment and keep their poses; 0: they are an error.",
    )
    rounds: int = option(
        2, "Maximum number of rounds of measuring and adjusting.", minimum=1, used_with=_SURFACE
    )
    complete_tracks: bool = option(
        True,
        "In the last round, also measure points in images that have no observation of them.",
        used_with=_SURFACE,
    )
    write_completed: Literal["none", "model", "database"] = option(
        "none",
        "Where these additional observations are written. model: as 2D points of the images. database: also "
        "as keypoints in --output_database_path, so that both agree.",
        used_with=_SURFACE,
        advanced=True,
    )
    repeats: int = option(
        1,
        "How often to adjust. In between, references are recomputed, and patches recut for points that left "
        "theirs.",
        minimum=1,
        advanced=True,
        used_with=_FEATURES,
    )
    level_indices: str = option(
        "all",
        "Levels of the feature map to adjust by, in this order, 0 being the coarsest; all: from coarse to "
        "fine.",
        parse=_parse_levels,
        advanced=True,
        used_with=_FEATURES,
    )
    keep_observations: bool = option(
        False,
        "Also write the features of all observations to --references_path, for localization.",
        advanced=True,
        used_with=_FEATURES,
    )
    loss: Literal["trivial", "cauchy", "huber", "soft_l1"] = option(
        "cauchy", "Robust loss on the feature distance.", advanced=True, used_with=_FEATURES
    )
    loss_scale: float = option(0.25, "Scale of the loss.", minimum=1e-6, advanced=True, used_with=_FEATURES)
    regularize_source: bool = option(
        True,
        "The view of the reference also contributes a residual, which keeps the point near the reference.",
        advanced=True,
        used_with=_WARPED,
    )
    geometric_weight: float = option(
        0.0,
        "Weight of squared reprojection errors added to the feature distances, per squared pixel.",
        minimum=0,
        advanced=True,
        used_with=_FEATURES,
    )

    @property
    def levels(self) -> tuple[int, ...] | None:
        """level_indices as numbers; None: all."""
        return _parse_levels(self.level_indices)


@dataclass(frozen=True)
class PosePriorOptions(OptionGroup):
    """How known positions of images, such as from GPS, take part, with COLMAP's names."""

    group = "PosePrior"

    use_prior_position: bool = option(
        False, "Align the model to the image positions in --database_path, and hold cameras near them."
    )
    prior_position_fallback_stddev: float = option(
        1.0,
        "Standard deviation of positions stored without a covariance, in their units.",
        minimum=1e-9,
        advanced=True,
    )
    use_robust_loss_on_prior_position: bool = option(
        False, "Use Cauchy's loss on the distances, for positions that may be far off.", advanced=True
    )
    prior_position_loss_scale: float = option(
        2.7955, "Scale of that loss, in standard deviations.", minimum=1e-9, advanced=True
    )


@dataclass(frozen=True)
class TrackOptions(OptionGroup):
    """How tracks are completed, merged and filtered between adjustments, with COLMAP's names and defaults."""

    group = "Tracks"

    complete_max_reproj_error: float = option(
        4.0,
        "Add a match to the track of a point that projects within this distance, in pixels.",
        minimum=0,
        advanced=True,
    )
    merge_max_reproj_error: float = option(
        4.0,
        "Merge matched points if the merged point projects within this distance, in pixels.",
        minimum=0,
        advanced=True,
    )
    filter_max_reproj_error: float = option(
        4.0,
        "Remove observations with a larger reprojection error, in pixels.",
        minimum=0,
        advanced=True,
    )
    filter_min_tri_angle: float = option(
        1.5,
        "Remove points with a smaller triangulation angle, in degrees.",
        minimum=0,
        advanced=True,
    )


@dataclass(frozen=True)
class FeaturemetricBundleAdjusterOptions:
    """All groups of the refinement of a model."""

    featuremetric_bundle_adjustment: FeaturemetricBundleAdjustmentOptions = field(
        default_factory=FeaturemetricBundleAdjustmentOptions
    )
    bundle_adjustment: BundleAdjustmentOptions = field(default_factory=BundleAdjustmentOptions)
    bundle_adjustment_ceres: BundleAdjustmentCeresOptions = field(
        default_factory=BundleAdjustmentCeresOptions
    )
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    tracks: TrackOptions = field(default_factory=TrackOptions)
    pose_priors: PosePriorOptions = field(default_factory=PosePriorOptions)
    dense_features: DenseFeaturesOptions = field(default_factory=DenseFeaturesOptions)
    interpolation: InterpolationOptions = field(default_factory=InterpolationOptions)
