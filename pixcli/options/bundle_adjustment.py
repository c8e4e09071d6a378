"""Options of bundle adjustment."""

from dataclasses import dataclass
from typing import Literal

from pixcli.options.fields import OptionGroup, option, parse_numbers


def _parse_levels(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    levels = tuple(int(number) for number in parse_numbers(text) if number.is_integer() and number >= 0)
    if len(set(levels)) != len(text.split(",")):
        raise ValueError("expected all, or different levels from 0 separated by commas, such as 0,2")
    return levels


@dataclass(frozen=True)
class BundleAdjustmentOptions(OptionGroup):
    """What of a model is refined, with COLMAP's names and defaults."""

    group = "BundleAdjustment"

    refine_focal_length: bool = option(True, "Refine focal lengths.")
    refine_principal_point: bool = option(False, "Refine principal points.")
    refine_extra_params: bool = option(True, "Refine the distortion of lenses.")
    refine_rig_from_world: bool = option(True, "Refine the poses of rigs, or of images without one.")
    refine_sensor_from_rig: bool = option(True, "Refine where the sensors are in their rig.")
    refine_points3D: bool = option(True, "Refine the points.")
    min_track_length: int = option(2, "Points with fewer observations take no part.", minimum=1)


@dataclass(frozen=True)
class BundleAdjustmentCeresOptions(OptionGroup):
    """How the problem is solved, with COLMAP's names."""

    group = "BundleAdjustmentCeres"

    max_num_iterations: int = option(50, "Iterations of the solver.", minimum=1)
    max_linear_solver_iterations: int = option(200, "Iterations of the iterative linear solver.", minimum=1)
    function_tolerance: float = option(
        1e-4, "Stop at this relative decrease of the cost; 0: never.", minimum=0
    )
    gradient_tolerance: float = option(1e-10, "Stop at this largest gradient; 0: never.", minimum=0)
    parameter_tolerance: float = option(
        1e-8, "Stop at this change of the parameters, relative to them; 0: never.", minimum=0
    )
    loss_function_type: Literal["trivial", "cauchy", "huber", "soft_l1"] = option(
        "trivial", "Robust loss on reprojection errors."
    )
    loss_function_scale: float = option(1.0, "Scale of that loss, in pixels.", minimum=1e-9)
    use_inner_iterations: bool = option(False, "Refine the points again after every step.")
    num_threads: int = option(
        1,
        "Threads of the solver; -1: all cores. With more than one, chance decides in which order it adds up, "
        "and the last digits of two runs differ.",
        minimum=-1,
    )
    max_num_images_direct_dense_cpu_solver: int = option(
        50, "Up to this many images, the linear solver is direct and dense.", minimum=0
    )
    max_num_images_direct_sparse_cpu_solver: int = option(
        1000, "Up to this many, it is direct and sparse; beyond, iterative.", minimum=0
    )


@dataclass(frozen=True)
class FeaturemetricBundleAdjustmentOptions(OptionGroup):
    """How features take part in bundle adjustment."""

    group = "FeaturemetricBundleAdjustment"

    apply: bool = option(True, "Whether the model is refined; 0 leaves the step out of a reconstruction.")
    strategy: Literal["surface", "feature_reference", "costmaps", "patch_warp", "geometric"] = option(
        "surface",
        "surface: measure every point as a small plane, then adjust what was measured. feature_reference: "
        "features agree with a reference for each point. costmaps: the same from maps of the distance, in "
        "less memory. patch_warp: nodes around the reference are carried into the other "
        "views by a plane that faces it. geometric: COLMAP's reprojection error.",
    )
    overwrite: bool = option(
        False,
        "Replace a model that is in the output folder, or the input itself; and allow to update the database "
        "in place.",
        affects_result=False,
    )
    output_type: Literal["bin", "txt"] = option(
        "bin", "Whether the model is written as binary or as text files.", short="output_type"
    )
    num_loops: int = option(
        0,
        "How often to complete, merge and filter the tracks by the matches of --database_path after the "
        "adjustment, and adjust again.",
        minimum=0,
    )
    allow_missing_images: bool = option(
        False, "Images that are not on disk take no part, and keep their poses; else they are an error."
    )
    rounds: int = option(2, "surface: how often to measure and adjust.", minimum=1)
    complete_tracks: bool = option(
        True, "surface: in the last round, measure points also in images that have no observation of them."
    )
    write_completed: Literal["none", "model", "database"] = option(
        "none",
        "surface: where such observations are written, as additional 2D points of the images. model: in the "
        "model alone. database: also as keypoints in --output_database_path, so that both agree.",
    )
    repeats: int = option(
        1,
        "Strategies with references: how often to adjust; in between, references are found anew and patches "
        "are cut anew whose points have left them.",
        minimum=1,
    )
    level_indices: str = option(
        "all",
        "Strategies with references: levels of the feature map to adjust by, in this order, 0 being the "
        "coarsest; all: from coarse to fine.",
        parse=_parse_levels,
    )
    keep_observations: bool = option(
        False, "references_path: also write the features of all observations, for localization."
    )
    loss: Literal["trivial", "cauchy", "huber", "soft_l1"] = option(
        "cauchy", "Robust loss on the distance of features."
    )
    loss_scale: float = option(0.25, "Scale of the loss.", minimum=1e-6)
    regularize_source: bool = option(
        True, "patch_warp: the view of the reference takes part too, and so holds the point near to it."
    )
    geometric_weight: float = option(
        0.0, "Weight of squared reprojection errors beside the features, per squared pixel.", minimum=0
    )

    @property
    def levels(self) -> tuple[int, ...] | None:
        """level_indices as numbers; None: all."""
        return _parse_levels(self.level_indices)


@dataclass(frozen=True)
class PosePriorOptions(OptionGroup):
    """How positions of images that the database knows beforehand take part, with COLMAP's names."""

    group = "PosePrior"

    use_prior_position: bool = option(
        False, "Align the model to the positions of images in --database_path, and hold it near to them."
    )
    prior_position_fallback_stddev: float = option(
        1.0, "Deviation of positions that come without a covariance, in their units.", minimum=1e-9
    )
    use_robust_loss_on_prior_position: bool = option(
        False, "Positions may be far off: Cauchy's loss on their distances."
    )
    prior_position_loss_scale: float = option(2.7955, "Scale of that loss, in deviations.", minimum=1e-9)


@dataclass(frozen=True)
class TrackOptions(OptionGroup):
    """How tracks are completed, merged and filtered between adjustments, with COLMAP's names and defaults."""

    group = "Tracks"

    complete_max_reproj_error: float = option(
        4.0, "A match joins the track of its point if that projects within so many pixels.", minimum=0
    )
    merge_max_reproj_error: float = option(
        4.0, "Matched points are merged if the merged one projects within so many pixels.", minimum=0
    )
    filter_max_reproj_error: float = option(
        4.0, "Observations with a larger reprojection error, in pixels, are removed.", minimum=0
    )
    filter_min_tri_angle: float = option(
        1.5, "Points that are seen under smaller angles, in degrees, are removed.", minimum=0
    )
