"""COLMAP's lists: text files with one image name, or one id, a line."""

import difflib
import os
from collections.abc import Container, Sequence
from pathlib import Path

from ..errors import UserError


def read_image_list(path: str | os.PathLike[str], known: Sequence[str]) -> list[str]:
    """The names in a list, in its order and once each; blank lines and lines that start with # do not count.

    Every name must be among the known ones, those of the database or model that the list selects from.
    """
    lookup = set(known)
    names: dict[str, None] = {}
    for number, name in _lines(Path(path), "image list", "one image name a line"):
        with_slashes = name.replace("\\", "/")  # as COLMAP has them, also on Windows
        if name in lookup:  # even if it starts with #
            names[name] = None
        elif with_slashes in lookup:
            names[with_slashes] = None
        elif not name.startswith("#"):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UserError(f"{path}, line {number}: there is no image {name}{hint}")
    return list(names)


def read_id_list(path: str | os.PathLike[str], known: Container[int], what: str) -> list[int]:
    """The ids in a list, of cameras, rigs or points (`what`, in the singular); as read_image_list."""
    ids: dict[int, None] = {}
    for number, text in _lines(Path(path), f"{what} list", f"one id of a {what} a line"):
        if text.startswith("#"):
            continue
        if not text.isdecimal():
            raise UserError(f"{path}, line {number}: expected the id of a {what}, not {text}")
        if int(text) not in known:
            raise UserError(f"{path}, line {number}: the model has no {what} {text}")
        ids[int(text)] = None
    return list(ids)


def _lines(path: Path, what: str, expected: str) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"the {what} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the {what} {path} is not a text file: expected {expected}") from error
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in lines if line]
