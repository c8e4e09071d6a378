"""What differs between operating systems: locks, what a disk keeps, memory. See signals.py for SIGTERM.

Written for Linux, macOS and Windows; only Linux is tested.
"""

import os
import sys
from pathlib import Path

try:
    import fcntl
    import resource
except ImportError:  # Windows
    HAS_UNIX = False
else:
    HAS_UNIX = True


def lock(descriptor: int) -> None:
    """Take an open file or folder for this process until it is closed; on Windows, nothing is locked.

    Raises:
        BlockingIOError: another process has it.
        OSError: its file system has no locks.
    """
    if HAS_UNIX:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def open_folder(folder: Path) -> int | None:
    """A descriptor of a folder, to be closed; None on Windows, where folders have none."""
    return os.open(folder, os.O_RDONLY) if HAS_UNIX else None


def sync(path: Path) -> None:
    """Force a file to the disk, or the names in a folder, which Windows cannot."""
    if HAS_UNIX:
        descriptor = os.open(path, os.O_RDONLY)
    elif path.is_file():
        descriptor = os.open(path, os.O_RDWR)  # Windows syncs only what may be written
    else:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes); 0 on Windows."""
    if not HAS_UNIX:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # macOS counts bytes, Linux KiB


def available_memory() -> int | None:
    """Bytes of memory that can still be taken without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        return kibibytes["MemAvailable"] * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
