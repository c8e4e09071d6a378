"""COLMAP's image lists: text files with one image name a line."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError


def read_image_list(path: str | os.PathLike[str], known: Sequence[str]) -> list[str]:
    """The names in a list, in its order and once each; blank lines and lines that start with # do not count.

    Every name must be among the known ones, those of the database or model that the list selects from.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"the image list {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"the image list {path} is not a text file: expected one image name a line"
        ) from error
    names: dict[str, None] = {}
    lookup = set(known)
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip()
        if name in lookup:
            names[name] = None
        elif name and not name.startswith("#"):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UserError(f"{path}, line {number}: there is no image {name}{hint}")
    return list(names)
