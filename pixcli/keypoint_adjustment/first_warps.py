"""First guesses of local warps: linear maps (2, 2) from the pixels around one keypoint to another's."""

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.integer]

NUM_NEIGHBORS = 12
_MIN_NEIGHBORS = 5
_RESIDUAL_SCALE = 1.5  # pixels: detectors scatter, and surfaces depart from planes among neighbours


def frames_of(rows: npt.NDArray[np.float32]) -> Float64:
    """The frames (n, 2, 2) of keypoint rows as COLMAP stores them; NaN for rows of 2 columns.

    4 columns hold scale and orientation, 6 columns a11 a12 a21 a22. The unit of frames does not matter.
    """
    rows64: Float64 = rows.astype(np.float64)
    if rows.shape[1] == 6:
        return np.asarray(rows64[:, 2:].reshape(-1, 2, 2))
    if rows.shape[1] == 4:
        cos, sin = np.cos(rows64[:, 3]), np.sin(rows64[:, 3])
        return np.asarray(rows64[:, 2, None, None] * np.stack([cos, -sin, sin, cos], 1).reshape(-1, 2, 2))
    return np.full((len(rows), 2, 2), np.nan)


def warps_from_frames(frames: Float64, source: Int, target: Int) -> Float64:
    """(m, 2, 2) from frame to frame; NaN where a frame is unknown, flat or mirrored."""
    of_source, of_target = frames[source], frames[target]
    with np.errstate(all="ignore"):
        determinant = np.linalg.det(of_source)
        adjugate = np.stack(
            [of_source[:, 1, 1], -of_source[:, 0, 1], -of_source[:, 1, 0], of_source[:, 0, 0]], 1
        ).reshape(-1, 2, 2)
        warps = of_target @ (adjugate / determinant[:, None, None])
        usable = np.isfinite(warps).all((1, 2)) & (np.linalg.det(warps) > 1e-6)
    return np.where(usable[:, None, None], warps, np.nan)


def warps_from_neighbors(xy: Float64, image: Int, matches: Int, source: Int, target: Int) -> Float64:
    """(m, 2, 2) fitted to the matches nearest to each source keypoint, robustly; NaN where there are too few.

    Args:
        xy: (n, 2) keypoints; image: (n,) the image of each.
        matches: (k, 2) keypoints that show the same point, for any image pairs, in either order.
        source, target: (m,) the keypoints to relate.
    """
    warps = np.full((len(source), 2, 2), np.nan)
    both = np.concatenate([matches, matches[:, ::-1], np.stack([source, target], 1)]).astype(np.int64)
    both = np.unique(both, axis=0)
    num_images = int(image.max()) + 1 if len(image) else 0
    of_pair = image[both[:, 0]].astype(np.int64) * num_images + image[both[:, 1]]
    order = np.argsort(of_pair, kind="stable")
    both, of_pair = both[order], of_pair[order]
    wanted = image[source].astype(np.int64) * num_images + image[target]
    queries = np.argsort(wanted, kind="stable")
    pairs, first = np.unique(wanted[queries], return_index=True)
    for rows, pair in zip(np.split(queries, first[1:]), pairs, strict=True):
        begin, end = np.searchsorted(of_pair, [pair, pair + 1])
        if end - begin > _MIN_NEIGHBORS:
            a, b = xy[both[begin:end, 0]], xy[both[begin:end, 1]]
            warps[rows] = _fit(a, b, xy[source[rows]])
    with np.errstate(invalid="ignore"):
        usable = np.linalg.det(np.nan_to_num(warps)) > 1e-3
    return np.where(usable[:, None, None], warps, np.nan)


def _fit(a: Float64, b: Float64, center: Float64) -> Float64:
    """Affine maps from a to b around centers, by iteratively reweighted least squares on the nearest."""
    count = min(NUM_NEIGHBORS + 1, len(a))
    distance, index = cKDTree(a).query(center, count)
    reach = distance[:, -1:] + 1e-6
    near = np.exp(-0.5 * (distance / (0.7 * reach)) ** 2)
    p, q = a[index], b[index]
    weight = near
    for _ in range(5):
        total = weight.sum(1)[:, None, None]
        dp = p - (weight[..., None] * p).sum(1, keepdims=True) / total
        dq = q - (weight[..., None] * q).sum(1, keepdims=True) / total
        weighted = weight[..., None] * dp
        # A little of the identity's scale keeps neighbours on one line from deciding what they do not know.
        spread = np.einsum("nki,nkj->nij", weighted, dp)
        ridge = 1e-3 * np.trace(spread, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-9 * np.eye(2)
        maps = np.swapaxes(np.linalg.solve(spread + ridge, np.einsum("nki,nkj->nij", weighted, dq)), 1, 2)
        residual = np.linalg.norm(dq - np.einsum("nij,nkj->nki", maps, dp), axis=2)
        weight = near / (1 + (residual / _RESIDUAL_SCALE) ** 2)
    enough = (weight > 0.1 * near).sum(1) >= _MIN_NEIGHBORS
    return np.where(enough[:, None, None], maps, np.nan)


def searched_warps() -> Float64:
    """(24, 2, 2) rotations by 45 degrees at scales of 0.6, 1 and 1.6, where nothing is known."""
    angle = np.arange(8) * np.pi / 4
    turns = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(8, 2, 2)
    return np.concatenate([scale * turns for scale in (1.0, 1.6, 1 / 1.6)])
