"""Tries the pixcli of an environment as a user would: the minimal test, the facts about the build, and a
refined model of ten photos (of PIXCLI_DATA or ../shared/data where they are there, else rendered ones).

usage: ENVIRONMENT/bin/python scripts/try_installation.py     (pytest must be installed there)
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
NUM_IMAGES = 10


def main(folder: Path) -> None:
    # Away from the source tree, which has no compiled modules.
    shutil.copy(ROOT / "tests" / "test_minimal.py", folder)
    run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_minimal.py")
    pixcli(folder, "version", "--verbose")
    pixcli(
        folder, "reconstructor", "--preset", "fast", "--image_path", photos(folder), "--output_path", "out"
    )
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    registered = report["steps"]["mapping"]["registered"]
    if registered != NUM_IMAGES or not (folder / "out" / "model" / "points3D.bin").stat().st_size > 100_000:
        sys.exit(
            f"the refined model is not what it should be ({registered} of {NUM_IMAGES} images registered)"
        )


def photos(folder: Path) -> Path:
    """A folder of ten small images."""
    data = Path(os.environ.get("PIXCLI_DATA", ROOT.parent / "shared" / "data"))
    found = sorted((data / "entry-P10" / "images").glob("*.jpg"))
    if not found:
        size = ["--Synthetic.width", "640", "--Synthetic.height", "480"]
        number = ["--Synthetic.num_images", str(NUM_IMAGES)]
        pixcli(folder, "synthetic_dataset_generator", "--output_path", "scene", *size, *number)
        return folder / "scene" / "images"
    (folder / "images").mkdir()
    for path in found:
        with Image.open(path) as image:
            image.reduce(4).save(folder / "images" / path.name, quality=95)
    return folder / "images"


def pixcli(folder: Path, *arguments: object) -> None:
    run(folder, Path(sys.executable).with_name("pixcli"), *arguments)


def run(folder: Path, *command: object) -> None:
    subprocess.run([str(word) for word in command], cwd=folder, check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
