"""Fundamental matrices of matches, from linear equations, and distances from them."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_REWEIGHTINGS = 12


def sampson(fundamental: Array, x1: Array, x2: Array) -> Array:
    """Signed Sampson distances (m,), in the unit of the points x1 and x2 (m, 2), from x2ᵀ F x1 = 0."""
    h1, h2 = _homogeneous(x1), _homogeneous(x2)
    line2, line1 = h1 @ fundamental.T, h2 @ fundamental
    scale = np.sqrt((line1[:, :2] ** 2).sum(axis=1) + (line2[:, :2] ** 2).sum(axis=1))
    return np.asarray((h2 * line2).sum(axis=1) / np.maximum(scale, 1e-300))


def normalised(x1: Array, x2: Array) -> tuple[Array, Array, Array]:
    """Matches (m, 2) about 0 and of unit spread, and the similarity (3, 3) that makes them so."""
    both = np.concatenate([x1, x2])
    centre, spread = both.mean(axis=0), max(float(both.std()), 1e-9)
    to_normal = np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, spread]]) / spread
    return (x1 - centre) / spread, (x2 - centre) / spread, to_normal


def linear_fundamental(x1: Array, x2: Array, scale: float) -> Array:
    """The fundamental matrix (3, 3) of normalised matches (m, 2) by eight-point equations.

    They are weighted again and again, by Cauchy's loss of this scale, in the unit of the points (Hartley, "In
    defense of the eight-point algorithm", 1997).
    """
    h1, h2 = _homogeneous(x1), _homogeneous(x2)
    rows = (h2[:, :, None] * h1[:, None, :]).reshape(-1, 9)
    weights = np.ones(len(x1))
    for _ in range(_REWEIGHTINGS):
        weighted = rows * weights[:, None]
        u, values, vt = np.linalg.svd(np.linalg.eigh(weighted.T @ weighted)[1][:, 0].reshape(3, 3))
        fundamental = np.asarray((u * [values[0], values[1], 0.0]) @ vt)
        weights = 1 / np.sqrt(1 + (sampson(fundamental, x1, x2) / scale) ** 2)
    return fundamental


def _homogeneous(x: Array) -> Array:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
