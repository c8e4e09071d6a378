"""Native alignment of maps of many channels, against textures known everywhere and a plain oracle."""

import os
import subprocess
import sys

import numpy as np
import pytest

from pixcli import _core

SIDE, CENTRE = 40, 20.0
RADIUS, SPACING, WINDOW = 3, 2.0, 0.6


class Texture:
    """Channels of random waves, with values known at any position."""

    def __init__(self, channels, seed=0, shortest=7.0, longest=30.0, waves=20):
        rng = np.random.default_rng(seed)
        angle = rng.uniform(0, 2 * np.pi, (channels, waves))
        length = rng.uniform(shortest, longest, (channels, waves))
        self.frequency = 2 * np.pi / length * np.array([np.cos(angle), np.sin(angle)])
        self.phase = rng.uniform(0, 2 * np.pi, (channels, waves))

    def __call__(self, xy):
        """(..., C) of (..., 2), of unit deviation."""
        angle = np.einsum("...d,dcw->...cw", xy, self.frequency) + self.phase
        return np.cos(angle).sum(-1) / np.sqrt(self.phase.shape[1] / 2)


def seen_through(texture, x, y, linear=((1, 0), (0, 1)), noise=0.0, rng=None, pitch=1.0):
    """(SIDE, SIDE, C): the texture's point u appears at (x, y) + A u, in pixels of the image."""
    pixels = (np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1) + 0.5) * pitch
    values = texture((pixels - [x, y]) @ np.linalg.inv(np.array(linear, float)).T)
    return (values + (rng.normal(0, noise, values.shape) if noise else 0)).astype(np.float32)


def warp(x, y, linear=((1, 0), (0, 1))):
    return [x, y, *linear[0], *linear[1], 0, 0]


def align(template, targets, starts, *, comparison="correlation", gains=None, pitch=1.0, **other):
    """Each target (SIDE, SIDE, C) against the template; starts (jobs, candidates, 8)."""
    views = [template, *targets]
    n, channels = len(views), template.shape[2]
    limits = {"max_iterations": 30, "max_excursion": 9.0, "step_tolerance": 0.002, "translation": False}
    limits = {name: other.pop(name, value) for name, value in limits.items()}
    patches = _core.PatchArrays(
        np.concatenate([view.reshape(-1, channels) for view in views]),
        np.arange(n) * SIDE * SIDE,
        np.full((n, 2), SIDE, np.int32),
        np.tile([0.5 * pitch, 0.5 * pitch, pitch], (n, 1)),
        gains=gains,
        comparison=comparison,
    )
    templates = _core.TemplateArrays(
        patch=np.zeros(1, np.int32),
        xy=np.full((1, 2), CENTRE * pitch),
        spacing=np.full(1, SPACING * pitch),
        job_ptr=np.array([0, len(targets)]),
        job_patch=np.arange(1, n, dtype=np.int32),
        starts=np.asarray(starts, float).reshape(len(targets), -1, 8),
    )
    support = _core.Support(other.pop("radius", RADIUS), other.pop("window", WINDOW))
    limits = _core.AlignmentLimits(**limits)
    return _core.align(patches, support, templates, limits, **{"num_threads": 1, **other})


def position(result):
    return np.stack([result["warp"]["x"], result["warp"]["y"]], -1)


def linear_of(result):
    return np.stack([result["warp"][name] for name in ("a11", "a12", "a21", "a22")], -1).reshape(-1, 2, 2)


# ---- A plain description of what is minimised ----


def spline_samples(values, uv):
    """(k, C) of a map (rows, columns, C) at (k, 2) columns and rows, by the cubic B-spline."""
    cell = np.floor(uv).astype(int)
    f = uv - cell
    basis = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3]) / 6
    total = 0
    for i in range(4):
        for j in range(4):
            weight = basis[i][:, 0] * basis[j][:, 1]
            total += weight[:, None] * values[cell[:, 1] + j - 1, cell[:, 0] + i - 1]
    return total


def grid():
    axis = np.arange(-RADIUS, RADIUS + 1)
    nodes = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    weight = np.exp(-(nodes**2).sum(1) / (2 * (WINDOW * RADIUS) ** 2))
    return nodes * SPACING, weight / weight.sum()


def oracle_residual(template, target, parameters, comparison):
    """(k, C) residual of a warp of six parameters: x, y and the linear map."""
    nodes, weight = grid()
    t = spline_samples(template, CENTRE - 0.5 + nodes).astype(float)
    s = spline_samples(target, parameters[:2] - 0.5 + nodes @ parameters[2:].reshape(2, 2).T).astype(float)
    if comparison == "cosine":
        t, s = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (t, s))
    t0, s0 = t - weight @ t, s - weight @ s
    deviation = np.sqrt(weight @ t0**2)
    unit = 1 / np.sqrt((deviation**2).sum())
    if comparison != "correlation":
        return (s - t) * unit
    t0, s0 = t0 / deviation, s0 / np.sqrt(weight @ s0**2)
    return deviation * unit * (s0 - (weight @ (s0 * t0)) * t0)


def oracle_cost(template, target, parameters, comparison, limit):
    """Huber's loss of the length of the residual at each node."""
    _, weight = grid()
    size = np.linalg.norm(oracle_residual(template, target, parameters, comparison), axis=1)
    return weight @ np.where(size < limit, size**2 / 2, limit * (size - limit / 2))


def parameters_of(row):
    return np.array([row["warp"][name] for name in ("x", "y", "a11", "a12", "a21", "a22")])


# ---- Tests ----


@pytest.mark.parametrize("comparison", ["correlation", "distance", "cosine"])
@pytest.mark.parametrize("channels", [2, 12, 17, 130])
def test_affine_warps_are_found_with_any_number_of_channels(channels, comparison):
    texture, rng = Texture(channels, 1), np.random.default_rng(1)
    maps, shifts = np.eye(2) + rng.uniform(-0.1, 0.1, (20, 2, 2)), rng.uniform(-1, 1, (20, 2))
    targets = [seen_through(texture, *(CENTRE + s), m) for s, m in zip(shifts, maps, strict=True)]
    template = seen_through(texture, CENTRE, CENTRE)
    result = align(template, targets, [warp(CENTRE, CENTRE)] * 20, comparison=comparison)
    assert (result["outcome"] == 0).all()
    # Sampling blurs template and targets by as much of their own pixels, which linear maps tell apart.
    assert np.linalg.norm(position(result) - CENTRE - shifts, axis=1).max() < 0.02
    assert np.abs(linear_of(result) - maps).max() < 0.02
    assert (result["correlation"] > 0.99).all()
    assert (result["initial_correlation"] < result["correlation"]).all()


def test_a_thousand_channels_are_aligned():
    texture = Texture(1024, 2, waves=3)
    template = seen_through(texture, CENTRE, CENTRE)
    result = align(template, [seen_through(texture, CENTRE + 0.6, CENTRE - 0.4)], [warp(CENTRE, CENTRE)])
    assert np.abs(position(result) - [CENTRE + 0.6, CENTRE - 0.4]).max() < 0.005


@pytest.mark.parametrize("comparison", ["correlation", "distance", "cosine"])
def test_no_step_away_from_the_result_lowers_the_oracles_cost(comparison):
    rng = np.random.default_rng(3)
    texture = Texture(5, 3)
    template = seen_through(texture, CENTRE, CENTRE, noise=0.1, rng=rng)
    targets = [seen_through(texture, CENTRE + 0.5, CENTRE + 0.3, noise=0.1, rng=rng) for _ in range(5)]
    options = {"comparison": comparison, "max_iterations": 100, "step_tolerance": 1e-5}
    result = align(template, targets, [warp(CENTRE, CENTRE)] * 5, **options)
    assert (result["outcome"] == 0).all()
    for row, target in zip(result, targets, strict=True):
        found = parameters_of(row)
        _, weight = grid()
        limit = 2 * weight @ np.linalg.norm(oracle_residual(template, target, found, comparison), axis=1)
        cost = oracle_cost(template, target, found, comparison, limit)
        # Its gradients are those of the template, so that the optimum is the cost's own but for noise.
        for p, size in enumerate((0.1, 0.1, 0.03, 0.03, 0.03, 0.03)):
            for sign in (-size, size):
                step = found.copy()
                step[p] += sign
                assert oracle_cost(template, target, step, comparison, limit) > cost


def test_the_correlation_is_that_of_all_channels_each_free_of_its_bias():
    rng = np.random.default_rng(4)
    texture = Texture(6, 4)
    template = seen_through(texture, CENTRE, CENTRE, noise=0.3, rng=rng)
    target = seen_through(texture, CENTRE, CENTRE, noise=0.3, rng=rng)
    for comparison in ("correlation", "distance"):
        (row,) = align(template, [target], [warp(CENTRE, CENTRE)], comparison=comparison)
        nodes, weight = grid()
        found = parameters_of(row)
        t = spline_samples(template, CENTRE - 0.5 + nodes)
        s = spline_samples(target, found[:2] - 0.5 + nodes @ found[2:].reshape(2, 2).T)
        t, s = t - weight @ t, s - weight @ s
        if comparison == "correlation":
            deviation = np.sqrt(weight @ t**2)
            each = weight @ (s * t) / (deviation * np.sqrt(weight @ s**2))
            expected = (deviation**2 * each).sum() / (deviation**2).sum()
        else:
            expected = (weight @ (s * t)).sum() / np.sqrt((weight @ t**2).sum() * (weight @ s**2).sum())
        assert row["correlation"] == pytest.approx(expected, abs=1e-4)


def test_gain_and_bias_of_each_channel_change_nothing_where_the_model_asks_for_it():
    texture = Texture(7, 5)
    template, target = (
        seen_through(texture, CENTRE, CENTRE),
        seen_through(texture, CENTRE + 0.7, CENTRE - 0.5),
    )
    rng = np.random.default_rng(5)
    changed = (target * rng.uniform(0.3, 3, 7) + rng.uniform(-2, 2, 7)).astype(np.float32)
    plain, other = align(template, [target, changed], [warp(CENTRE, CENTRE)] * 2)
    assert parameters_of(other) == pytest.approx(parameters_of(plain), abs=2e-3)
    (distance,) = align(template, [changed], [warp(CENTRE, CENTRE)], comparison="distance")
    assert np.abs(parameters_of(distance)[:2] - parameters_of(plain)[:2]).max() > 0.02 or distance["outcome"]


def test_a_channel_without_texture_changes_nothing():
    texture = Texture(4, 6)
    template, target = (
        seen_through(texture, CENTRE, CENTRE),
        seen_through(texture, CENTRE + 0.7, CENTRE - 0.5),
    )
    flat = np.full((SIDE, SIDE, 1), 3, np.float32)
    (without,) = align(template, [target], [warp(CENTRE, CENTRE)])
    joined = [np.concatenate([view, flat], 2) for view in (template, target)]
    (with_it,) = align(joined[0], [joined[1]], [warp(CENTRE, CENTRE)])
    assert parameters_of(with_it) == pytest.approx(parameters_of(without), abs=1e-5)


def test_halves_bytes_and_nibbles_give_nearly_what_floats_give():
    texture, rng = Texture(12, 7), np.random.default_rng(7)
    views = [seen_through(texture, CENTRE, CENTRE)]
    views += [
        seen_through(texture, *(CENTRE + rng.uniform(-1, 1, 2)), noise=0.05, rng=rng) for _ in range(20)
    ]
    starts = [warp(CENTRE, CENTRE)] * 20
    exact = position(align(views[0], views[1:], starts))
    halves = [view.astype(np.float16) for view in views]
    assert np.abs(position(align(halves[0], halves[1:], starts)) - exact).max() < 0.002
    gains = np.array([np.abs(view).max((0, 1)) / 127 for view in views], np.float32)
    stored = [np.rint(view / gain).astype(np.int8) for view, gain in zip(views, gains, strict=True)]
    error = np.abs(position(align(stored[0], stored[1:], starts, gains=gains)) - exact)
    assert error.max() < 0.01
    coarse = [np.rint(view / gain * 7 / 127).astype(int) + 8 for view, gain in zip(views, gains, strict=True)]
    packed = [(view[..., ::2] | view[..., 1::2] << 4).astype(np.uint8) for view in coarse]
    error = np.abs(position(align(packed[0], packed[1:], starts, gains=gains * 127 / 7)) - exact)
    assert 0 < error.max() < 0.1


def test_an_odd_channel_has_a_byte_of_its_own():
    rng = np.random.default_rng(18)
    views = [rng.integers(-7, 8, (SIDE, SIDE, 3)) for _ in range(2)]
    gains = rng.uniform(0.5, 2, (2, 3)).astype(np.float32)
    plain = [(view * gain).astype(np.float32) for view, gain in zip(views, gains, strict=True)]
    padded = [np.pad(view + 8, ((0, 0), (0, 0), (0, 1))) for view in views]
    packed = [(view[..., ::2] | view[..., 1::2] << 4).astype(np.uint8) for view in padded]
    start = [warp(CENTRE, CENTRE)]
    (floats,), (nibbles,) = (align(a, [b], start, gains=g) for (a, b), g in ((plain, None), (packed, gains)))
    np.testing.assert_equal(parameters_of(floats), parameters_of(nibbles))


def test_a_map_of_half_resolution_gives_positions_in_pixels_of_the_image():
    texture = Texture(8, 8, shortest=14.0, longest=60.0)
    template = seen_through(texture, 2 * CENTRE, 2 * CENTRE, pitch=2.0)
    target = seen_through(texture, 2 * CENTRE + 1.5, 2 * CENTRE - 1.1, pitch=2.0)
    (row,) = align(template, [target], [warp(2 * CENTRE, 2 * CENTRE)], pitch=2.0)
    assert parameters_of(row)[:2] == pytest.approx([2 * CENTRE + 1.5, 2 * CENTRE - 1.1], abs=0.02)


def test_the_position_alone_can_be_refined():
    texture = Texture(8, 9)
    template = seen_through(texture, CENTRE, CENTRE)
    target = seen_through(texture, CENTRE + 0.5, CENTRE, ((1.05, 0), (0, 1)))
    (row,) = align(template, [target], [warp(CENTRE, CENTRE)], translation=True)
    assert parameters_of(row)[2:].tolist() == [1, 0, 0, 1]
    assert parameters_of(row)[:2] == pytest.approx([CENTRE + 0.5, CENTRE], abs=0.1)


@pytest.mark.parametrize("comparison", ["correlation", "distance"])
def test_the_covariance_tells_the_error_under_noise(comparison):
    texture, rng = Texture(6, 10), np.random.default_rng(10)
    squares = []
    for _ in range(12):
        template = seen_through(texture, CENTRE, CENTRE, noise=0.4, rng=rng)
        targets = [seen_through(texture, CENTRE, CENTRE, noise=0.4, rng=rng) for _ in range(20)]
        result = align(template, targets, [warp(CENTRE, CENTRE)] * 20, comparison=comparison)
        error = position(result) - CENTRE
        for row, e in zip(result, error, strict=True):
            covariance = np.array([[row["cov_xx"], row["cov_xy"]], [row["cov_xy"], row["cov_yy"]]])
            squares.append(e @ np.linalg.solve(covariance, e) / 2)
    assert 0.6 < np.mean(squares) < 2.5


def test_the_start_of_highest_correlation_is_taken():
    texture = Texture(8, 11)
    template = seen_through(texture, CENTRE, CENTRE)
    target = seen_through(texture, CENTRE + 4, CENTRE - 3)
    (row,) = align(template, [target], [[warp(CENTRE, CENTRE), warp(CENTRE + 3.5, CENTRE - 3.2)]])
    assert parameters_of(row)[:2] == pytest.approx([CENTRE + 4, CENTRE - 3], abs=0.01)


@pytest.mark.parametrize("threads", [2, 5])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    texture, rng = Texture(9, 12), np.random.default_rng(12)
    template = seen_through(texture, CENTRE, CENTRE)
    targets = [seen_through(texture, *(CENTRE + rng.uniform(-1, 1, 2))) for _ in range(40)]
    starts = [warp(CENTRE, CENTRE)] * 40
    assert (align(template, targets, starts) == align(template, targets, starts, num_threads=threads)).all()


def test_what_cannot_be_aligned_says_why():
    texture = Texture(3, 13)
    template, flat = seen_through(texture, CENTRE, CENTRE), np.ones((SIDE, SIDE, 3), np.float32)
    assert align(template, [flat], [warp(CENTRE, CENTRE)])["outcome"] == _core.Outcome.FLAT
    assert align(flat, [template], [warp(CENTRE, CENTRE)])["outcome"] == _core.Outcome.FLAT
    assert align(template, [template], [warp(2, 2)])["outcome"] == _core.Outcome.OUTSIDE
    other = seen_through(Texture(3, 14), CENTRE, CENTRE)
    outcome = align(template, [-template, other], [warp(CENTRE, CENTRE)] * 2)
    assert outcome["outcome"][0] == _core.Outcome.DIVERGED
    assert outcome["correlation"][1] < 0.7


def test_wrong_arrays_are_refused():
    template = seen_through(Texture(3, 15), CENTRE, CENTRE)
    with pytest.raises(ValueError, match="gains"):
        align(template.astype(np.int8), [template.astype(np.int8)], [warp(CENTRE, CENTRE)])
    with pytest.raises(ValueError, match="gains must have the shape"):
        align(template.astype(np.uint8), [template.astype(np.uint8)], [warp(CENTRE, CENTRE)])
    with pytest.raises(ValueError, match="float32, float16, int8 or"):
        align(template.astype(np.float64), [template.astype(np.float64)], [warp(CENTRE, CENTRE)])
    with pytest.raises(ValueError, match="comparison"):
        align(template, [template], [warp(CENTRE, CENTRE)], comparison="other")


def test_the_portable_kernel_gives_the_same():
    code = (
        "import test_features as t; x = t.Texture(11, 16); c = t.CENTRE\n"
        "print(t.parameters_of(t.align(t.seen_through(x, c, c), [t.seen_through(x, c + .6, c - .4)],"
        " [t.warp(c, c)])[0]).tolist())"
    )
    found = []
    for isa in ("baseline", ""):
        environment = {**os.environ, "PIXCLI_ISA": isa} if isa else os.environ
        path = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        command = [sys.executable, "-P", "-c", path + code]
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found.append(np.array(eval(out.stdout)))
    assert found[0] == pytest.approx(found[1], abs=1e-4)
