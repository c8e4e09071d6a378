"""Epipolar residuals of matches, which need no truth: the distance from each pair's own best geometry."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from pixcli.geometry.fundamental import linear_fundamental, normalised, sampson
from pixcli.geometry.match_graph import MatchGraph

import pycolmap

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairResiduals:
    """Of the matches of two images."""

    names: tuple[str, str]
    residuals: Array
    """(m,) Sampson distances in pixels."""


def best_fundamental(x1: Array, x2: Array, scale: float = 0.25) -> Array:
    """The fundamental matrix (3, 3) of least Sampson distance of matches (m, 2), under Cauchy's loss.

    From a reweighted linear solution, the seven parameters of U diag(cos t, sin t, 0) Vᵀ are refined
    (Bartoli and Sturm, "Nonlinear estimation of the fundamental matrix with minimal parameters", 2004).
    """
    y1, y2, to_normal = normalised(x1, x2)
    scale = scale * to_normal[0, 0]
    u, values, vt = np.linalg.svd(linear_fundamental(y1, y2, scale))
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
