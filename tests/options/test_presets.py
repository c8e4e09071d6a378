import pytest

import pixcli
from pixcli.errors import UserError
from pixcli.options import all_fields
from pixcli.options.presets import preset_names, read_preset

GRID = (-1.5, -0.5, 0.5, 1.5)
CHANGES = {
    "low_memory": {
        "DenseFeatures.use_cache": True,
        "KeypointAdjustment.supports": "5:1,8:1",
    },
    "pixsfm": {
        "DenseFeatures.model": "compact",
        "DenseFeatures.dtype": "half",
        "KeypointAdjustment.strategy": "featuremetric",
        "KeypointAdjustment.max_iterations": 100,
        "FeaturemetricBundleAdjustment.strategy": "feature_reference",
        "Localization.strategy": "featuremetric",
    },
    "accurate": {
        "DenseFeatures.model": "image+compact",
        "KeypointAdjustment.supports": "5:1,6:1,8:1,11:1,14:1,11:2",
        "KeypointAdjustment.feature_supports": "3:2,4:2,6:2",
        "KeypointAdjustment.feature_window": 0.6,
        "KeypointAdjustment.feature_min_correlation": 0.7,
        "KeypointAdjustment.max_iterations": 40,
        "FeaturemetricBundleAdjustment.rounds": 3,
    },
    "appearance_change": {
        "DenseFeatures.model": "image+compact",
        "KeypointAdjustment.feature_supports": "3:2,4:2,6:2",
        "KeypointAdjustment.feature_window": 0.6,
        "KeypointAdjustment.feature_min_correlation": 0.7,
    },
    "fast": {
        "KeypointAdjustment.supports": "8:1",
        "KeypointAdjustment.reverify": False,
        "FeaturemetricBundleAdjustment.rounds": 1,
        "FeaturemetricBundleAdjustment.complete_tracks": False,
    },
    "norefine": {
        "KeypointAdjustment.apply": False,
        "FeaturemetricBundleAdjustment.apply": False,
        "Localization.strategy": "featuremetric",
        "QueryKeypointAdjustment.apply": False,
        "QueryBundleAdjustment.apply": False,
    },
    "photometric": {
        "DenseFeatures.l2_normalize": False,
        "Interpolation.l2_normalize": False,
        "Interpolation.ncc_normalize": True,
        "Interpolation.nodes": " ".join(f"{x},{y}" for y in GRID for x in GRID),
        "KeypointAdjustment.apply": False,
        "FeaturemetricBundleAdjustment.strategy": "patch_warp",
        "FeaturemetricBundleAdjustment.regularize_source": False,
        "BundleAdjustmentCeres.max_num_iterations": 30,
    },
    "pixsfm_eth3d": {
        "DenseFeatures.model": "compact",
        "DenseFeatures.dtype": "half",
        "KeypointAdjustment.strategy": "featuremetric",
        "KeypointAdjustment.max_iterations": 100,
        "FeaturemetricBundleAdjustment.strategy": "feature_reference",
        "BundleAdjustmentCeres.max_num_iterations": 10,
    },
    "pixsfm_eth3d_d2net": {
        "KeypointAdjustment.strategy": "affine",
        "KeypointAdjustment.bound": 8.0,
        "KeypointAdjustment.supports": "8:3,8:2,11:2,14:1,8:1,5:1",
    },
}
"""What every preset changes of the defaults: all of it, so that no preset changes the problem in silence."""


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_changes_this_and_nothing_else(name):
    values = read_preset(name)
    assert values == CHANGES[name]
    # What repeats a default says nothing; where a preset must name its strategy, it may.
    repeated = {key for key, value in values.items() if value == all_fields()[key].default}
    assert repeated <= {"KeypointAdjustment.strategy"}


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_holds_anything_of_the_model_constant(name):
    assert not [key for key in read_preset(name) if key.startswith("BundleAdjustment.refine_")]


def test_an_unknown_preset_names_the_nearest_and_all():
    with pytest.raises(UserError) as error:
        read_preset("pixfsm")
    assert "Did you mean pixsfm?" in str(error.value)
    assert all(name in str(error.value) for name in preset_names())


def test_a_preset_makes_the_options_of_a_python_call():
    options = pixcli.preset("low_memory", pixcli.FeaturemetricBundleAdjusterOptions, strategy="geometric")
    assert options.dense_features.use_cache
    assert options.featuremetric_bundle_adjustment.strategy == "geometric"
    with pytest.raises(pixcli.UserError, match="num_threads is one of Bundle"):
        pixcli.preset("fast", pixcli.FeaturemetricBundleAdjusterOptions, num_threads=1)
    with pytest.raises(pixcli.UserError, match="Did you mean strategy"):
        pixcli.preset("fast", pixcli.FeaturemetricBundleAdjusterOptions, stratgy="surface")
