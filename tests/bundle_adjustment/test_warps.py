"""Warps of planes, and models refined with them."""

import numpy as np
import pytest

from pixcli.bundle_adjustment.feature_costs import adjust_bundle
from pixcli.bundle_adjustment.problem import BundleProblem, Constants
from pixcli.bundle_adjustment.solver import Loss
from pixcli.bundle_adjustment.view_warps import frontal_warps, reference_rows
from pixcli.io.patch_store import Patches
from pixcli.io.references import References
from pixcli.options import InterpolationOptions
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjusterOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.sampling.feature_references import strategy_interpolation

CAMERAS = [
    ("OPENCV", [1280, 1270, 512, 384, 0.05, -0.01, 1e-3, -1e-3]),
    ("OPENCV_FISHEYE", [900, 905, 512, 384, 0.02, 0.01, 0, 0]),
    ("EQUIRECTANGULAR", [1024, 768]),
]
GRID = "-2,-2 0,-2 2,-2 -2,0 0,0 2,0 -2,2 0,2 2,2"


@pytest.mark.parametrize(("model", "params"), CAMERAS)
@pytest.mark.parametrize("cameras_per_rig", [1, 2])
def test_warps_are_those_of_a_plane_that_faces_the_reference(feature_scene, model, params, cameras_per_rig):
    scene = feature_scene(model, params, cameras_per_rig=cameras_per_rig)
    observations, truth = scene.observations, scene.truth
    reference = reference_rows(observations, scene.references)
    np.testing.assert_array_equal(reference, observations.ptr[:-1][observations.point_index])
    warps = frontal_warps(truth, observations, reference)
    np.testing.assert_allclose(
        warps[observations.ptr[:-1]], np.broadcast_to(np.eye(2), (60, 2, 2)), atol=1e-6
    )
    for k in range(0, len(reference), 7):
        image, source = (truth.images[int(observations.image_ids[row])] for row in (k, reference[k]))
        xyz = truth.points3D[int(observations.point_ids[observations.point_index[k]])].xyz
        centre = source.projection_center()
        for offset in np.array([[1.0, 0], [0, 1], [-1, 1]]):
            # The ray of a pixel of the reference meets the plane across the ray of the point.
            pixel = scene.projected[reference[k]] + offset
            ray = source.camera.cam_ray_from_img(pixel)
            ray = source.cam_from_world().rotation.inverse() * np.asarray(ray)
            met = centre + ray * np.square(xyz - centre).sum() / (ray @ (xyz - centre))
            there = image.project_point(met) - scene.projected[k]
            np.testing.assert_allclose(warps[k] @ offset, there, atol=0.02)


def _warped(scene):
    """The scene with features that are linear in the frame of the reference: waves seen through the warps."""
    observations = scene.observations
    reference = reference_rows(observations, scene.references)
    inverse = np.linalg.inv(frontal_warps(scene.truth, observations, reference))
    rng = np.random.default_rng(0)
    slopes = rng.uniform(-0.3, 0.3, (len(observations.point_ids), 3, 2))
    bends = rng.uniform(-0.03, 0.03, (len(observations.point_ids), 3, 2))
    edge = scene.patches.data.shape[1]
    rows, columns = np.mgrid[:edge, :edge]
    samples = np.stack([columns, rows], -1) + 0.5 + scene.patches.corners[:, None, None]
    local = np.einsum("nij,nrcj->nrci", inverse, samples - scene.projected[:, None, None])

    def texture(at, points):
        slope, bend = slopes[points], bends[points]
        return np.einsum("n...j,ncj->n...c", at, slope) + np.einsum("n...j,ncj->n...c", at**2, bend)

    data = 1 + texture(local, observations.point_index)
    nodes = np.array(InterpolationOptions(nodes=GRID).offsets)
    points = np.arange(len(observations.point_ids))
    features = 1 + texture(np.broadcast_to(nodes, (len(points), *nodes.shape)), points)
    references = References(
        observations.point_ids,
        features.reshape(len(points), -1).astype(np.float32),
        scene.references.image_ids,
        scene.references.keypoints,
    )
    return Patches(np.ascontiguousarray(data), scene.patches.corners, scene.patches.scales), references


def _adjust(scene, model, level, strategy, constants, interpolation, **options):
    return adjust_bundle(
        model,
        scene.observations,
        [level],
        FeaturemetricBundleAdjusterOptions(
            FeaturemetricBundleAdjustmentOptions(strategy=strategy, **options),
            BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False),
            BundleAdjustmentCeresOptions(function_tolerance=1e-12, num_threads=1),
            interpolation=interpolation,
        ),
        constants=constants,
    )


@pytest.mark.parametrize(("model", "params"), CAMERAS)
def test_warped_nodes_lead_to_the_truth_where_plain_ones_do_not(feature_scene, model, params):
    scene = feature_scene(model, params)
    level = _warped(scene)
    interpolation = InterpolationOptions(nodes=GRID, l2_normalize=False)
    errors = {}
    for strategy in ("patch_warp", "feature_reference"):
        perturbed, held = scene.perturbed(degrees=0.05, position=0.002)
        _adjust(scene, perturbed, level, strategy, Constants(images=held), interpolation)
        errors[strategy] = np.median(scene.pixel_errors(perturbed))
    assert errors["patch_warp"] < 1e-2
    assert errors["patch_warp"] < 0.1 * errors["feature_reference"]


def test_gain_and_offset_do_not_matter_once_nodes_are_normalized(feature_scene):
    scene = feature_scene()
    patches, references = _warped(scene)
    nodes = references.features.reshape(len(references.point_ids), 9, 3)
    nodes = (nodes - nodes.mean(axis=1, keepdims=True)) / nodes.std(axis=1, keepdims=True)
    references = References(
        references.point_ids,
        nodes.reshape(len(nodes), -1).astype(np.float32),
        references.image_ids,
        references.keypoints,
    )
    rng = np.random.default_rng(2)
    gain, offset = rng.uniform(0.7, 1.4, (2, len(patches.data), 1, 1, 3))
    patches.data[...] = gain * patches.data + offset
    perturbed, held = scene.perturbed(degrees=0.05, position=0.002)
    interpolation = InterpolationOptions(nodes=GRID, l2_normalize=False, ncc_normalize=True)
    _adjust(scene, perturbed, (patches, references), "patch_warp", Constants(images=held), interpolation)
    assert np.median(scene.pixel_errors(perturbed)) < 1e-2


def test_the_view_of_the_reference_takes_part_where_asked(feature_scene):
    scene = feature_scene()
    level = _warped(scene)
    interpolation = InterpolationOptions(nodes=GRID, l2_normalize=False)
    blocks = []
    for regularize in (True, False):
        perturbed, held = scene.perturbed(degrees=0.05, position=0.002)
        (summary,) = _adjust(
            scene,
            perturbed,
            level,
            "patch_warp",
            Constants(images=held),
            interpolation,
            regularize_source=regularize,
        )
        blocks.append(summary.num_residuals // 3)
        assert np.median(scene.pixel_errors(perturbed)) < 1e-2
    assert blocks[0] - blocks[1] == len(scene.observations.point_ids)


def test_a_single_node_becomes_a_grid_with_ncc_for_patch_warp_alone():
    single, several = InterpolationOptions(mode="bilinear"), InterpolationOptions(nodes=GRID)
    for strategy in ("feature_reference", "costmaps"):
        assert strategy_interpolation(strategy, single) == single
    assert strategy_interpolation("patch_warp", several) == several
    grid = strategy_interpolation("patch_warp", single)
    assert (len(grid.offsets), grid.ncc_normalize, grid.l2_normalize, grid.mode) == (
        16,
        True,
        False,
        "bilinear",
    )
    np.testing.assert_allclose(np.mean(grid.offsets, axis=0), 0)
    np.testing.assert_array_equal(np.unique(grid.offsets), [-3, -1, 1, 3])


def test_compressed_and_uncompressed_warps_reach_the_same(feature_scene):
    scene = feature_scene()
    patches, references = _warped(scene)
    patches.data[...] += np.random.default_rng(3).normal(0, 0.05, patches.data.shape)
    interpolation = InterpolationOptions(nodes=GRID, l2_normalize=False)
    perturbed, _ = scene.perturbed(degrees=0.05, position=0.002)
    warps = frontal_warps(perturbed, scene.observations, reference_rows(scene.observations, references))
    summaries = []
    for compressed in (True, False):
        problem = BundleProblem(perturbed, scene.observations, BundleAdjustmentOptions())
        problem.add_features(
            patches, references, interpolation, Loss("cauchy", 0.25), warps=warps, compressed=compressed
        )
        summaries.append(problem.solve(BundleAdjustmentCeresOptions(function_tolerance=1e-12, num_threads=1)))
    short, oracle = summaries
    assert short.num_residuals * 27 == oracle.num_residuals * 3
    assert short.initial_cost == pytest.approx(oracle.initial_cost, rel=1e-6)
    assert short.final_cost < oracle.final_cost * (1 + 1e-6)
    assert short.final_cost < 0.9 * short.initial_cost


def test_free_intrinsics_return_to_the_truth_as_warps_are_found_anew(feature_scene):
    model, params = CAMERAS[0]
    scene = feature_scene(model, params, frames=6)
    level = _warped(scene)
    interpolation = InterpolationOptions(nodes=GRID, l2_normalize=False)
    perturbed, held = scene.perturbed(degrees=0.03, position=0.002, focal=0.001, distortion=0.002)
    errors = []
    for _ in range(2):
        adjust_bundle(
            perturbed,
            scene.observations,
            [level],
            FeaturemetricBundleAdjusterOptions(
                FeaturemetricBundleAdjustmentOptions(strategy="patch_warp"),
                bundle_adjustment_ceres=BundleAdjustmentCeresOptions(function_tolerance=1e-12, num_threads=1),
                interpolation=interpolation,
            ),
            constants=Constants(images=held),
        )
        errors.append(np.median(scene.pixel_errors(perturbed)))
    assert errors[1] < errors[0] < 1e-2
    assert errors[1] < 1e-3
    for camera_id, camera in perturbed.cameras.items():
        expected = scene.truth.cameras[camera_id].params
        np.testing.assert_allclose(camera.params, expected, rtol=1e-4, atol=1e-3)
