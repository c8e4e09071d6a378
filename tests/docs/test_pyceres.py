"""What docs/pyceres.md names exists; tests/processes runs its example."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "pyceres.md"


def test_the_costs_that_the_page_names_exist():
    from pixcli.ceres import costs

    page = PAGE.read_text(encoding="utf-8")
    named = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert len(named) == 4
    assert all(hasattr(costs, name) for name in named)
