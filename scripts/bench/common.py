"""What all benchmarks share: targets, a table, a JSON file, and times as ratios within one run.

bench = Bench("tracks")
bench.row("10 million edges", seconds, "s", "<= 20")
bench.finish(arguments(__doc__).parse_args())
"""

import argparse
import json
import operator
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

Row = dict[str, str | float | bool | None]
COMPARISONS = {"<=": operator.le, ">=": operator.ge}
CACHE = Path(__file__).parents[2] / "build" / "bench"  # what is expensive to make and may be used again


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The arguments of every benchmark; a script adds its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser


def folder_from(variable: str) -> Path | None:
    """The folder of PIXCLI_DATA or PIXCLI_TOOLS, else data or tools in ../shared; None if there is none."""
    beside = Path(__file__).parents[3] / "shared" / variable.removeprefix("PIXCLI_").lower()
    folder = Path(os.environ.get(variable, beside)).resolve()
    if not folder.is_dir():
        print(f"SKIPPED: there is no {folder}; set {variable} (see {sys.argv[0]})", file=sys.stderr)
        return None
    return folder


class Bench:
    """Figures of one benchmark, each against its target where it has one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []

    def row(self, figure: str, value: float, unit: str, target: str | None = None) -> None:
        """Adds a figure; the target reads "<= 8" or ">= 20", in the same unit."""
        met = None
        if target is not None:
            comparison, limit = target.split()
            met = bool(COMPARISONS[comparison](value, float(limit)))
        row: Row = {"benchmark": self.name, "figure": figure, "value": float(value), "unit": unit}
        self.rows.append({**row, "target": target, "met": met})

    def finish(self, args: argparse.Namespace) -> None:
        """Prints the table and writes the rows where --json says."""
        print_rows(self.rows)
        if args.json is not None:
            write_rows(args.json, self.rows)


def print_rows(rows: list[Row]) -> None:
    table = Table("benchmark", "figure", "value", "unit", "target", "met")
    for row in rows:
        met = {True: "yes", False: "NO", None: ""}[row["met"]]
        table.add_row(
            row["benchmark"], row["figure"], f"{row['value']:.4g}", row["unit"], row["target"] or "", met
        )
    Console(width=140).print(table)


def write_rows(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def best_time(function: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of several runs: the one that was disturbed least."""
    return min(_time(function) for _ in range(repeats))


def time_ratio(slow: Callable[[], object], fast: Callable[[], object], repeats: int = 5) -> float:
    """How many times longer `slow` takes than `fast`; they take turns, so that both see the same machine."""
    times = [(_time(slow), _time(fast)) for _ in range(repeats)]
    return min(time for time, _ in times) / min(time for _, time in times)


def _time(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
