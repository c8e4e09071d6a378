"""Featuremetric keypoint adjustment against Ceres on the plain residual.

128 channels, 16x16 half patches, all edges, one thread, the same options and optimum. Both are measured in
processor time, the solvers alone: building the problems in Python is not counted. The oracle has analytic
derivatives and samples the same half patches in portable double precision, which converts halves without an
instruction for it. Its times on float patches, spared of that, and with this project's own vector kernels are
given too.
"""

import time
from typing import Any

import numpy as np
from common import Bench, arguments, time_ratio
from scipy.ndimage import gaussian_filter

from pixcli import _core
from pixcli.ceres import costs, pyceres
from pixcli.keypoint_adjustment.feature_distance import native_options
from pixcli.options import InterpolationOptions, KeypointAdjustmentOptions

CHANNELS, SIZE, BOUND, ITERATIONS, TOLERANCE = 128, 16, 4.0, 100, 1e-5
OPTIONS = KeypointAdjustmentOptions(
    bound=BOUND, max_iterations=ITERATIONS, parameter_tolerance=TOLERANCE, max_deviation=1e300
)
TARGETS = {3: 20, 5: 40, 10: 80}  # keypoints in a track: times as fast as Ceres
TRACKS = {3: 150, 5: 80, 10: 40}
REPEATS = 3


class Scene:
    """Tracks of smooth random features, each view shifted by a known part of a sample, with noise."""

    def __init__(self, tracks: int, length: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        n = tracks * length
        self.length = length
        self.patches = np.empty((n, SIZE, SIZE, CHANNELS), np.float16)
        self.corners = rng.integers(0, 2000, (n, 2)).astype(np.int32)
        self.xy = self.corners + SIZE / 2 + rng.uniform(-1, 1, (n, 2))
        frequency = np.fft.fftfreq(SIZE)
        for t in range(tracks):
            surface = gaussian_filter(rng.standard_normal((SIZE, SIZE, CHANNELS)), (2, 2, 0), mode="wrap")
            spectrum = np.fft.fft2(surface / surface.std(), axes=(0, 1))
            for k in range(t * length, (t + 1) * length):
                dx, dy = rng.uniform(-0.5, 0.5, 2)
                phase = np.exp(-2j * np.pi * (frequency[:, None] * dy + frequency[None, :] * dx))
                view = np.fft.ifft2(spectrum * phase[:, :, None], axes=(0, 1)).real
                noise = gaussian_filter(rng.standard_normal(view.shape), (1, 1, 0), mode="wrap")
                self.patches[k] = view + 0.1 * noise / noise.std()
        self.track_ptr = np.arange(0, n + 1, length, dtype=np.int64)
        pairs = np.stack(np.triu_indices(length, 1), 1)
        self.edges = (np.arange(tracks)[:, None, None] * length + pairs).reshape(-1, 2).astype(np.int32)

    def solve(self, num_threads: int = 1) -> dict[str, Any]:
        n = len(self.xy)
        level = (self.patches, self.corners, np.ones((n, 2)), np.arange(n))
        return _core.adjust_featuremetric(
            self.xy,
            self.track_ptr,
            np.arange(n, dtype=np.int32),
            self.edges,
            None,
            None,
            [level],
            **native_options(OPTIONS, InterpolationOptions()),
            guard=False,
            num_threads=num_threads,
        )

    def solve_with_ceres(
        self, portable: bool, dtype: type[np.floating[Any]] = np.float16
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Positions, cost of each track, and the seconds in Ceres."""
        xy = [x.copy() for x in self.xy]
        patches = self.patches.astype(dtype)
        loss = pyceres.CauchyLoss(0.25)
        options = pyceres.SolverOptions()
        options.max_num_iterations = ITERATIONS
        options.function_tolerance = options.gradient_tolerance = 0
        options.num_threads = 1
        options.minimizer_progress_to_stdout = False
        final, seconds = [], 0.0
        edges_of_track = self.edges.reshape(len(self.track_ptr) - 1, -1, 2)
        for first, edges in zip(self.track_ptr, edges_of_track, strict=False):
            problem = pyceres.Problem()
            for i, j in edges:
                cost = costs.FeaturemetricEdgeCost(
                    patches[i],
                    patches[j],
                    list(self.corners[i]),
                    list(self.corners[j]),
                    portable=portable,
                )
                problem.add_residual_block(cost, loss, [xy[i], xy[j]])
            problem.set_parameter_block_constant(xy[first])
            for k in range(first + 1, first + self.length):
                for c in range(2):
                    problem.set_parameter_lower_bound(xy[k], c, self.xy[k, c] - BOUND)
                    problem.set_parameter_upper_bound(xy[k], c, self.xy[k, c] + BOUND)
            # Ceres' tolerance is relative to the norm of all parameters, the native one is in pixels.
            track = self.xy[first + 1 : first + self.length]
            options.parameter_tolerance = TOLERANCE / float(np.linalg.norm(track))
            summary = pyceres.SolverSummary()
            start = time.process_time()
            pyceres.solve(options, problem, summary)
            seconds += time.process_time() - start
            final.append(summary.final_cost)
        return np.array(xy), np.array(final), seconds


def main() -> None:
    args = arguments(__doc__).parse_args()
    bench = Bench("featuremetric_ka")
    for length, target in TARGETS.items():
        scene = Scene(TRACKS[length], length)
        native_seconds, half_seconds, float_seconds, vector_seconds = np.inf, np.inf, np.inf, np.inf
        for _ in range(REPEATS):
            half_seconds = min(half_seconds, scene.solve_with_ceres(portable=True)[2])
            float_seconds = min(float_seconds, scene.solve_with_ceres(portable=True, dtype=np.float32)[2])
            xy, cost, seconds = scene.solve_with_ceres(portable=False)
            vector_seconds = min(vector_seconds, seconds)
            for _ in range(3):
                start = time.process_time()
                native = scene.solve()
                native_seconds = min(native_seconds, time.process_time() - start)
        name = f"tracks of {length}"
        bench.row(f"{name}: times as fast", half_seconds / native_seconds, "x", f">= {target}")
        bench.row(f"{name}: times as fast as on float patches", float_seconds / native_seconds, "x")
        bench.row(f"{name}: times as fast as with vector kernels", vector_seconds / native_seconds, "x")
        bench.row(f"{name}: time of a track", 1e6 * native_seconds / TRACKS[length], "us")
        bench.row(f"{name}: iterations of a track", float(native["iterations"].mean()), "")
        difference = np.abs(native["cost_after"] - cost) / cost
        bench.row(f"{name}: largest relative difference of cost", float(difference.max()), "", "<= 1e-6")
        bench.row(f"{name}: largest difference of position", float(np.abs(native["xy"] - xy).max()), "px")
    scene = Scene(400, 5)
    scaling = time_ratio(lambda: scene.solve(1), lambda: scene.solve(2))
    bench.row("two threads: times as fast as one", scaling, "x", ">= 1.7")
    bench.finish(args)


if __name__ == "__main__":
    main()
