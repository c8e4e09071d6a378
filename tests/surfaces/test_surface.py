"""The surface step at true poses: depth, normal and shifts come to the truth."""

import dataclasses
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress
from pixcli.sampling.status import Status
from pixcli.surfaces import plane_patches as surface_patches
from pixcli.surfaces.measuring import (
    SUPPORTS,
    SurfaceLimits,
    align_surfaces,
    measure_shifts,
    refine_surfaces,
)
from pixcli.surfaces.plane_patches import cut_surface_patches, estimate_surface_patches, surface_parts
from pixcli.surfaces.planes import normals_of, planes_from_normals, points_from_planes


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


@pytest.fixture(scope="module")
def aligned(true_surface, perturbed):
    """All of it at once, on one thread."""
    surfaces, _ = perturbed
    used, planes = np.ones(len(surfaces.pair_view), bool), np.zeros((len(surfaces.reference), 3))
    limits = SurfaceLimits(num_threads=1)
    return align_surfaces(
        surfaces, planes, used, SUPPORTS, limits, true_surface.files, DenseFeaturesOptions(), Progress()
    )


def test_depth_and_normal_come_to_the_truth(true_surface, perturbed, refined):
    surfaces, points = perturbed
    _, fits, _ = refined
    good = fits.accepted
    assert good.mean() > 0.95
    distance = surfaces.views["distance"][surfaces.reference]
    moved = points_from_planes(surfaces, points, fits.planes)
    after = np.linalg.norm(moved - true_surface.points, axis=1) / distance
    assert np.median(after[good]) < 3e-4  # from 5e-3
    cosine = (normals_of(surfaces, fits.planes) * true_surface.normals).sum(1)
    assert np.median(np.degrees(np.arccos(np.minimum(cosine[good], 1)))) < 3  # from 11
    assert 0.3 < np.median(fits.depth_deviation[good]) / np.median(after[good]) < 3
    assert (fits.correlation[good, 1] > 0.95).mean() > 0.9
    assert np.array_equal(fits.planes[~good], np.zeros(((~good).sum(), 3)))


def test_shifts_come_to_the_exact_projections(true_surface, refined):
    _, _, shifts = refined
    error = np.linalg.norm(shifts.xy - true_surface.exact_xy(true_surface.points), axis=1)
    moved = shifts.status == Status.MOVED
    root = shifts.status == Status.ROOT
    assert (moved | root).mean() > 0.95
    assert error[root].max() < 1e-6
    assert np.median(error[moved]) < 0.06
    assert np.percentile(error[moved], 99) < 0.35
    assert 0.3 < np.median(shifts.deviation[moved]) / np.median(error[moved]) < 3
    assert set(np.unique(shifts.support[moved])) == {0, 1}
    assert not shifts.accepted[shifts.status == Status.INVALID].any()


def test_a_shift_is_found_where_the_plane_is_known(true_surface):
    """Views that see the point 1.2 px beside where they are told to."""
    surfaces = true_surface.surfaces
    planes = planes_from_normals(surfaces, true_surface.normals)
    views = surfaces.views.copy()
    other = np.ones(len(views), bool)
    other[surfaces.reference] = False
    views["x"][other] += 0.9
    views["y"][other] -= 0.8
    wrong = dataclasses.replace(surfaces, views=views)
    patches = cut(wrong, planes, true_surface.files)
    everything = np.ones(len(views), bool)
    shifts = measure_shifts(wrong, planes, patches, SUPPORTS, everything, SurfaceLimits(), Progress())
    moved = shifts.status == Status.MOVED
    assert moved.mean() > 0.6
    error = np.linalg.norm(shifts.xy - shifts.predicted + [0.9, -0.8], axis=1)[moved]
    assert np.median(error) < 0.05


def test_bad_views_are_refused_and_spoil_nothing(true_surface, refined):
    patches, fits, shifts = refined
    surfaces = true_surface.surfaces
    planes = planes_from_normals(surfaces, true_surface.normals)
    views = surfaces.views.copy()
    first = surfaces.ptr[:-1]
    lost = np.array([p for p in first[:200] if p not in surfaces.reference])
    for name in views.dtype.names:
        views[name][lost[::2]] = np.nan
    views["x"][lost[1::2]] = -500
    broken = dataclasses.replace(surfaces, views=views)
    patches = cut(broken, planes, true_surface.files)
    everything = np.ones(len(views), bool)
    fits = refine_surfaces(broken, planes, patches, (5, 1.0), everything, SurfaceLimits(), Progress())
    assert np.isfinite(fits.planes).all()
    assert fits.accepted.mean() > 0.9
    shifts = measure_shifts(broken, planes, patches, SUPPORTS, everything, SurfaceLimits(), Progress())
    assert (shifts.status[lost] == Status.OUT_OF_IMAGE).all()
    assert np.isfinite(shifts.xy[shifts.accepted]).all()


def test_the_widest_support_is_measured_where_it_may_decide(true_surface, refined, aligned):
    _, fits, shifts = refined
    same = aligned[1].support == shifts.support
    assert same.mean() > 0.95
    assert (aligned[1].support == 1).sum() > 10
    # Patches that were cut for another extent have another gain: eight bits are rounded differently.
    both = same & shifts.accepted & fits.accepted[true_surface.surfaces.point]
    difference = np.abs(aligned[1].xy - shifts.xy)[both].max(1)
    assert np.median(difference) < 0.005
    assert np.percentile(difference, 99) < 0.05


def test_parts_give_the_same_as_the_whole(true_surface, perturbed, aligned, monkeypatch):
    surfaces, _ = perturbed
    fits, shifts = aligned
    monkeypatch.setattr(surface_patches, "_PART_BYTES", 300_000)
    planes = np.zeros((len(fits.planes), 3))
    limited = (surfaces, planes, SUPPORTS, 3.0, true_surface.files, DenseFeaturesOptions())
    assert len(surface_parts(*limited)) > 3
    assert estimate_surface_patches(*limited, len(surfaces.pair_view)).memory < 10e6
    arguments = (
        SUPPORTS,
        SurfaceLimits(num_threads=1),
        true_surface.files,
        DenseFeaturesOptions(),
        Progress(),
    )
    used = np.ones(len(surfaces.pair_view), bool)
    part_fits, part_shifts = align_surfaces(surfaces, planes, used, *arguments)
    for whole, joined in ((fits, part_fits), (shifts, part_shifts)):
        for field in dataclasses.fields(whole):
            np.testing.assert_array_equal(getattr(joined, field.name), getattr(whole, field.name))


DETERMINISM = """
import sys, pickle
surfaces, planes, files = pickle.load(open(sys.argv[1], "rb"))
import numpy as np
from pixcli.surfaces.measuring import SUPPORTS, SurfaceLimits, align_surfaces
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress
used = np.ones(len(surfaces.pair_view), bool)
limits = SurfaceLimits(num_threads=2)
last = SUPPORTS, limits, files, DenseFeaturesOptions(), Progress()
fits, shifts = align_surfaces(surfaces, planes, used, *last)
pickle.dump((fits, shifts), open(sys.argv[2], "wb"))
"""


def test_portable_kernels_agree(true_surface, perturbed, aligned, tmp_path):
    surfaces, _ = perturbed
    fits, shifts = aligned
    problem = (surfaces, np.zeros((len(fits.planes), 3)), true_surface.files)
    (tmp_path / "in").write_bytes(pickle.dumps(problem))
    command = [sys.executable, "-P", "-c", DETERMINISM, str(tmp_path / "in"), str(tmp_path / "out")]
    subprocess.run(command, env={**os.environ, "PIXCLI_ISA": "baseline"}, check=True)
    portable_fits, portable_shifts = pickle.loads((tmp_path / "out").read_bytes())
    assert (portable_fits.accepted == fits.accepted).mean() > 0.995
    both = portable_shifts.accepted & shifts.accepted & (portable_shifts.support == shifts.support)
    assert both.mean() > 0.95
    difference = np.abs(portable_shifts.xy - shifts.xy)[both].max(1)
    assert np.percentile(difference, 99) < 0.01
