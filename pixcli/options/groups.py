"""All groups together. Some are made from pycolmap's objects: importing this imports pycolmap."""

from functools import cache

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
from pixcli.options.dense_features import DenseFeaturesOptions, ModelCheckOptions
from pixcli.options.fields import Field, OptionGroup, fields
from pixcli.options.interpolation import InterpolationOptions
from pixcli.options.keypoint_adjustment import KeypointAdjustmentOptions
from pixcli.options.localization import (
    AbsolutePoseOptions,
    LocalizationOptions,
    QueryBundleAdjustmentOptions,
    QueryKeypointAdjustmentOptions,
)
from pixcli.options.project import CommonOptions, PathOptions
from pixcli.options.reconstruction import ReconstructionOptions
from pixcli.options.synthetic import SyntheticOptions

GROUPS: tuple[type[OptionGroup], ...] = (
    PathOptions,
    CommonOptions,
    DenseFeaturesOptions,
    ModelCheckOptions,
    InterpolationOptions,
    KeypointAdjustmentOptions,
    FeaturemetricBundleAdjustmentOptions,
    BundleAdjustmentOptions,
    BundleAdjustmentCeresOptions,
    CalibrationOptions,
    TrackOptions,
    PosePriorOptions,
    LocalizationOptions,
    AbsolutePoseOptions,
    QueryKeypointAdjustmentOptions,
    QueryBundleAdjustmentOptions,
    ReconstructionOptions,
    ImageReaderOptions,
    FeatureExtractionOptions,
    SiftExtractionOptions,
    FeatureMatchingOptions,
    SiftMatchingOptions,
    ExhaustiveMatchingOptions,
    SequentialMatchingOptions,
    VocabTreeMatchingOptions,
    TwoViewGeometryOptions,
    MapperOptions,
    GlobalMapperOptions,
    SyntheticOptions,
)
"""All groups, in the order of ini files and documentation."""


@cache
def all_fields() -> dict[str, Field]:
    """Every option by its key, as ini files may hold it."""
    return {field.key: field for group in GROUPS for field in fields(group)}
