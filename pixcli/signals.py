"""SIGTERM, by which Slurm, `timeout` and `docker stop` end programs: a command stops as at Ctrl-C."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell shows for a program that SIGTERM ended: 143."""

_ONE_REQUEST = 5.0  # seconds: `timeout` signals its program twice, and the second must not break the clean-up
_last = -_ONE_REQUEST


class Terminated(SystemExit):
    """SIGTERM came. Whatever is at work stops, as at a KeyboardInterrupt."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


@contextmanager
def sigterm_held() -> Iterator[None]:
    """Lets SIGTERM wait while modules are imported: pyceres sets a handler that prints a C++ stack trace."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def raise_on_sigterm() -> None:
    """Makes SIGTERM raise Terminated in the main thread, from now on. Call it once pycolmap is imported."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    global _last
    last, _last = _last, time.monotonic()
    if _last - last > _ONE_REQUEST:
        raise Terminated
