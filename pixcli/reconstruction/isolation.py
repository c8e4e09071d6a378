"""Calls of COLMAP in a process of their own.

Where a disk is full or memory runs out, COLMAP's threads abort the process that they run in.
"""

import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pixcli.errors import Interrupted, UserError
from pixcli.progress import peak_memory_mb

Result = TypeVar("Result")

_INTERRUPTED = 130
_PATIENCE = 10.0  # seconds that an interrupted call gets to end by itself
_COLMAPS_OWN = re.compile(r"\[\w+\.(cc|h):\d+\] ")  # a check that failed: of options, above all
_FULL = 10_000_000  # free bytes of a disk on which SQLite fails: it gives some back as it does
# What tells a user nothing: where a dying process was in its code, how few features make a vocabulary tree.
_IDLE_WORDS = re.compile(
    r"terminate called|  what\(\):|\*\*\* |PC: @| +@ |Fatal Python error|F\d{8} |Aborted|WARNING clustering"
)


def isolated(
    what: str, folder: Path, function: Callable[..., Result], *arguments: Any
) -> tuple[Result, float]:
    """Calls function(*arguments), which must be importable and the rest picklable.

    Args:
        what: the call in words, for errors.
        folder: where the call writes.

    Returns:
        What the function returns, and the peak memory of its process in MB.

    Raises:
        UserError: that of the function or of COLMAP, or that the process died, or failed on a full disk.
        Exception: any other of the function, with its traceback as a note.
    """
    with tempfile.TemporaryDirectory(prefix="pixcli-") as temporary:
        call, answer = Path(temporary) / "call", Path(temporary) / "answer"
        level = logging.getLogger("pixcli").level
        call.write_bytes(pickle.dumps((function, arguments, level)))
        program = "from pixcli.reconstruction.isolation import _serve; _serve()"
        command = [sys.executable, "-P", "-c", program, str(call), str(answer)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if not _IDLE_WORDS.match(line):
                    sys.stderr.write(line)
            code = process.wait()
        except BaseException:
            _stop(process)
            clear_leftovers(folder)
            raise
        if code == _INTERRUPTED:
            raise Interrupted
        if not answer.is_file():
            clear_leftovers(folder)
            raise UserError(_died(what, folder))
        result, error, memory = pickle.loads(answer.read_bytes())
        if isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < _FULL:
            raise UserError(_died(what, folder)) from error
        if _COLMAPS_OWN.match(str(error)):
            raise UserError(f"COLMAP stopped while it was {what}: {error}".strip()) from error
        if error is not None:
            raise error
        return result, memory


def _died(what: str, folder: Path) -> str:
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"COLMAP died while it was {what}: is the disk of {folder} full ({free:.0f} MB are free), or the "
        "memory used up? What was done is kept; the same command goes on from there"
    )


def clear_leftovers(folder: Path) -> None:
    """Removes the unfinished results of what was killed here."""
    for path in folder.glob(".pixcli-*"):
        shutil.rmtree(path, ignore_errors=True)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ends a call whose caller was interrupted; on a terminal, it was interrupted as well."""
    try:
        process.wait(timeout=_PATIENCE if process.poll() is None and _in_foreground() else 0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _in_foreground() -> bool:
    """Whether Ctrl-C went to the whole group of processes."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def _serve() -> None:
    """What the process does: reads a call, makes it, writes the answer whole."""
    call, answer = map(Path, sys.argv[1:3])
    try:
        function, arguments, level = pickle.loads(call.read_bytes())
        logging.getLogger("pixcli").setLevel(level)
        result: Any = None
        error: Exception | None = None
        try:
            result = function(*arguments)
        except UserError as told:
            error = told
        except Exception as failed:
            error = failed
            error.add_note(f"in a process of its own:\n{traceback.format_exc()}")
        partial = answer.with_suffix(".partial")
        partial.write_bytes(pickle.dumps((result, error, peak_memory_mb())))
        partial.replace(answer)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
