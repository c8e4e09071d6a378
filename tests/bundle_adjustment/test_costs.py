"""The costs of featuremetric bundle adjustment: derivatives, compression, and points that do not project."""

from pathlib import Path

import numpy as np
import pytest

from pixcli.ceres import colmap_costs, costs

import pycolmap

MODELS = [
    model
    for name, model in pycolmap.CameraModelId.__members__.items()
    if model != pycolmap.CameraModelId.INVALID
]
WIDTH, HEIGHT, EDGE = 640, 480, 16
POINT = np.array([0.21, -0.13, 2.4])
NO_POSE = np.array([0.0, 0, 0, 1, 0, 0, 0])


def _camera(model):
    camera = pycolmap.Camera.create_from_model_id(1, model, 500.0, WIDTH, HEIGHT)
    params = camera.params
    for place, index in enumerate(camera.extra_params_idxs()):
        params[index] += 0.02 / (place + 1) ** 2
    camera.params = params
    return camera


def _pose(seed):
    rng = np.random.default_rng(seed)
    q = np.append(0.05 * rng.standard_normal(3), 1)
    return np.concatenate([q / np.linalg.norm(q), 0.05 * rng.standard_normal(3)])


def _projection(model, rig=False):
    kind = colmap_costs.RigReprojErrorCost if rig else colmap_costs.ReprojErrorCost
    return kind(model, np.zeros(2))


def _smooth_patches(count=1, channels=5, dtype=np.float64, seed=0):
    """Waves of a few samples' length, so that differences are exact enough."""
    rng = np.random.default_rng(seed)
    y, x, _ = np.mgrid[:EDGE, :EDGE, :1] / EDGE
    a, b, c = rng.uniform(-6, 6, (3, count, 1, 1, channels))
    return np.ascontiguousarray(1.5 + np.sin(a * x + b * y + c), dtype)


def _corner_around(pixel):
    return np.floor(np.ravel(pixel) - EDGE / 2).astype(np.int32)[None]


def _referenced(corner, channels=5, dtype=np.float64, seed=0, scale=(1.0, 1.0), **sampling):
    nodes = sampling.get("nodes", [(0.0, 0.0)])
    reference = np.random.default_rng(seed + 1).uniform(-1, 1, (1, channels * len(nodes))).astype(np.float32)
    patches = _smooth_patches(1, channels, dtype, seed)
    return costs.ReferencedPatches(patches, corner, np.array([scale]), reference, **sampling)


def _maps(corner, seed=1):
    """A map of a smooth distance, with its exact derivatives."""
    y, x = np.mgrid[:EDGE, :EDGE] / EDGE
    value = 2 + np.sin(3 * x + seed) * np.cos(2 * y)
    du = 3 / EDGE * np.cos(3 * x + seed) * np.cos(2 * y)
    dv = -2 / EDGE * np.sin(3 * x + seed) * np.sin(2 * y)
    return costs.CostMaps(np.stack([value, du, dv], -1).astype(np.float32)[None], corner, np.ones((1, 2)))


def _evaluate(cost, blocks):
    residuals, jacobians = cost.evaluate(*blocks)
    return np.ravel(residuals), [np.asarray(jacobian) for jacobian in jacobians]


def _squared(cost, blocks):
    return 0.5 * np.square(_evaluate(cost, blocks)[0]).sum()


def _numeric_gradient(cost, blocks, k, step=1e-6):
    gradient = np.zeros(len(blocks[k]))
    for c in range(len(gradient)):
        h = step * max(1.0, abs(blocks[k][c]))
        ahead, behind = ([b.copy() for b in blocks] for _ in range(2))
        ahead[k][c] += h
        behind[k][c] -= h
        gradient[c] = (_squared(cost, ahead) - _squared(cost, behind)) / (2 * h)
    return gradient


def _blocks(model, rig):
    poses = [_pose(1), _pose(2)] if rig else [_pose(1)]
    return [POINT, *poses, np.array(_camera(model).params)]


def _wrap_width(model):
    return float(WIDTH) if model == pycolmap.CameraModelId.EQUIRECTANGULAR else 0.0


def _pixel(model, blocks, rig):
    pixel = _evaluate(_projection(model, rig), blocks)[0]
    if _wrap_width(model):
        pixel[0] %= WIDTH
    assert np.all((pixel > 0) & (pixel < [WIDTH, HEIGHT]))
    return pixel


@pytest.mark.parametrize("rig", [False, True], ids=["image", "rig"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_derivatives_for_every_camera_model(model, rig):
    blocks = _blocks(model, rig)
    corner = _corner_around(_pixel(model, blocks, rig))
    projection, wrap_width = _projection(model, rig), _wrap_width(model)
    patches = _referenced(corner)
    warped = _referenced(
        corner,
        nodes=[(-1.0, -1.0), (1.0, -1.0), (0.0, 0.0), (0.0, 1.5)],
        warps=np.array([[[1.1, 0.2], [-0.1, 0.9]]]),
        l2_normalize=False,
        ncc_normalize=True,
    )
    for cost in (
        costs.FeaturemetricProjectionCost(projection, patches, 0, 0, wrap_width=wrap_width),
        costs.FeaturemetricProjectionCost(projection, warped, 0, 0, wrap_width=wrap_width),
        costs.FeaturemetricProjectionCost(projection, patches, 0, 0, wrap_width=wrap_width, compressed=False),
        costs.CostMapProjectionCost(projection, _maps(corner), 0, wrap_width=wrap_width),
    ):
        assert cost.parameter_block_sizes() == [len(block) for block in blocks]
        residuals, jacobians = _evaluate(cost, blocks)
        for k, jacobian in enumerate(jacobians):
            gradient = jacobian.T @ residuals
            numeric = _numeric_gradient(cost, blocks, k)
            # The parameters of a spherical image are its size: never optimised, and known to the cost.
            if wrap_width and k == len(blocks) - 1:
                continue
            np.testing.assert_allclose(
                gradient, numeric, rtol=1e-5, atol=1e-6 * max(1, np.abs(numeric).max())
            )
            assert np.abs(gradient).max() > 1e-6


@pytest.mark.parametrize("rig", [False, True], ids=["image", "rig"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_three_rows_stand_for_all_for_every_camera_model(model, rig):
    """The oracle has a row for each channel and node; warped nodes, normalized, as patch_warp has them."""
    blocks = _blocks(model, rig)
    corner = _corner_around(_pixel(model, blocks, rig))
    projection, wrap_width = _projection(model, rig), _wrap_width(model)
    grid = [(x, y) for y in (-1.5, 0.0, 1.5) for x in (-1.5, 0.0, 1.5)]
    for sampling in ({}, {"nodes": grid, "l2_normalize": False, "ncc_normalize": True}):
        warps = np.array([[[1.1, 0.2], [-0.1, 0.9]]]) if sampling else None
        patches = _referenced(corner, 7, warps=warps, **sampling)
        short, long = (
            _evaluate(
                costs.FeaturemetricProjectionCost(
                    projection, patches, 0, 0, wrap_width=wrap_width, compressed=compressed
                ),
                blocks,
            )
            for compressed in (True, False)
        )
        (r3, j3), (r, j) = ((residuals, np.hstack(jacobians)) for residuals, jacobians in (short, long))
        assert (len(r3), len(r)) == (3, 7 * len(sampling.get("nodes", [0])))
        np.testing.assert_allclose(r3 @ r3, r @ r, rtol=1e-9)
        np.testing.assert_allclose(j3.T @ r3, j.T @ r, rtol=1e-9, atol=1e-9 * np.abs(j.T @ r).max())
        np.testing.assert_allclose(j3.T @ j3, j.T @ j, rtol=1e-9, atol=1e-9 * np.abs(j.T @ j).max())


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 0.25)])
@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"l2_normalize": False},
        {"mode": "bilinear"},
        {"nodes": [(0.0, 0.0), (1.5, 0.0), (0.0, -1.0)]},
        {"nodes": [(0.0, 0.0), (1.5, 0.0), (0.0, -1.0)], "ncc_normalize": True},
    ],
    ids=lambda sampling: "-".join(sampling) or "default",
)
@pytest.mark.parametrize("channels", [1, 3, 128])
def test_compression_is_exact(channels, sampling, scale):
    if channels == 1 and sampling.get("l2_normalize", True):
        sampling = {**sampling, "l2_normalize": False}  # else every value is 1
    model = pycolmap.CameraModelId.OPENCV
    blocks = _blocks(model, False)
    corner = _corner_around(_pixel(model, blocks, False) * scale)
    patches = _referenced(corner, channels, scale=scale, **sampling)
    short, long = (
        costs.FeaturemetricProjectionCost(_projection(model), patches, 0, 0, compressed=compressed)
        for compressed in (True, False)
    )
    assert (short.num_residuals(), long.num_residuals()) == (3, channels * len(sampling.get("nodes", [0])))
    (r3, j3), (r, j) = _evaluate(short, blocks), _evaluate(long, blocks)
    j3, j = np.hstack(j3), np.hstack(j)
    np.testing.assert_allclose(r3 @ r3, r @ r, rtol=1e-9)
    np.testing.assert_allclose(j3.T @ r3, j.T @ r, rtol=1e-9, atol=1e-9 * np.abs(j.T @ r).max())
    np.testing.assert_allclose(j3.T @ j3, j.T @ j, rtol=1e-9, atol=1e-9 * np.abs(j.T @ j).max())
    # A damped Gauss-Newton step in scaled parameters, as the solver takes it.
    norms = np.linalg.norm(j, axis=0)
    norms[norms == 0] = 1
    damping = 1e-2 * np.eye(j.shape[1])
    step3, step = (np.linalg.solve(a.T @ a + damping, a.T @ b) for a, b in ((j3 / norms, r3), (j / norms, r)))
    np.testing.assert_allclose(step3, step, rtol=1e-9, atol=1e-9 * np.abs(step).max())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_single_precision_agrees(dtype):
    model = pycolmap.CameraModelId.PINHOLE
    blocks = _blocks(model, False)
    corner = _corner_around(_pixel(model, blocks, False))
    results = []
    for kind in (dtype, np.float64):
        for portable in (False, True):
            patches = _smooth_patches(1, 37).astype(dtype).astype(kind)
            reference = np.random.default_rng(1).uniform(-1, 1, (1, 37)).astype(np.float32)
            referenced = costs.ReferencedPatches(
                patches, corner, np.ones((1, 2)), reference, portable=portable
            )
            residuals, jacobians = _evaluate(
                costs.FeaturemetricProjectionCost(_projection(model), referenced, 0, 0), blocks
            )
            results.append(np.append(residuals @ residuals, jacobians[0].T @ residuals))
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-4)


@pytest.mark.parametrize(
    "patch", ["flat", "ramp", "zero", "equal"], ids=["no texture", "one direction", "zeros", "no residual"]
)
def test_degenerate_patches_compress_to_finite_rows(patch):
    model = pycolmap.CameraModelId.PINHOLE
    blocks = _blocks(model, False)
    corner = _corner_around(_pixel(model, blocks, False))
    ramp = np.broadcast_to(np.arange(EDGE)[None, None, :, None] * [1.0, 2, 3], (1, EDGE, EDGE, 3))
    data = {"flat": np.ones_like(ramp), "ramp": ramp, "zero": 0 * ramp, "equal": np.ones_like(ramp)}[patch]
    reference = np.float32([[1, 1, 1]] if patch == "equal" else [[0.5, -1, 2]])
    referenced = costs.ReferencedPatches(
        np.ascontiguousarray(data), corner, np.ones((1, 2)), reference, l2_normalize=False
    )
    short, long = (
        _evaluate(
            costs.FeaturemetricProjectionCost(_projection(model), referenced, 0, 0, compressed=c), blocks
        )
        for c in (True, False)
    )
    np.testing.assert_allclose(short[0] @ short[0], long[0] @ long[0], rtol=1e-12)
    for j3, j in zip(short[1], long[1], strict=True):
        assert np.isfinite(j3).all()
        np.testing.assert_allclose(j3.T @ short[0], j.T @ long[0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(j3.T @ j3, j.T @ j, rtol=1e-9, atol=1e-9)


def _all_costs(corner, model, wrap_width=0.0):
    patches = _referenced(corner)
    yield costs.FeaturemetricProjectionCost(_projection(model), patches, 0, 0, wrap_width=wrap_width)
    yield costs.FeaturemetricProjectionCost(
        _projection(model), patches, 0, 0, wrap_width=wrap_width, compressed=False
    )
    yield costs.CostMapProjectionCost(_projection(model), _maps(corner), 0, wrap_width=wrap_width)


@pytest.mark.parametrize("point", [[0.1, 0.2, -2.0], [0.0, 0.0, 0.0], [50.0, 3.0, 1.0], [1e300, 1.0, 1e-300]])
def test_behind_the_camera_or_outside_the_patch_nothing_pulls(point):
    model = pycolmap.CameraModelId.OPENCV
    camera = np.array(_camera(model).params)
    for cost in _all_costs(np.array([[300, 200]], np.int32), model):
        residuals, jacobians = _evaluate(cost, [np.array(point), NO_POSE, camera])
        assert np.isfinite(residuals).all()
        assert residuals @ residuals > 0
        for jacobian in jacobians:
            assert not jacobian.any()


def test_beyond_one_border_the_other_axis_still_pulls():
    model = pycolmap.CameraModelId.PINHOLE
    camera = np.array(_camera(model).params)
    pixel = _evaluate(_projection(model), [POINT, NO_POSE, camera])[0]
    corner = _corner_around(pixel) + np.array([[EDGE, 0]], np.int32)
    for cost in _all_costs(corner, model):
        residuals, jacobians = _evaluate(cost, [POINT, NO_POSE, camera])
        gradient = jacobians[1].T @ residuals
        assert gradient[4] == 0
        assert abs(gradient[5]) > 1e-3


def test_a_patch_across_the_seam_of_a_spherical_image_is_continuous():
    model = pycolmap.CameraModelId.EQUIRECTANGULAR
    camera = np.array([WIDTH, HEIGHT], float)
    for corner_x in (-8, WIDTH - 8):  # the patch reaches over either border
        corner = np.array([[corner_x, HEIGHT // 2 - 8]], np.int32)
        for cost in _all_costs(corner, model, wrap_width=WIDTH):
            angles = np.pi + np.linspace(-1e-3, 1e-3, 5)  # the seam is behind
            points = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], 1)
            values = [_squared(cost, [point, NO_POSE, camera]) for point in points]
            assert np.ptp(values) < 0.05 * abs(np.mean(values))
            assert np.abs(_evaluate(cost, [points[0], NO_POSE, camera])[1][0]).max() > 0


def test_cost_maps_give_back_their_samples_and_derivatives():
    model = pycolmap.CameraModelId.PINHOLE
    corner = np.array([[300, 200]], np.int32)
    rng = np.random.default_rng(0)
    maps = rng.uniform(0.5, 1, (1, EDGE, EDGE, 3)).astype(np.float32)
    cost = costs.CostMapProjectionCost(_projection(model), costs.CostMaps(maps, corner, np.ones((1, 2))), 0)
    camera = np.array([1.0, 1.0, 0.0, 0.0])
    for row, column in ((0, 0), (3, 7), (EDGE - 1, EDGE - 1), (9, 0)):
        point = np.array([300 + column + 0.5, 200 + row + 0.5, 1])
        residuals, jacobians = _evaluate(cost, [point, NO_POSE, camera])
        distance, *slopes = maps[0, row, column]
        np.testing.assert_allclose(np.linalg.norm(residuals), distance, rtol=1e-6)
        np.testing.assert_allclose(jacobians[0][:, :2].T @ residuals / distance, slopes, rtol=1e-5)


def test_costs_keep_what_they_borrow():
    model = pycolmap.CameraModelId.PINHOLE
    blocks = _blocks(model, False)
    corner = _corner_around(_pixel(model, blocks, False))
    made = list(_all_costs(corner, model))
    before = [_squared(cost, blocks) for cost in made]
    garbage = [np.full((1, EDGE, EDGE, 5), np.nan) for _ in range(50)]
    assert [_squared(cost, blocks) for cost in made] == before
    del garbage


def test_wrong_arguments_are_refused():
    model = pycolmap.CameraModelId.PINHOLE
    corner = np.zeros((1, 2), np.int32)
    patches = _referenced(corner)
    with pytest.raises(IndexError, match="patch"):
        costs.FeaturemetricProjectionCost(_projection(model), patches, 1, 0)
    with pytest.raises(IndexError, match="reference"):
        costs.FeaturemetricProjectionCost(_projection(model), patches, 0, -1)
    with pytest.raises(IndexError, match="map"):
        costs.CostMapProjectionCost(_projection(model), _maps(corner), 5)
    with pytest.raises(ValueError, match="two residuals"):
        costs.FeaturemetricProjectionCost(
            colmap_costs.SampsonErrorCost(np.zeros(2), np.zeros(2)), patches, 0, 0
        )
    with pytest.raises(ValueError, match="references"):
        costs.ReferencedPatches(_smooth_patches(), corner, np.ones((1, 2)), np.zeros((1, 4), np.float32))
    zeros = np.zeros((1, 5), np.float32)
    with pytest.raises(ValueError, match="corners"):
        costs.ReferencedPatches(_smooth_patches(), np.zeros((2, 2), np.int32), np.ones((1, 2)), zeros)


@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
def test_the_manifold_of_a_pose(axis):
    manifold = costs.RigidManifold(axis)
    size = 6 if axis < 0 else 5
    assert (manifold.ambient_size(), manifold.tangent_size()) == (7, size)
    x = _pose(3)
    delta = np.random.default_rng(4).uniform(-0.5, 0.5, size)
    y = np.ravel(manifold.plus(x, delta))
    assert np.linalg.norm(y[:4]) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(np.ravel(manifold.minus(y, x)), delta, atol=1e-12)
    if axis >= 0:
        assert y[4 + axis] == x[4 + axis]
    plus, minus = manifold.jacobians(x)
    steps = 1e-6 * np.eye(size)
    numeric = [(np.subtract(manifold.plus(x, step), manifold.plus(x, -step))) / 2e-6 for step in steps]
    np.testing.assert_allclose(plus, np.transpose(numeric), atol=1e-9)
    numeric = [np.divide(manifold.minus(np.add(x, column), x), 1e-6) for column in 1e-6 * plus.T]
    np.testing.assert_allclose(minus @ plus, np.transpose(numeric), atol=1e-5)
    np.testing.assert_allclose(minus @ plus, np.eye(size), atol=1e-12)


def test_a_cost_remembers_nothing_that_shows():
    """The last sample is kept for the derivatives that a solver asks for next."""
    model = pycolmap.CameraModelId.PINHOLE
    blocks = _blocks(model, False)
    corner = _corner_around(_pixel(model, blocks, False))
    moved = [blocks[0] + 0.002, *blocks[1:]]
    used = costs.FeaturemetricProjectionCost(_projection(model), _referenced(corner), 0, 0)
    for at in (blocks, moved, moved, blocks, blocks):
        fresh = costs.FeaturemetricProjectionCost(_projection(model), _referenced(corner), 0, 0)
        (residuals, jacobians), (expected, expected_jacobians) = _evaluate(used, at), _evaluate(fresh, at)
        np.testing.assert_array_equal(residuals, expected)
        for jacobian, other in zip(jacobians, expected_jacobians, strict=True):
            np.testing.assert_array_equal(jacobian, other)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_patches_in_a_file_give_the_same_bits_and_stay_there(tmp_path, dtype):
    """Costs keep the samples around the projection only, and follow it from sample to sample."""
    rng = np.random.default_rng(0)
    patches = rng.uniform(-1, 1, (200, EDGE, EDGE, 128)).astype(dtype)
    np.save(tmp_path / "patches.npy", patches)
    in_file = np.load(tmp_path / "patches.npy", mmap_mode="r")
    model = pycolmap.CameraModelId.PINHOLE
    camera = np.array([100.0, 100.0, 0.0, 0.0])
    reference = rng.uniform(-1, 1, (1, 128)).astype(np.float32)
    arrays = (np.zeros((200, 2), np.int32), np.ones((200, 2)), reference)
    shared = [
        costs.ReferencedPatches(patches, *arrays),
        costs.ReferencedPatches(in_file, *arrays, mapped=True),
        # Without compression a cost keeps nothing.
        costs.ReferencedPatches(in_file, *arrays),
    ]
    pairs = [
        [costs.FeaturemetricProjectionCost(_projection(model), patch, k, 0) for patch in shared[:2]]
        for k in range(200)
    ]
    oracle = costs.FeaturemetricProjectionCost(_projection(model), shared[2], 0, 0, compressed=False)
    # From sample to sample, over the borders and outside.
    for at in (8.2, 8.9, 9.1, 7.6, 1.51, 1.49, 0.5, -3.0, 13.4, 13.6, 15.5, 30.0, 8.2):
        blocks = [np.array([at / 100, 0.08, 1.0]), NO_POSE, camera]
        for one, other in pairs[:: 1 if at == 8.2 else 50]:
            (r, j), (r_file, j_file) = _evaluate(one, blocks), _evaluate(other, blocks)
            np.testing.assert_array_equal(r, r_file)
            np.testing.assert_array_equal(np.hstack(j), np.hstack(j_file))
        r, _ = _evaluate(oracle, blocks)
        np.testing.assert_allclose(_squared(pairs[0][1], blocks), 0.5 * r @ r, rtol=1e-4)
    resident, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0]:
            ours = line.endswith("patches.npy")
        elif ours and line.startswith("Rss:"):
            resident += int(line.split()[1]) * 1024
    # The system fetches what lies around a page, too.
    assert resident < 0.3 * patches.nbytes
