"""Every option of pixcli, one dataclass a group; see fields.py for how they are declared."""

import importlib
from typing import TYPE_CHECKING

from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjusterOptions,
    FeaturemetricBundleAdjustmentOptions,
    PosePriorOptions,
    TrackOptions,
)
from pixcli.options.calibration import CalibrationOptions
from pixcli.options.dense_features import DenseFeaturesOptions, ModelCheckOptions
from pixcli.options.interpolation import InterpolationOptions
from pixcli.options.keypoint_adjustment import FeatureRefinerOptions, KeypointAdjustmentOptions
from pixcli.options.localization import (
    AbsolutePoseOptions,
    LocalizationOptions,
    LocalizeOptions,
    QueryBundleAdjustmentOptions,
    QueryKeypointAdjustmentOptions,
)
from pixcli.options.project import CommonOptions, PathOptions
from pixcli.options.synthetic import SyntheticOptions

if TYPE_CHECKING:
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
    from pixcli.options.groups import GROUPS, all_fields
    from pixcli.options.reconstruction import ChainOptions, ReconstructionOptions, TriangulationChainOptions

# These need pycolmap, which takes its time: imported when they are used, so that help is there at once.
_LATER = {
    "ExhaustiveMatchingOptions": "colmap",
    "FeatureExtractionOptions": "colmap",
    "FeatureMatchingOptions": "colmap",
    "GlobalMapperOptions": "colmap",
    "ImageReaderOptions": "colmap",
    "MapperOptions": "colmap",
    "SequentialMatchingOptions": "colmap",
    "SiftExtractionOptions": "colmap",
    "SiftMatchingOptions": "colmap",
    "TwoViewGeometryOptions": "colmap",
    "VocabTreeMatchingOptions": "colmap",
    "GROUPS": "groups",
    "all_fields": "groups",
    "ChainOptions": "reconstruction",
    "ReconstructionOptions": "reconstruction",
    "TriangulationChainOptions": "reconstruction",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'pixcli.options' has no attribute '{name}'")
    return getattr(importlib.import_module(f"pixcli.options.{_LATER[name]}"), name)


__all__ = [
    "GROUPS",
    "AbsolutePoseOptions",
    "BundleAdjustmentCeresOptions",
    "BundleAdjustmentOptions",
    "CalibrationOptions",
    "ChainOptions",
    "CommonOptions",
    "DenseFeaturesOptions",
    "ExhaustiveMatchingOptions",
    "FeatureExtractionOptions",
    "FeatureMatchingOptions",
    "FeatureRefinerOptions",
    "FeaturemetricBundleAdjusterOptions",
    "FeaturemetricBundleAdjustmentOptions",
    "GlobalMapperOptions",
    "ImageReaderOptions",
    "InterpolationOptions",
    "KeypointAdjustmentOptions",
    "LocalizationOptions",
    "LocalizeOptions",
    "MapperOptions",
    "ModelCheckOptions",
    "PathOptions",
    "PosePriorOptions",
    "QueryBundleAdjustmentOptions",
    "QueryKeypointAdjustmentOptions",
    "ReconstructionOptions",
    "SequentialMatchingOptions",
    "SiftExtractionOptions",
    "SiftMatchingOptions",
    "SyntheticOptions",
    "TrackOptions",
    "TriangulationChainOptions",
    "TwoViewGeometryOptions",
    "VocabTreeMatchingOptions",
    "all_fields",
]
