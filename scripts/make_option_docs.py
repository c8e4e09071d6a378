"""Writes docs/options.md from the options themselves."""

from pathlib import Path

from pixcli.options.docs import options_page

if __name__ == "__main__":
    (Path(__file__).parents[1] / "docs" / "options.md").write_text(options_page(), encoding="utf-8")
