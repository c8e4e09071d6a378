"""Native alignment on textures that are known everywhere: what it recovers, and what it says of itself."""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from pixcli import _core

SIDE = 56
CENTRE = SIDE / 2


class Texture:
    """A sum of random waves, with values known at any position."""

    def __init__(self, seed=0, shortest=5.0, longest=40.0, waves=24):
        rng = np.random.default_rng(seed)
        angle, length = rng.uniform(0, 2 * np.pi, waves), rng.uniform(shortest, longest, waves)
        self.frequency = 2 * np.pi / length * np.array([np.cos(angle), np.sin(angle)])
        self.phase = rng.uniform(0, 2 * np.pi, waves)

    def __call__(self, xy):
        """Values at (..., 2): 128 with a standard deviation of 40."""
        value = np.cos(xy @ self.frequency + self.phase).sum(-1)
        return 128 + 40 * value / np.sqrt(len(self.phase) / 2)


def to_bytes(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def pixels(side=SIDE):
    """Pixel centres (side, side, 2), COLMAP's."""
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) + 0.5


def seen_through(texture, x, y, linear=((1, 0), (0, 1)), perspective=(0, 0), noise=0.0, rng=None):
    """A view in which the texture's point (0, 0) + u appears at (x, y) + A u / (1 + h u)."""
    w = pixels() - [x, y]
    matrix = np.array([[*linear[0], 0], [*linear[1], 0], [*perspective, 1]], float)
    u = np.concatenate([w, np.ones((*w.shape[:2], 1))], -1) @ np.linalg.inv(matrix).T
    values = texture(u[..., :2] / u[..., 2:])
    return to_bytes(values + (rng.normal(0, noise, values.shape) if noise else 0))


def warp(x, y, linear=((1, 0), (0, 1)), perspective=(0, 0)):
    return [x, y, *linear[0], *linear[1], *perspective]


def align(template, targets, starts, *, radius=13, spacing=1.0, perspective_deviation=1e-3, **other):
    """Each target (side, side) against the same template, or its own; starts (jobs, candidates, 8)."""
    templates = template if isinstance(template, list) else [template]
    views = [*templates, *targets]
    n, t = len(views), len(templates)
    options = {"xy": np.full((t, 2), CENTRE)} | other
    per_template = len(targets) // t
    return run(
        _core.PatchArrays(
            np.concatenate([view.ravel() for view in views]),
            np.cumsum([0] + [view.size for view in views[:-1]]),
            np.array([view.shape[::-1] for view in views], np.int32),
            np.tile([0.5, 0.5, 1.0], (n, 1)),
        ),
        radius,
        patch=np.arange(t, dtype=np.int32),
        spacing=np.full(t, spacing),
        perspective_deviation=np.full(t, perspective_deviation),
        job_ptr=np.arange(t + 1) * per_template,
        job_patch=np.arange(t, n, dtype=np.int32),
        starts=np.asarray(starts, float).reshape(len(targets), -1, 8),
        **options,
    )


def run(patches, radius, *, window=0.5, num_threads=1, progress=None, **other):
    """_core.align with limits that suit a test; what is no limit describes the templates."""
    limits = {"max_iterations": 30, "max_excursion": 9.0, "step_tolerance": 0.002, "translation": False}
    limits = {name: other.pop(name, value) for name, value in limits.items()}
    return _core.align(
        patches,
        _core.Support(radius, window),
        _core.TemplateArrays(**other),
        _core.AlignmentLimits(**limits),
        num_threads=num_threads,
        progress=progress,
    )


def assert_found(result, truth):
    """Positions to a hundredth of a pixel, but for the odd one that 8 bits do not resolve as well."""
    assert (result["outcome"] == 0).all()
    error = np.linalg.norm(position(result) - truth, axis=-1)
    assert np.percentile(error, 90) < 0.01
    assert error.max() < 0.02


def position(result):
    return np.stack([result["warp"]["x"], result["warp"]["y"]], -1)


def linear_of(result):
    return np.stack([result["warp"][name] for name in ("a11", "a12", "a21", "a22")], -1).reshape(-1, 2, 2)


TEXTURE = Texture(1, shortest=8.0, waves=40)
TEMPLATE = seen_through(TEXTURE, CENTRE, CENTRE)


def test_shifts_of_a_part_of_a_pixel_are_found():
    shifts = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    targets = [seen_through(TEXTURE, *(CENTRE + shift)) for shift in shifts]
    result = align(TEMPLATE, targets, [warp(CENTRE, CENTRE)] * 50)
    assert_found(result, CENTRE + shifts)
    assert (result["correlation"] > 0.999).all()
    assert (result["initial_correlation"] < result["correlation"]).all()


def test_affine_warps_are_found():
    rng = np.random.default_rng(1)
    maps = np.eye(2) + rng.uniform(-0.1, 0.1, (50, 2, 2))
    shifts = rng.uniform(-0.7, 0.7, (50, 2))
    targets = [seen_through(TEXTURE, *(CENTRE + s), m) for s, m in zip(shifts, maps, strict=True)]
    result = align(TEMPLATE, targets, [warp(CENTRE, CENTRE)] * 50)
    assert_found(result, CENTRE + shifts)
    assert np.abs(linear_of(result) - maps).max() < 0.01


def test_perspective_warps_are_found():
    rng = np.random.default_rng(2)
    slopes = rng.uniform(-0.004, 0.004, (30, 2))
    targets = [seen_through(TEXTURE, CENTRE + 0.4, CENTRE - 0.3, perspective=h) for h in slopes]
    starts = [warp(CENTRE, CENTRE)] * 30
    result = align(TEMPLATE, targets, starts, perspective_deviation=0.01)
    found = np.stack([result["warp"]["h1"], result["warp"]["h2"]], -1)
    assert_found(result, [CENTRE + 0.4, CENTRE - 0.3])
    assert np.abs(found - slopes).max() < 5e-4
    # A tight prior leaves it out.
    flat = align(TEMPLATE, targets, starts, perspective_deviation=1e-9)
    assert max(np.abs(flat["warp"]["h1"]).max(), np.abs(flat["warp"]["h2"]).max()) < 1e-6
    assert (flat["correlation"] < result["correlation"]).all()


def test_gain_and_bias_change_nothing():
    values = TEXTURE(pixels() - [CENTRE + 0.4, CENTRE - 0.3])
    targets = [to_bytes(values), to_bytes(0.8 * values + 40), to_bytes(1.1 * values - 20)]
    result = align(TEMPLATE, targets, [warp(CENTRE, CENTRE)] * 3)
    assert np.abs(position(result) - [CENTRE + 0.4, CENTRE - 0.3]).max() < 0.01
    negative = align(TEMPLATE, [255 - targets[0]], [warp(CENTRE, CENTRE)])
    assert negative["outcome"] == _core.Outcome.DIVERGED


def test_patches_may_be_coarser_than_pixels_and_lie_anywhere():
    """The root's patch is that of a level at 1.5 pixels a sample; both have corners of their own."""
    texture = Texture(5, shortest=14)
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1)
    origin = np.array([[100.75, 50.75, 1.5], [300.5, 20.5, 1.0]])
    root, truth = np.array([136.0, 87.0]), np.array([325.3, 44.2])
    views = [
        to_bytes(texture((origin[0, :2] + 1.5 * grid) - root)),
        to_bytes(texture(1.5 * (origin[1, :2] + grid - truth))),
    ]
    patches = _core.PatchArrays(
        np.concatenate([view.ravel() for view in views]),
        np.array([0, SIDE * SIDE]),
        np.full((2, 2), SIDE, np.int32),
        origin,
    )
    result = run(
        patches,
        8,
        patch=np.zeros(1, np.int32),
        xy=root[None],
        spacing=np.array([1.5]),
        perspective_deviation=np.array([1e-3]),
        job_ptr=np.array([0, 1]),
        job_patch=np.ones(1, np.int32),
        starts=np.array([[[truth[0] + 0.6, truth[1] - 0.5, 0.7, 0, 0, 0.7, 0, 0]]]),
    )
    assert np.abs(position(result) - truth).max() < 0.01
    assert np.abs(linear_of(result) - np.eye(2) / 1.5).max() < 0.01


FLAT = np.full((SIDE, SIDE), 77, np.uint8)


@pytest.mark.parametrize(
    ("template", "target", "start", "outcome"),
    [
        (TEMPLATE, FLAT, (CENTRE, CENTRE), _core.Outcome.FLAT),
        (FLAT, TEMPLATE, (CENTRE, CENTRE), _core.Outcome.FLAT),
        (TEMPLATE, TEMPLATE, (3.0, CENTRE), _core.Outcome.OUTSIDE),
        (TEMPLATE[:28], TEMPLATE, (CENTRE, CENTRE), _core.Outcome.OUTSIDE),
        (TEMPLATE, np.zeros((0, 0), np.uint8), (CENTRE, CENTRE), _core.Outcome.OUTSIDE),
        (TEMPLATE, 255 - TEMPLATE, (CENTRE, CENTRE), _core.Outcome.DIVERGED),
        (TEMPLATE, TEMPLATE, (np.nan, CENTRE), _core.Outcome.OUTSIDE),
    ],
    ids=["flat", "flat template", "outside", "template outside", "no patch", "unlike", "not finite"],
)
def test_what_cannot_be_aligned_is_said(template, target, start, outcome):
    result = align(template, [target], [warp(*start)])
    assert result["outcome"] == outcome
    assert np.isnan(result["cov_xx"]).all()


def test_running_away_is_given_up():
    target = seen_through(TEXTURE, CENTRE + 1.5, CENTRE)
    result = align(TEMPLATE, [target], [warp(CENTRE, CENTRE)], max_excursion=0.5)
    assert result["outcome"] == _core.Outcome.DIVERGED


def test_the_best_start_is_taken_and_unknown_ones_are_passed_over():
    target = seen_through(TEXTURE, CENTRE, CENTRE, ((0, -1), (1, 0)))
    unknown = [CENTRE, CENTRE, *[np.nan] * 4, 0, 0]
    turned = warp(CENTRE, CENTRE, ((0.05, -1), (1, 0.05)))
    for starts in ([unknown, warp(CENTRE, CENTRE), turned], [unknown, turned, warp(CENTRE, CENTRE)]):
        result = align(TEMPLATE, [target], starts)
        assert result["outcome"] == 0
        assert np.abs(position(result) - CENTRE).max() < 0.01
        assert result["initial_correlation"] == -1  # the first start could not be compared
    assert align(TEMPLATE, [target], [warp(CENTRE, CENTRE), turned])["initial_correlation"] < 0.6
    assert align(TEMPLATE, [target], [unknown, unknown])["outcome"] == _core.Outcome.OUTSIDE


def test_a_translation_keeps_the_linear_map():
    maps = np.array(((1.1, 0.05), (-0.03, 0.95)))
    target = seen_through(TEXTURE, CENTRE + 0.3, CENTRE - 0.6, maps)
    result = align(TEMPLATE, [target], [warp(CENTRE, CENTRE, maps)], translation=True)
    np.testing.assert_array_equal(linear_of(result)[0], maps)
    assert result["warp"]["h1"] == 0
    assert np.abs(position(result) - [CENTRE + 0.3, CENTRE - 0.6]).max() < 0.01


class Pairs:
    """Templates of many textures and noisy views of them through known affine maps."""

    def __init__(self, count, noise, seed=0):
        rng = np.random.default_rng(seed)
        self.templates, self.targets, self.starts = [], [], []
        self.truth = CENTRE + rng.uniform(-0.5, 0.5, (count, 2))
        for k, xy in enumerate(self.truth):
            texture, linear = Texture(1000 * seed + k), np.eye(2) + rng.uniform(-0.1, 0.1, (2, 2))
            self.templates.append(seen_through(texture, CENTRE, CENTRE, noise=noise, rng=rng))
            self.targets.append(seen_through(texture, *xy, linear, noise=noise, rng=rng))
            self.starts.append(warp(CENTRE, CENTRE, linear))

    def align(self, **options):
        return align(self.templates, self.targets, self.starts, **options)


@cache
def pairs_of_noise(noise):
    return Pairs(200, noise, seed=int(noise))


@pytest.mark.parametrize("noise", [1.0, 4.0])
@pytest.mark.parametrize("radius", [5, 8, 14])
@pytest.mark.parametrize("translation", [False, True])
def test_the_covariance_is_that_of_the_errors(noise, radius, translation):
    """Noise is in the template as well as in the view; normalised errors have a variance of 1."""
    pairs = pairs_of_noise(noise)
    result = pairs.align(radius=radius, translation=translation)
    x, y = (position(result) - pairs.truth).T
    xx, xy, yy = result["cov_xx"], result["cov_xy"], result["cov_yy"]
    squared = (yy * x * x - 2 * xy * x * y + xx * y * y) / (xx * yy - xy * xy) / 2
    assert (result["outcome"] == 0).mean() > 0.98
    assert 0.75 < np.mean(np.sort(squared)[:-1]) < 1.5


def test_results_do_not_depend_on_threads():
    pairs = Pairs(64, 2.0)
    one, two = pairs.align(num_threads=1), pairs.align(num_threads=2)
    assert one.tobytes() == two.tobytes()


def test_all_instruction_sets_agree():
    """The portable kernels, in a process of their own, against this machine's."""
    code = (
        "import sys, runpy; test = runpy.run_path(sys.argv[1]); "
        "sys.stdout.buffer.write(test['Pairs'](24, 2.0).align().tobytes())"
    )
    output = subprocess.run(
        [sys.executable, "-P", "-c", code, __file__],
        check=True,
        capture_output=True,
        env={**os.environ, "PIXCLI_ISA": "baseline"},
    ).stdout
    portable, here = np.frombuffer(output, _core.alignment_dtype), Pairs(24, 2.0).align()
    np.testing.assert_array_equal(portable["outcome"], here["outcome"])
    np.testing.assert_allclose(position(portable), position(here), atol=2e-3)
    np.testing.assert_allclose(portable["correlation"], here["correlation"], atol=1e-4)
    np.testing.assert_allclose(portable["cov_xx"], here["cov_xx"], rtol=1e-2)


@pytest.mark.parametrize("radius", [0, 16])
def test_a_radius_out_of_range_is_refused(radius):
    with pytest.raises(ValueError, match="radius"):
        align(TEMPLATE, [TEMPLATE], [warp(CENTRE, CENTRE)], radius=radius)


def patch_arrays(**changes):
    arrays = {
        "buffer": np.zeros(2 * SIDE * SIDE, np.uint8),
        "offset": np.array([0, SIDE * SIDE]),
        "size": np.full((2, 2), SIDE, np.int32),
        "origin": np.tile([0.5, 0.5, 1.0], (2, 1)),
    }
    return _core.PatchArrays(**(arrays | changes))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("buffer", np.zeros(2 * SIDE * SIDE, np.float32)),
        ("buffer", np.zeros(4 * SIDE * SIDE, np.uint8)[::2]),
        ("buffer", np.zeros((2, SIDE * SIDE), np.uint8)),
        ("offset", np.zeros((2, 1), int)),
        ("offset", np.array([0.5, 0])),
        ("offset", np.array([0, SIDE * SIDE + 1])),
        ("offset", np.array([0, 2**63 - SIDE])),
        ("offset", np.array([0, -1])),
        ("size", np.full((2, 3), SIDE, np.int32)),
        ("size", np.full((2, 2), -SIDE, np.int32)),
        ("size", np.full((2, 2), 2**31 - 1, np.int32)),
        ("origin", np.zeros((2, 2))),
    ],
)
def test_bad_patches_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        patch_arrays(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch", np.array([2], np.int32)),
        ("xy", np.zeros((1, 3))),
        ("spacing", np.ones(2)),
        ("job_ptr", np.array([1, 3])),
        ("job_ptr", np.array([0, 2])),
        ("job_ptr", np.array([0, 4])),
        ("job_patch", np.array([0, 1, -1], np.int32)),
        ("starts", np.zeros((3, 0, 8))),
        ("starts", np.zeros((3, 1, 6))),
        ("perspective_deviation", np.ones(2)),
        ("perspective_deviation", None),
    ],
)
def test_bad_templates_are_refused_by_name(name, value):
    arrays = {
        "patch": np.zeros(1, np.int32),
        "xy": np.full((1, 2), CENTRE),
        "spacing": np.ones(1),
        "job_ptr": np.array([0, 3]),
        "job_patch": np.ones(3, np.int32),
        "starts": np.tile(warp(CENTRE, CENTRE), (3, 1, 1)),
        "perspective_deviation": np.ones(1),
    }
    assert len(run(patch_arrays(), 5, **arrays)) == 3
    with pytest.raises(ValueError, match=name):
        run(patch_arrays(), 5, **(arrays | {name: value}))


def test_boxes_whose_place_would_overflow_are_refused():
    image, buffer = np.zeros((10, 10), np.float32), np.zeros(100, np.uint8)
    for box, offset in (([2**31 - 4, 0, 8, 8], 0), ([0, 0, 8, 8], 2**63 - 8), ([0, 0, 8, 8], 37)):
        with pytest.raises(ValueError, match="boxes"):
            _core.cut_patches(image, np.array([box], np.int32), np.array([offset]), buffer)
