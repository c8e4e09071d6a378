"""The surface step on feature maps: depth, normal and shifts come to the truth as they do on grey images."""

import numpy as np
import pytest

from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress
from pixcli.sampling.status import Status
from pixcli.surfaces.measuring import SUPPORTS, SurfaceLimits, align_surfaces
from pixcli.surfaces.planes import normals_of, points_from_planes


@pytest.fixture(scope="module")
def perturbed(true_surface):
    """Points moved by about a pixel along their references' rays."""
    surfaces = true_surface.surfaces
    reference = surfaces.views[surfaces.reference]
    move = np.random.default_rng(1).uniform(-0.01, 0.01, len(true_surface.points)) * reference["distance"]
    points = true_surface.points + move[:, None] * reference["rotation"][:, 2]
    return true_surface.moved(points), points


def align(true_surface, surfaces, *, threads=1, **features):
    used, planes = np.ones(len(surfaces.pair_view), bool), np.zeros((len(surfaces.reference), 3))
    limits, options = SurfaceLimits(num_threads=threads), DenseFeaturesOptions(**features)
    return align_surfaces(surfaces, planes, used, SUPPORTS, limits, true_surface.files, options, Progress())


@pytest.mark.parametrize(
    "features",
    [{"model": "compact", "dtype": "int8"}, {"model": "compact", "dtype": "int4"}, {"model": "gradients"}],
)
def test_surfaces_and_shifts_come_to_the_truth(true_surface, perturbed, features):
    surfaces, points = perturbed
    fits, shifts = align(true_surface, surfaces, **features)
    good = fits.accepted
    assert good.mean() > 0.85
    distance = surfaces.views["distance"][surfaces.reference]
    moved = points_from_planes(surfaces, points, fits.planes)
    after = np.linalg.norm(moved - true_surface.points, axis=1) / distance
    assert np.median(after[good]) < 8e-4  # from 5e-3
    cosine = (normals_of(surfaces, fits.planes) * true_surface.normals).sum(1)
    assert np.median(np.degrees(np.arccos(np.minimum(cosine[good], 1)))) < 5  # from 11
    error = np.linalg.norm(shifts.xy - true_surface.exact_xy(true_surface.points), axis=1)
    moved = shifts.status == Status.MOVED
    assert moved.sum() > 0.8 * (shifts.status != Status.ROOT).sum()
    assert np.median(error[moved]) < 0.1
    assert 0.2 < np.median(shifts.deviation[moved]) / np.median(error[moved]) < 4


def test_results_do_not_depend_on_the_number_of_threads(true_surface, perturbed):
    surfaces, _ = perturbed
    first, second = (align(true_surface, surfaces, threads=k, model="gradients")[1] for k in (1, 3))
    np.testing.assert_array_equal(first.xy, second.xy)
    np.testing.assert_array_equal(first.covariance, second.covariance)


def test_a_chain_measures_what_its_first_model_rejects(true_surface, perturbed):
    surfaces, _ = perturbed
    _, grey = align(true_surface, surfaces)
    _, chain = align(true_surface, surfaces, model="image+gradients")
    np.testing.assert_array_equal(chain.xy[grey.accepted], grey.xy[grey.accepted])
    assert (chain.accepted | ~grey.accepted).all()
    assert chain.accepted.sum() >= grey.accepted.sum()
