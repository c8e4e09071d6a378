"""The errors that pixcli raises on purpose."""


class UserError(Exception):
    """A mistake of the user's, told in one line: which file, row or option, what was expected, what to do.

    The command line prints the message and exits with 1; nothing was written when it is raised.
    """


class Interrupted(Exception):
    """Work was stopped by Ctrl-C or by a caller's progress callback; nothing was half-written."""
