"""Calls of COLMAP in a process of their own.

Where a disk is full or memory runs out, COLMAP's threads abort the process that they run in. And it writes
hundreds of lines to stderr: here they become progress, warnings and the reason of a failure.
"""

import _thread
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pixcli.errors import Interrupted, UserError
from pixcli.progress import Update
from pixcli.signals import EXIT_CODE as _TERMINATED
from pixcli.signals import Terminated, raise_on_sigterm, sigterm_held
from pixcli.system import peak_memory_mb

import pycolmap

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_INTERRUPTED = 130
_PATIENCE = 3.0  # seconds that an interrupted call gets to end by itself; `docker stop` grants ten in all
_COLMAPS_OWN = re.compile(r"\[\w+\.(cc|h):\d+\] ")  # a check that failed: of options, above all
_FULL = 10_000_000  # free bytes of a disk on which SQLite fails: it gives some back as it does
_LINE = re.compile(r"([IWEF])\d{8} [\d:.]+ +\d+ [\w.]+:\d+\] (.*)")
# Images that have features; images, or blocks of pairs, at which matching is; images that are registered.
_FEATURES = re.compile(r"Processed file \[(\d+)/\d+\]")
_MATCHES = re.compile(r"Processing image \[(\d+)/\d+\]|Processing block \[(\d+)/\d+, (\d+)/(\d+)\]")
_IMAGES = re.compile(r"Registering image #\d+ \(num_reg_frames=(\d+)\)")


def isolated(
    what: str,
    folder: Path,
    function: Callable[..., Result],
    *arguments: Any,
    update: Update | None = None,
) -> tuple[Result, float]:
    """Calls function(*arguments), which must be importable and the rest picklable.

    The call ends with this process, however that ends.

    Args:
        what: the call in words, for errors.
        folder: where the call writes.
        update: called with the number of images that have features, are matched or are registered.

    Returns:
        What the function returns, and the peak memory of its process in MB.

    Raises:
        UserError: that of the function or of COLMAP, or that the process died, or failed on a full disk.
        Exception: any other of the function, with its traceback as a note.
    """
    with tempfile.TemporaryDirectory(prefix="pixcli-") as temporary:
        call, answer = Path(temporary) / "call", Path(temporary) / "answer"
        call.write_bytes(pickle.dumps((function, arguments)))
        program = "from pixcli.adapters.isolation import _serve; _serve()"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", program, str(call), str(answer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        with process:
            assert process.stdout is not None
            try:
                complaints = _follow(process.stdout, update)
                code = process.wait()
            except BaseException:
                _stop(process)
                clear_leftovers(folder)
                raise
        if code == _INTERRUPTED:
            raise Interrupted
        if code == _TERMINATED:
            raise Terminated
        if not answer.is_file():
            clear_leftovers(folder)
            raise UserError(_died(what, folder, complaints))
        result, error, memory = pickle.loads(answer.read_bytes())
        if isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < _FULL:
            raise UserError(_died(what, folder, complaints)) from error
        if _COLMAPS_OWN.match(str(error)):
            raise UserError(f"COLMAP stopped while it was {what}: {error}".strip()) from error
        if error is not None:
            raise error
        for complaint in complaints:
            log.warning("COLMAP, while it was %s: %s", what, complaint)
        return result, memory


def _follow(lines: Iterable[str], update: Update | None) -> list[str]:
    """Reads what COLMAP says; returns its errors: of those that differ in numbers alone, the last."""
    complaints: dict[str, str] = {}
    for line in lines:
        log.debug("%s", line.rstrip())
        said = _LINE.match(line)
        if said is None:
            continue
        level, message = said.groups()
        if level in "EF":
            complaints[re.sub(r"\d+", "", message)] = message
        done = _done(message)
        if update is not None and done is not None:
            update(done)
    return list(complaints.values())


def _done(message: str) -> int | None:
    """How far COLMAP is when it says this."""
    if features := _FEATURES.match(message):
        return int(features[1])
    if matches := _MATCHES.match(message):
        image, row, column, columns = (int(number or 0) for number in matches.groups())
        return image - 1 if image else (row - 1) * columns + column - 1
    if images := _IMAGES.match(message):
        return int(images[1])
    return None


def _died(what: str, folder: Path, complaints: list[str]) -> str:
    free = shutil.disk_usage(folder).free / 1e6
    last_words = f" ({complaints[-1]})" if complaints else ""
    return (
        f"COLMAP died while it was {what}{last_words}: is the disk of {folder} full ({free:.0f} MB are "
        "free), or the memory used up? What was done is kept; the same command goes on from there"
    )


def clear_leftovers(folder: Path) -> None:
    """Removes the unfinished results of what was killed here."""
    for path in folder.glob(".pixcli-*"):
        shutil.rmtree(path, ignore_errors=True)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ends a call: it notices that its input has ended."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _serve() -> None:
    """What the process does: reads a call, makes it, writes the answer whole."""
    call, answer = map(Path, sys.argv[1:3])
    try:
        with sigterm_held():
            function, arguments = pickle.loads(call.read_bytes())
            raise_on_sigterm()
        threading.Thread(target=_end_with_caller, daemon=True).start()
        tempfile.tempdir = str(call.parent)  # which the caller removes, should this process be killed
        pycolmap.logging.minloglevel = 0
        pycolmap.logging.logtostderr = True  # and to no files beside
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


def _end_with_caller() -> None:
    """Waits until the caller closes the pipe, or has died, and ends this process then."""
    os.read(sys.stdin.fileno(), 1)
    _thread.interrupt_main(signal.SIGTERM)
    time.sleep(_PATIENCE)
    os._exit(_TERMINATED)
