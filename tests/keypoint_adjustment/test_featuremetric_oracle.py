"""The native solver against Ceres on the plain residual."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from scipy.ndimage import zoom as zoom_image

from pixcli import _core
from pixcli.ceres import costs, pyceres
from pixcli.options import InterpolationOptions
from pixcli.sampling.feature_references import sampling_arguments
from pixcli.sampling.status import Status

LOSSES = {
    "trivial": lambda a: pyceres.TrivialLoss(),
    "cauchy": pyceres.CauchyLoss,
    "huber": pyceres.HuberLoss,
    "soft_l1": pyceres.SoftLOneLoss,
}


def _edge_cost(tracks, i, j, **sampling):
    return costs.FeaturemetricEdgeCost(
        tracks.data[i],
        tracks.data[j],
        tracks.corners[i].tolist(),
        tracks.corners[j].tolist(),
        tracks.scales[i].tolist(),
        tracks.scales[j].tolist(),
        portable=True,
        **sampling,
    )


def _solve_with_ceres(tracks, loss="cauchy", loss_scale=0.25, bound=4.0, detected=None, **sampling):
    """Positions, and cost before and after, of all tracks together; bounds are around `detected`."""
    detected = tracks.xy if detected is None else detected
    xy = [x.copy() for x in tracks.xy]
    problem = pyceres.Problem()
    for e, (i, j) in enumerate(tracks.edges):
        # pyceres has no ScaledLoss: a whole weight is as many blocks.
        for _ in range(1 if tracks.weights is None else int(tracks.weights[e])):
            robust = LOSSES[loss](loss_scale)
            problem.add_residual_block(_edge_cost(tracks, i, j, **sampling), robust, [xy[i], xy[j]])
    for k in range(tracks.n):
        if k in tracks.roots or (tracks.constant is not None and tracks.constant[k]):
            problem.set_parameter_block_constant(xy[k])
            continue
        for c in range(2):
            problem.set_parameter_lower_bound(xy[k], c, detected[k, c] - bound)
            problem.set_parameter_upper_bound(xy[k], c, detected[k, c] + bound)
    options = pyceres.SolverOptions()
    options.max_num_iterations = 500
    options.function_tolerance = options.gradient_tolerance = 0
    options.parameter_tolerance = 1e-10
    options.minimizer_progress_to_stdout = False
    summary = pyceres.SolverSummary()
    pyceres.solve(options, problem, summary)
    return np.array(xy), summary.initial_cost, summary.final_cost


def _assert_same_optimum(native, ceres):
    """The cost is equal to its rounding in single precision; where it is flat, positions are less so."""
    xy, before, after = ceres
    np.testing.assert_allclose(native["xy"], xy, atol=5e-4)
    assert np.median(np.abs(native["xy"] - xy)) < 1e-5
    np.testing.assert_allclose(native["cost_before"].sum(), before, rtol=1e-6)
    np.testing.assert_allclose(native["cost_after"].sum(), after, rtol=1e-6)
    assert after < 0.9 * before


@pytest.mark.parametrize("length", [2, 3, 5, 9])
def test_optimum_is_that_of_ceres(feature_tracks, length):
    tracks = feature_tracks(4, length, channels=128, seed=length)
    _assert_same_optimum(tracks.solve(), _solve_with_ceres(tracks))


def _oriented_gradients(image):
    """(H, W, 32): gradient strength in eight directions, around four places, a small SIFT at every pixel."""
    dy, dx = np.gradient(image)
    strength, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    bins = [strength * np.clip(np.cos(angle - k * np.pi / 4), 0, 1) ** 3 for k in range(8)]
    bins = gaussian_filter(np.stack(bins, -1), (1.5, 1.5, 0))
    return np.sqrt(np.concatenate([np.roll(bins, (j, i), (0, 1)) for j in (-2, 2) for i in (-2, 2)], -1))


def test_optimum_on_views_of_an_image(feature_tracks):
    """Hard edges, another scale, light and noise in every view: large residuals that no shift removes."""
    rng = np.random.default_rng(0)
    drawing = Image.new("L", (220, 220), 90)
    for _ in range(120):
        box = np.concatenate([corner := rng.integers(0, 200, 2), corner + rng.integers(4, 40, 2)])
        draw = ImageDraw.Draw(drawing)
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box.tolist(), fill=int(rng.integers(256)))
    drawing = gaussian_filter(np.asarray(drawing, float), 0.7)
    tracks = feature_tracks(25, 3, channels=32)
    points = rng.uniform(60, 160, (25, 2))
    size = tracks.data.shape[1]
    for view, zoom in enumerate((1.0, 1.05, 0.96)):
        seen = zoom_image(drawing, zoom, order=3) * rng.uniform(0.7, 1.2)
        features = _oriented_gradients(seen + rng.normal(0, 2, seen.shape))
        actual = np.array(seen.shape)[::-1] / np.array(drawing.shape)[::-1]
        for track, point in enumerate(points * actual):
            k = 3 * track + view
            tracks.xy[k] = point + rng.uniform(-0.6, 0.6, 2)
            column, row = tracks.corners[k] = np.floor(point).astype(int) - size // 2
            tracks.data[k] = features[row : row + size, column : column + size]
    native = tracks.solve(bound=6.0)
    xy, before, after = _solve_with_ceres(tracks, bound=6.0)
    np.testing.assert_allclose(native["cost_before"].sum(), before, rtol=1e-6)
    np.testing.assert_allclose(native["cost_after"].sum(), after, rtol=1e-6)
    assert np.median(np.abs(native["xy"] - xy)) < 1e-5


@pytest.mark.parametrize("loss", ["trivial", "cauchy", "huber", "soft_l1"])
def test_optimum_with_every_loss(feature_tracks, loss):
    tracks = feature_tracks(4, 3, seed=1, noise=0.1)
    native = tracks.solve(loss=loss, loss_scale=0.2)
    _assert_same_optimum(native, _solve_with_ceres(tracks, loss, 0.2))


@pytest.mark.parametrize(
    "sampling",
    [
        {"l2_normalize": False},
        {"mode": "bilinear"},
        {"nodes": [(-1, 0), (1, 0), (0, 1.5)], "ncc_normalize": True, "l2_normalize": False},
        {"nodes": [(-1, -1), (1, 1), (0, 0)]},
    ],
    ids=["unnormalized", "bilinear", "ncc", "nodes"],
)
@pytest.mark.parametrize(("channels", "dtype"), [(3, np.float16), (16, np.float64)])
def test_optimum_with_every_sampling(feature_tracks, sampling, channels, dtype):
    tracks = feature_tracks(3, 3, channels=channels, scale=0.5, seed=2)
    tracks.data = tracks.data.astype(dtype)
    native = tracks.solve(loss="soft_l1", loss_scale=0.5, bound=3.0, **sampling)
    bilinear = sampling.get("mode") == "bilinear"  # whose kinks stop the two at slightly different places
    ceres = _solve_with_ceres(tracks, "soft_l1", 0.5, bound=3.0, **sampling)
    if bilinear:
        np.testing.assert_allclose(native["cost_before"].sum(), ceres[1], rtol=1e-6)
        np.testing.assert_allclose(native["cost_after"].sum(), ceres[2], rtol=0.05, atol=1e-6)
    else:
        _assert_same_optimum(native, ceres)


def test_optimum_with_weights_and_constant_keypoints(feature_tracks):
    tracks = feature_tracks(3, 4, seed=3)
    tracks.weights = np.random.default_rng(0).integers(1, 5, len(tracks.edges)).astype(float)
    tracks.constant = np.zeros(tracks.n, bool)
    tracks.constant[[1, 6]] = True
    native = tracks.solve()
    _assert_same_optimum(native, _solve_with_ceres(tracks))
    np.testing.assert_array_equal(native["xy"][[1, 6]], tracks.xy[[1, 6]])
    assert (native["status"][[1, 6]] == Status.CONSTANT).all()


def test_a_tight_bound_is_kept_and_ceres_finds_nothing_better_inside(feature_tracks):
    tracks = feature_tracks(3, 3, seed=4, error=0.6)
    native = tracks.solve(bound=0.3)
    shift = native["xy"] - tracks.xy
    assert np.abs(shift).max() <= 0.3 + 1e-9
    assert (np.abs(shift) > 0.3 - 1e-9).any()
    cost = native["cost_after"].sum()
    assert cost < _solve_with_ceres(tracks, bound=0.3)[2] * (1 + 1e-6)
    detected, tracks.xy = tracks.xy, native["xy"]
    assert _solve_with_ceres(tracks, bound=0.3, detected=detected)[2] > cost * (1 - 1e-6)


def test_optimum_of_one_keypoint_against_a_reference(feature_tracks):
    tracks = feature_tracks(1, 2, seed=5)
    native = tracks.solve(loss="trivial")
    uv = tracks.xy[:1] - 0.5 - tracks.corners[:1]
    sampling = sampling_arguments(InterpolationOptions())
    rows = np.zeros(1, np.int64)
    reference = _core.interpolate(tracks.data, rows, uv, **sampling, double_precision=True)[0, 0]
    cost = costs.FeaturemetricReferenceCost(tracks.data[1], reference, tracks.corners[1].tolist())
    problem, x = pyceres.Problem(), tracks.xy[1].copy()
    problem.add_residual_block(cost, pyceres.TrivialLoss(), [x])
    options = pyceres.SolverOptions()
    options.parameter_tolerance = options.function_tolerance = 1e-12
    options.minimizer_progress_to_stdout = False
    pyceres.solve(options, problem, pyceres.SolverSummary())
    np.testing.assert_allclose(native["xy"][1], x, atol=1e-4)


def test_the_derivatives_of_the_ceres_cost(feature_tracks):
    tracks = feature_tracks(1, 2, scale=0.5, seed=6)
    cost = _edge_cost(tracks, 0, 1)
    x = tracks.xy.copy()
    residual, jacobians = cost.evaluate(x[0], x[1])
    residual = np.ravel(residual)
    step = 1e-5
    for k in range(2):
        for c in range(2):
            ahead, behind = x.copy(), x.copy()
            ahead[k, c] += step
            behind[k, c] -= step
            difference = np.ravel(cost.evaluate(*ahead)[0] - cost.evaluate(*behind)[0])
            np.testing.assert_allclose(jacobians[k][:, c], difference / (2 * step), rtol=1e-4, atol=1e-6)
    assert len(residual) == 16


@pytest.mark.parametrize("loss", ["trivial", "cauchy", "huber", "soft_l1", "arctan", "tukey"])
def test_losses_have_the_definitions_of_ceres(loss):
    s, a = np.array([0, 1e-6, 0.01, 0.0625, 0.08, 1.0, 50.0]), 0.25
    b = a * a
    tukey = np.clip(1 - s / b, 0, None)
    expected = {
        "trivial": s,
        "cauchy": b * np.log1p(s / b),
        "huber": np.where(s > b, 2 * a * np.sqrt(s) - b, s),
        "soft_l1": 2 * b * (np.sqrt(1 + s / b) - 1),
        "arctan": a * np.arctan2(s, a),
        "tukey": b / 3 * (1 - tukey**3),
    }[loss]
    value, derivative = _core.evaluate_loss(s, loss, a)
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-15)
    step = 1e-7
    ahead, behind = (_core.evaluate_loss(s[2:] + d, loss, a)[0] for d in (step, -step))
    smooth = ~np.isclose(s[2:], b)
    np.testing.assert_allclose(derivative[2:][smooth], ((ahead - behind) / (2 * step))[smooth], atol=1e-6)
    np.testing.assert_allclose(derivative[0], 1)
    if loss in LOSSES:
        ceres = np.array([LOSSES[loss](a).evaluate(x)[:2] for x in s])
        np.testing.assert_allclose(np.stack([value, derivative], 1), ceres, rtol=1e-6, atol=1e-12)
