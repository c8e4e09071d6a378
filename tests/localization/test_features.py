"""Queries measured on feature maps in place of intensities: single models, and chains of them."""

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io.images import read_image
from pixcli.localization.localizer import QueryLocalizer
from pixcli.localization.map import read_map
from pixcli.options import DenseFeaturesOptions, LocalizationOptions
from pixcli.options.localization import LocalizeOptions


def localizer(left_out, path, densify="never", **features):
    options = DenseFeaturesOptions(use_cache=True, cache_path=str(path), **features)
    return QueryLocalizer(
        left_out.model,
        LocalizeOptions(LocalizationOptions(densify=densify), dense_features=options),
        image_path=left_out.images,
    )


@pytest.mark.parametrize(
    ("features", "tolerance"),
    [
        ({"model": "gradients"}, 0.8),
        ({"model": "gradients", "max_edge": 400}, 1.3),
        ({"model": "compact", "dtype": "int4"}, 0.8),
    ],
)
def test_features_take_the_place_of_intensities(left_out, tmp_path, features, tolerance):
    path = tmp_path / "map.h5"
    made = localizer(left_out, path, **features)
    assert made.map.source == "images"
    again = localizer(left_out, path, **features)
    assert again.map.source == "file"
    one, two = left_out.localize(made), left_out.localize(again)
    assert np.array_equal(one.cam_from_world.params, two.cam_from_world.params)
    raw = left_out.position_error(left_out.first)
    assert left_out.position_error(one.cam_from_world) < tolerance * raw
    moved = (one.keypoints != left_out.keypoints[left_out.point2D_idxs]).any(1)
    assert moved.mean() > 0.7
    intensities = left_out.localize(left_out.localizer(densify="never"))
    assert not np.array_equal(one.keypoints, intensities.keypoints)
    with pytest.raises(UserError, match=f"are of {features['model']}.*but those of image are asked for"):
        read_map(left_out.model, path)


def test_a_chain_measures_what_its_first_model_rejects(left_out, tmp_path):
    image = read_image(left_out.images / left_out.name)
    hard = image.copy()
    hard[:, ::24] = 255 - hard[:, ::24]  # stripes: correlation fails in places
    grey = left_out.localize(localizer(left_out, tmp_path / "grey.h5"), image=hard)
    chain = left_out.localize(localizer(left_out, tmp_path / "chain.h5", model="image+compact"), image=hard)
    measured = [
        next(step for step in result.steps if step.name == "matches").measurements for result in (grey, chain)
    ]
    assert measured[1] > measured[0]
    points = [
        read_map(left_out.model, tmp_path / name, features).point_ids
        for name, features in (
            ("grey.h5", DenseFeaturesOptions()),
            ("chain.h5", DenseFeaturesOptions(model="image+compact")),
        )
    ]
    assert np.isin(*points).all()  # wider supports of later models cost no points


def test_references_of_other_features_are_refused(left_out):
    features = DenseFeaturesOptions(model="image+compact")
    with pytest.raises(UserError, match=r"are of image, but those of image \+ compact .* are asked for"):
        QueryLocalizer(
            left_out.model, LocalizeOptions(dense_features=features), references=left_out.references
        )


def test_doubles_are_refused(left_out):
    features = DenseFeaturesOptions(model="gradients", dtype="double")
    with pytest.raises(UserError, match="float is more exact than what they measure"):
        QueryLocalizer(left_out.model, LocalizeOptions(dense_features=features), image_path=left_out.images)
