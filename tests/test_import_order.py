"""zlib is loaded before pycolmap: by pixcli, and in every file that a user starts or copies."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import pixcli

ROOT = Path(__file__).parents[1]

COMPRESS = """
import io
import h5py
import numpy
from PIL import Image
image = (255 * numpy.random.default_rng(0).random((600, 800))).astype("uint8")
Image.fromarray(image).save(io.BytesIO(), "png")
numpy.savez_compressed(io.BytesIO(), image)
with h5py.File(io.BytesIO(), "w") as file:
    file.create_dataset("image", data=image, compression="gzip")
print("compressed")
"""

needs_shared_zlib = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "zlib" in sys.builtin_module_names,
    reason="here zlib is part of Python or bound to itself",
)


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a Python that has imported nothing, not even what installed packages make it import."""
    paths = [Path(package.__file__ or "").parents[1] for package in (pixcli, numpy)]
    return subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,  # an interpreter whose heap is broken may also hang
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )


@pytest.mark.parametrize("imports", ["import pixcli, pycolmap", "import zlib, pycolmap, pixcli"])
def test_with_zlib_first_everything_compresses(imports: str) -> None:
    run = fresh(imports + COMPRESS)
    assert (run.returncode, run.stdout, run.stderr) == (0, "compressed\n", "")


@needs_shared_zlib
def test_pycolmap_first_is_warned_of_once() -> None:
    run = fresh("import pycolmap\nimport pixcli\nimport pixcli.errors")
    assert run.returncode == 0
    assert run.stderr.count("RuntimeWarning") == 1
    assert run.stderr.startswith("<string>:2: RuntimeWarning: pycolmap was imported before zlib")
    assert "Put `import zlib` or `import pixcli` before" in run.stderr


def test_a_zlib_inside_python_is_not_relied_on() -> None:
    """Pillow and h5py use the system's one."""
    code = "import sys; sys.builtin_module_names += ('zlib',); sys.modules['zlib'] = sys\n"
    run = fresh(code + "import pixcli, pycolmap; del sys.modules['zlib']" + COMPRESS)
    assert (run.returncode, run.stdout, run.stderr) == (0, "compressed\n", "")


def _sources() -> dict[str, str]:
    """All code that a user starts or copies, by where it is. Within pixcli, its __init__.py comes first."""
    files = [path for folder in ("scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    sources = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        blocks = page.read_text(encoding="utf-8").split("```python\n")[1:]
        sources |= {f"{page.name} {k}": block.split("```")[0] for k, block in enumerate(blocks)}
    for notebook in (ROOT / "docs").glob("*.ipynb"):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        sources[notebook.name] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return sources


def _imports(source: str) -> list[str]:
    """The packages that code imports, in the order in which it does."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    packages = []
    for node in sorted(found, key=lambda node: node.lineno):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        packages += [name.split(".")[0] for name in names]
    return packages


def _is_wrong(source: str) -> bool:
    packages = _imports(source)
    before = packages[: packages.index("pycolmap")] if "pycolmap" in packages else ["zlib"]
    return not {"pixcli", "zlib"} & set(before)


def test_code_imports_pixcli_or_zlib_before_pycolmap() -> None:
    assert _is_wrong("import numpy\nimport pycolmap\nimport pixcli")
    assert not _is_wrong("import zlib\nimport pycolmap")
    sources = _sources()
    assert any("import pycolmap" in source for source in sources.values())
    assert [name for name, source in sources.items() if _is_wrong(source)] == []
