"""Many queries against a large map, featuremetric strategy: throughput by threads, and memory by queries.

Points lie on a plane that cameras look at; features are simulated: around every match a patch that meets the
point's reference where it projects to. Decoding and feature extraction are left out. One thread and two take
turns with a tenth of the queries each, so that what else a machine does disturbs both alike.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from common import Bench, arguments

from pixcli import _core
from pixcli.adapters.query_records import append_query, read_queries
from pixcli.io.journal import Journal
from pixcli.io.references import References
from pixcli.localization.batch import localize_batch
from pixcli.localization.feature_map import FeatureMap
from pixcli.localization.localizer import QueryLocalizer
from pixcli.localization.queries import Queries, Query
from pixcli.options import DenseFeaturesOptions, InterpolationOptions, LocalizationOptions
from pixcli.options.localization import LocalizeOptions
from pixcli.sampling.map_patches import Extractor

import pycolmap

EDGE, CHANNELS, NOISE = 10, 128, 1.0
VIEWS = 16  # queries repeat these, whose features are kept: making them takes longer than localizing
CAMERA = pycolmap.Camera(model="SIMPLE_RADIAL", width=1000, height=800, params=[900, 500, 400, 0.02])
CAMERA.has_prior_focal_length = True


@dataclass(frozen=True)
class Simulation(Queries):
    """Queries that see some points of the map each, made from their number when they are read."""

    points: np.ndarray
    names: list[str]
    matches: int

    def read(self, name: str) -> Query:
        return replace(self._views[int(name) % VIEWS], name=name)

    @cached_property
    def _views(self) -> list[Query]:
        return [self._view(number) for number in range(VIEWS)]

    def _view(self, number: int) -> Query:
        rng = np.random.default_rng(number)
        pose = true_pose(number)
        centre = pose.inverse().translation[:2]
        near = np.flatnonzero((np.abs(self.points[:, :2] - centre) < 6).all(1))
        seen = np.asarray(CAMERA.img_from_cam(pose * self.points[near]))
        inside = np.flatnonzero(((seen > 10) & (seen < [990, 790])).all(1))
        rows = np.sort(rng.choice(inside, self.matches, replace=False))
        chosen = near[rows]
        keypoints = seen[rows] + rng.normal(0, NOISE, (self.matches, 2))
        return Query("", CAMERA, keypoints, np.arange(self.matches), chosen + 1, np.zeros(self.matches, int))


class SimulatedMap(FeatureMap):
    """A query's "image" is its number."""

    def image(self, pixels: object, camera: pycolmap.Camera) -> np.ndarray:
        return np.full((1, 1), float(Path(str(pixels)).name), np.float32)


class SimulatedFeatures(Extractor):
    """Patches that are linear in the pixel, and nothing beside what the query asks for."""

    def __init__(self, queries: Simulation, features: np.ndarray) -> None:
        super().__init__(DenseFeaturesOptions(model="image"))
        self.queries, self.features = queries, features
        self.slopes = np.random.default_rng(0).normal(0, 0.05, (2, CHANNELS)).astype(np.float32)

    def patches(self, image: np.ndarray, size: tuple[int, int], xy: np.ndarray) -> list:
        return [self.of_view(int(image[0, 0]) % VIEWS, xy.tobytes())]

    @lru_cache(maxsize=VIEWS)  # noqa: B019
    def of_view(self, number: int, keypoints: bytes) -> tuple:
        xy = np.frombuffer(keypoints).reshape(-1, 2)
        query = self.queries.read(str(number))
        order = np.lexsort(query.keypoints[:, ::-1].T)  # as the keypoints are asked for
        ids = query.point3D_ids[order]
        true = np.asarray(CAMERA.img_from_cam(true_pose(number) * self.queries.points[ids - 1]))
        corners = np.floor(xy - EDGE / 2).astype(np.int32)
        at = (np.arange(EDGE) + 0.5 + corners[:, :, None] - true[:, :, None]).astype(np.float32)
        data = self.features[ids - 1][:, None, None] + at[:, 0, None, :, None] * self.slopes[0]
        data = data + at[:, 1, :, None, None] * self.slopes[1]
        return data.astype(np.float16), corners, np.ones((len(xy), 2))


def true_pose(number: int) -> pycolmap.Rigid3d:
    rng = np.random.default_rng([1, number % VIEWS])
    centre = np.array([*rng.uniform(-20, 20, 2), -6.0])
    turn = pycolmap.Rotation3d(rng.normal(0, 0.1, 3))
    return pycolmap.Rigid3d(turn, -(turn.matrix() @ centre))


def cpu_of_steps(
    localizer: QueryLocalizer, queries: Queries, names: list[str]
) -> tuple[dict[str, float], float]:
    """Milliseconds of each step, and the share of all that is spent without the interpreter's lock."""
    steps: dict[str, list[float]] = {}
    with mock.patch("time.perf_counter", time.thread_time), unlocked_seconds() as unlocked:
        start = time.thread_time()
        for name in names:
            query = queries.read(name)
            result = localizer.localize(
                query.keypoints, query.point2D_idxs, query.point3D_ids, query.camera, image=name
            )
            for step in result.steps:
                steps.setdefault(step.name, []).append(1e3 * step.seconds)
        total = time.thread_time() - start
    return {name: float(np.median(values)) for name, values in steps.items()}, sum(unlocked) / total


@contextmanager
def unlocked_seconds() -> Iterator[list[float]]:
    """The CPU seconds of calls of native functions that release the interpreter's lock."""
    seconds: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> object:
            start = time.thread_time()
            result = function(*args, **kwargs)
            seconds.append(time.thread_time() - start)
            return result

        return call

    with ExitStack() as stack:
        for module, name in (
            (_core, "evaluate_targets"),
            (_core, "align_to_targets"),
            (pycolmap, "estimate_and_refine_absolute_pose"),
        ):
            stack.enter_context(mock.patch.object(module, name, timed(getattr(module, name))))
        yield seconds


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--matches", type=int, default=500)
    parser.add_argument("--points", type=int, default=300_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    points = np.c_[rng.uniform(-26, 26, (args.points, 2)), rng.normal(0, 0.3, args.points)]
    features = rng.normal(0, 0.1, (args.points, CHANNELS)).astype(np.float32)
    model = pycolmap.Reconstruction()
    for point in points:
        model.add_point3D(point, pycolmap.Track())
    ids = np.arange(1, args.points + 1)
    references = References(ids, features, np.ones_like(ids), np.zeros_like(ids))
    queries = Simulation(points, [str(k) for k in range(args.queries)], args.matches)
    known = SimulatedMap(
        "images",
        [references],
        SimulatedFeatures(queries, features),
        InterpolationOptions(l2_normalize=False),
        model,
    )
    how = LocalizationOptions(strategy="featuremetric", target_reference="robust_mean")
    localizer = QueryLocalizer(model, LocalizeOptions(how), references=known)

    seconds: dict[int, list[float]] = {1: [], 2: []}
    cpu: dict[int, list[float]] = {1: [], 2: []}
    memory, errors = [], []
    names = queries.names[:]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        journals = {
            threads: stack.enter_context(Journal(Path(folder) / f"{threads}.journal")) for threads in cpu
        }
        for part in range(10):
            queries.names[:] = names[: len(names) * (part + 1) // 10]
            for threads, journal in journals.items():
                start = time.perf_counter(), time.process_time()
                for localized in localize_batch(localizer, queries, Path(), journal.count, threads):
                    append_query(journal, localized)
                seconds[threads].append(time.perf_counter() - start[0])
                cpu[threads].append(time.process_time() - start[1])
            memory.append(resident_mb())
        for localized in read_queries(journals[2]):
            true = true_pose(int(localized.name))
            pose = localized.result.cam_from_world
            assert pose is not None, localized.result.reason
            moved = pose.inverse().translation - true.inverse().translation
            errors.append(1e3 * float(np.linalg.norm(moved)))
    bench = Bench("localization_throughput")
    rate = args.queries / 10
    bench.row("queries a second, one thread", rate / np.median(seconds[1]), "1/s")
    bench.row("queries a second, two threads", rate / np.median(seconds[2]), "1/s")
    bench.row("two threads over one", np.median(np.divide(seconds[1], seconds[2])), "times", ">= 1.7")
    bench.row("CPU time of two threads over that of one", np.median(np.divide(cpu[2], cpu[1])), "times")
    bench.row(
        "memory after the last tenth of the queries over after the second",
        memory[9] / memory[1],
        "times",
        "<= 1.02",
    )
    bench.row("memory", memory[9], "MB")
    bench.row("position error, median", float(np.median(errors)), "mm")
    steps, parallel = cpu_of_steps(localizer, queries, names[: 4 * VIEWS])
    for name, milliseconds in steps.items():
        bench.row(f"{name}, CPU, median of {args.matches} matches", milliseconds, "ms")
    adjust = sum(steps[f"query {what} adjustment"] for what in ("keypoint", "bundle"))
    bench.row("query keypoint and bundle adjustment, CPU", adjust, "ms", "<= 20")
    bench.row("CPU time of a query in native code that any number of threads may be in", 100 * parallel, "%")
    bench.finish(args)


if __name__ == "__main__":
    main()
