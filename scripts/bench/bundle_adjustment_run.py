"""The command with the strategy feature_reference on 70,000 observations of 128 channels, features cached.

A simulated model in 11 images, of the size of fountain-P11, which the peer was measured on; intrinsics are
fixed. The cache holds patches of waves, the same in all observations of a point but for noise. Time is
that of the process, with its start; memory is beyond that of a Python that has imported the same libraries.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import numpy as np
import PIL.Image
from bundle_adjustment import simulate
from common import Bench, arguments

from pixcli.geometry.observations import Observations, project, read_observations
from pixcli.io.images import image_hash
from pixcli.io.patch_store import open_store
from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.feature_references import extraction_around
from pixcli.sampling.streaming import ImageFile

import pycolmap

LIBRARIES = "import pixcli.cli.main, pixcli.cli.featuremetric_bundle_adjuster, pixcli.cli.terminal"


def write_cache(
    folder: Path, model: pycolmap.Reconstruction, observations: Observations, features: DenseFeaturesOptions
) -> None:
    """Fills the cache with patches around the projections, and writes blank images."""
    images = [image for _, image in sorted(model.images.items())]
    files = []
    for image in images:
        size = (image.camera.width, image.camera.height)
        PIL.Image.new("L", size, image.image_id).save(folder / image.name)
        files.append(ImageFile(image.name, folder / image.name, size))
    projected = project(model, observations)
    extraction, _ = extraction_around(model, files, observations, projected, features)
    rng = np.random.default_rng(0)
    channels, edge, count = extraction.num_channels, features.patch_size, len(observations.point_ids)
    phase = rng.uniform(0, 6, (count, channels))
    slope = rng.uniform(-0.5, 0.5, (count, 2, channels))
    with open_store(Path(features.cache_path), extraction.contents, lambda index: "") as store:
        for index, name in enumerate(extraction.contents.images):
            (image,) = (image for image in images if image.name == name)
            members = observations.by_image[image.image_id]
            # The keypoints are where the points truly are; the patches lie around the projections of the
            # disturbed model.
            true, points = observations.xy[members], observations.point_index[members]
            corners = np.floor(projected[members] - edge / 2).astype(np.int32)
            data = np.empty((len(members), edge, edge, channels), np.float16)
            for k, point in enumerate(points.tolist()):
                x, y = (np.arange(edge)[:, None] + 0.5 + corners[k] - true[k]).T
                along_x = np.exp(1j * (x[:, None] * slope[point, 0] + phase[point]))
                data[k] = (np.exp(1j * y[:, None] * slope[point, 1])[:, None] * along_x).imag
                data[k] += rng.normal(0, 0.05, channels)
            store.write(index, image_hash(folder / name), [(data, corners, np.ones((len(members), 2)))])


def watched(command: Sequence[object]) -> tuple[float, float, float, float]:
    """Seconds and CPU seconds of a program, and its peak memory in MB: resident, and without mapped files."""
    peaks = {"VmHWM": 0.0, "RssAnon": 0.0}
    start, cpu = time.perf_counter(), _cpu_of_children()
    with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL) as process:

        def watch() -> None:
            while process.poll() is None:
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
                except OSError:
                    return
                for line in status.splitlines():
                    name, _, rest = line.partition(":")
                    if name in peaks:
                        peaks[name] = max(peaks[name], int(rest.split()[0]) * 1024 / 1e6)
                time.sleep(0.01)

        thread = Thread(target=watch)
        thread.start()
        code = process.wait()
        thread.join()
    if code != 0:
        raise SystemExit(code)
    seconds = time.perf_counter() - start
    return seconds, _cpu_of_children() - cpu, peaks["VmHWM"], peaks["RssAnon"]


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--frames", type=int, default=11)
    parser.add_argument("--points", type=int, default=6364)
    parser.add_argument("--patch_size", type=int, default=16)
    args = parser.parse_args()
    bench = Bench("bundle adjustment, whole run")
    model, _ = simulate(args.frames, args.points)
    observations = read_observations(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        model.write_binary(str(folder / "model"))
        # As it is read again, so that the cache is for the very same places.
        model = pycolmap.Reconstruction(folder / "model")
        features = {"model": "dsift", "patch_size": args.patch_size}
        cache = {"use_cache": True, "cache_path": str(folder / "cache.h5")}
        write_cache(folder, model, observations, DenseFeaturesOptions(**features, **cache))
        command = [sys.executable, "-P", "-m", "pixcli", "featuremetric_bundle_adjuster"]
        command += ["--input_path", folder / "model", "--output_path", folder / "refined"]
        command += ["--image_path", folder, "--FeaturemetricBundleAdjustment.strategy", "feature_reference"]
        for key, value in {**features, **cache}.items():
            command += [f"--DenseFeatures.{key}", value]
        for key in ("focal_length", "extra_params"):
            command += [f"--BundleAdjustment.refine_{key}", 0]
        _, _, libraries, libraries_alone = watched([sys.executable, "-P", "-c", LIBRARIES])
        seconds, cpu, resident, alone = watched(command)
    bench.row("observations", len(observations.xy), "")
    bench.row("patches in the cache", extraction_megabytes(len(observations.xy), args.patch_size), "MB")
    bench.row("model read to model written", seconds, "s", "<= 15")
    bench.row("CPU of that", cpu, "s")
    bench.row("peak memory above the libraries", resident - libraries, "MB", "<= 600")
    bench.row("without the mapped file", alone - libraries_alone, "MB")
    bench.finish(args)


def extraction_megabytes(observations: int, patch_size: int) -> float:
    return observations * patch_size**2 * 128 * 2 / 1e6


if __name__ == "__main__":
    main()
