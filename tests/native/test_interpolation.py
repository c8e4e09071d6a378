"""Sampling of patches against plain NumPy, and its derivatives against differences."""

import os
import subprocess
import sys

import numpy as np
import pytest

from pixcli import _core
from pixcli.options import InterpolationOptions
from pixcli.sampling.feature_references import sampling_arguments

PLAIN = sampling_arguments(InterpolationOptions())
GRID = [(x, y) for y in (-1.0, 0.0, 1.5) for x in (-1.0, 0.25, 1.0)]


def interpolate(patches, rows, uv, **options):
    return _core.interpolate(patches, rows, uv, **(PLAIN | options))


def _patches(channels, dtype=np.float64, count=3, height=11, width=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1, 1, (count, height, width, channels)).astype(dtype)


def _weights(s, mode):
    if mode == "bilinear":
        return {0: 1 - s, 1: s}
    return {  # Catmull-Rom
        -1: (-s + 2 * s**2 - s**3) / 2,
        0: (2 - 5 * s**2 + 3 * s**3) / 2,
        1: (s + 4 * s**2 - 3 * s**3) / 2,
        2: (-(s**2) + s**3) / 2,
    }


def _reference(patch, u, v, nodes, mode, l2_normalize, ncc_normalize):
    height, width, _ = patch.shape
    rows = []
    for dx, dy in nodes:
        x, y = np.clip(u + dx, 0, width - 1), np.clip(v + dy, 0, height - 1)
        c, r = min(int(x), width - 2), min(int(y), height - 2)
        f = sum(
            wx * wy * patch[np.clip(r + j, 0, height - 1), np.clip(c + i, 0, width - 1)].astype(float)
            for i, wx in _weights(x - c, mode).items()
            for j, wy in _weights(y - r, mode).items()
        )
        rows.append(f / np.linalg.norm(f) if l2_normalize else f)
    f = np.array(rows)
    if ncc_normalize:
        f = (f - f.mean(0)) / f.std(0)
    return f.ravel()


def _cases():
    for mode in ("bicubic", "bilinear"):
        for nodes, ncc_normalize in (([(0.0, 0.0)], False), (GRID, False), (GRID, True)):
            for l2_normalize in (False, True):
                yield mode, nodes, l2_normalize, ncc_normalize


@pytest.mark.parametrize("channels", [1, 3, 5, 8, 128])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_and_derivatives(channels, dtype):
    patches = _patches(channels, dtype)
    rng = np.random.default_rng(1)
    uv = rng.uniform(1.6, 8.9, (6, 2))
    uv[(uv % 0.25 < 0.01) | (uv % 0.25 > 0.24)] += 0.05  # a difference must not straddle a bilinear edge
    rows = np.array([0, 1, 2, 0, 1, 2])
    step = 1e-5
    for mode, nodes, l2_normalize, ncc_normalize in _cases():
        if l2_normalize and ncc_normalize and channels == 1:
            continue  # every node is 1: nothing varies
        options = {
            "nodes": nodes,
            "mode": mode,
            "l2_normalize": l2_normalize,
            "ncc_normalize": ncc_normalize,
        }
        exact = interpolate(patches, rows, uv, double_precision=True, **options)
        assert exact.shape == (6, 3, channels * len(nodes))
        for k in range(6):
            value = _reference(patches[rows[k]], *uv[k], nodes, mode, l2_normalize, ncc_normalize)
            np.testing.assert_allclose(exact[k, 0], value, rtol=1e-9, atol=1e-10)
        for c in range(2):
            ahead, behind = uv.copy(), uv.copy()
            ahead[:, c] += step
            behind[:, c] -= step
            ahead = interpolate(patches, rows, ahead, double_precision=True, **options)[:, 0]
            behind = interpolate(patches, rows, behind, double_precision=True, **options)[:, 0]
            slope = (ahead - behind) / (2 * step)
            np.testing.assert_allclose(exact[:, 1 + c], slope, rtol=1e-4, atol=1e-5)
        if not (l2_normalize and channels == 1):
            single = interpolate(patches, rows, uv, **options)
            np.testing.assert_allclose(single, exact, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_outside_the_value_is_clamped_and_the_derivative_zero(mode):
    patches = _patches(5)
    uv = np.array([[-0.3, 4.2], [40.0, 4.2], [3.3, -7.0], [3.3, 10.01]])
    inside = np.clip(uv, 0, [11, 10])
    rows = np.zeros(4, np.int64)
    options = {"mode": mode, "double_precision": True, "l2_normalize": False}
    out = interpolate(patches, rows, uv, **options)
    border = interpolate(patches, rows, inside, **options)
    np.testing.assert_array_equal(out[:, 0], border[:, 0])
    across = [1, 1, 2, 2]
    for k, axis in enumerate(across):
        assert not out[k, axis].any()
        assert border[k, 3 - axis].any()
        np.testing.assert_array_equal(out[k, 3 - axis], border[k, 3 - axis])


def test_samples_are_met_exactly():
    patches = _patches(7, np.float32)
    uv = np.array([[0.0, 0.0], [11.0, 10.0], [4.0, 6.0]])
    out = interpolate(patches, np.arange(3), uv, l2_normalize=False)[:, 0]
    expected = np.stack([patches[0, 0, 0], patches[1, 10, 11], patches[2, 6, 4]])
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_all_halves_are_read_right():
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)].reshape(1, 1, 1, -1)
    out = interpolate(finite, np.zeros(1, np.int64), np.zeros((1, 2)), l2_normalize=False)
    np.testing.assert_array_equal(out[0, 0], finite.ravel().astype(np.float32))
    special = np.array([np.inf, -np.inf, np.nan, 1], np.float16).reshape(1, 1, 1, 4)
    out = interpolate(special, np.zeros(1, np.int64), np.zeros((1, 2)), l2_normalize=False)
    np.testing.assert_array_equal(np.isfinite(out[0, 0]), [False, False, False, True])


@pytest.mark.parametrize("normalization", ["l2_normalize", "ncc_normalize"])
def test_nothing_to_normalize_gives_zeros(normalization):
    flat = np.full((1, 8, 8, 3), 0.0 if normalization == "l2_normalize" else 0.3, np.float32)
    options = {"l2_normalize": False, normalization: True}
    out = interpolate(flat, np.zeros(1, np.int64), np.array([[3.2, 4.1]]), nodes=GRID, **options)
    assert not out.any()


CODE = """
import sys
import numpy as np
from pixcli import _core
patches = np.random.default_rng(0).uniform(0.1, 1, (4, 9, 9, 21)).astype(sys.argv[1])
uv = np.random.default_rng(1).uniform(-1, 9, (4, 2))
nodes = [(0.0, 0.0), (0.5, 1.0), (1.0, -1.0)]
out = [
    _core.interpolate(
        patches, np.arange(4), uv, nodes=nodes, mode=mode, l2_normalize=True, ncc_normalize=ncc
    ).ravel()
    for mode in ("bicubic", "bilinear")
    for ncc in (False, True)
]
sys.stdout.buffer.write(np.concatenate(out).tobytes())
"""


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_portable_kernels_agree(dtype):
    def run(**environment):
        command = [sys.executable, "-P", "-c", CODE, dtype]
        result = subprocess.run(command, capture_output=True, env={**os.environ, **environment})
        assert result.returncode == 0, result.stderr.decode()
        return np.frombuffer(result.stdout, np.float32)

    np.testing.assert_allclose(run(PIXCLI_ISA="baseline"), run(), rtol=1e-4, atol=1e-4)


def test_wrong_input_is_refused():
    patches, rows, uv = _patches(3), np.zeros(1, np.int64), np.zeros((1, 2))
    with pytest.raises(ValueError, match="float16"):
        interpolate(patches.astype(np.int32), rows, uv)
    with pytest.raises(ValueError, match="contiguous"):
        interpolate(patches[:, ::2], rows, uv)
    with pytest.raises(ValueError, match="rows"):
        interpolate(patches, rows + 3, uv)
    with pytest.raises(ValueError, match="patches must have the shape"):
        interpolate(patches[0], rows, uv)
    with pytest.raises(ValueError, match="mode"):
        interpolate(patches, rows, uv, mode="cubic")
