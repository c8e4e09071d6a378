"""If only one test file is run, this is the one: it proves an installed wheel."""

import subprocess
import sys
from importlib import metadata, resources

import pixcli


def _run(*args):
    # -P keeps the current folder off the path: the installed package is meant, not a source tree.
    return subprocess.run([sys.executable, "-P", *args], capture_output=True, text=True)


def test_the_native_modules_are_there():
    from pixcli import _core
    from pixcli.ceres import costs, pyceres

    assert set(_core.build_config()) >= {"compiler", "kernels"}
    assert costs.__name__ == "pixcli._costs"
    assert pyceres.__ceres_version__.startswith("2.2")


def test_the_portable_kernels_can_be_chosen():
    set_up = "import os; os.environ['PIXCLI_ISA'] = 'baseline'; from pixcli import _core"
    assert "'kernels': 'baseline'" in _run("-c", f"{set_up}; print(_core.build_config())").stdout


def test_the_program_answers():
    version = _run("-m", "pixcli", "version")
    assert version.stdout == f"pixcli {pixcli.__version__}\n"
    assert _run("-m", "pixcli", "help").returncode == 0
    scripts = {entry.name: entry.value for entry in metadata.entry_points(group="console_scripts")}
    assert scripts["pixcli"] == "pixcli.cli.main:main"


def test_the_package_data_is_there():
    package = resources.files("pixcli")
    assert (package / "py.typed").is_file()
    assert (package / "presets" / "pixsfm.ini").is_file()


def test_everything_but_networks_imports_without_torch():
    code = """
import importlib, pkgutil, sys
class WithoutTorch:  # as if it were not installed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("no torch")
sys.meta_path.insert(0, WithoutTorch())
import pixcli
for module in pkgutil.walk_packages(pixcli.__path__, "pixcli."):
    if module.name not in ("pixcli.__main__", "pixcli.features.network", "pixcli.features.vgg"):
        importlib.import_module(module.name)
from pixcli.errors import UserError
from pixcli.features.registry import load_model
from pixcli.options import DenseFeaturesOptions
load_model(DenseFeaturesOptions(model="compact"))
try:
    load_model(DenseFeaturesOptions(model="s2dnet"))
except UserError as error:
    assert "pip install 'pixcli[learned]'" in str(error)
else:
    raise AssertionError("s2dnet without torch")
"""
    result = _run("-c", code)
    assert result.returncode == 0, result.stderr
