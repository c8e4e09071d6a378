"""Featuremetric bundle adjustment: residuals compressed to three rows against one row a channel.

A simulated model with patches made at random around a smooth field: no images are needed. CPU is that of the
process; an iteration is what one more iteration costs, without building and setting up.
"""

import time

import numpy as np
from common import Bench, arguments

from pixcli.bundle_adjustment.problem import BundleProblem
from pixcli.bundle_adjustment.solver import BundleSummary, Loss
from pixcli.geometry.observations import Observations, project, read_observations
from pixcli.io.patch_store import Patches
from pixcli.io.references import References
from pixcli.options import InterpolationOptions
from pixcli.options.bundle_adjustment import BundleAdjustmentCeresOptions, BundleAdjustmentOptions
from pixcli.sampling.feature_references import compute_references

import pycolmap

FIXED_CAMERAS = BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)
ITERATIONS = 5
EDGE = 8


def simulate(frames: int, points: int, seed: int = 0) -> tuple[pycolmap.Reconstruction, Observations]:
    """A model with errors of some tenths of a pixel, in which every image sees every point."""
    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 1, frames, points
    model = pycolmap.synthesize_dataset(options)
    rng = np.random.default_rng(seed)
    for point in model.points3D.values():
        point.xyz = point.xyz + rng.normal(0, 1e-3, 3)
    return model, read_observations(model)


def make_patches(projected: np.ndarray, point_index: np.ndarray, channels: int, seed: int = 0) -> Patches:
    """Waves, the same in all observations of a point but for noise, as features with some texture."""
    rng = np.random.default_rng(seed)
    n = len(projected)
    corners = np.floor(projected - EDGE / 2).astype(np.int32)
    count = int(point_index.max()) + 1
    phase, slope = rng.uniform(0, 6, (count, channels)), rng.uniform(-0.5, 0.5, (count, channels, 2))
    data = np.empty((n, EDGE, EDGE, channels), np.float16)
    grid = np.stack(np.meshgrid(np.arange(EDGE), np.arange(EDGE)), -1) + 0.5
    for k, point in enumerate(point_index.tolist()):
        offset = (grid + corners[k] - projected[k]).reshape(-1, 2)
        data[k] = np.sin(offset @ slope[point].T + phase[point]).reshape(EDGE, EDGE, channels)
        data[k] += rng.normal(0, 0.05, (1, 1, channels))
    return Patches(data, corners, np.ones((n, 2)))


def solve(
    model: pycolmap.Reconstruction,
    observations: Observations,
    patches: Patches,
    references: References,
    iterations: int,
    *,
    compressed: bool,
) -> tuple[float, BundleSummary]:
    """CPU seconds of solving, and the summary."""
    problem = BundleProblem(model, observations, FIXED_CAMERAS)
    problem.add_features(
        patches, references, InterpolationOptions(), Loss("cauchy", 0.25), compressed=compressed
    )
    options = BundleAdjustmentCeresOptions(
        max_num_iterations=iterations,
        max_num_images_direct_dense_cpu_solver=0,  # SPARSE_SCHUR, as models of more images have
        function_tolerance=0,
        gradient_tolerance=0,
        parameter_tolerance=0,
        num_threads=1,
    )
    start = time.process_time()
    summary = problem.solve(options)
    return time.process_time() - start, summary


def per_iteration(*args: object, compressed: bool) -> tuple[float, float, BundleSummary]:
    """CPU seconds of an iteration beyond the linear solver and in it, and the summary of the longer run.

    The clocks of Ceres run on while other programs have the processor: they only say how to divide.
    """
    one, first = solve(*args, 1, compressed=compressed)  # type: ignore[arg-type]
    more, summary = solve(*args, ITERATIONS + 1, compressed=compressed)  # type: ignore[arg-type]
    seconds = (more - one) / ITERATIONS
    share = (summary.linear_solver_seconds - first.linear_solver_seconds) / (summary.seconds - first.seconds)
    return seconds * (1 - share), seconds * share, summary


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--frames", type=int, default=11)
    parser.add_argument("--points", type=int, default=900)
    parser.add_argument("--channels", type=int, default=128)
    args = parser.parse_args()
    bench = Bench("bundle adjustment")

    model, observations = simulate(args.frames, args.points)
    projected = project(model, observations)
    patches = make_patches(observations.xy, observations.point_index, args.channels)
    references = compute_references(observations, projected, patches, InterpolationOptions())
    problem = (model, observations, patches, references)
    # They take turns, so that both see the same machine.
    runs = [
        [per_iteration(*problem, compressed=compressed) for compressed in (True, False)] for _ in range(3)
    ]
    short, long = (min((run[k] for run in runs), key=lambda run: run[0] + run[1]) for k in range(2))
    n = len(observations.xy)
    bench.row(f"CPU of an iteration, {n} observations, {args.channels} channels", sum(short[:2]), "s")
    bench.row("CPU, one row a channel / compressed", sum(long[:2]) / sum(short[:2]), "x", ">= 4")
    # Ceres stores, for each row, the derivatives of point (3) and pose (6).
    memory = [9 * 8 * run[2].num_residuals / 2**20 for run in (short, long)]
    bench.row("Jacobian, compressed", memory[0], "MiB")
    bench.row("Jacobian, compressed / one row a channel", memory[0] / memory[1], "x", "<= 0.05")
    difference = abs(short[2].final_cost / long[2].final_cost - 1)
    bench.row("final costs, relative difference", difference, "", "<= 1e-6")
    bench.row("CPU of 70,000 beyond the linear solver, an iteration", short[0] * 70_000 / n, "s", "<= 0.12")
    bench.row("CPU of 70,000 in the linear solver, an iteration", short[1] * 70_000 / n, "s")

    start = time.process_time()
    built = BundleProblem(model, observations, FIXED_CAMERAS)
    built.add_features(patches, references, InterpolationOptions(), Loss("cauchy", 0.25))
    bench.row("building, an observation", 1e6 * (time.process_time() - start) / n, "us")
    start = time.process_time()
    compute_references(observations, projected, patches, InterpolationOptions(), num_threads=1)
    bench.row("references, an observation", 1e6 * (time.process_time() - start) / n, "us")
    bench.finish(args)


if __name__ == "__main__":
    main()
