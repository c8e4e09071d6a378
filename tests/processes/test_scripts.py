"""Every script starts; what they do is tested in tests/scripts, test_batch.py, test_bench.py and others."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.processes.pages import ROOT

SCRIPTS = ROOT / "scripts"
PROGRAMS = sorted(
    str(path.relative_to(SCRIPTS)) for path in SCRIPTS.rglob("*.py") if "__main__" in path.read_text("utf-8")
)
WITHOUT_OPTIONS = {"demo.py", "make_option_docs.py", "try_installation.py", "batch/colmap.py"}


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in WITHOUT_OPTIONS])
def test_a_script_shows_its_help(place, name):
    if name == "train_features.py":
        pytest.importorskip("torch")
    printed = place.script(name, "--help")
    assert printed.startswith(f"usage: {Path(name).name}")


def test_make_option_docs(place):
    for name in ("scripts", "docs"):
        (place.path / name).mkdir()
    shutil.copy(SCRIPTS / "make_option_docs.py", place.path / "scripts")
    place.run(sys.executable, "scripts/make_option_docs.py")
    written = (place.path / "docs" / "options.md").read_bytes()
    assert written == (ROOT / "docs" / "options.md").read_bytes()
