"""Options of keypoint adjustment."""

from dataclasses import dataclass, field
from typing import Literal

from pixcli.options.dense_features import DenseFeaturesOptions
from pixcli.options.fields import OptionGroup, option
from pixcli.options.interpolation import InterpolationOptions


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
    """How matched keypoints are moved until what surrounds them agrees."""

    group = "KeypointAdjustment"

    apply: bool = option(True, "Whether keypoints are refined; 0 leaves the step out of a reconstruction.")
    strategy: Literal["affine", "featuremetric", "topological_reference"] = option(
        "affine",
        "affine: align every keypoint to its track's root. featuremetric: make features agree over all "
        "matches of a track. topological_reference: the same over the matches with the root only.",
    )
    match_source: Literal["inlier", "raw"] = option("inlier", "Geometrically verified matches, or all.")
    bound: float = option(
        4.0,
        "How far a keypoint may move, in pixels (featuremetric: in x and in y). What would go further stays.",
        minimum=0,
    )
    max_deviation: float = option(
        1.2, "A larger predicted standard deviation of the position rejects, in pixels.", minimum=0
    )
    max_iterations: int = option(20, "Iterations of the solver.", minimum=1)
    guard: bool = option(
        True,
        "Undo all if matches of moved keypoints fit the epipolar geometry of their images worse than before.",
    )
    reverify: bool = option(True, "Estimate the two-view geometries again after keypoints have moved.")
    num_threads: int = option(-1, "Threads; -1: all cores.", minimum=-1, affects_result=False)

    warp: Literal["translation", "affine"] = option(
        "affine",
        "affine: what is refined, the position alone or the local warp too. The featuremetric strategies "
        "compare upright nodes.",
    )
    supports: str = option(
        "5:1,8:1,14:1,11:2",
        "affine: grids of nodes to choose from for each keypoint, as radius in nodes:step in pixels. Each "
        "starts where the one before ended.",
        parse=_parse_supports,
    )
    feature_supports: str = option(
        "3:2",
        "affine, with other features than grey images: the grids of nodes for each of their levels, as "
        "radius in nodes:step in pixels, at least a sample of the level.",
        parse=_parse_supports,
    )
    feature_window: float = option(
        1.2, "affine: sigma of the Gaussian window over these, in radii.", minimum=0.1
    )
    window: float = option(
        0.5, "affine: sigma of the Gaussian window over the support, in radii.", minimum=0.1
    )
    extent_deviation: float = option(
        0.5,
        "affine: what the extent of a support adds to its predicted deviation, in units of its extent "
        "squared over the image's longer side. Larger values prefer smaller supports.",
        minimum=0,
    )
    min_correlation: float = option(0.8, "affine: a lower correlation rejects.", minimum=-1, maximum=1)
    feature_min_correlation: float = option(
        0.8, "affine: the same with other features than grey images.", minimum=-1, maximum=1
    )
    max_distortion: float = option(
        2.0,
        "affine: rejects where the local warp stretched more than this, or less than its inverse.",
        minimum=1,
    )

    weight_by_score: bool = option(True, "featuremetric: weight a match by its score, where one is known.")
    loss: Literal["trivial", "cauchy", "huber", "soft_l1", "arctan", "tukey"] = option(
        "cauchy", "featuremetric: robust loss on the feature distance."
    )
    loss_scale: float = option(0.25, "featuremetric: scale of the loss.", minimum=1e-6)
    function_tolerance: float = option(
        0.0, "featuremetric: stop at this relative decrease of the cost; 0: never.", minimum=0
    )
    gradient_tolerance: float = option(0.0, "featuremetric: stop at this largest gradient.", minimum=0)
    parameter_tolerance: float = option(
        1e-5, "featuremetric: stop when no keypoint moves further than this at once, in pixels.", minimum=0
    )
    max_kps_per_problem: int = option(
        50, "featuremetric: tracks with more keypoints are solved iteratively instead of densely.", minimum=2
    )
    root_regularize_weight: float = option(
        -1.0,
        "featuremetric: weight of an edge to the root for keypoints not matched with it; -1: none.",
        minimum=-1,
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
