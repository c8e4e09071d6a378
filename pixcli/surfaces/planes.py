"""Points as small planes: which views see them, and the geometry between those and the reference.

A plane is given by its inverse depth on the rays of the point's reference view, which is linear in their
tangents: 1 + offset + slope . m in units of the inverse depth of the point itself. See core/surface_kernel.h.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pixcli.geometry.linearisation import Views

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

MAX_SLOPE = 6.0  # of a plane


@dataclass(frozen=True)
class Surfaces:
    """Points with the views to be compared: P points, n pairs, v views."""

    views: Views
    """(v,) a projection near a point, of one point in one image; references among them."""
    image: Int32
    """(v,) the image of each view, an index into image_size."""
    image_size: Float64
    """(images, 2) width and height."""
    reference: Int32
    """(P,) view that each point is seen in by its reference."""
    ptr: Int64
    """(P + 1,) the pairs of each point."""
    pair_view: Int32
    """(n,)"""

    @cached_property
    def point(self) -> Int64:
        """(n,) the point of each pair."""
        return np.repeat(np.arange(len(self.reference)), np.diff(self.ptr))

    def part(self, points: slice) -> "Surfaces":
        """Some of the points, with their pairs; the views stay."""
        ptr = self.ptr[points.start : points.stop + 1]
        pairs = self.pair_view[ptr[0] : ptr[-1]]
        return replace(self, reference=self.reference[points], ptr=ptr - ptr[0], pair_view=pairs)

    def pairs(self, keep: npt.NDArray[np.bool_]) -> "Surfaces":
        """The same points with some of the pairs."""
        ptr = np.concatenate([[0], np.cumsum(keep)])[self.ptr]
        return replace(self, ptr=ptr, pair_view=self.pair_view[keep])

    def parts(self, max_pairs: int) -> list[slice]:
        """All points, in slices of about max_pairs pairs at most."""
        last = len(self.reference)
        number = np.maximum(self.ptr[1:] - 1, 0) // max_pairs
        begin = np.flatnonzero(np.diff(number, prepend=-1)) if last else np.zeros(0, int)
        return [slice(int(a), int(b)) for a, b in zip(begin, [*begin[1:], last], strict=True)]


def choose_references(views: Views, ptr: Int64) -> Int32:
    """The most central of each point's views ptr[p]:ptr[p+1]: in direction, and by the scale it sees at.

    Every point has at least one view.
    """
    point = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    direction = views["rotation"][:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.log(np.sqrt(np.abs(determinant(views["jacobian"]))) / views["distance"])
    seen = np.isfinite(scale)
    position = np.where(seen[:, None], np.c_[direction, scale], 0)
    total = np.add.reduceat(position, ptr[:-1]) / np.maximum(np.add.reduceat(seen, ptr[:-1]), 1)[:, None]
    distance = np.where(seen, ((position - total[point]) ** 2).sum(1), np.inf)
    order = np.lexsort((distance, point))
    return np.asarray(order[ptr[:-1]], np.int32)


def normals_of(surfaces: Surfaces, planes: Float64) -> Float64:
    """(P, 3) unit normals of the world, towards the reference's camera."""
    local = np.c_[planes[:, 1:], 1 + planes[:, 0]]
    normals = -np.einsum("pa,pac->pc", local, surfaces.views["rotation"][surfaces.reference])
    return np.asarray(normals / np.linalg.norm(normals, axis=1)[:, None])


def planes_from_normals(surfaces: Surfaces, normals: Float64) -> Float64:
    """(P, 3) planes through the points with these normals of the world.

    They face the reference where a normal is NaN or edge on.
    """
    local = np.einsum("pc,pac->pa", normals, surfaces.views["rotation"][surfaces.reference])
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = local[:, :2] / local[:, 2:]
    slopes[~(np.hypot(slopes[:, 0], slopes[:, 1]) < MAX_SLOPE) | ~(local[:, 2] < 0)] = 0
    return np.concatenate([np.zeros((len(slopes), 1)), slopes], 1)


def points_from_planes(surfaces: Surfaces, points: Float64, planes: Float64) -> Float64:
    """(P, 3) points moved along their reference's ray to their planes' depth."""
    reference = surfaces.views[surfaces.reference]
    move = reference["distance"] * (1 / (1 + planes[:, 0]) - 1)
    return np.asarray(points + move[:, None] * reference["rotation"][:, 2])


def induced_affine(surfaces: Surfaces, planes: Float64) -> tuple[Float64, Float64]:
    """Of each pair at the plane's centre: the warp of the reference's pixels (n, 2, 2), and the place (n, 2).

    NaN where the plane lies behind the view or is seen from behind.
    """
    point = surfaces.point
    reference, view = surfaces.views[surfaces.reference[point]], surfaces.views[surfaces.pair_view]
    plane = planes[point]
    rotation = view["rotation"] @ reference["rotation"].transpose(0, 2, 1)
    ratio = view["distance"] / reference["distance"]
    translation = -rotation[:, :, 2]
    translation[:, 2] += ratio
    h = np.concatenate([rotation[:, :, :2], np.zeros((len(point), 3, 1))], 2)
    h += translation[:, :, None] * plane[:, None, [1, 2, 0]]
    h[:, 2, 2] += ratio
    with np.errstate(divide="ignore", invalid="ignore"):
        h /= np.where(h[:, 2, 2] > 0, h[:, 2, 2], np.nan)[:, None, None]
        n = h[:, :2, 2]
        jacobian, curvature = view["jacobian"], view["curvature"]
        slope = jacobian + np.stack(
            [
                2 * curvature[:, :, 0] * n[:, :1] + curvature[:, :, 1] * n[:, 1:],
                curvature[:, :, 1] * n[:, :1] + 2 * curvature[:, :, 2] * n[:, 1:],
            ],
            2,
        )
        affine = slope @ (h[:, :2, :2] - n[:, :, None] * h[:, 2:, :2]) @ _inverse(reference["jacobian"])
        affine[~(determinant(affine) > 0)] = np.nan
        xy = np.stack([view["x"], view["y"]], 1) + np.einsum("nab,nb->na", jacobian, n)
        xy += np.einsum("nab,nb->na", curvature, np.stack([n[:, 0] ** 2, n[:, 0] * n[:, 1], n[:, 1] ** 2], 1))
    return affine, xy


def magnifications(surfaces: Surfaces, planes: Float64) -> Float64:
    """(n,) how much larger each pair's view shows the plane than the reference does; NaN if it does not."""
    return np.asarray(np.sqrt(determinant(induced_affine(surfaces, planes)[0])))


def determinant(a: Float64) -> Float64:
    """Of matrices (n, 2, 2), NaN without a warning."""
    return np.asarray(a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] * a[:, 1, 0])


def _inverse(a: Float64) -> Float64:
    """Of matrices (n, 2, 2); not finite where there is none."""
    adjugate = np.empty_like(a)
    adjugate[:, 0, 0], adjugate[:, 1, 1] = a[:, 1, 1], a[:, 0, 0]
    adjugate[:, 0, 1], adjugate[:, 1, 0] = -a[:, 0, 1], -a[:, 1, 0]
    return np.asarray(adjugate / determinant(a)[:, None, None])
