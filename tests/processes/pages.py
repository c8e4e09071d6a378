"""The examples of README and docs."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNABLE = re.compile(r"^(pixcli|colmap|python scripts/|make -f) ", re.MULTILINE)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}\S.*\n)+(?=\n)")


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def shell_examples(page: str) -> list[str]:
    """The blocks of a page that start pixcli, COLMAP or scripts; those that install and test are for CI."""
    text = _text(page)
    found = [(match.start(), match[2]) for match in FENCED.finditer(text) if match[1] in ("", "sh", "bash")]
    outside = FENCED.sub(lambda match: "\n" * len(match[0]), text)
    found += [(match.start(), match[0].replace("    ", "")) for match in INDENTED.finditer(outside)]
    return [block for _, block in sorted(found) if RUNNABLE.search(block)]


def python_examples(page: str) -> list[str]:
    return [match[2] for match in FENCED.finditer(_text(page)) if match[1] == "python"]


def notebook_code(page: str) -> str:
    cells = json.loads(_text(page))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
