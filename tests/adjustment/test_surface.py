"""The surface step at true poses: depth, normal and shifts come to the truth."""

import os
import subprocess
import sys

import numpy as np
import pytest

from pixcli.adjustment.completion import COMPLETION_LIMITS, COMPLETION_SUPPORT, find_candidates
from pixcli.adjustment.planes import normals_of, planes_from_normals, points_of
from pixcli.adjustment.surface import SurfaceLimits, cut_surface_patches, measure_shifts, refine_surfaces
from pixcli.alignment.result import Status
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress

SUPPORTS = ((5, 1.0), (7, 1.0))


def cut(surfaces, planes, files, supports=SUPPORTS):
    return cut_surface_patches(surfaces, planes, supports, 3.0, files, DenseFeaturesOptions(), Progress())


@pytest.fixture(scope="module")
def perturbed(true_surface):
    """Points moved by about a pixel along their references' rays."""
    surfaces = true_surface.surfaces
    reference = surfaces.views[surfaces.reference]
    move = np.random.default_rng(1).uniform(-0.01, 0.01, len(true_surface.points)) * reference["distance"]
    points = true_surface.points + move[:, None] * reference["rotation"][:, 2]
    return true_surface.moved(points), points


@pytest.fixture(scope="module")
def refined(true_surface, perturbed):
    surfaces, _ = perturbed
    planes = np.zeros((len(surfaces.reference), 3))
    patches = cut(surfaces, planes, true_surface.files)
    used = np.ones(len(surfaces.pair_view), bool)
    fits = refine_surfaces(surfaces, planes, patches, (5, 1.0), used, SurfaceLimits(), Progress())
    shifts = measure_shifts(
        surfaces,
        fits.planes,
        patches,
        SUPPORTS,
        fits.accepted[surfaces.point],
        SurfaceLimits(),
        Progress(),
    )
    return patches, fits, shifts


def test_depth_and_normal_come_to_the_truth(true_surface, perturbed, refined):
    surfaces, points = perturbed
    _, fits, _ = refined
    good = fits.accepted
    distance = surfaces.views["distance"][surfaces.reference]
    before = np.linalg.norm(points - true_surface.points, axis=1) / distance
    after = np.linalg.norm(points_of(surfaces, points, fits.planes) - true_surface.points, axis=1) / distance
    cosine = (normals_of(surfaces, fits.planes) * true_surface.normals).sum(1)
    print(good.mean(), np.median(before), np.median(after[good]), np.median(np.degrees(np.arccos(cosine[good]))), np.median(fits.depth_deviation[good]))
    start = (normals_of(surfaces, fits.planes*0) * true_surface.normals).sum(1)
    print(np.median(np.degrees(np.arccos(start))), fits.correlation[good].mean(0))


def test_shifts_come_to_the_exact_projections(true_surface, refined):
    _, fits, shifts = refined
    surfaces = true_surface.surfaces
    error = np.linalg.norm(shifts.xy - true_surface.exact_xy(true_surface.points), axis=1)
    moved = shifts.status == Status.MOVED
    print(moved.mean(), np.median(error[moved]), error[moved].mean(), np.percentile(error[moved],[90,99]), np.median(shifts.deviation[moved]), dict(zip(*np.unique(shifts.status,return_counts=True))), np.unique(shifts.support, return_counts=True))
