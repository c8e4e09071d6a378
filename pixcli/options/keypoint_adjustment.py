"""Options of keypoint adjustment."""

from dataclasses import dataclass, field
from typing import Literal

from pixcli.options.dense_features import DenseFeaturesOptions
from pixcli.options.fields import OptionGroup, option
from pixcli.options.interpolation import InterpolationOptions

_STRATEGY = "KeypointAdjustment.strategy"
_AFFINE = {_STRATEGY: ("affine",)}
_FEATUREMETRIC = {_STRATEGY: ("featuremetric", "topological_reference")}


def _parse_supports(text: str) -> tuple[tuple[int, float], ...]:
    supports = []
    for part in text.split(","):
        radius, _, step = part.partition(":")
        try:
            supports.append((int(radius), float(step)))
        except ValueError:
            raise ValueError("expected radius:step separated by commas, such as 8:1,14:1,11:2") from None
    if not all(1 <= radius <= 15 and 0 < step <= 16 for radius, step in supports):
        raise ValueError("a radius must be from 1 to 15 nodes and a step over 0 and at most 16 pixels")
    return tuple(supports)


@dataclass(frozen=True)
class KeypointAdjustmentOptions(OptionGroup):
    """How matched keypoints are shifted until their surrounding image patches agree."""

    group = "KeypointAdjustment"

    apply: bool = option(True, "Refine keypoints; 0 leaves the step out of a reconstruction.")
    strategy: Literal["affine", "featuremetric", "topological_reference"] = option(
        "affine",
        "affine: align each keypoint to the root of its track. featuremetric: minimise feature distances "
        "over all matches of a track. topological_reference: the same over matches with the root only.",
    )
    match_source: Literal["inlier", "raw"] = option(
        "inlier", "Use geometrically verified matches, or all matches.", advanced=True
    )
    bound: float = option(
        4.0,
        "Largest shift of a keypoint in pixels (featuremetric: along x and along y). A keypoint whose "
        "optimum is further away stays.",
        minimum=0,
    )
    max_deviation: float = option(
        1.2,
        "Reject a keypoint whose predicted standard deviation exceeds this, in pixels.",
        minimum=0,
        advanced=True,
    )
    max_iterations: int = option(20, "Maximum number of solver iterations.", minimum=1, advanced=True)
    guard: bool = option(
        True,
        "Undo all shifts if the matches of moved keypoints then fit the epipolar geometry of their image "
        "pairs worse.",
        advanced=True,
    )
    reverify: bool = option(
        True, "Estimate two-view geometries again after keypoints have moved.", advanced=True
    )
    num_threads: int = option(-1, "Number of threads; -1: all cores.", minimum=-1, affects_result=False)

    warp: Literal["translation", "affine"] = option(
        "affine",
        "What is estimated: the position alone, or the local warp too.",
        advanced=True,
        used_with=_AFFINE,
    )
    supports: str = option(
        "5:1,8:1,14:1,11:2",
        "Grids of nodes to choose from for each keypoint, as radius in nodes:step in pixels. Each starts "
        "where the one before ended.",
        parse=_parse_supports,
        advanced=True,
        used_with=_AFFINE,
    )
    feature_supports: str = option(
        "3:2",
        "Grids of nodes for each level of a feature model other than image, as radius in nodes:step in "
        "pixels, at least one sample of the level.",
        parse=_parse_supports,
        advanced=True,
        used_with=_AFFINE,
    )
    feature_window: float = option(
        1.2,
        "Sigma of the Gaussian window over these grids, in radii.",
        minimum=0.1,
        advanced=True,
        used_with=_AFFINE,
    )
    window: float = option(
        0.5,
        "Sigma of the Gaussian window over a support, in radii.",
        minimum=0.1,
        advanced=True,
        used_with=_AFFINE,
    )
    extent_deviation: float = option(
        0.5,
        "Deviation added for the extent of a support, in units of extent squared over the longer image side. "
        "Larger values prefer smaller supports.",
        minimum=0,
        advanced=True,
        used_with=_AFFINE,
    )
    min_correlation: float = option(
        0.8,
        "Reject a keypoint with a lower correlation.",
        minimum=-1,
        maximum=1,
        advanced=True,
        used_with=_AFFINE,
    )
    feature_min_correlation: float = option(
        0.8,
        "The same for feature models other than image.",
        minimum=-1,
        maximum=1,
        advanced=True,
        used_with=_AFFINE,
    )
    max_distortion: float = option(
        2.0,
        "Reject a keypoint whose local warp stretched by more than this factor, or by less than its inverse.",
        minimum=1,
        advanced=True,
        used_with=_AFFINE,
    )

    weight_by_score: bool = option(
        True,
        "Weight a match by its score, where hloc's files have scores.",
        advanced=True,
        used_with=_FEATUREMETRIC,
    )
    loss: Literal["trivial", "cauchy", "huber", "soft_l1", "arctan", "tukey"] = option(
        "cauchy", "Robust loss on the feature distance.", advanced=True, used_with=_FEATUREMETRIC
    )
    loss_scale: float = option(
        0.25, "Scale of the loss.", minimum=1e-6, advanced=True, used_with=_FEATUREMETRIC
    )
    parameter_tolerance: float = option(
        1e-5,
        "Stop when no keypoint moves further than this in one step, in pixels.",
        minimum=0,
        advanced=True,
        used_with=_FEATUREMETRIC,
    )
    max_kps_per_problem: int = option(
        50,
        "Solve tracks with more keypoints than this iteratively instead of densely.",
        minimum=2,
        advanced=True,
        used_with=_FEATUREMETRIC,
    )
    root_regularize_weight: float = option(
        -1.0,
        "Weight of an additional edge to the root for keypoints not matched with it; -1: no such edge.",
        minimum=-1,
        advanced=True,
        used_with=_FEATUREMETRIC,
    )

    @property
    def support_list(self) -> tuple[tuple[int, float], ...]:
        """supports as pairs (radius in nodes, step in pixels)."""
        return _parse_supports(self.supports)

    @property
    def feature_support_list(self) -> tuple[tuple[int, float], ...]:
        """feature_supports, likewise."""
        return _parse_supports(self.feature_supports)


@dataclass(frozen=True)
class FeatureRefinerOptions:
    """The groups of keypoint adjustment."""

    keypoint_adjustment: KeypointAdjustmentOptions = field(default_factory=KeypointAdjustmentOptions)
    dense_features: DenseFeaturesOptions = field(default_factory=DenseFeaturesOptions)
    interpolation: InterpolationOptions = field(default_factory=InterpolationOptions)
