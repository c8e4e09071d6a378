"""A model of 1,000 images, 300,000 points and 2 million observations: building it, and 10 iterations.

Simulated: a flight over rough ground. There are no images; patches of 16 channels are made at random, each a
smooth field around the true place of its observation. Memory is that of the process, with the patches.
"""

import time

import numpy as np
from common import Bench, arguments
from scipy.spatial import KDTree

from pixcli.bundle_adjustment.problem import BundleProblem
from pixcli.bundle_adjustment.solver import Loss
from pixcli.geometry.observations import Observations, project, read_observations
from pixcli.io.patch_store import Patches
from pixcli.options import InterpolationOptions
from pixcli.options.bundle_adjustment import BundleAdjustmentCeresOptions, BundleAdjustmentOptions
from pixcli.sampling.feature_references import compute_references
from pixcli.system import peak_memory_mb

import pycolmap

ITERATIONS = 10
EDGE, CHANNELS = 8, 16
SAMPLING = InterpolationOptions(l2_normalize=False)


def simulate(images: int, points: int, per_point: float) -> pycolmap.Reconstruction:
    """Cameras in a grid look down; every point is seen by the nearest of them."""
    rng = np.random.default_rng(0)
    columns = int(np.ceil(np.sqrt(images)))
    places = np.array([divmod(k, columns) for k in range(images)], float)
    xyz = rng.uniform([0, 0, 0], [*places.max(axis=0), 0.3], (points, 3))
    counts = np.full(points, int(per_point))
    counts[: int(points * (per_point % 1))] += 1
    _, nearest = KDTree(places).query(xyz[:, :2], int(np.ceil(per_point)))
    seen_by = np.arange(nearest.shape[1]) < counts[:, None]
    point, image = np.nonzero(seen_by)[0], nearest[seen_by]
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_RADIAL", 800.0, 1600, 1600)
    model.add_camera_with_trivial_rig(camera)
    keypoint = np.empty(len(point), np.int64)
    down = pycolmap.Rotation3d(np.diag([1.0, -1.0, -1.0]))
    for index in range(images):
        centre = np.array([*places[index], 2.0]) + rng.normal(0, 0.02, 3)
        members = np.flatnonzero(image == index)
        keypoint[members] = np.arange(len(members))
        cam_from_world = pycolmap.Rigid3d(down, -(down * centre))
        xy = camera.img_from_cam(np.asarray(cam_from_world * xyz[point[members]]))
        added = pycolmap.Image(name=f"{index:04}.jpg", keypoints=xy, camera_id=1, image_id=index + 1)
        model.add_image_with_trivial_frame(added, cam_from_world)
    ends = np.cumsum(counts)
    for index, (end, count) in enumerate(zip(ends.tolist(), counts.tolist(), strict=True)):
        rows = range(end - count, end)
        track = pycolmap.Track([pycolmap.TrackElement(int(image[k]) + 1, int(keypoint[k])) for k in rows])
        model.add_point3D(xyz[index], track)
    for _, shaken in model.points3D.items():
        shaken.xyz = shaken.xyz + rng.normal(0, 3e-4, 3)
    return model


def make_patches(projected: np.ndarray, observations: Observations) -> Patches:
    """A field that rises evenly around the true place of each point, the same in all views but for noise."""
    rng = np.random.default_rng(0)
    count, n = len(observations.point_ids), len(observations.xy)
    slope = rng.uniform(-0.3, 0.3, (count, 2, CHANNELS)).astype(np.float32)
    value = rng.uniform(-1, 1, (count, CHANNELS)).astype(np.float32)
    corners = np.floor(projected - EDGE / 2).astype(np.int32)
    data = np.empty((n, EDGE, EDGE, CHANNELS), np.float16)
    centres = np.arange(EDGE, dtype=np.float32) + 0.5
    for begin in range(0, n, 20_000):
        part = slice(begin, begin + 20_000)
        points = observations.point_index[part]
        first = (corners[part] - observations.xy[part]).astype(np.float32)
        x, y = (centres + first[:, axis, None] for axis in range(2))
        along = x[:, None, :, None] * slope[points, 0][:, None, None]
        across = y[:, :, None, None] * slope[points, 1][:, None, None]
        noise = rng.normal(0, 0.02, (len(points), CHANNELS)).astype(np.float32)
        data[part] = along + across + (value[points] + noise)[:, None, None]
    return Patches(data, corners, np.ones((n, 2)))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--points", type=int, default=300_000)
    args = parser.parse_args()
    bench = Bench("bundle adjustment, large")
    model = simulate(args.images, args.points, 20 / 3)
    observations = read_observations(model)
    projected = project(model, observations)
    n = len(projected)
    patches = make_patches(projected, observations)
    before = peak_memory_mb()
    bench.row("observations", n, "")
    bench.row("peak memory of the model and its patches", before / 1e3, "GB")

    start = time.perf_counter()
    references = compute_references(observations, projected, patches, SAMPLING)
    bench.row("references", time.perf_counter() - start, "s")
    start = time.perf_counter()
    fixed = BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)
    problem = BundleProblem(model, observations, fixed)
    problem.add_features(patches, references, SAMPLING, Loss("cauchy", 0.25))
    bench.row("building", time.perf_counter() - start, "s")
    tolerances = {"function_tolerance": 0, "gradient_tolerance": 0, "parameter_tolerance": 0}
    summary = problem.solve(BundleAdjustmentCeresOptions(max_num_iterations=ITERATIONS, **tolerances))
    bench.row("iterations", summary.iterations, "", f">= {ITERATIONS}")
    bench.row(f"solving, {summary.linear_solver}", summary.seconds, "s")
    bench.row("of it Jacobians", summary.jacobian_seconds, "s")
    bench.row("of it residuals", summary.residual_seconds, "s")
    bench.row("of it the linear solver", summary.linear_solver_seconds, "s")
    bench.row("final / initial cost", summary.final_cost / summary.initial_cost, "", "<= 0.9")
    peak = peak_memory_mb()
    bench.row("references, problem and solver, an observation", (peak - before) * 1e6 / n, "bytes")
    bench.row("peak memory", peak / 1e3, "GB", "<= 12")
    bench.finish(args)


if __name__ == "__main__":
    main()
