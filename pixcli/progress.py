"""How far a long computation is, and what its phases cost."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from pixcli.system import peak_memory_mb

log = logging.getLogger(__name__)

Update = Callable[[int], None]
"""Called with the number of items done so far."""


@dataclass(frozen=True)
class PhaseStats:
    """What one phase took."""

    name: str
    seconds: float
    peak_memory_mb: float
    """Largest resident memory of the process from its start to the end of the phase, in MB (10^6 bytes)."""


class Progress:
    """Keeps the statistics of phases and shows nothing; a subclass shows bars."""

    def __init__(self) -> None:
        self.phases: list[PhaseStats] = []

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Update]:
        """One phase of the work, of `total` items if that is known; yields update(done)."""
        start = time.perf_counter()
        with self._show(name, total) as update:
            yield update
        seconds = time.perf_counter() - start
        log.debug("%s: %.2f s, peak memory %.0f MB", name, seconds, peak_memory_mb())
        # Work that is done in parts goes through the same phases again: they count together.
        before = next((phase for phase in self.phases if phase.name == name), None)
        stats = PhaseStats(name, seconds + (before.seconds if before else 0), peak_memory_mb())
        if before:
            self.phases[self.phases.index(before)] = stats
        else:
            self.phases.append(stats)

    def _show(self, name: str, total: int | None) -> AbstractContextManager[Update]:
        return nullcontext(lambda done: None)
