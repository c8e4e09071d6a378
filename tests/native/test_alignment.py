"""Native alignment on textures that are known everywhere: what it recovers, and what it says of itself."""

import os
import subprocess
import sys

import numpy as np
import pytest

from pixcli import _core

SIDE = 48
CENTRE = SIDE / 2


class Texture:
    """A sum of random waves, periodic nowhere near, with values known at any position."""

    def __init__(self, seed=0, shortest=9.0, longest=40.0, waves=40):
        rng = np.random.default_rng(seed)
        angle, length = rng.uniform(0, 2 * np.pi, waves), rng.uniform(shortest, longest, waves)
        self.frequency = 2 * np.pi / length * np.array([np.cos(angle), np.sin(angle)])
        self.phase = rng.uniform(0, 2 * np.pi, waves)

    def __call__(self, xy):
        """Values at (..., 2), about 128 +- 90."""
        value = np.cos(xy @ self.frequency + self.phase).sum(-1)
        return 128 + 25 * value / np.sqrt(len(self.phase) / 2)


def to_bytes(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def pixels(side=SIDE):
    """Pixel centres (side, side, 2), COLMAP's."""
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) + 0.5


def seen_through(texture, x, y, linear=((1, 0), (0, 1)), perspective=(0, 0), noise=0.0, rng=None):
    """A view in which the texture's point (0, 0) + u appears at (x, y) + A u / (1 + h u)."""
    w = pixels() - [x, y]
    matrix = np.array([[*linear[0], 0], [*linear[1], 0], [*perspective, 1]], float)
    u = np.concatenate([w, np.ones((*w.shape[:2], 1))], -1) @ np.linalg.inv(matrix).T
    values = texture(u[..., :2] / u[..., 2:])
    return to_bytes(values + (rng.normal(0, noise, values.shape) if noise else 0))


def warp(x, y, linear=((1, 0), (0, 1)), perspective=(0, 0)):
    return [x, y, *linear[0], *linear[1], *perspective]


def align(template, targets, starts, *, radius=7, spacing=1.0, perspective_deviation=1e-3, **other):
    """Each target (side, side) against the same template, or its own; starts (jobs, candidates, 8)."""
    templates = template if isinstance(template, list) else [template]
    views = [*templates, *targets]
    n, t = len(views), len(templates)
    options = {"max_iterations": 30, "max_excursion": 9.0, "step_tolerance": 0.002, "num_threads": 1}
    options |= {"translation": False, "window": 0.5, "template_xy": np.full((t, 2), CENTRE)} | other
    per_template = len(targets) // t
    return _core.align_patches(
        np.concatenate([view.ravel() for view in views]),
        np.cumsum([0] + [view.size for view in views[:-1]]),
        np.array([view.shape[::-1] for view in views], np.int32),
        np.tile([0.5, 0.5, 1.0], (n, 1)),
        radius,
        template_patch=np.arange(t, dtype=np.int32),
        template_spacing=np.full(t, spacing),
        perspective_deviation=np.full(t, perspective_deviation),
        job_ptr=np.arange(t + 1) * per_template,
        job_patch=np.arange(t, n, dtype=np.int32),
        starts=np.asarray(starts, float).reshape(len(targets), -1, 8),
        **options,
    )
