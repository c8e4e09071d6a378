"""Writing a file whole or not at all."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError
from ..system import sync


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside this one, to be written; it takes its place when the with-block ends.

    If the block raises, a file that was there before is still there, unchanged.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            sync(temporary)
            temporary.replace(path)
        sync(path.parent)
    except (OSError, RuntimeError) as error:  # h5py raises the latter where a disk is full
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be written: {reason}") from error


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file that exists."""
    return first.exists() and second.exists() and first.samefile(second)


def check_distinct(
    inputs: Mapping[str, Path | None], outputs: Mapping[str, Path | None], *, in_place: Mapping[str, str]
) -> None:
    """Raises UserError before one file would replace another; paths are given by their options.

    Args:
        in_place: outputs that may be this input; whether they may be now, has a check of its own.
    """
    taken = {path.resolve(): option for option, path in inputs.items() if path is not None}
    for option, path in outputs.items():
        if path is not None:
            first = taken.setdefault(path.resolve(), option)
            if first not in (option, in_place.get(option)):
                raise UserError(f"{path} is {first} already: give another {option}")


def check_writable(path: Path) -> None:
    """Raises UserError if a file cannot be made here: better before hours of work than after."""
    folder = path.parent
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file to write")
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: the folder {folder} is read-only")
    try:
        with tempfile.TemporaryFile(dir=folder):  # some file systems take no files whatever the permissions
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
