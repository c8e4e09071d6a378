"""The steps of a run: what each was made from, so that none is repeated in vain."""

import errno
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pixcli
from pixcli.adapters.isolation import clear_leftovers
from pixcli.errors import UserError
from pixcli.io.files import replacing
from pixcli.io.report import plain
from pixcli.system import lock, open_folder, peak_memory_mb

import pycolmap

log = logging.getLogger(__name__)

FILE = "steps.json"

_UNFINISHED = "it was not finished"

Work = Callable[[bool], Mapping[str, Any]]
"""Makes the outputs of a step and returns its figures; told whether to take up an interrupted one."""


class Steps:
    """The steps of a run in its output folder, which steps.json there describes.

    A step is done again unless it was finished with the same inputs, its outputs are there, and no step
    before it was done since. Inputs are what JSON holds; they name the step before, so that a change reaches
    all that follow.
    """

    def __init__(self, folder: Path, source: Mapping[str, Any], overwrite: bool) -> None:
        """Opens or makes a folder.

        Args:
            source: what the run is made from. A folder of a run from something else is not touched.
            overwrite: forget such a run instead.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        self._file = folder / FILE
        self._source = plain(source)
        self._steps: dict[str, Any] = {}
        self._stamps: dict[str, list[Any]] = {}
        self._passed: set[str] = set()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is no folder: name another --output_path")
        if self._file.is_file():
            self._read(folder, overwrite)
        elif folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} holds files, but no run of pixcli: name a new folder by --output_path")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be made: {error.strerror}") from error

    def __enter__(self) -> "Steps":
        """Takes the folder for this process, until the end of the with-block.

        Raises:
            UserError: another run is at work in it.
        """
        folder = self._file.parent
        self._lock = open_folder(folder)
        try:
            if self._lock is not None:
                lock(self._lock)
        except BlockingIOError:
            self._unlock()
            raise UserError(
                f"another run is at work in {folder}: wait for it, or name another --output_path"
            ) from None
        except OSError as error:  # some file systems have no locks
            log.debug("%s is not locked: %s", folder, error)
        clear_leftovers(folder)
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def hash_of(self, path: Path) -> str:
        """A hash of a file's bytes; a file of the same size and time as last time is not read again."""
        try:
            stat = path.stat()
            stamp = [stat.st_size, stat.st_mtime_ns]
            known = self._stamps.get(str(path))
            if known is None or known[:2] != stamp:
                with path.open("rb") as file:
                    known = [*stamp, hashlib.file_digest(file, "blake2b").hexdigest()[:32]]
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        self._stamps[str(path)] = known
        return str(known[2])

    def run(
        self, name: str, inputs: Mapping[str, Any], outputs: Sequence[Path], work: Work
    ) -> tuple[Mapping[str, Any], bool]:
        """Do a step, unless its result is there; its figures, and whether it was done now.

        Outputs must take their places whole. Figures are those of the run that made the outputs.
        """
        versions = {"pixcli": pixcli.__version__, "pycolmap": pycolmap.__version__}
        inputs = plain({**inputs, "version": versions})
        self._passed.add(name)
        stored = self._steps.get(name)
        reason = None if stored is None else _reason_to_repeat(stored, inputs, outputs)
        if stored is not None and reason is None:
            log.info("%s: nothing has changed", name)
            return stored["figures"], False
        if reason is not None:
            log.info("%s again: %s", name, reason)
        resume = reason == _UNFINISHED
        for other in self._steps.keys() - self._passed:
            self._steps[other].setdefault("outdated_by", name)
        self._steps[name] = {"inputs": inputs, "done": False}
        self._write()
        start = time.perf_counter()
        try:
            figures = dict(plain(work(resume)))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"the disk of {self._file.parent} is full, in the step {name}. What was done is kept; the "
                "same command goes on from there"
            ) from error
        memory = max(peak_memory_mb(), figures.get("peak_memory_mb", 0.0))
        figures |= {"seconds": time.perf_counter() - start, "peak_memory_mb": memory}
        self._steps[name] = {"inputs": inputs, "done": True, "figures": figures}
        self._write()
        return figures, True

    def _read(self, folder: Path, overwrite: bool) -> None:
        try:
            state = json.loads(self._file.read_text(encoding="utf-8"))
            source, steps, stamps = state["source"], state["steps"], state["stamps"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self._file} is damaged ({error}): delete it together with the run, or name another "
                "--output_path"
            ) from None
        if source == self._source:
            self._steps, self._stamps = steps, stamps
        elif not overwrite:
            raise UserError(
                f"{folder} holds another run ({difference(source, self._source)}): name another "
                "--output_path, or replace it by --Reconstruction.overwrite 1"
            )

    def _write(self) -> None:
        state = {"source": self._source, "steps": self._steps, "stamps": self._stamps}
        with replacing(self._file) as temporary:
            temporary.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def digest(inputs: Mapping[str, Any]) -> str:
    """A hash of what a step is made from, for the steps after it."""
    text = json.dumps(plain(inputs), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _reason_to_repeat(
    stored: Mapping[str, Any], inputs: Mapping[str, Any], outputs: Sequence[Path]
) -> str | None:
    missing = [output.name for output in outputs if not output.exists()]
    if stored["inputs"] != inputs:
        return difference(stored["inputs"], inputs)
    if "outdated_by" in stored:
        return f"the step {stored['outdated_by']} was done since"
    if not stored["done"]:
        return _UNFINISHED
    return f"its result {missing[0]} is gone" if missing else None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """In words, the first of what differs between two nested mappings."""
    before, after = _flat(old), _flat(new)
    followed = [key[-1] for key in before if key[0] == "after" and key not in after]
    changed = [
        key
        for key in dict.fromkeys([*after, *before])
        if before.get(key) != after.get(key) and not (followed and key == ("after", followed[0]))
    ]
    key = changed[0]
    *outer, name = key
    kind = outer[0] if outer else ""
    if kind == "after":
        words = f"it follows {name}, not {followed[0]}" if followed else f"the step {name} has changed"
    elif kind == "files":
        what = "is new" if key not in before else "is gone" if key not in after else "has changed"
        words = f"{name} {what}"
    else:
        words = f"{name} is {_value(after, key)}, was {_value(before, key)}"
    return words + (f", and {len(changed) - 1} more" if len(changed) > 1 else "")


def _value(flat: Mapping[tuple[str, ...], Any], key: tuple[str, ...]) -> object:
    """As a command line has it."""
    value = flat.get(key, "not set")
    return int(value) if isinstance(value, bool) else value


def _flat(nested: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    flat = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, (*path, key)))
        else:
            flat[(*path, key)] = value
    return flat
