import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_log_handlers_left() -> Iterator[None]:
    """A command line run inside a test logs to that test's captured streams, which do not outlive it."""
    yield
    log = logging.getLogger("pixcli")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.NOTSET)
