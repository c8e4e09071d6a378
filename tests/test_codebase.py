"""Linters, types and what must agree between files."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import pixcli

ROOT = Path(__file__).parents[1]


def _check(*command):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff():
    _check(sys.executable, "-m", "ruff", "check")


def test_ruff_format():
    # The folders of `make format`: the notebook keeps the layout that its readers see.
    _check(sys.executable, "-m", "ruff", "format", "--check", "pixcli", "scripts", "tests")


@pytest.mark.slow
def test_mypy():
    _check(sys.executable, "-m", "mypy")


def test_clang_format():
    clang_format = pytest.importorskip("clang_format")
    sources = [path for path in (ROOT / "native").rglob("*") if path.suffix in (".h", ".cc")]
    assert sources
    _check(clang_format.get_executable("clang-format"), "--dry-run", "--Werror", *sources)


def test_versions_agree():
    for file, pattern in (
        ("meson.build", r"^\s*version: '(.+)'"),
        ("CITATION.cff", r"^version: (.+)"),
        ("recipe/recipe.yaml", r'^  version: "(.+)"'),
    ):
        found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        assert found is not None, file
        assert found[1] == pixcli.__version__ == metadata.version("pixcli"), file


def test_the_recipe_has_the_dependencies_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
    recipe = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8").splitlines()
    for requirement in wanted:
        assert "    - " + re.sub("(?=>)", " ", requirement, count=1) in recipe


def test_only_the_command_line_knows_click_and_rich():
    pattern = re.compile(r"^\s*(import|from) (click|rich)\b", re.MULTILINE)
    users = {
        path for path in (ROOT / "pixcli").rglob("*.py") if pattern.search(path.read_text(encoding="utf-8"))
    }
    assert {path.parent.name for path in users} == {"cli"}


def test_only_one_module_imports_what_some_systems_lack():
    pattern = re.compile(r"^\s*(import|from) (fcntl|resource|termios|pwd|grp|msvcrt|winreg)\b", re.MULTILINE)
    users = [
        path.name
        for path in (ROOT / "pixcli").rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert users == ["system.py"]
