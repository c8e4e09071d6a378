"""Featuremetric adjustment against Ceres on the plain residual, against exact truth, and with bad input."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pixcli import _core
from pixcli.alignment.featuremetric import adjust_keypoints
from pixcli.alignment.result import Status
from pixcli.ceres import costs, pyceres
from pixcli.errors import UserError
from pixcli.options.interpolation import InterpolationOptions
from pixcli.options.keypoint_adjustment import KeypointAdjustmentOptions

SIZE = 16
OPTIONS = KeypointAdjustmentOptions(strategy="featuremetric", max_iterations=100, max_deviation=1e9)
SAMPLING = InterpolationOptions()
LOSSES = {
    "trivial": lambda a: pyceres.TrivialLoss(),
    "cauchy": pyceres.CauchyLoss,
    "huber": pyceres.HuberLoss,
    "soft_l1": pyceres.SoftLOneLoss,
}


class Tracks:
    """Tracks of the same length, all pairs matched, on views of smooth random features with smooth noise.

    Views are shifted by known parts of a sample: the truth is where the root's point lies in each of them.
    """

    def __init__(
        self, tracks, length, *, channels=16, noise=0.05, error=0.7, smoothness=2.0, scale=1.0, seed=0
    ):
        rng = np.random.default_rng(seed)
        n = tracks * length
        self.n, self.length = n, length
        self.corners = rng.integers(0, 500, (n, 2)).astype(np.int32)
        self.scales = np.full((n, 2), scale)
        self.data = np.empty((n, SIZE, SIZE, channels), np.float32)
        shift = rng.uniform(-0.5, 0.5, (n, 2))
        self.truth = (self.corners + SIZE / 2 + shift + 0.5) / self.scales
        frequency = np.fft.fftfreq(SIZE)
        for t in range(tracks):
            blur = (smoothness, smoothness, 0)
            surface = gaussian_filter(rng.standard_normal((SIZE, SIZE, channels)), blur, mode="wrap")
            spectrum = np.fft.fft2(surface / surface.std(), axes=(0, 1))
            for k in range(t * length, (t + 1) * length):
                phase = np.exp(-2j * np.pi * (frequency[:, None] * shift[k, 1] + frequency * shift[k, 0]))
                view = np.fft.ifft2(spectrum * phase[:, :, None], axes=(0, 1)).real
                speckle = gaussian_filter(rng.standard_normal(view.shape), (1, 1, 0), mode="wrap")
                self.data[k] = view + noise * speckle / speckle.std()
        self.track_ptr = np.arange(0, n + 1, length)
        self.members = np.arange(n)
        self.roots = self.track_ptr[:-1]
        pairs = np.stack(np.triu_indices(length, 1), 1)
        self.edges = (self.roots[:, None, None] + pairs).reshape(-1, 2)
        self.xy = self.truth + rng.uniform(-error, error, (n, 2))
        self.xy[self.roots] = self.truth[self.roots]
        self.detected = self.xy  # the centre of Ceres' bounds
        self.weights = None
        self.constant = None

    def patches(self):
        return SimpleNamespace(data=self.data, corners=self.corners, scales=self.scales)

    def adjust(self, options=OPTIONS, interpolation=SAMPLING, levels=None, **other):
        return adjust_keypoints(
            self.xy,
            self.track_ptr,
            self.members,
            self.edges,
            self.weights,
            levels or [(self.patches(), None)],
            self.constant,
            options,
            interpolation,
            **other,
        )

    def solve(self, **options):
        """The native solver without its guard."""
        level = (self.data, self.corners, self.scales, np.arange(self.n))
        return _core.adjust_featuremetric(
            self.xy,
            self.track_ptr,
            self.members.astype(np.int32),
            self.edges.astype(np.int32),
            self.weights,
            self.constant,
            [level],
            guard=False,
            parameter_tolerance=1e-6,
            max_iterations=200,
            **options,
        )

    def edge_cost(self, i, j, **sampling):
        return costs.FeaturemetricEdgeCost(
            self.data[i],
            self.data[j],
            self.corners[i].tolist(),
            self.corners[j].tolist(),
            self.scales[i].tolist(),
            self.scales[j].tolist(),
            portable=True,
            **sampling,
        )

    def solve_with_ceres(self, loss="cauchy", loss_scale=0.25, bound=4.0, **sampling):
        """Positions, and cost before and after, of all tracks together."""
        xy = [x.copy() for x in self.xy]
        problem = pyceres.Problem()
        for e, (i, j) in enumerate(self.edges):
            # pyceres has no ScaledLoss: a whole weight is as many blocks.
            for _ in range(1 if self.weights is None else int(self.weights[e])):
                robust = LOSSES[loss](loss_scale)
                problem.add_residual_block(self.edge_cost(i, j, **sampling), robust, [xy[i], xy[j]])
        for k in range(self.n):
            if k in self.roots or (self.constant is not None and self.constant[k]):
                problem.set_parameter_block_constant(xy[k])
                continue
            for c in range(2):
                problem.set_parameter_lower_bound(xy[k], c, self.detected[k, c] - bound)
                problem.set_parameter_upper_bound(xy[k], c, self.detected[k, c] + bound)
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
def test_optimum_is_that_of_ceres(length):
    tracks = Tracks(4, length, channels=128, seed=length)
    _assert_same_optimum(tracks.solve(), tracks.solve_with_ceres())


@pytest.mark.parametrize("loss", ["trivial", "cauchy", "huber", "soft_l1"])
def test_optimum_with_every_loss(loss):
    tracks = Tracks(4, 3, seed=1, noise=0.1)
    native = tracks.solve(loss=loss, loss_scale=0.2)
    _assert_same_optimum(native, tracks.solve_with_ceres(loss, 0.2))


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
def test_optimum_with_every_sampling(sampling, channels, dtype):
    tracks = Tracks(3, 3, channels=channels, scale=0.5, seed=2)
    tracks.data = tracks.data.astype(dtype)
    native = tracks.solve(loss="soft_l1", loss_scale=0.5, bound=3.0, **sampling)
    bilinear = sampling.get("mode") == "bilinear"  # whose kinks stop the two at slightly different places
    ceres = tracks.solve_with_ceres("soft_l1", 0.5, bound=3.0, **sampling)
    if bilinear:
        np.testing.assert_allclose(native["cost_before"].sum(), ceres[1], rtol=1e-6)
        np.testing.assert_allclose(native["cost_after"].sum(), ceres[2], rtol=0.05, atol=1e-6)
    else:
        _assert_same_optimum(native, ceres)


def test_optimum_with_weights_and_constant_keypoints():
    tracks = Tracks(3, 4, seed=3)
    tracks.weights = np.random.default_rng(0).integers(1, 5, len(tracks.edges)).astype(float)
    tracks.constant = np.zeros(tracks.n, bool)
    tracks.constant[[1, 6]] = True
    native = tracks.solve()
    _assert_same_optimum(native, tracks.solve_with_ceres())
    np.testing.assert_array_equal(native["xy"][[1, 6]], tracks.xy[[1, 6]])
    assert (native["status"][[1, 6]] == Status.CONSTANT).all()


def test_a_tight_bound_is_kept_and_ceres_finds_nothing_better_inside():
    tracks = Tracks(3, 3, seed=4, error=0.6)
    native = tracks.solve(bound=0.3)
    shift = native["xy"] - tracks.xy
    assert np.abs(shift).max() <= 0.3 + 1e-9
    assert (np.abs(shift) > 0.3 - 1e-9).any()
    cost = native["cost_after"].sum()
    assert cost < tracks.solve_with_ceres(bound=0.3)[2] * (1 + 1e-6)
    tracks.detected, tracks.xy = tracks.xy, native["xy"]
    assert tracks.solve_with_ceres(bound=0.3)[2] > cost * (1 - 1e-6)


def test_optimum_of_one_keypoint_against_a_reference():
    tracks = Tracks(1, 2, seed=5)
    native = tracks.solve(loss="trivial")
    uv = tracks.xy[:1] - 0.5 - tracks.corners[:1]
    reference = _core.interpolate(tracks.data, np.zeros(1, np.int64), uv, double_precision=True)[0, 0]
    cost = costs.FeaturemetricReferenceCost(tracks.data[1], reference, tracks.corners[1].tolist())
    problem, x = pyceres.Problem(), tracks.xy[1].copy()
    problem.add_residual_block(cost, pyceres.TrivialLoss(), [x])
    options = pyceres.SolverOptions()
    options.parameter_tolerance = options.function_tolerance = 1e-12
    options.minimizer_progress_to_stdout = False
    pyceres.solve(options, problem, pyceres.SolverSummary())
    np.testing.assert_allclose(native["xy"][1], x, atol=1e-4)


def test_the_derivatives_of_the_ceres_cost():
    tracks = Tracks(1, 2, scale=0.5, seed=6)
    cost = tracks.edge_cost(0, 1)
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


def test_keypoints_end_near_the_truth():
    tracks = Tracks(30, 4, channels=64)
    result = tracks.adjust()
    moved = result.status == Status.MOVED
    assert (result.status[tracks.roots] == Status.ROOT).all()
    assert moved.sum() > 0.95 * 90
    before, after = (np.abs(xy - tracks.truth)[moved].mean() for xy in (tracks.xy, result.xy))
    assert after < 0.1 * before
    assert result.cost_after < 0.2 * result.cost_before
    np.testing.assert_array_equal(result.xy[~moved], tracks.xy[~moved])
    np.testing.assert_array_equal(np.isnan(result.covariance).any(1), ~moved)


def _normalized_error(tracks, result):
    moved = result.status == Status.MOVED
    xx, xy, yy = result.covariance[moved].astype(float).T
    x, y = (result.xy - tracks.truth)[moved].T
    return ((yy * x * x - 2 * xy * x * y + xx * y * y) / (xx * yy - xy * xy)).mean() / 2


@pytest.mark.parametrize("length", [2, 4])
@pytest.mark.parametrize("noise", [0.03, 0.15])
def test_covariance_is_calibrated(length, noise):
    """A squared normalized error of two coordinates is 2 in the mean, whatever the noise or the edges."""
    tracks = Tracks(240 // length, length, channels=64, noise=noise, seed=7)
    result = tracks.adjust()
    assert 0.7 < _normalized_error(tracks, result) < 1.6


def test_correlated_channels_count_less():
    """Each channel four times over is no new information: the same covariance, not a quarter of it."""
    tracks = Tracks(60, 3, channels=16, noise=0.1, seed=8)
    once = tracks.adjust()
    tracks.data = np.tile(tracks.data, 4)
    again = tracks.adjust()
    ratio = np.nanmedian(again.covariance[:, 0] / once.covariance[:, 0])
    assert 0.8 < ratio < 1.25


def test_the_result_does_not_depend_on_threads():
    tracks = Tracks(60, 3, seed=9, error=1.5)
    options = replace(OPTIONS, max_deviation=0.05)
    first = tracks.adjust(options, num_threads=1)
    assert len(np.unique(first.status)) > 2  # the guard was at work
    for num_threads in (2, 5):
        other = tracks.adjust(options, num_threads=num_threads)
        for name in ("xy", "status", "covariance"):
            assert getattr(first, name).tobytes() == getattr(other, name).tobytes()
        assert first.cost_after == other.cost_after


def test_portable_kernels_agree():
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from test_featuremetric import Tracks
sys.stdout.buffer.write(Tracks(5, 3).adjust().xy.tobytes())
"""
    command = [sys.executable, "-P", "-c", code, os.path.dirname(__file__)]
    result = subprocess.run(command, capture_output=True, env={**os.environ, "PIXCLI_ISA": "baseline"})
    assert result.returncode == 0, result.stderr.decode()
    np.testing.assert_allclose(
        np.frombuffer(result.stdout).reshape(-1, 2), Tracks(5, 3).adjust().xy, atol=1e-4
    )


def _sparse(tracks, seed=0):
    """A chain with some chords in place of all pairs."""
    rng = np.random.default_rng(seed)
    chain = np.stack([np.arange(tracks.n - 1), np.arange(1, tracks.n)], 1)
    chords = rng.integers(0, tracks.n, (4 * tracks.n, 2))
    tracks.edges = np.concatenate([chain, chords[chords[:, 0] != chords[:, 1]]])
    return tracks


def test_long_tracks_are_solved_like_short_ones():
    tracks = _sparse(Tracks(1, 120, channels=8, seed=10))
    dense, iterative = (tracks.solve(max_kps_per_problem=limit) for limit in (1000, 50))
    np.testing.assert_allclose(dense["xy"], iterative["xy"], atol=1e-3)
    np.testing.assert_allclose(dense["cost_after"], iterative["cost_after"], rtol=1e-6)


def test_a_track_of_two_thousand():
    tracks = _sparse(Tracks(1, 2000, channels=8, error=0.4, seed=11))
    result = tracks.adjust()
    moved = result.status == Status.MOVED
    assert moved.mean() > 0.9
    error = (result.xy - tracks.truth)[moved]
    drift = np.median(error, 0)  # a root is a weak anchor for so many
    assert np.median(np.abs(error - drift)) < 0.3 * np.median(np.abs(tracks.xy - tracks.truth))


def test_coarse_to_fine_reaches_further():
    tracks = Tracks(20, 3, channels=32, smoothness=0.8, error=3.2, noise=0.02, seed=12)
    single = tracks.adjust()
    coarse = tracks.patches()
    coarse.data = gaussian_filter(tracks.data, (0, 2.5, 2.5, 0), mode="wrap")
    double = tracks.adjust(levels=[(coarse, None), (tracks.patches(), np.arange(tracks.n))])

    def found(result):
        return (np.abs(result.xy - tracks.truth).max(1) < 0.1).sum()

    assert found(double) > found(single) + 5
    assert single.cost_before == double.cost_before


def test_topological_reference_uses_root_edges_alone():
    tracks = Tracks(5, 4, seed=13)
    options = replace(OPTIONS, strategy="topological_reference")
    result = tracks.adjust(options)
    keep = np.isin(tracks.edges[:, 0], tracks.roots)
    tracks.edges = tracks.edges[keep]
    expected = tracks.adjust()
    np.testing.assert_allclose(result.xy, expected.xy, atol=1e-4)
    tracks.edges = np.array([[0, 1], [1, 2]])  # every member is compared with the root, matched or not
    np.testing.assert_array_equal(tracks.adjust(options).xy, result.xy)


def test_root_regularize_weight_adds_the_missing_root_edges():
    tracks = Tracks(1, 4, seed=14)
    tracks.edges = np.array([[0, 1], [1, 2], [2, 3]])
    added = tracks.adjust(replace(OPTIONS, root_regularize_weight=0.5))
    tracks.edges = np.array([[0, 1], [1, 2], [2, 3], [0, 2], [0, 3]])
    tracks.weights = np.array([1, 1, 1, 0.5, 0.5])
    np.testing.assert_allclose(added.xy, tracks.adjust().xy, atol=1e-4)
    unweighted = tracks.adjust(replace(OPTIONS, weight_by_score=False))
    assert np.abs(added.xy - unweighted.xy).max() > 1e-4


def test_edges_between_tracks_and_unmatched_keypoints_take_no_part():
    tracks = Tracks(2, 3, seed=15)
    expected = tracks.adjust()
    tracks.edges = np.concatenate([tracks.edges, [[0, 4], [2, 2]]])
    np.testing.assert_array_equal(tracks.adjust().xy, expected.xy)
    tracks.edges = tracks.edges[~np.isin(tracks.edges, 5).any(1)]
    result = tracks.adjust()
    assert result.status[5] == Status.UNMATCHED
    np.testing.assert_array_equal(result.xy[5], tracks.xy[5])
    np.testing.assert_array_equal(result.xy[:3], expected.xy[:3])


def test_a_keypoint_on_its_bound_goes_back_and_the_rest_is_solved_around_it():
    tracks = Tracks(1, 4, seed=16, error=0.3)
    tracks.xy[2] = tracks.truth[2] + [1.5, 0]
    result = tracks.adjust(replace(OPTIONS, bound=1.0))
    assert result.status.tolist() == [Status.ROOT, Status.MOVED, Status.OUT_OF_BOUND, Status.MOVED]
    np.testing.assert_array_equal(result.xy[2], tracks.xy[2])
    tracks.constant = np.arange(4) == 2
    held = tracks.adjust(replace(OPTIONS, bound=1.0))
    np.testing.assert_allclose(result.xy, held.xy, atol=1e-4)
    np.testing.assert_allclose(result.cost_after, held.cost_after, rtol=1e-5)


def test_weak_texture_goes_back():
    tracks = Tracks(20, 3, seed=17)
    tracks.data[4] = tracks.data[4].mean((0, 1)) + 1e-3 * np.random.default_rng(0).standard_normal(
        (SIZE, SIZE, 16)
    )
    tracks.data[7] = tracks.data[7].mean((0, 1))
    result = tracks.adjust(replace(OPTIONS, max_deviation=0.5))
    assert (result.status[[4, 7]] != Status.MOVED).all()
    assert result.status[7] == Status.WEAK_TEXTURE
    np.testing.assert_array_equal(result.xy[[4, 7]], tracks.xy[[4, 7]])
    assert (result.status == Status.MOVED).sum() > 30


def test_a_keypoint_that_would_cost_more_goes_back():
    """Keypoint 1 agrees with keypoint 2 where that was detected; a heavy edge then moves keypoint 2 away."""
    tracks = Tracks(1, 3, seed=18, noise=0)
    tracks.xy[1:] = tracks.truth[1:] + np.array([0.8, -0.8])
    away = np.indices((SIZE, SIZE)).transpose(1, 2, 0)[..., ::-1] - (tracks.xy[1] - 0.5 - tracks.corners[1])
    window = np.exp(-0.5 * (away**2).sum(-1) / 1.2**2)[..., None]
    tracks.data[1] = window * tracks.data[1] + (1 - window) * Tracks(1, 1, seed=99).data[0]
    tracks.edges = np.array([[0, 2], [1, 2]])
    tracks.weights = np.array([100.0, 0.01])
    result = tracks.adjust()
    assert result.status.tolist() == [Status.ROOT, Status.WORSE_SCORE, Status.MOVED]
    np.testing.assert_array_equal(result.xy[1], tracks.xy[1])
    np.testing.assert_allclose(result.xy[2], tracks.truth[2], atol=0.05)


@pytest.mark.parametrize("broken", ["xy", "features", "no patch", "root"])
def test_invalid_keypoints_are_left_out(broken):
    tracks = Tracks(1, 4, seed=19)
    rows = np.arange(4)
    which = 0 if broken == "root" else 2
    if broken in ("xy", "root"):
        tracks.xy[which, 0] = np.nan
    elif broken == "features":
        tracks.data[which, :, :, 3] = np.nan
    else:
        rows[which] = -1
    result = tracks.adjust(levels=[(tracks.patches(), rows)])
    expected = [Status.ROOT, Status.MOVED, Status.INVALID, Status.MOVED]
    if broken == "root":
        expected = [Status.INVALID, Status.ROOT, Status.MOVED, Status.MOVED]
    assert result.status.tolist() == expected
    np.testing.assert_array_equal(result.xy[which], tracks.xy[which])
    assert np.isfinite(result.xy[np.arange(4) != which]).all()
    assert np.isfinite(result.cost_after)


def test_a_keypoint_outside_of_its_patch_is_left_out():
    tracks = Tracks(1, 3, seed=20)
    tracks.xy[1] = tracks.corners[1] + [0.2, 5]
    assert tracks.adjust().status[1] == Status.OUT_OF_IMAGE


def test_a_poll_can_stop_it():
    tracks = Tracks(4000, 2, channels=1)
    done = []

    def poll(count):
        done.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tracks.adjust(poll=poll, num_threads=1)
    assert len(done) == 1
    counts = []
    tracks.adjust(poll=counts.append)
    assert counts[-1] == 4000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xy": np.zeros((6, 3))}, r"xy must have shape \(n, 2\), not \(6, 3\)"),
        ({"edges": np.array([[0, 6]])}, "edges must hold keypoints from 0 to 5"),
        ({"members": np.array([0, 1, 2, 3, 4, 4])}, "more than one track"),
        ({"track_ptr": np.array([0, 3])}, "rise from 0 to the number of members, 6"),
        ({"weights": np.ones(2)}, r"weights must have shape \(6,\)"),
        ({"weights": np.full(6, np.nan)}, "finite"),
        ({"constant": np.zeros(2)}, "constant"),
        ({"data": np.zeros((6, 16, 16, 3), np.uint8)}, "float16, float32 or float64"),
        ({"data": np.zeros((6, 16, 16))}, "patches must have shape"),
        ({"corners": np.zeros((5, 2))}, "corners"),
        ({"scales": np.zeros((6, 2))}, "positive"),
    ],
)
def test_wrong_input_is_refused(change, message):
    tracks = Tracks(2, 3)
    for name, value in change.items():
        setattr(tracks, name, value)
    with pytest.raises(ValueError, match=message):
        tracks.adjust()


def test_wrong_rows_and_options_are_refused():
    tracks = Tracks(2, 3)
    with pytest.raises(ValueError, match="from -1 to 5"):
        tracks.adjust(levels=[(tracks.patches(), np.full(6, 6))])
    with pytest.raises(UserError, match=r"at least two in Interpolation\.nodes"):
        tracks.adjust(interpolation=InterpolationOptions(ncc_normalize=True))
