from pathlib import Path

from pixcli.options import GROUPS, KeypointAdjustmentOptions
from pixcli.options.docs import docs_table, options_page
from pixcli.options.fields import fields

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == options_page(), "run scripts/make_option_docs.py"


def test_every_option_has_a_row():
    page = options_page()
    assert all(f"| `{field.key}` " in page for group in GROUPS for field in fields(group))


def test_a_row_shows_default_choices_and_meaning():
    table = docs_table(KeypointAdjustmentOptions, advanced=True)
    row = next(line for line in table.splitlines() if "match_source" in line)
    assert row == (
        "| `KeypointAdjustment.match_source` | `inlier` | `{inlier, raw}` "
        "| Use geometrically verified matches, or all matches. |"
    )
    assert "match_source" not in docs_table(KeypointAdjustmentOptions, advanced=False)
