"""Rays meet surfaces where they should, and first where a surface folds over itself."""

import numpy as np
import pytest

from pixcli.synthetic.surfaces import Cylinder, Rectangle, Relief, Sphere

RELIEF = Relief(4.0, 3.0, np.array([0.2, 0.1]), np.array([[5.0, 1.0], [-2.0, 6.0]]), np.array([0.3, 1.0]))
SURFACES = [Rectangle(4.0, 3.0), RELIEF, Cylinder(0.5, 2.0), Sphere(0.8)]
ORIGIN = np.array([0.4, -5.0, 4.0])


def rays_to(points):
    """Directions (3, n) that reach the points (3, n) at t = 1."""
    return points - ORIGIN[:, None]


def random_targets(count=3000):
    return np.random.default_rng(0).uniform([[-2.2], [-1.7], [-0.5]], [[2.2], [1.7], [2.2]], (3, count))


def implicit(surface, points):
    """A function that is 0 on the surface and positive before it."""
    x, y, z = points
    if isinstance(surface, Rectangle):
        return z
    if isinstance(surface, Relief):
        waves = np.tensordot(surface.waves, points[:2], 1) + surface.phases.reshape(
            -1, *[1] * (points.ndim - 1)
        )
        return z - np.tensordot(surface.amplitudes, np.sin(waves), 1)
    if isinstance(surface, Cylinder):
        return np.hypot(x, y) - surface.radius
    return np.linalg.norm(points, axis=0) - surface.radius


@pytest.mark.parametrize("surface", SURFACES, ids=lambda s: type(s).__name__)
def test_hits_lie_on_the_surface_and_nothing_comes_before(surface):
    directions = rays_to(random_targets())
    t = surface.intersect(ORIGIN, directions)
    hit = np.isfinite(t)
    assert 0.02 < hit.mean() < 0.98
    points = ORIGIN[:, None] + t[hit] * directions[:, hit]
    assert np.abs(implicit(surface, points)).max() < 1e-9
    for fraction in np.linspace(0.5, 0.999, 200):
        before = ORIGIN[:, None] + fraction * t[hit] * directions[:, hit]
        over = (np.abs(before[0]) < 1.99) & (np.abs(before[1]) < 1.49)  # the relief and the rectangle end
        assert implicit(surface, before[:, over]).min(initial=1) > 0


@pytest.mark.parametrize("surface", SURFACES, ids=lambda s: type(s).__name__)
def test_samples_lie_on_the_surface_with_its_normals_and_are_seen_from_the_front(surface):
    points = surface.sample(0.1)
    assert np.abs(implicit(surface, points)).max() < 1e-12
    normals, step = surface.normals(points), 1e-6
    axes = step * np.eye(3)[:, :, None]
    slope = np.stack([implicit(surface, points + d) - implicit(surface, points - d) for d in axes])
    assert np.allclose(normals, slope / np.linalg.norm(slope, axis=0), atol=1e-6)

    t = surface.intersect(ORIGIN, rays_to(points))
    assert (t[np.isfinite(t)] < 1 + 1e-9).all()
    facing = (normals * (ORIGIN[:, None] - points)).sum(axis=0) > 0.3
    assert facing.sum() > 50
    if not isinstance(surface, Relief):  # convex: what faces the camera is seen
        assert np.allclose(t[facing], 1, atol=1e-9)

    for coordinate, extent in zip(surface.texture_coordinates(points), surface.size, strict=True):
        assert coordinate.min() >= 0
        assert coordinate.max() <= extent
        assert np.ptp(coordinate) > 0.8 * extent


def test_refinement_from_a_guess_agrees_with_the_search():
    directions = rays_to(random_targets())
    t = RELIEF.intersect(ORIGIN, directions)
    directions, t = directions[:, np.isfinite(t)], t[np.isfinite(t)]
    facing = (RELIEF.normals(ORIGIN[:, None] + t * directions) * -directions).sum(axis=0) > 1
    refined = RELIEF.refine(ORIGIN, directions[:, facing], t[facing] + 1e-4)
    assert facing.sum() > 100
    assert np.allclose(refined, t[facing], atol=1e-10)
