"""The errors that pixcli raises on purpose."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's, told in one line: which file, row or option, what was expected, what to do.

    The command line prints the message and exits with 1; nothing was written when it is raised.
    """


class Interrupted(Exception):
    """Work was stopped by Ctrl-C or by a caller's progress callback; nothing was half-written."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names the known word nearest to an unknown one, whatever the case of its letters."""
    by_lower = {name.lower(): name for name in known}
    nearest = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.0)
    return f"Did you mean {by_lower[nearest[0]]}?" if nearest else ""
