"""Tiles give exactly what the whole image gives."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.features.dsift import DenseSiftModel
from pixcli.features.image import ImageModel
from pixcli.features.model import FeatureModel, Level
from pixcli.features.registry import load_model
from pixcli.features.tiling import Region, aligned, alignment_of, maps_of_regions, region_maps, tiles
from pixcli.options import DenseFeaturesOptions

MODELS: dict[str, FeatureModel] = {
    "image": ImageModel({"color": False}),
    "dsift": DenseSiftModel(DenseSiftModel.default_options),
    "odd dsift": DenseSiftModel({**DenseSiftModel.default_options, "spatial_bin_size": 3, "dtype": "float"}),
    "toy": load_model(DenseFeaturesOptions(model_path=str(Path(__file__).with_name("toy_model.py")))),
}


def tiled(model: FeatureModel, image: NDArray[np.float32], tile_size: int) -> list[NDArray[Any]]:
    whole = region_maps(model, image, Region(0, 0, image.shape[1], image.shape[0]))
    result = [np.full_like(values, np.nan) for values in whole]
    for region in tiles(*image.shape, tile_size, alignment_of(model)):
        for out, level, values in zip(result, model.levels, region_maps(model, image, region), strict=True):
            y, x = region.y0 // level.stride, region.x0 // level.stride
            out[y : y + values.shape[0], x : x + values.shape[1]] = values
    return result


@pytest.mark.parametrize("shape", [(96, 130), (75, 61)])
@pytest.mark.parametrize("name", MODELS)
def test_tiled_output_equals_whole_image_output(name: str, shape: tuple[int, int]) -> None:
    model = MODELS[name]
    image = np.random.default_rng(1).random(shape, dtype=np.float32) * 255
    for tile_size in (17, 32, 64):
        for level, values, all_of_it in zip(
            model.levels, tiled(model, image, tile_size), model.forward(image), strict=True
        ):
            assert values.shape == (shape[0] // level.stride, shape[1] // level.stride, level.channels)
            np.testing.assert_array_equal(np.moveaxis(values, 2, 0), all_of_it)


@pytest.mark.parametrize("name", ["dsift", "odd dsift", "toy"])
def test_a_smaller_halo_than_declared_would_show(name: str) -> None:
    """The declared radius is the true one: the test above can fail, and tiles compute no more than needed."""
    model = MODELS[name]
    image = np.random.default_rng(1).random((96, 130), dtype=np.float32) * 255
    declared = model.levels
    stride = alignment_of(model)
    model.levels = tuple(
        Level(level.channels, level.stride, max(level.radius - stride, 0), level.basin) for level in declared
    )
    try:
        parts = tiled(model, image, 32)
    finally:
        model.levels = declared
    whole = [np.moveaxis(np.asarray(values), 0, 2) for values in model.forward(image)]
    assert not all(np.array_equal(a, b) for a, b in zip(parts, whole, strict=True))


@pytest.mark.parametrize("shape", [(96, 130), (75, 61), (33, 90)])
def test_a_batch_has_images_of_one_size_and_the_same_maps(shape: tuple[int, int]) -> None:
    class Batched(type(MODELS["toy"])):  # type: ignore[misc]
        batched = True
        seen: ClassVar[list[tuple[int, ...]]] = []

        def forward(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            self.seen.append(image.shape)
            return super().forward(image)

    image = np.random.default_rng(1).random(shape, dtype=np.float32) * 255
    regions = [Region(0, 0, 8, 4), Region(12, 10, 20, 30), *tiles(*shape, 32, 2)]
    made = maps_of_regions(Batched({}), image, regions)
    for region, maps in zip(regions, made, strict=True):
        for a, b in zip(maps, region_maps(MODELS["toy"], image, region), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(Batched.seen) == len(regions)
    assert len(set(Batched.seen)) == 1


def test_tiles_cover_an_image_once() -> None:
    hits = np.zeros((75, 61), int)
    for region in tiles(75, 61, 20, 8):
        assert region.x0 % 8 == region.y0 % 8 == 0
        assert max(region.x1 - region.x0, region.y1 - region.y0) <= 16
        hits[region.y0 : region.y1, region.x0 : region.x1] += 1
    assert (hits == 1).all()


def test_aligned_regions_stay_in_the_image() -> None:
    assert aligned(Region(-3, 5, 13, 99), 75, 61, 8) == Region(0, 0, 16, 75)


class Broken(FeatureModel):
    """A model of the user's own that makes what cannot be used, or fails."""

    levels = (Level(channels=1),)

    def forward(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return self.options["make"](image)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda image: [image[None] * 1j], r"values of the type complex\d+: they must be real numbers"),
        (lambda image: 3, r"Broken failed on an image of \(8, 9\) \(TypeError: 'int' object is not iterable"),
        (
            lambda image: {}["x"],
            r"an image of \(8, 9\) \(KeyError: 'x', test_tiling.py line",
        ),
    ],
)
def test_what_a_model_of_the_users_own_does_wrong_is_told_in_one_line(make, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        region_maps(Broken({"make": make}), np.zeros((8, 9), np.float32), Region(0, 0, 9, 8))
    assert "\n" not in str(error.value)


class Liar(FeatureModel):
    """Declares two channels and makes what it is told."""

    levels = (Level(channels=2),)

    def forward(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Zeros."""
        return [np.zeros(shape, np.float32) for shape in self.options["shapes"]]


@pytest.mark.parametrize("shapes", [[(3, 8, 9)], [(2, 8, 8)], [], [(2, 8, 9), (2, 8, 9)], [(8, 9)]])
def test_other_maps_than_declared_are_told(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(UserError, match="the model Liar made maps of the shapes"):
        region_maps(Liar({"shapes": shapes}), np.zeros((8, 9), np.float32), Region(0, 0, 9, 8))
