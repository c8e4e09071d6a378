"""Surfaces of synthetic scenes: exact ray intersections, normals and texture coordinates.

Everything here lives in the surface's own frame: points and directions are (3, n) float64 in metres, rays are
origin + t * direction with one origin (3,) for all. A surface looks along its +z axis (or outwards).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Surface(Protocol):
    """What the renderer asks of a surface."""

    @property
    def size(self) -> tuple[float, float]:
        """Extent of the texture coordinates (u, v), which start at 0, in metres."""

    def intersect(self, origin: Array, direction: Array) -> Array:
        """The first t > 0 at which each ray meets the surface, inf where it does not: (n,)."""

    def refine(self, origin: Array, direction: Array, t: Array) -> Array:
        """The same for rays known to meet the surface near t: (n,). Cheaper, and blind to borders."""

    def normals(self, points: Array) -> Array:
        """Unit normals (3, n) at points on the surface."""

    def texture_coordinates(self, points: Array) -> tuple[Array, Array]:
        """u and v, each (n,), of points on the surface."""

    def sample(self, spacing: float) -> Array:
        """Points (3, n) all over the surface, about `spacing` apart."""


def _grid(width: float, height: float, spacing: float) -> tuple[Array, Array]:
    """Cell centres that fill 0..width, 0..height."""
    columns, rows = (max(1, round(extent / spacing)) for extent in (width, height))
    u, v = np.meshgrid((np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows)
    return u.ravel(), v.ravel()


@dataclass(frozen=True)
class Rectangle:
    """The part |x| <= width / 2, |y| <= height / 2 of the plane z = 0, seen from its front (z > 0) only."""

    width: float
    height: float

    @property
    def size(self) -> tuple[float, float]:
        return self.width, self.height

    def intersect(self, origin: Array, direction: Array) -> Array:
        t = self.refine(origin, direction, np.empty(0))
        return np.where(_inside(self, origin, direction, t) & (direction[2] < 0) & (t > 0), t, np.inf)

    def refine(self, origin: Array, direction: Array, t: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(-origin[2] / direction[2])

    def normals(self, points: Array) -> Array:
        return np.broadcast_to(np.array([[0.0], [0.0], [1.0]]), points.shape)

    def texture_coordinates(self, points: Array) -> tuple[Array, Array]:
        return points[0] + self.width / 2, self.height / 2 - points[1]

    def sample(self, spacing: float) -> Array:
        u, v = _grid(self.width, self.height, spacing)
        return np.stack([u - self.width / 2, v - self.height / 2, np.zeros_like(u)])


def _inside(rectangle: "Rectangle | Relief", origin: Array, direction: Array, t: Array) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        x, y = (origin[k] + t * direction[k] for k in (0, 1))
        inside: NDArray[np.bool_] = (np.abs(x) <= rectangle.width / 2) & (np.abs(y) <= rectangle.height / 2)
        return inside


@dataclass(frozen=True)
class Relief:
    """A rectangle whose z is a sum of sines: amplitude * sin(wave . (x, y) + phase)."""

    width: float
    height: float
    amplitudes: Array  # (k,) metres
    waves: Array  # (k, 2) radians per metre
    phases: Array  # (k,)

    @property
    def size(self) -> tuple[float, float]:
        return self.width, self.height

    def intersect(self, origin: Array, direction: Array) -> Array:
        """Walks each ray down by steps that no crossing can hide in, then polishes by Newton's method.

        The height above the relief changes along a ray by at most |d_z| + slope * |d_xy| per unit of t, so a
        step of height over that bound stays in front of the first crossing.
        """
        result = np.full(direction.shape[1], np.inf)
        top = float(np.abs(self.amplitudes).sum())
        slope = float(np.abs(self.amplitudes) @ np.linalg.norm(self.waves, axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.maximum((top - origin[2]) / direction[2], 0)
            end = (-top - origin[2]) / direction[2]
            sideways = [(np.copysign(extent / 2, direction[k]) - origin[k]) / direction[k]
                        for k, extent in ((0, self.width), (1, self.height))]  # fmt: skip
        end = np.minimum(end, np.minimum(*sideways))
        active = np.flatnonzero((direction[2] < 0) & (t <= end))
        d, t, end = direction[:, active], t[active], end[active]
        bound = np.abs(d[2]) + slope * np.hypot(d[0], d[1])
        for _ in range(200):
            above = origin[2] + t * d[2] - self._height(origin[0] + t * d[0], origin[1] + t * d[1])
            t = t + above / bound
            near, gone = above < 1e-4, t > end + 1e-3
            if near.any():
                result[active[near]] = self.refine(origin, d[:, near], t[near])
            walking = ~(near | gone)
            active, d, bound = active[walking], d[:, walking], bound[walking]
            t, end = t[walking], end[walking]
            if not len(active):
                break
        return np.where(_inside(self, origin, direction, result), result, np.inf)

    def refine(self, origin: Array, direction: Array, t: Array) -> Array:
        for _ in range(8):
            x, y = (origin[k] + t * direction[k] for k in (0, 1))
            height, slope_x, slope_y = self._height_and_slopes(x, y)
            above = origin[2] + t * direction[2] - height
            rate = direction[2] - slope_x * direction[0] - slope_y * direction[1]
            step = above / np.minimum(rate, -1e-3)  # a ray that meets the front comes down to it
            t = t - step
            if np.abs(step).max(initial=0) < 1e-5:  # the next step would be its square
                break
        return t

    def normals(self, points: Array) -> Array:
        _, slope_x, slope_y = self._height_and_slopes(points[0], points[1])
        normals = np.stack([-slope_x, -slope_y, np.ones_like(slope_x)])
        return np.asarray(normals / np.linalg.norm(normals, axis=0))

    def texture_coordinates(self, points: Array) -> tuple[Array, Array]:
        return points[0] + self.width / 2, self.height / 2 - points[1]

    def sample(self, spacing: float) -> Array:
        u, v = _grid(self.width, self.height, spacing)
        x, y = u - self.width / 2, v - self.height / 2
        return np.stack([x, y, self._height(x, y)])

    def _height(self, x: Array, y: Array) -> Array:
        height = np.zeros_like(x)
        for amplitude, wave, phase in zip(self.amplitudes, self.waves, self.phases, strict=True):
            height += amplitude * np.sin(wave[0] * x + wave[1] * y + phase)
        return height

    def _height_and_slopes(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        height, slope_x, slope_y = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
        for amplitude, wave, phase in zip(self.amplitudes, self.waves, self.phases, strict=True):
            angle = wave[0] * x + wave[1] * y + phase
            height += amplitude * np.sin(angle)
            cosine = np.cos(angle)
            slope_x += amplitude * wave[0] * cosine
            slope_y += amplitude * wave[1] * cosine
        return height, slope_x, slope_y


@dataclass(frozen=True)
class Cylinder:
    """A standing column without ends: x^2 + y^2 = radius^2, 0 <= z <= height, seen from outside."""

    radius: float
    height: float

    @property
    def size(self) -> tuple[float, float]:
        return 2 * np.pi * self.radius, self.height

    def intersect(self, origin: Array, direction: Array) -> Array:
        t = self.refine(origin, direction, np.empty(0))
        z = origin[2] + t * direction[2]
        return np.where((t > 0) & (z >= 0) & (z <= self.height), t, np.inf)

    def refine(self, origin: Array, direction: Array, t: Array) -> Array:
        return _near_root(origin[:2], direction[:2], self.radius)

    def normals(self, points: Array) -> Array:
        return np.stack([points[0] / self.radius, points[1] / self.radius, np.zeros_like(points[0])])

    def texture_coordinates(self, points: Array) -> tuple[Array, Array]:
        # The seam of the angle is at +y, behind.
        return (np.arctan2(points[0], -points[1]) + np.pi) * self.radius, self.height - points[2]

    def sample(self, spacing: float) -> Array:
        u, z = _grid(*self.size, spacing)
        angle = u / self.radius
        return np.stack([self.radius * np.cos(angle), self.radius * np.sin(angle), z])


@dataclass(frozen=True)
class Sphere:
    """A ball, textured by longitude and latitude."""

    radius: float

    @property
    def size(self) -> tuple[float, float]:
        return 2 * np.pi * self.radius, np.pi * self.radius

    def intersect(self, origin: Array, direction: Array) -> Array:
        t = self.refine(origin, direction, np.empty(0))
        return np.where(t > 0, t, np.inf)

    def refine(self, origin: Array, direction: Array, t: Array) -> Array:
        return _near_root(origin, direction, self.radius)

    def normals(self, points: Array) -> Array:
        return points / self.radius

    def texture_coordinates(self, points: Array) -> tuple[Array, Array]:
        latitude = np.arcsin(np.clip(points[2] / self.radius, -1, 1))
        longitude = np.arctan2(points[0], -points[1])
        return (longitude + np.pi) * self.radius, (np.pi / 2 - latitude) * self.radius

    def sample(self, spacing: float) -> Array:
        number = max(1, round(4 * np.pi * (self.radius / spacing) ** 2))
        z = 1 - 2 * (np.arange(number) + 0.5) / number  # a golden spiral: even everywhere
        angle = np.pi * (1 + 5**0.5) * np.arange(number)
        flat = np.sqrt(1 - z * z)
        return self.radius * np.stack([flat * np.cos(angle), flat * np.sin(angle), z])


def _near_root(origin: Array, direction: Array, radius: float) -> Array:
    """Where rays enter a circle or sphere around 0, nan where they pass it by."""
    a = (direction * direction).sum(axis=0)
    b = (origin[:, None] * direction).sum(axis=0)
    discriminant = b * b - a * ((origin * origin).sum() - radius**2)
    with np.errstate(invalid="ignore"):
        return np.asarray((-b - np.sqrt(discriminant)) / a)
