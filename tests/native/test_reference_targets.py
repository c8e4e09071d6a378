"""Keypoints against references: costs with their derivatives, and alignment."""

import numpy as np
import pytest

from pixcli import _core

EDGE, CHANNELS = 16, 5
NODES = [(0.0, 0.0), (1.5, -1.0)]


@pytest.fixture
def problem():
    """Smooth features of n keypoints, two references each but for the last, which has none."""
    rng = np.random.default_rng(2)
    n = 12
    rows, columns = np.mgrid[:EDGE, :EDGE]
    phase = rng.uniform(0, 6, (n, 1, 1, CHANNELS))
    slope = rng.uniform(-0.25, 0.25, (n, 1, 1, CHANNELS, 2))
    data = np.sin(slope[..., 0] * columns[..., None] + slope[..., 1] * rows[..., None] + phase)
    corners = rng.integers(0, 200, (n, 2)).astype(np.int32)
    scales = rng.uniform(0.4, 1.1, (n, 2))
    centre = (corners + EDGE / 2) / scales
    ptr = np.array([*range(0, 2 * n, 2), 2 * n - 2])
    references = rng.uniform(-1, 1, (2 * n - 2, CHANNELS * len(NODES))).astype(np.float32)
    level = (data.astype(np.float32), corners, scales, np.arange(n))
    return level, ptr, np.arange(2 * n - 2), references, centre


SAMPLING = {"nodes": NODES, "mode": "bicubic", "l2_normalize": False, "ncc_normalize": False}
OPTIONS = SAMPLING | {"loss": "cauchy", "loss_scale": 0.7}
LIMITS = {"bound": 4.0, "max_iterations": 100, "parameter_tolerance": 1e-5}


def evaluate(problem, xy, **options):
    level, ptr, reference, references, _ = problem
    return _core.evaluate_targets(xy, level, ptr, reference, references, **{**OPTIONS, **options})


def sample(problem, xy, nodes=NODES):
    (data, corners, scales, rows), *_ = problem
    uv = xy * scales - 0.5 - corners
    return _core.interpolate(data, rows, uv, **(SAMPLING | {"nodes": nodes}), double_precision=True)


def test_costs_and_derivatives(problem):
    _, ptr, reference, references, centre = problem
    xy = centre + 0.3
    costs = evaluate(problem, xy)
    features = sample(problem, xy)
    scales = problem[0][2]
    for k in range(len(xy)):
        own = reference[ptr[k] : ptr[k + 1]]
        residuals = features[k, 0] - references[own]
        squares = (residuals**2).sum(1) / 0.7**2
        assert costs[k, 0] == pytest.approx(0.5 * 0.7**2 * np.log1p(squares).sum(), rel=1e-5)
        j = (features[k, 1:] * scales[k][:, None]).T
        h = sum(j.T @ j / (1 + s) for s in squares) if len(own) else np.zeros((2, 2))
        np.testing.assert_allclose(costs[k, 3:], [h[0, 0], h[0, 1], h[1, 1]], rtol=1e-4, atol=1e-6)
    step = 1e-3
    for axis, shift in enumerate(np.eye(2) * step):
        ahead, behind = evaluate(problem, xy + shift), evaluate(problem, xy - shift)
        slope = (ahead[:, 0] - behind[:, 0]) / (2 * step)
        np.testing.assert_allclose(costs[:, 1 + axis], slope, rtol=2e-2, atol=2e-3)
    assert not costs[-1].any()


def test_warps_move_the_nodes(problem):
    xy = problem[-1]
    warp = np.array([[0.5, 1.0], [-1.0, 0.25]])
    warped = evaluate(problem, xy, warps=np.tile(warp, (len(xy), 1, 1)))
    moved = [tuple(warp @ node) for node in NODES]
    np.testing.assert_allclose(warped, evaluate(problem, xy, nodes=moved), rtol=1e-6)


def test_alignment_finds_where_features_agree(problem):
    level, ptr, _, references, centre = problem
    n = len(centre)
    true = centre + np.random.default_rng(0).uniform(-1.5, 1.5, (n, 2))
    references = np.ascontiguousarray(sample(problem, true)[:, 0], np.float32)
    ptr, reference = np.append(np.arange(n), n - 1), np.arange(n - 1)
    arguments = (level, ptr, reference, references)
    found = _core.align_to_targets(centre, centre, *arguments, **OPTIONS, **LIMITS)
    assert (found["outcome"][:-1] == _core.TargetOutcome.ALIGNED).all()
    np.testing.assert_allclose(found["xy"][:-1], true[:-1], atol=2e-3)
    assert (found["after"][:-1, 0] < 1e-4 * found["before"][:-1]).all()
    assert found["outcome"][-1] == _core.TargetOutcome.UNUSABLE
    np.testing.assert_array_equal(found["xy"][-1], centre[-1])

    bound = 0.5
    found = _core.align_to_targets(centre, centre, *arguments, **OPTIONS, **(LIMITS | {"bound": bound}))
    moved = np.abs(found["xy"] - centre)
    assert (moved <= bound + 1e-9).all()
    far = np.abs(true - centre).max(1) > bound + 0.1
    assert (found["outcome"][:-1][far[:-1]] == _core.TargetOutcome.AT_BOUND).all()
    far_start = _core.align_to_targets(centre + 500, centre, *arguments, **OPTIONS, **LIMITS)
    assert (far_start["outcome"] == _core.TargetOutcome.UNUSABLE).all()


def test_positions_and_features_that_are_not_finite(problem):
    level, ptr, reference, references, centre = problem
    bad = centre.copy()
    bad[0, 0] = np.nan
    level[0][1] = np.inf
    costs = evaluate(problem, bad)
    assert np.isnan(costs[0]).all()
    assert not np.isfinite(costs[1, 0])
    found = _core.align_to_targets(bad, bad, level, ptr, reference, references, **OPTIONS, **LIMITS)
    assert (found["outcome"][:2] == _core.TargetOutcome.UNUSABLE).all()
    assert found["outcome"][2] != _core.TargetOutcome.UNUSABLE


def test_shapes_are_checked(problem):
    level, ptr, reference, references, centre = problem
    for name, broken in (
        ("xy", (centre[:-1], level, ptr, reference, references)),
        ("ptr", (centre, level, ptr[:-1], reference, references)),
        ("ptr", (centre, level, ptr + 1, reference, references)),
        ("reference", (centre, level, ptr, reference + 1, references)),
        ("references", (centre, level, ptr, reference, references[:, 1:].copy())),
        ("corners", (centre, (level[0], level[1][1:], *level[2:]), ptr, reference, references)),
    ):
        with pytest.raises(ValueError, match=f"^{name} must"):
            _core.evaluate_targets(*broken, **OPTIONS)
