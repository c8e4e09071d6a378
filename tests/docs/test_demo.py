"""docs/demo.ipynb runs from a clean kernel, and shows what it says."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("plotly")

NOTEBOOK = Path(__file__).parents[2] / "docs" / "demo.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_refinement_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHOTOS", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # it is kept without results
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    text = "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert not re.search(r"\.cc:\d+\]", text)  # lines of COLMAP or Ceres
    errors = re.search(r"'raw': '([\d.]+) mm', 'refined': '([\d.]+) mm'", text)
    assert errors is not None, text
    assert float(errors[2]) < float(errors[1])
    localized = re.search(r"is ([\d.]+) mm from where it was taken", text)
    assert localized is not None
    assert float(localized[1]) < 20
    kinds = {
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    }
    assert "application/vnd.plotly.v1+json" in kinds
