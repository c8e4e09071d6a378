"""What the build says of a system on which it cannot succeed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("version", [(2, 0), (2, 3)])
def test_meson_names_the_version_of_ceres_that_does_not_fit(tmp_path, version):
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    meson = shutil.which("meson", path=programs)
    if meson is None:
        pytest.skip("meson is not installed")
    header = tmp_path / "include" / "ceres" / "version.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define CERES_VERSION_MAJOR {}\n#define CERES_VERSION_MINOR {}\n".format(*version))
    environment = os.environ | {"PATH": programs, "CPLUS_INCLUDE_PATH": str(tmp_path / "include")}
    set_up = [meson, "setup", str(tmp_path / "build")]
    result = subprocess.run(set_up, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    assert "headers of Ceres 2.1 or 2.2" in result.stdout
    assert "found: {}.{}.".format(*version) in result.stdout
    assert "Install libceres-dev" in result.stdout
