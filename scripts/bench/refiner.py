"""feature_refiner with default options, as a user runs it, on sacre_coeur in the folder PIXCLI_DATA."""

import os
import resource
import subprocess
import sys
import time

from common import CACHE, Bench, arguments, folder_from

from pixcli.synthetic.baseline import build_database

import pycolmap

REPEATS = 3


def main() -> None:
    """Prints the table."""
    args = arguments(__doc__).parse_args()
    pycolmap.logging.minloglevel = 2
    bench = Bench("refiner")
    data = folder_from("PIXCLI_DATA")
    if data is not None:
        images = data / "sacre_coeur" / "images"
        folder = CACHE / "refiner"
        raw, refined = folder / "raw.db", folder / "refined.db"
        if not raw.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            build_database(pycolmap.Reconstruction(data / "sacre_coeur" / "gt"), images, raw)
        paths = ["--database_path", raw, "--image_path", images, "--output_path", refined]
        command = [sys.executable, "-P", "-m", "pixcli", "feature_refiner", *map(str, paths)]
        # The peak of the children counts; building the database above ran in this process.
        seconds = float("inf")
        for _ in range(REPEATS):
            refined.unlink(missing_ok=True)
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds = min(seconds, time.perf_counter() - start)
        memory = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        bench.row(f"sacre_coeur, database to refined database, {os.cpu_count()} cores", seconds, "s", "<= 10")
        bench.row("sacre_coeur, peak memory", memory / 1e6, "MB", "<= 600")
    bench.finish(args)


if __name__ == "__main__":
    main()
