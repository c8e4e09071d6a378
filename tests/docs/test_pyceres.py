"""The example of docs/pyceres.md runs as it stands there."""

from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "pyceres.md"


def test_the_example_finds_the_truth_back(capsys):
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("```python\n") == 1
    code = page.split("```python\n")[1].split("```")[0]
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert "CONVERGENCE" in capsys.readouterr().out
    assert np.abs(names["points"] - names["true_points"]).max() < 1e-3
    assert np.abs(names["poses"][1] - names["true_poses"][1]).max() < 1e-4
    assert names["summary"].final_cost < 1e-4 * names["summary"].initial_cost


def test_the_costs_that_the_page_names_exist():
    from pixcli.ceres import costs

    page = PAGE.read_text(encoding="utf-8")
    named = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert len(named) == 4
    assert all(hasattr(costs, name) for name in named)
