"""The helper that all benchmarks share, and benchmarks of simulated models in small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "scripts" / "bench"

SCRIPT = """
import sys
sys.path.insert(0, {bench!r})
from common import Bench, arguments, time_ratio
bench = Bench("example")
bench.row("error", 0.06, "px", "<= 0.07")
bench.row("speed-up", 19, "x", ">= 20")
bench.row("images", 24, "")
assert time_ratio(lambda: sum(range(200000)), lambda: None) > 1
bench.finish(arguments("Example.").parse_args())
"""


def test_rows_are_printed_and_written_with_their_targets(tmp_path):
    path = tmp_path / "out" / "rows.json"
    command = [sys.executable, "-P", "-c", SCRIPT.format(bench=str(BENCH)), "--json", str(path)]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "speed-up" in table
    assert "NO" in table
    assert json.loads(path.read_text(encoding="utf-8")) == [
        {
            "benchmark": "example",
            "figure": "error",
            "value": 0.06,
            "unit": "px",
            "target": "<= 0.07",
            "met": True,
        },
        {
            "benchmark": "example",
            "figure": "speed-up",
            "value": 19.0,
            "unit": "x",
            "target": ">= 20",
            "met": False,
        },
        {"benchmark": "example", "figure": "images", "value": 24.0, "unit": "", "target": None, "met": None},
    ]


@pytest.mark.parametrize(
    ("script", "size"),
    [
        ("bundle_adjustment_run", ["--frames", "3", "--points", "40", "--patch_size", "8"]),
        ("bundle_adjustment_large", ["--images", "12", "--points", "200"]),
    ],
)
def test_benchmarks_of_simulated_models_run(script, size, tmp_path):
    command = [sys.executable, BENCH / f"{script}.py", *size, "--json", tmp_path / "rows.json"]
    subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    rows = {row["figure"]: row for row in json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))}
    assert rows["observations"]["value"] > 0
    assert {row["target"] for row in rows.values()} > {None}
    assert all(row["value"] >= 0 for row in rows.values())
