"""Progress bars and closing tables on a terminal."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from pixcli.progress import PhaseStats, Progress, Update


class TerminalProgress(Progress):
    """A bar for each phase, on stderr; silent where that is no terminal."""

    def _show(self, name: str, total: int | None) -> AbstractContextManager[Update]:
        return _bar(name, total) if sys.stderr.isatty() else super()._show(name, total)


@contextmanager
def _bar(name: str, total: int | None) -> Iterator[Update]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Bar(*columns, *times, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table on stdout: names in the first column, values as they are given in the others."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index > 0 else "left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # Off a terminal rich assumes 80 columns and would cut rows: files and pipes get them whole.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def print_phases(phases: Sequence[PhaseStats]) -> None:
    """Prints what the phases of a run took."""
    rows = [(phase.name, f"{phase.seconds:.2f}", f"{phase.peak_memory_mb:.0f}") for phase in phases]
    print_table("Phases", ["", "seconds", "peak memory (MB)"], rows)
