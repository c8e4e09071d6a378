"""Models refined with features: they return to the truth, whatever the cameras and rigs."""

import numpy as np
import pytest

from pixcli.bundle_adjustment.feature_costs import adjust_bundle, compute_cost_maps
from pixcli.bundle_adjustment.problem import BundleProblem, Constants
from pixcli.bundle_adjustment.solver import Loss
from pixcli.errors import UserError
from pixcli.geometry.observations import project, read_observations
from pixcli.options import DenseFeaturesOptions, InterpolationOptions
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjusterOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.sampling.feature_references import compute_references, extraction_around
from pixcli.sampling.streaming import ImageFile

import pycolmap

PLAIN = InterpolationOptions(l2_normalize=False)
FIXED_CAMERAS = BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)
THOROUGH = BundleAdjustmentCeresOptions(
    function_tolerance=1e-14, gradient_tolerance=0, parameter_tolerance=0, num_threads=1
)

CAMERAS = [
    ("SIMPLE_RADIAL", None),
    ("OPENCV", [1280, 1270, 512, 384, 0.05, -0.01, 1e-3, -1e-3]),
    ("OPENCV_FISHEYE", [900, 905, 512, 384, 0.02, 0.01, 0, 0]),
]


def _adjust(scene, model, strategy="feature_reference", adjustment=FIXED_CAMERAS, ceres=THOROUGH, **options):
    constants = options.pop("constants", None)
    return adjust_bundle(
        model,
        scene.observations,
        [(scene.patches, scene.references)],
        FeaturemetricBundleAdjusterOptions(
            FeaturemetricBundleAdjustmentOptions(strategy=strategy, **options),
            adjustment,
            ceres,
            interpolation=PLAIN,
        ),
        constants=constants,
    )


def _pose_errors(model, truth):
    """Largest difference of rotation matrices, and of camera centres."""
    pairs = [
        (image.cam_from_world(), truth.images[image_id].cam_from_world())
        for image_id, image in model.images.items()
    ]
    turns = [np.abs(a.rotation.matrix() - b.rotation.matrix()).max() for a, b in pairs]
    centres = [np.linalg.norm(a.inverse().translation - b.inverse().translation) for a, b in pairs]
    return max(turns), max(centres)


@pytest.mark.parametrize(("model", "params"), [*CAMERAS, ("EQUIRECTANGULAR", [1024, 768])])
@pytest.mark.parametrize("cameras_per_rig", [1, 3])
def test_poses_and_points_return_to_the_truth(feature_scene, model, params, cameras_per_rig):
    scene = feature_scene(model, params, cameras_per_rig=cameras_per_rig)
    perturbed, held = scene.perturbed()
    assert np.median(scene.pixel_errors(perturbed)) > 0.1
    rigs = frozenset(perturbed.rigs)
    (summary,) = _adjust(scene, perturbed, constants=Constants(images=held, rigs=rigs))
    assert summary.final_cost < 1e-12 * summary.initial_cost
    assert scene.pixel_errors(perturbed).max() < 1e-5
    turn, centre = _pose_errors(perturbed, scene.truth)
    assert turn < 1e-7
    assert centre < 1e-6
    for point_id, point in perturbed.points3D.items():
        assert np.linalg.norm(point.xyz - scene.truth.points3D[point_id].xyz) < 1e-5


def test_focal_lengths_distortion_and_sensors_are_refined_where_asked(feature_scene):
    scene = feature_scene(cameras_per_rig=2, frames=5)
    perturbed, held = scene.perturbed(focal=0.002)
    for rig in perturbed.rigs.values():
        for sensor_id, pose in rig.non_ref_sensors.items():
            rig.set_sensor_from_rig(sensor_id, pycolmap.Rigid3d(pose.rotation, pose.translation + 0.003))
    _adjust(scene, perturbed, adjustment=BundleAdjustmentOptions(), constants=Constants(images=held))
    assert scene.pixel_errors(perturbed).max() < 1e-4
    for camera_id, camera in perturbed.cameras.items():
        np.testing.assert_allclose(camera.params, scene.truth.cameras[camera_id].params, rtol=1e-5, atol=1e-6)
    assert _pose_errors(perturbed, scene.truth)[1] < 1e-5


@pytest.mark.parametrize(("model", "params"), CAMERAS)
@pytest.mark.parametrize(
    ("strategy", "error"), [("feature_reference", 1e-5), ("costmaps", 0.1), ("geometric", 1e-5)]
)
def test_poses_points_focal_lengths_and_distortion_return_to_the_truth(
    feature_scene, model, params, strategy, error
):
    """By exact costs; a map of distances says how far away its optimum is up to its samples' distance."""
    scene = feature_scene(model, params, frames=5, channels=8)
    perturbed, held = scene.perturbed(degrees=0.03, position=0.002, focal=0.001, distortion=0.002)
    before = scene.pixel_errors(perturbed)
    constants = Constants(images=held)
    _adjust(scene, perturbed, strategy=strategy, adjustment=BundleAdjustmentOptions(), constants=constants)
    after = scene.pixel_errors(perturbed)
    assert np.sqrt(np.mean(after**2)) < error * np.sqrt(np.mean(before**2))
    if strategy != "costmaps":
        for camera_id, camera in perturbed.cameras.items():
            expected = scene.truth.cameras[camera_id].params
            # Far from the border, the highest terms of a fisheye's polynomial are below what shows.
            np.testing.assert_allclose(camera.params[:6], expected[:6], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", ["feature_reference", "geometric"])
def test_cameras_of_different_models_in_one_rig(feature_scene, strategy):
    """Distorted, fisheye and all around, in rigs of three sensors."""
    others = {"OPENCV_FISHEYE": [900, 905, 512, 384, 0.02, 0.01, 0, 0], "EQUIRECTANGULAR": [1024, 768]}
    scene = feature_scene(*CAMERAS[1], cameras_per_rig=3, frames=5, other_models=others)
    models = {camera.model.name for camera in scene.truth.cameras.values()}
    assert models == {"OPENCV", "OPENCV_FISHEYE", "EQUIRECTANGULAR"}
    perturbed, held = scene.perturbed(degrees=0.03, position=0.002, focal=0.001, distortion=0.002)
    for rig in perturbed.rigs.values():
        for sensor_id, pose in rig.non_ref_sensors.items():
            rig.set_sensor_from_rig(sensor_id, pycolmap.Rigid3d(pose.rotation, pose.translation + 0.002))
    assert np.median(scene.pixel_errors(perturbed)) > 0.1
    constants = Constants(images=held)
    _adjust(scene, perturbed, strategy=strategy, adjustment=BundleAdjustmentOptions(), constants=constants)
    assert scene.pixel_errors(perturbed).max() < 1e-4
    assert _pose_errors(perturbed, scene.truth)[1] < 1e-5


def test_inner_iterations_need_fewer_steps_to_the_same_optimum(feature_scene):
    scene = feature_scene()
    summaries = {}
    for inner in (False, True):
        perturbed, held = scene.perturbed()
        ceres = BundleAdjustmentCeresOptions(
            function_tolerance=1e-9, num_threads=1, use_inner_iterations=inner
        )
        (summaries[inner],) = _adjust(scene, perturbed, ceres=ceres, constants=Constants(images=held))
        assert scene.pixel_errors(perturbed).max() < 1e-2
    assert summaries[True].iterations <= summaries[False].iterations
    assert summaries[True].final_cost != summaries[False].final_cost


@pytest.mark.parametrize(
    "free", ["refine_focal_length", "refine_extra_params", "refine_rig_from_world", "refine_points3D"]
)
def test_what_is_not_to_be_refined_stays(feature_scene, free):
    scene = feature_scene()
    perturbed, _ = scene.perturbed(focal=0.002)
    before = pycolmap.Reconstruction(perturbed)
    flags = dict.fromkeys(
        ("refine_focal_length", "refine_extra_params", "refine_rig_from_world", "refine_points3D"), False
    )
    ceres = BundleAdjustmentCeresOptions(max_num_iterations=3, num_threads=1)
    (summary,) = _adjust(
        scene, perturbed, adjustment=BundleAdjustmentOptions(**{**flags, free: True}), ceres=ceres
    )
    assert summary.final_cost < summary.initial_cost
    cameras = np.array([camera.params for _, camera in sorted(perturbed.cameras.items())])
    cameras_before = np.array([camera.params for _, camera in sorted(before.cameras.items())])
    changed = {
        "refine_focal_length": (cameras[:, 0] != cameras_before[:, 0]).any(),
        "refine_extra_params": (cameras[:, 3] != cameras_before[:, 3]).any(),
        "refine_rig_from_world": _pose_errors(perturbed, before)[1] > 1e-9,
        "refine_points3D": any(
            (point.xyz != before.points3D[k].xyz).any() for k, point in perturbed.points3D.items()
        ),
    }
    assert {name for name, value in changed.items() if value} == {free}
    assert (cameras[:, 1:3] == cameras_before[:, 1:3]).all()  # the principal point


def test_constants_stay(feature_scene):
    scene = feature_scene()
    perturbed, _ = scene.perturbed(focal=0.002, hold=0)
    before = pycolmap.Reconstruction(perturbed)
    images, points = sorted(before.images), sorted(before.points3D)
    constants = Constants(
        frozenset(images[:2]), frozenset(before.cameras), frozenset(), frozenset(points[:10])
    )
    _adjust(scene, perturbed, adjustment=BundleAdjustmentOptions(), constants=constants)
    for image_id in images:
        same = (
            perturbed.images[image_id].cam_from_world().matrix()
            == before.images[image_id].cam_from_world().matrix()
        )
        assert same.all() == (image_id in constants.images)
    for point_id in points:
        same = (perturbed.points3D[point_id].xyz == before.points3D[point_id].xyz).all()
        assert same == (point_id in constants.points)


@pytest.mark.parametrize("loss", ["trivial", "cauchy"])
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_compressed_and_uncompressed_reach_the_same(feature_scene, dtype, loss):
    scene = feature_scene(channels=13, dtype=dtype)
    noise = np.random.default_rng(1).normal(0, 0.05, scene.patches.data.shape)
    scene.patches.data[...] = (scene.patches.data + noise).astype(dtype)
    results = []
    for compressed in (True, False):
        model, _ = scene.perturbed()
        problem = BundleProblem(model, scene.observations, FIXED_CAMERAS)
        problem.add_features(scene.patches, scene.references, PLAIN, Loss(loss, 0.25), compressed=compressed)
        summary = problem.solve(BundleAdjustmentCeresOptions(function_tolerance=1e-12, num_threads=1))
        problem.update(model)
        results.append((summary, model))
    (short, model), (long, oracle) = results
    assert short.num_residuals * 13 == long.num_residuals * 3
    assert short.initial_cost == pytest.approx(long.initial_cost, rel=1e-6)
    assert short.final_cost == pytest.approx(long.final_cost, rel=1e-6)
    assert short.final_cost < 0.9 * short.initial_cost
    assert _pose_errors(model, oracle)[1] < 1e-5


def test_compressed_and_uncompressed_reach_the_same_on_images(small_scene, mapped):
    """Dense SIFT of rendered images around the projections of a mapped model."""
    start = pycolmap.Reconstruction(mapped)
    files = [
        ImageFile(image.name, small_scene.path / "images" / image.name, (400, 300))
        for _, image in sorted(start.images.items())
    ]
    observations = read_observations(start, 3)
    projected = project(start, observations)
    features = DenseFeaturesOptions(model="dsift", patch_size=8)
    extraction, rows = extraction_around(start, files, observations, projected, features)
    ((patches, _),) = extraction.patches()
    sampling = InterpolationOptions()
    references = compute_references(observations, projected, patches, sampling, rows=rows)
    results = []
    for compressed in (True, False):
        model = pycolmap.Reconstruction(mapped)
        problem = BundleProblem(model, observations, FIXED_CAMERAS)
        count = problem.add_features(
            patches, references, sampling, Loss("cauchy", 0.25), rows=rows, compressed=compressed
        )
        assert count == len(rows)
        summary = problem.solve(BundleAdjustmentCeresOptions(function_tolerance=1e-9, num_threads=1))
        problem.update(model)
        results.append((summary, model))
    (short, model), (long, oracle) = results
    assert short.num_residuals * 128 == long.num_residuals * 3
    assert short.iterations == long.iterations
    assert short.initial_cost == pytest.approx(long.initial_cost, rel=1e-6)
    assert short.final_cost == pytest.approx(long.final_cost, rel=1e-6)
    assert short.final_cost < 0.98 * short.initial_cost
    assert _pose_errors(model, oracle)[1] < 1e-5


def test_cost_maps_come_close_to_the_truth(feature_scene):
    scene = feature_scene(channels=8)
    perturbed, held = scene.perturbed(degrees=0.05, position=0.002)
    before = np.sqrt(np.mean(scene.pixel_errors(perturbed) ** 2))
    (summary,) = _adjust(scene, perturbed, strategy="costmaps", constants=Constants(images=held))
    after = np.sqrt(np.mean(scene.pixel_errors(perturbed) ** 2))
    assert summary.final_cost < 1e-3 * summary.initial_cost
    assert after < 0.05 * before


def test_the_optimum_of_cost_maps_is_no_worse_than_that_of_the_features(feature_scene):
    """By the maps' own cost, of which the exact features' optimum is the oracle."""
    scene = feature_scene(channels=8)
    noise = np.random.default_rng(1).normal(0, 0.02, scene.patches.data.shape)
    scene.patches.data[...] += noise
    start, held = scene.perturbed(degrees=0.05, position=0.002)
    maps = compute_cost_maps(scene.observations, scene.patches, scene.references, PLAIN)
    costs = {}
    for strategy in ("feature_reference", "costmaps"):
        model = pycolmap.Reconstruction(start)
        _adjust(scene, model, strategy=strategy, constants=Constants(images=held))
        problem = BundleProblem(model, scene.observations, FIXED_CAMERAS)
        problem.add_cost_maps(maps, scene.patches, scene.references, Loss("cauchy", 0.25))
        costs[strategy] = problem.observation_costs().sum()
    assert costs["costmaps"] < costs["feature_reference"] * (1 + 1e-6)


@pytest.mark.parametrize("cameras_per_rig", [1, 2])
def test_geometric_is_what_colmap_does(feature_scene, cameras_per_rig):
    """The same parameters vary, the same gauge is fixed, and the same optimum is found."""
    scene = feature_scene(cameras_per_rig=cameras_per_rig)
    ours, _ = scene.perturbed(focal=0.001, hold=0)
    rng = np.random.default_rng(5)
    for image in ours.images.values():
        for point2D in image.points2D:
            point2D.xy = point2D.xy + rng.normal(0, 0.3, 2)
    theirs = pycolmap.Reconstruction(ours)

    config = pycolmap.BundleAdjustmentConfig()
    for image_id in theirs.images:
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.solver_options.function_tolerance = 1e-12
    options.ceres.solver_options.num_threads = 1
    expected = pycolmap.create_default_ceres_bundle_adjuster(options, config, theirs).solve().ceres_summary

    problem = BundleProblem(ours, read_observations(ours), BundleAdjustmentOptions())
    problem.add_reprojections(read_observations(ours).xy, Loss("trivial", 1))
    summary = problem.solve(BundleAdjustmentCeresOptions(function_tolerance=1e-12, num_threads=1))
    problem.update(ours)
    assert summary.num_residuals == expected.num_residuals_reduced
    assert summary.num_parameters == expected.num_effective_parameters_reduced
    assert summary.initial_cost == pytest.approx(expected.initial_cost, rel=1e-9)
    assert summary.final_cost == pytest.approx(expected.final_cost, rel=1e-9)
    turn, centre = _pose_errors(ours, theirs)
    assert turn < 1e-4
    assert centre < 1e-3


def test_a_geometric_term_anchors_what_has_no_features(feature_scene):
    scene = feature_scene()
    perturbed, held = scene.perturbed()
    scene.patches.data[...] = 1  # no texture at all
    (summary,) = _adjust(scene, perturbed, constants=Constants(images=held), geometric_weight=0.5)
    assert summary.final_cost < summary.initial_cost
    assert scene.pixel_errors(perturbed).max() < 1e-4


def test_points_behind_cameras_do_no_harm(feature_scene):
    scene = feature_scene()
    perturbed, held = scene.perturbed()
    centre = np.mean([image.projection_center() for image in perturbed.images.values()], axis=0)
    for point_id in sorted(perturbed.points3D)[:3]:
        point = perturbed.points3D[point_id]
        point.xyz = point.xyz + 10 * (centre - point.xyz)
    (summary,) = _adjust(scene, perturbed, constants=Constants(images=held))
    assert np.isfinite(summary.final_cost)
    errors = scene.pixel_errors(perturbed)
    good = scene.observations.point_index >= 3
    assert errors[good].max() < 1e-4


@pytest.mark.parametrize("compressed", [True, False])
def test_observations_share_the_cost(feature_scene, compressed):
    scene = feature_scene(cameras_per_rig=2)
    perturbed, _ = scene.perturbed(hold=0)
    problem = BundleProblem(perturbed, scene.observations, FIXED_CAMERAS)
    problem.add_features(scene.patches, scene.references, PLAIN, Loss("cauchy", 0.25), compressed=compressed)
    few = np.arange(0, len(scene.observations.xy), 3)
    before = problem.observation_costs()
    problem.add_reprojections(scene.observations.xy, Loss("huber", 0.1), rows=few)
    with_reprojections = problem.observation_costs()
    assert set(np.flatnonzero(with_reprojections != before)) == set(few)
    summary = problem.solve(BundleAdjustmentCeresOptions(max_num_iterations=2, num_threads=1))
    assert with_reprojections.sum() == pytest.approx(summary.initial_cost, rel=1e-9)
    assert problem.observation_costs().sum() == pytest.approx(summary.final_cost, rel=1e-9)


def test_a_poll_that_raises_stops_and_nothing_is_changed(feature_scene):
    scene = feature_scene()
    perturbed, _ = scene.perturbed()
    before = pycolmap.Reconstruction(perturbed)
    problem = BundleProblem(perturbed, scene.observations, FIXED_CAMERAS)
    problem.add_features(scene.patches, scene.references, PLAIN, Loss("cauchy", 0.25))

    def interrupt(iteration, cost):
        if iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        problem.solve(THOROUGH, interrupt)
    assert _pose_errors(perturbed, before) == (0, 0)


def test_nothing_to_refine_is_told(feature_scene):
    scene = feature_scene()
    problem = BundleProblem(scene.truth, scene.observations, FIXED_CAMERAS)
    with pytest.raises(UserError, match="no observation"):
        problem.solve(THOROUGH)


@pytest.mark.parametrize(
    ("dense", "sparse", "used"),
    [(50, 1000, "dense_schur"), (1, 1000, "sparse_schur"), (1, 2, "iterative_schur")],
)
def test_the_linear_solver_is_chosen_by_the_number_of_images(feature_scene, dense, sparse, used):
    scene = feature_scene()
    perturbed, held = scene.perturbed()
    ceres = BundleAdjustmentCeresOptions(
        max_num_images_direct_dense_cpu_solver=dense,
        max_num_images_direct_sparse_cpu_solver=sparse,
        function_tolerance=1e-12,
        num_threads=1,
    )
    (summary,) = _adjust(scene, perturbed, ceres=ceres, constants=Constants(images=held))
    assert summary.linear_solver == used
    assert scene.pixel_errors(perturbed).max() < 1e-3
