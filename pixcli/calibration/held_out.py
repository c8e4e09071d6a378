"""Held-out measurements: how well a lens that some points determined explains others.

Points are split in two by places in images, since neighbours have errors in common. Each half fits poses and
lenses; the points of the other half are then put where these see them best, and what is left of their
residuals judges the lens.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pixcli.geometry.observations import Observations

import pycolmap

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_CELLS = 8  # along each side of an image: observations within one count as neighbours
_PER_CELL = 3  # points of each half that the cells of an image get, as far as there are some


def cells_of(model: pycolmap.Reconstruction, observations: Observations) -> Int64:
    """(n,) the cell of its image that each observation lies in, other numbers for other images."""
    cell = np.empty(len(observations.image_ids), np.int64)
    for index, (image_id, members) in enumerate(observations.by_image.items()):
        camera = model.images[image_id].camera
        place = observations.xy[members] * _CELLS / (camera.width, camera.height)
        column, row = place.astype(int).clip(0, _CELLS - 1).T
        cell[members] = (index * _CELLS + row) * _CELLS + column
    return cell


def split_points(cell: Int64, observations: Observations, usable: Bool) -> tuple[Int64, Int64]:
    """Rows of the points of both halves: long tracks first, spread over all images.

    Args:
        cell: (n,) of cells_of().
        usable: (n,) observations that count; a point needs three of them.
    """
    length = np.bincount(observations.point_index[usable], minlength=len(observations.point_ids))
    first = cell[observations.ptr[:-1]]
    # A hash, so that whole cells of an image fall to one half, without a pattern.
    half = (first * 2654435761 >> 7) % 2
    halves = []
    for k in (0, 1):
        mine = np.flatnonzero((half == k) & (length >= 3))
        order = mine[np.argsort(-length[mine], kind="stable")]
        rank = np.full(len(length), len(length))
        rank[order] = np.arange(len(order))
        rows = np.flatnonzero(usable & (rank[observations.point_index] < len(length)))
        rows = rows[np.lexsort((rank[observations.point_index[rows]], cell[rows]))]
        starts = np.flatnonzero(np.r_[True, np.diff(cell[rows]) != 0]) if len(rows) else np.empty(0, int)
        place = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
        halves.append(np.unique(observations.point_index[rows[place < _PER_CELL]]))
    return halves[0], halves[1]


def part_of(observations: Observations, points: Int64) -> tuple[Observations, Int64]:
    """The observations of some points (rows, ascending), and their rows among all."""
    counts = np.diff(observations.ptr)[points]
    rows = np.flatnonzero(np.isin(observations.point_index, points))
    part = replace(
        observations,
        point_ids=observations.point_ids[points],
        ptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        image_ids=observations.image_ids[rows],
        keypoints=observations.keypoints[rows],
        xy=observations.xy[rows],
    )
    return part, rows


def advantage(simple: Float64, rich: Float64, scale: float, block: Int64) -> float:
    """By how many standard errors the errors (n,) of the rich one are smaller, judged block by block.

    Errors are compared by Cauchy's loss; neighbours are of one block, which counts once.
    """
    gain = np.log1p(np.square(simple / scale)) - np.log1p(np.square(rich / scale))
    _, block = np.unique(block, return_inverse=True)
    sums = np.bincount(block, gain)
    if len(sums) < 2:
        return 0.0
    # The blocks are the sample: their number is what counts, not that of observations.
    total, spread = sums.sum(), np.sqrt(np.square(sums - sums.mean()).sum() * len(sums) / (len(sums) - 1))
    return float(total / max(spread, 1e-12))
