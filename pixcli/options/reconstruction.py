"""Options of whole reconstructions, and all groups that take part in one."""

from dataclasses import dataclass, field
from typing import Literal

from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjustmentOptions,
    PosePriorOptions,
    TrackOptions,
)
from pixcli.options.calibration import CalibrationOptions
from pixcli.options.colmap import (
    ExhaustiveMatchingOptions,
    FeatureExtractionOptions,
    FeatureMatchingOptions,
    GlobalMapperOptions,
    ImageReaderOptions,
    MapperOptions,
    SequentialMatchingOptions,
    SiftExtractionOptions,
    SiftMatchingOptions,
    TwoViewGeometryOptions,
    VocabTreeMatchingOptions,
)
from pixcli.options.dense_features import DenseFeaturesOptions
from pixcli.options.fields import OptionGroup, option
from pixcli.options.interpolation import InterpolationOptions
from pixcli.options.keypoint_adjustment import KeypointAdjustmentOptions


@dataclass(frozen=True)
class ReconstructionOptions(OptionGroup):
    """How a folder of images becomes a model."""

    group = "Reconstruction"

    matcher: Literal["exhaustive", "sequential", "vocab_tree"] = option(
        "exhaustive",
        "Which images are matched: all with all, those that follow each other, or what a vocabulary tree "
        "retrieves, which is made of these images' features unless vocab_tree_path names one.",
        short="matcher",
    )
    mapper: Literal["incremental", "global"] = option("incremental", "COLMAP's mapper.", short="mapper")
    skip_unreadable_images: bool = option(False, "Go on without images that cannot be read.")
    skip_images_without_pose: bool = option(
        False, "triangulator: go on without images that the reference model has no pose of."
    )
    overwrite: bool = option(
        False, "Replace the run on other input that is in the output folder.", affects_result=False
    )
    report_pictures: bool = option(True, "Draw the pictures of the report.")


@dataclass(frozen=True)
class FixedBundleAdjustmentOptions(BundleAdjustmentOptions):
    """The same options where cameras are given: only the points are refined, unless told otherwise."""

    refine_focal_length: bool = option(False, "Refine focal lengths.")
    refine_extra_params: bool = option(False, "Refine the distortion of lenses.")
    refine_rig_from_world: bool = option(False, "Refine the poses of rigs, or of images without one.")
    refine_sensor_from_rig: bool = option(False, "Refine where the sensors are in their rig.")


@dataclass(frozen=True)
class ChainOptions:
    """All groups of a reconstruction, in the order of its steps."""

    reconstruction: ReconstructionOptions = field(default_factory=ReconstructionOptions)
    image_reader: ImageReaderOptions = field(default_factory=ImageReaderOptions)
    feature_extraction: FeatureExtractionOptions = field(default_factory=FeatureExtractionOptions)
    sift_extraction: SiftExtractionOptions = field(default_factory=SiftExtractionOptions)
    feature_matching: FeatureMatchingOptions = field(default_factory=FeatureMatchingOptions)
    sift_matching: SiftMatchingOptions = field(default_factory=SiftMatchingOptions)
    exhaustive_matching: ExhaustiveMatchingOptions = field(default_factory=ExhaustiveMatchingOptions)
    sequential_matching: SequentialMatchingOptions = field(default_factory=SequentialMatchingOptions)
    vocab_tree_matching: VocabTreeMatchingOptions = field(default_factory=VocabTreeMatchingOptions)
    two_view_geometry: TwoViewGeometryOptions = field(default_factory=TwoViewGeometryOptions)
    keypoint_adjustment: KeypointAdjustmentOptions = field(default_factory=KeypointAdjustmentOptions)
    mapper: MapperOptions = field(default_factory=MapperOptions)
    global_mapper: GlobalMapperOptions = field(default_factory=GlobalMapperOptions)
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


@dataclass(frozen=True)
class TriangulationChainOptions(ChainOptions):
    """The same where poses and intrinsics are given."""

    bundle_adjustment: FixedBundleAdjustmentOptions = field(default_factory=FixedBundleAdjustmentOptions)
