"""The example Makefile of docs/batch.md, killed on the way and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixcli.options import SyntheticOptions
from pixcli.synthetic.dataset import generate_dataset

import pycolmap

ROOT = Path(__file__).parents[1]
MAKEFILE = ROOT / "scripts" / "batch" / "Makefile"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def data(small_scene, tmp_path: Path) -> Path:
    """Two data sets, and one that cannot be mapped."""
    folder = tmp_path / "data"
    generate_dataset(tmp_path / "scene", SyntheticOptions(width=400, height=300, num_images=4, seed=2))
    shutil.copytree(small_scene.path / "images", folder / "first" / "images")
    shutil.copytree(tmp_path / "scene" / "images", folder / "second" / "images")
    (folder / "alone" / "images").mkdir(parents=True)
    shutil.copy(min((small_scene.path / "images").iterdir()), folder / "alone" / "images")
    return folder


def make(data: Path, out: Path, *options: str) -> list[str]:
    variables = [f"DATA={data}", f"OUT={out}", f"PYTHON={sys.executable} -P"]
    pixcli = f"PIXCLI={sys.executable} -P -m pixcli"
    return ["make", "-f", str(MAKEFILE), *variables, pixcli, *options]


@pytest.mark.slow
def test_killed_and_resumed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = make(data, out, "-j2", "-k")
    first = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not (out / "first" / "sparse" / "images.bin").exists():
        assert first.poll() is None
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)  # in the midst of what comes next
    first.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("*/*.db")}
    assert out / "first" / "refined.db" in done
    assert not (out / "first" / "report.json").exists()

    resumed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert resumed.returncode == 2, resumed.stderr  # the data set that cannot be mapped
    assert "alone/" in resumed.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert not (out / "alone" / "report.json").exists()
    for name in ("first", "second"):
        assert json.loads((out / name / "report.json").read_text())["model"]["images"] == 4
        assert pycolmap.Reconstruction(out / name / "model").num_reg_images() == 4
        assert "Phases" in (out / name / "model.txt").read_text(encoding="utf-8")
    shutil.rmtree(data / "alone")
    assert subprocess.run([*command, "-q"], check=False).returncode == 0  # nothing is left to do


def test_the_page_shows_the_makefile() -> None:
    page = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")
    assert f"```make\n{MAKEFILE.read_text(encoding='utf-8')}```" in page
