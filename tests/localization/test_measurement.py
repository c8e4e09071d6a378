"""Patches of a query are those of its whole scale space, whichever tiles of it were made."""

import numpy as np

from pixcli.localization import measurement
from pixcli.localization.measurement import QueryPixels
from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.scale_space import Boxes, boxes_between, cut_boxes
from pixcli.sampling.sources import GreySource

GREY = GreySource([], DenseFeaturesOptions())


def boxes_at(xy, level, size):
    return boxes_between(xy - 12.0, xy + 12.0, np.full(len(xy), level, np.int32), np.array(size, float))


def test_tiles_give_the_same_patches(monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (400, 600)).astype(np.float32)
    made = []
    build = measurement.build_level
    monkeypatch.setattr(
        measurement, "build_level", lambda *arguments: made.append(arguments[1:]) or build(*arguments)
    )
    pixels = QueryPixels(image, GREY)
    few = rng.uniform(250, 300, (5, 2))
    many = rng.uniform(0, 1, (300, 2)) * [600, 400]
    for xy in (few, few, many, few):
        for level in (0, 3, 5):
            boxes = boxes_at(xy, level, (600, 400))
            samples, start, _ = pixels.cut(boxes)
            np.testing.assert_array_equal(samples, cut_boxes(image, boxes, slice(None)))
            assert start[-1] == len(samples)
    assert 0 < sum(len(arguments) == 2 for arguments in made) <= 8  # tiles, once, for the few
    assert sum(len(arguments) == 1 for arguments in made) == 2  # whole levels, once, for the many


def test_nothing_to_cut_takes_no_level():
    pixels = QueryPixels(np.zeros((50, 60), np.float32), GREY)
    none = np.zeros((0, 2), np.int32)
    samples, start, _ = pixels.cut(Boxes(np.zeros(0, np.int32), none, none))
    assert len(samples) == 0
    assert start.tolist() == [0]
