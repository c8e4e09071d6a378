"""Epipolar residuals of matches, which need no truth: the distance from each pair's own best geometry."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from pixcli.io.database import MatchGraph

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairResiduals:
    """Of the matches of two images."""

    names: tuple[str, str]
    residuals: Array
    """(m,) Sampson distances in pixels."""


def sampson(fundamental: Array, x1: Array, x2: Array) -> Array:
    """Signed Sampson distances (m,), in the unit of the points x1 and x2 (m, 2), from x2ᵀ F x1 = 0."""
    h1, h2 = _homogeneous(x1), _homogeneous(x2)
    line2, line1 = h1 @ fundamental.T, h2 @ fundamental
    scale = np.sqrt((line1[:, :2] ** 2).sum(axis=1) + (line2[:, :2] ** 2).sum(axis=1))
    return np.asarray((h2 * line2).sum(axis=1) / np.maximum(scale, 1e-300))


def best_fundamental(x1: Array, x2: Array, scale: float = 0.25) -> Array:
    """The fundamental matrix (3, 3) of least Sampson distance of matches (m, 2), under Cauchy's loss.

    From a reweighted linear solution, the seven parameters of U diag(cos t, sin t, 0) Vᵀ are refined
    (Bartoli and Sturm, "Nonlinear estimation of the fundamental matrix with minimal parameters", 2004).
    """
    both = np.concatenate([x1, x2])
    centre, spread = both.mean(axis=0), both.std()
    y1, y2 = (x1 - centre) / spread, (x2 - centre) / spread
    scale = scale / spread
    weights = np.ones(len(x1))
    for _ in range(12):
        fundamental = _eight_points(y1, y2, weights)
        weights = 1 / np.sqrt(1 + (sampson(fundamental, y1, y2) / scale) ** 2)
    u, values, vt = np.linalg.svd(fundamental)
    u, v = u * np.sign(np.linalg.det(u)), vt.T * np.sign(np.linalg.det(vt))
    angle = np.arctan2(values[1], values[0])

    def compose(parameters: Array) -> Array:
        left = u @ Rotation.from_rotvec(parameters[:3]).as_matrix()
        right = v @ Rotation.from_rotvec(parameters[3:6]).as_matrix()
        turn = angle + parameters[6]
        return np.asarray((left * [np.cos(turn), np.sin(turn), 0.0]) @ right.T)

    solution = least_squares(
        lambda parameters: sampson(compose(parameters), y1, y2),
        np.zeros(7),
        loss="cauchy",
        f_scale=scale,
        max_nfev=30,
    )
    to_normal = np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, spread]]) / spread
    return np.asarray(to_normal.T @ compose(solution.x) @ to_normal)


def pair_residuals(
    graph: MatchGraph,
    cameras: Mapping[int, pycolmap.Camera],
    positions: Sequence[Array] | None = None,
    *,
    min_matches: int = 40,
    max_matches: int | None = None,
    pairs: Sequence[int] | None = None,
) -> Iterator[PairResiduals]:
    """Sampson distances of the matches of each pair of images from its own best fundamental matrix.

    Args:
        cameras: of the images, by the id of the image in the graph; their distortion is removed.
        positions: (n_i, 2) of the keypoints of each image where they are not those of the graph; rows that
            are not finite take no part.
        min_matches: pairs with fewer are left out.
        max_matches: take so many of a pair's matches, evenly spaced.
        pairs: indices of the pairs to take; all by default.
    """
    if positions is None:
        positions = [rows[:, :2].astype(np.float64) for rows in graph.keypoints]
    undistorted = [
        _undistorted(cameras[image.image_id], xy) for image, xy in zip(graph.images, positions, strict=True)
    ]
    for pair in range(len(graph.pairs)) if pairs is None else pairs:
        i, j = graph.pairs[pair].tolist()
        edges = graph.edges[graph.pair_ptr[pair] : graph.pair_ptr[pair + 1]]
        first = np.where(graph.image_index[edges] == i, edges, 0).max(axis=1) - graph.offsets[i]
        second = np.where(graph.image_index[edges] == j, edges, 0).max(axis=1) - graph.offsets[j]
        x1, x2 = undistorted[i][first], undistorted[j][second]
        known = np.isfinite(x1).all(axis=1) & np.isfinite(x2).all(axis=1)
        x1, x2 = x1[known], x2[known]
        if len(x1) < max(min_matches, 8):
            continue
        if max_matches is not None and len(x1) > max_matches:
            some = np.linspace(0, len(x1) - 1, max_matches).astype(int)
            x1, x2 = x1[some], x2[some]
        residuals = np.abs(sampson(best_fundamental(x1, x2), x1, x2))
        yield PairResiduals((graph.images[i].name, graph.images[j].name), residuals)


def _undistorted(camera: pycolmap.Camera, xy: Array) -> Array:
    """Where an ideal camera of the same focal length has the points, in its pixels from its axis."""
    result = np.full(xy.shape, np.nan)
    finite = np.isfinite(xy).all(axis=1)
    if finite.any():
        result[finite] = np.asarray(camera.cam_from_img(xy[finite])) * camera.mean_focal_length()
    return result


def _eight_points(x1: Array, x2: Array, weights: Array) -> Array:
    h1, h2 = _homogeneous(x1), _homogeneous(x2)
    rows = (h2[:, :, None] * h1[:, None, :]).reshape(-1, 9) * weights[:, None]
    u, values, vt = np.linalg.svd(np.linalg.eigh(rows.T @ rows)[1][:, 0].reshape(3, 3))
    return np.asarray((u * [values[0], values[1], 0.0]) @ vt)


def _homogeneous(x: Array) -> Array:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
