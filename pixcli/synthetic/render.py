"""Ray casting of one view: exact depth at pixel centres, anti-aliased colour.

A ray leaves the camera along (x, y, 1), so its parameter t is the depth along z. Pixels whose neighbourhood
shows one smooth surface need that surface alone for all their rays; the others (edges) look at every surface,
ray by ray.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixcli.synthetic.scene import Body, Scene, View
from pixcli.synthetic.textures import LEVELS

import pycolmap

Array = NDArray[np.float64]

_CHUNK = 16384  # rays at a time: their arrays stay in the cache
_AMBIENT, _DIFFUSE = 0.5, 0.6
_SKY = np.array([172.0, 187.0, 212.0])


@dataclass(frozen=True)
class RayGrid:
    """Rays (x, y, 1) of a camera at its pixel centres and, for derivatives, of one pixel around the image."""

    rays: Array  # (2, (height + 2) * (width + 2))
    width: int
    height: int

    @classmethod
    def of_camera(cls, camera: pycolmap.Camera) -> "RayGrid":
        x, y = np.meshgrid(np.arange(-1, camera.width + 1) + 0.5, np.arange(-1, camera.height + 1) + 0.5)
        rays = camera.cam_from_img(np.stack([x.ravel(), y.ravel()], axis=1))
        return cls(np.ascontiguousarray(rays.T), camera.width, camera.height)

    def centers(self, pixels: NDArray[np.intp]) -> Array:
        """Rays (2, n) through the centres of pixels (n,), numbered row by row."""
        rays: Array = self.rays[:, self._indices(pixels)]
        return rays

    def samples(self, pixels: NDArray[np.intp], per_side: int) -> Array:
        """Rays (2, n, per_side^2) spread evenly over each pixel.

        An expansion to second order at the centre: lens distortion is so smooth that it errs by < 1e-6 px.
        """
        i, row = self._indices(pixels), self.width + 2
        offsets = (np.arange(per_side) + 0.5) / per_side - 0.5
        dx, dy = (d.ravel() for d in np.meshgrid(offsets, offsets))
        result = np.empty((2, len(pixels), per_side**2))
        for k in (0, 1):
            g = self.rays[k]
            c, left, right, up, down = g[i], g[i - 1], g[i + 1], g[i - row], g[i + row]
            mixed = (g[i + row + 1] - g[i + row - 1] - g[i - row + 1] + g[i - row - 1]) / 4
            result[k] = (
                c[:, None]
                + ((right - left) / 2)[:, None] * dx
                + ((down - up) / 2)[:, None] * dy
                + ((right + left) / 2 - c)[:, None] * (dx * dx)
                + ((down + up) / 2 - c)[:, None] * (dy * dy)
                + mixed[:, None] * (dx * dy)
            )
        return result

    def _indices(self, pixels: NDArray[np.intp]) -> NDArray[np.intp]:
        row, column = np.divmod(pixels, self.width)
        return (row + 1) * (self.width + 2) + column + 1


@dataclass(frozen=True)
class _BodyInView:
    """A body with the camera and the light in its own frame."""

    body: Body
    origin: Array  # (3,) the camera's centre
    rotation: Array  # (3, 3) body_from_cam
    light: Array  # (3,)

    @classmethod
    def of(cls, body: Body, view: View) -> "_BodyInView":
        body_from_world = body.rotation.T
        origin = body_from_world @ (view.center - body.position)
        return cls(body, origin, body_from_world @ view.rotation.T, body_from_world @ view.light)

    def directions(self, rays: Array) -> Array:
        m = self.rotation
        return np.stack([m[k, 0] * rays[0] + m[k, 1] * rays[1] + m[k, 2] for k in range(3)])


def render(
    scene: Scene, view: View, grid: RayGrid, per_side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour (h, w, 3) in grey levels, unclipped, and depth (h, w) in metres along z at the pixel centres.

    Depth is 0 where nothing is. `per_side`^2 rays make a pixel.
    """
    bodies = [_BodyInView.of(body, view) for body in scene.bodies]
    number = grid.width * grid.height
    depth, owner = np.empty(number), np.empty(number, np.int8)
    for pixels in _chunks(np.arange(number), _CHUNK):
        owner[pixels], depth[pixels] = _first_hits(bodies, grid.centers(pixels))
    shape = (grid.height, grid.width)
    edge = _edges(owner.reshape(shape), depth.reshape(shape)).ravel()
    focal = float(scene.cameras[view.camera_id].mean_focal_length())
    step = 1 / (focal * per_side)  # between rays, on the plane z = 1

    colour = np.empty((number, 3), np.float32)
    sky = np.flatnonzero((owner < 0) & ~edge)
    colour[sky] = _sky(view, grid.centers(sky))
    for k, body in enumerate(bodies):
        for pixels in _chunks(np.flatnonzero((owner == k) & ~edge), _CHUNK // per_side**2):
            rays = grid.samples(pixels, per_side)
            colour[pixels] = _radiance(body, grid.centers(pixels), depth[pixels], rays, step)
    for pixels in _chunks(np.flatnonzero(edge), _CHUNK // per_side**2):
        rays = grid.samples(pixels, per_side).reshape(2, -1)
        colour[pixels] = _trace(bodies, view, rays, step).reshape(len(pixels), -1, 3).mean(axis=1)
    depth[owner < 0] = 0
    return colour.reshape(*shape, 3), depth.reshape(shape).astype(np.float32)


def _chunks(indices: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _first_hits(bodies: list[_BodyInView], rays: Array) -> tuple[NDArray[np.int8], Array]:
    """The nearest body (-1: none) and its depth (inf: none) along each ray (2, n)."""
    depth = np.full(rays.shape[1], np.inf)
    owner = np.full(rays.shape[1], -1, np.int8)
    for k, body in enumerate(bodies):
        t = body.body.surface.intersect(body.origin, body.directions(rays))
        nearer = t < depth
        depth[nearer], owner[nearer] = t[nearer], k
    return owner, depth


def _edges(owner: NDArray[np.int8], depth: Array) -> NDArray[np.bool_]:
    """Pixels (h, w) whose 3 x 3 neighbourhood shows more than one surface, or folds of one."""
    edge = ndimage.maximum_filter(owner, 3) != ndimage.minimum_filter(owner, 3)
    with np.errstate(invalid="ignore"):
        inverse = 1 / depth  # linear in the image along a plane, so its second difference shows folds only
    for axis in (0, 1):
        fold = np.abs(ndimage.correlate1d(inverse, [1.0, -2.0, 1.0], axis=axis)) > 1e-3 * inverse
        edge |= ndimage.binary_dilation(fold & (owner >= 0), np.ones((3, 3)))
    return np.asarray(edge, bool)


def _trace(bodies: list[_BodyInView], view: View, rays: Array, step: float) -> NDArray[np.float32]:
    """Colour (n, 3) along rays (2, n), whatever they meet."""
    owner, depth = _first_hits(bodies, rays)
    colour = _sky(view, rays)
    for k in np.unique(owner[owner >= 0]):
        mine = owner == k
        colour[mine] = _radiance(bodies[k], rays[:, mine], depth[mine], rays[:, mine, None], step)
    return colour


def _sky(view: View, rays: Array) -> NDArray[np.float32]:
    up = view.rotation[0, 2] * rays[0] + view.rotation[1, 2] * rays[1] + view.rotation[2, 2]
    return np.asarray(_SKY + 30 * up[:, None], np.float32)


def _radiance(
    body: _BodyInView, centers: Array, depth: Array, rays: Array, step: float
) -> NDArray[np.float32]:
    """Mean colour (n, 3) over the rays (2, n, k) of pixels that show one body.

    The ray `centers` (2, n) of each pixel meets the body at `depth` (n,): there the light, the level of the
    texture and the tangent plane are taken; the plane tells about where the other rays meet the body.
    """
    surface, texture, origin = body.body.surface, body.body.texture, body.origin
    direction = body.directions(centers)
    point = origin[:, None] + depth * direction
    normal = surface.normals(point)
    light = _AMBIENT + _DIFFUSE * np.maximum((normal * body.light[:, None]).sum(axis=0), 0)
    distance = (normal * (point - origin[:, None])).sum(axis=0)  # of the tangent plane, along the normal
    footprint = np.full(len(depth), 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        for k in (0, 1):
            beside = direction + step * body.rotation[:, k, None]
            beside = origin[:, None] + beside * (distance / (normal * beside).sum(axis=0))
            footprint = np.fmax(footprint, np.linalg.norm(beside - point, axis=0))
        # A texel of the level is half to one step between rays: sharp, and the mean over rays does the rest.
        level = np.clip(np.floor(np.log2(footprint * texture.density)), 0, LEVELS - 1).astype(np.int32)

        directions = body.directions(rays)
        facing = (normal[:, :, None] * directions).sum(axis=0)
        near = distance[:, None] / facing
    flat = directions.reshape(3, -1)
    t = surface.refine(origin, flat, near.ravel())
    u, v = surface.texture_coordinates(origin[:, None] + t * flat)
    shape = rays.shape[1:]
    colour = texture.sample(u.reshape(shape), v.reshape(shape), np.broadcast_to(level[:, None], shape))
    return np.asarray(colour.mean(axis=1) * light[:, None], np.float32)
