"""Levels of scale space: how much they blur, where their samples lie, what is cut from them."""

import numpy as np
import pytest

from pixcli.sampling.scale_space import (
    MAX_LEVEL,
    SPLINE_SIGMA,
    Boxes,
    boxes_between,
    build_level,
    cut_boxes,
    level_of,
    level_shape,
    pitch_of,
    step_of,
)

LEVELS = list(range(0, 17))


def positions(level, shape):
    """x of the columns and y of the rows of a level, in COLMAP pixels."""
    pitch = float(pitch_of(level))
    return (np.arange(shape[1]) + 0.5) * pitch, (np.arange(shape[0]) + 0.5) * pitch


def test_levels_are_quarters_of_an_octave():
    np.testing.assert_allclose(step_of([0, 4, 8, 10]), [1, 2, 4, 4 * 2**0.5])
    np.testing.assert_array_equal(level_of(step_of(np.arange(MAX_LEVEL + 1))), np.arange(MAX_LEVEL + 1))
    np.testing.assert_array_equal(level_of([0, 0.3, 1.05, 1e9]), [0, 0, 0, MAX_LEVEL])
    assert (pitch_of(np.arange(3)) == 1).all()
    assert (np.diff(pitch_of(LEVELS)) >= 0).all()


@pytest.mark.parametrize("level", LEVELS)
def test_an_impulse_is_blurred_by_what_the_step_asks_for(level):
    """The variance of the level's own blur and of the spline that samples it is that of a step."""
    size = 256
    image = np.zeros((size, size), np.float32)
    row, column = 120, 131
    image[row, column] = 1000
    blurred = build_level(image, level).astype(float)
    x, y = positions(level, blurred.shape)
    pitch, step = float(pitch_of(level)), float(step_of(level))
    wanted = SPLINE_SIGMA**2 * (step**2 - pitch**2)
    for profile, at, centre in ((blurred.sum(0), x, column + 0.5), (blurred.sum(1), y, row + 0.5)):
        mean = (profile * at).sum() / profile.sum()
        variance = (profile * (at - mean) ** 2).sum() / profile.sum()
        assert mean == pytest.approx(centre, abs=0.02 * step)
        assert variance == pytest.approx(max(wanted, 0), abs=0.04 * step**2)
    assert blurred.sum() * pitch**2 == pytest.approx(1000, rel=0.03)


@pytest.mark.parametrize("level", LEVELS)
def test_a_ramp_stays_where_it_is(level):
    """Samples lie exactly where they are said to: a linear image keeps its values away from the border."""
    height, width = 150, 203
    y, x = np.mgrid[:height, :width] + 0.5
    level_image = build_level((2 * x - 0.7 * y + 30).astype(np.float32), level)
    assert level_image.shape == (int(height / pitch_of(level)), int(width / pitch_of(level)))
    column_x, row_y = positions(level, level_image.shape)
    expected = 2 * column_x - 0.7 * row_y[:, None] + 30
    inner = slice(*(np.array([1, -1]) * (int(np.ceil(4 * step_of(level) / pitch_of(level))) + 2)))
    np.testing.assert_allclose(level_image[inner, inner], expected[inner, inner], atol=2e-2)


def test_the_finest_level_is_the_image():
    image = np.random.default_rng(0).random((20, 30), np.float32)
    assert build_level(image, 0) is image


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (9, 3)])
@pytest.mark.parametrize("level", [0, 3, 9, MAX_LEVEL])
def test_tiny_and_constant_images_have_all_levels(shape, level):
    made = build_level(np.full(shape, 7, np.float32), level)
    np.testing.assert_allclose(made, 7, rtol=1e-5)


def test_boxes_hold_what_the_spline_needs_and_stay_inside():
    rng = np.random.default_rng(1)
    n, size = 500, np.array([320.0, 240.0])
    centre, reach = rng.uniform(0, 1, (n, 2)) * size, rng.uniform(3, 40, (n, 1))
    level = rng.integers(0, 14, n).astype(np.int32)
    boxes = boxes_between(centre - reach, centre + reach, level, np.tile(size, (n, 1)))
    pitch = pitch_of(level)[:, None]
    columns_rows = boxes.shape[:, ::-1]
    cut = boxes.shape[:, 0] > 0
    assert cut.mean() > 0.8
    assert (boxes.corner >= 0).all()
    assert ((boxes.corner + columns_rows)[cut] <= np.floor(size / pitch)[cut]).all()
    # Where the image does not cut a box, samples from one before the first cell to two after the last.
    first, last = boxes.corner, boxes.corner + columns_rows - 1
    low, high = (centre - reach) / pitch - 0.5, (centre + reach) / pitch - 0.5
    inside = (low >= 1) & (high < np.floor(size / pitch) - 2)
    assert (first[inside] <= low[inside] - 1).all()
    assert (last[inside] >= high[inside] + 1).all()
    assert (first[inside] >= low[inside] - 2).all()
    assert (last[inside] <= high[inside] + 3).all()


def test_boxes_too_small_or_unknown_are_empty():
    low = np.array([[-50.0, 10], [np.nan, 3], [10, 10]])
    high = np.array([[-40.0, 30], [5, 5], [30, 30]])
    boxes = boxes_between(low, high, np.zeros(3, np.int32), np.tile([100.0, 80.0], (3, 1)))
    np.testing.assert_array_equal(boxes.shape[:2], 0)
    assert (boxes.shape[2] > 20).all()


def test_geometry_is_that_of_the_first_sample():
    boxes = Boxes(
        np.array([0, 8], np.int32), np.array([[3, 5], [2, 1]], np.int32), np.full((2, 2), 9, np.int32)
    )
    pitch = float(pitch_of(8))
    np.testing.assert_allclose(boxes.geometry, [[3.5, 5.5, 1], [2.5 * pitch, 1.5 * pitch, pitch]])


def test_cut_patches_are_the_level_stretched_to_bytes():
    rng = np.random.default_rng(2)
    image = (rng.random((60, 80)) * 20 + 100).astype(np.float32)
    boxes = Boxes(
        np.array([0, 6, 0, 0], np.int32),
        np.array([[5, 7], [2, 3], [0, 0], [70, 50]], np.int32),
        np.array([[12, 20], [10, 9], [0, 0], [10, 10]], np.int32),
    )
    samples = cut_boxes(image, boxes, slice(0, 4))
    ends = np.cumsum(boxes.shape.prod(1))
    assert len(samples) == ends[-1]
    for k, end in enumerate(ends):
        height, width = boxes.shape[k]
        if height == 0:
            continue
        patch = samples[end - height * width : end].reshape(height, width).astype(float)
        column, row = boxes.corner[k]
        source = build_level(image, int(boxes.level[k]))[row : row + height, column : column + width]
        stretched = (source - source.min()) / np.ptp(source) * 255
        assert np.abs(patch - stretched).max() <= 0.51
        assert patch.min() == 0
        assert patch.max() == 255
    # A part of the boxes is the same part of the samples.
    np.testing.assert_array_equal(cut_boxes(image, boxes, slice(1, 3)), samples[240 : 240 + 90])


def test_a_flat_patch_is_zero():
    boxes = Boxes(np.zeros(1, np.int32), np.zeros((1, 2), np.int32), np.full((1, 2), 8, np.int32))
    assert (cut_boxes(np.full((10, 10), 33, np.float32), boxes, slice(0, 1)) == 0).all()


@pytest.mark.parametrize("level", [0, 1, 2, 5, 9])
def test_a_part_of_a_level_is_as_in_the_whole(level):
    image = np.random.default_rng(0).uniform(0, 255, (97, 131)).astype(np.float32)
    whole = build_level(image, level)
    assert whole.shape == level_shape(image.shape, level)
    for part in ((slice(0, 7), slice(3, 9)), (slice(10, 20), slice(20, 25)), (slice(5, 19), slice(0, 25))):
        np.testing.assert_array_equal(build_level(image, level, part), whole[part])
