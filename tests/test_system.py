"""What differs between operating systems. Windows is played here by taking away what it lacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pixcli.signals import Terminated, _terminate
from pixcli.system import lock, open_folder, peak_memory_mb, sync

WITHOUT_UNIX = """
import os, pkgutil, signal, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
for name in ("pread", "pwrite", "posix_fallocate", "getpgrp", "tcgetpgrp", "sched_getaffinity"):
    delattr(os, name)
del signal.pthread_sigmask, signal.SIGKILL
import pixcli
from pixcli.cli.main import main
for module in pkgutil.walk_packages(pixcli.__path__, "pixcli."):
    if module.name == "pixcli.__main__":
        continue
    try:
        __import__(module.name)
    except ModuleNotFoundError as error:
        if error.name != "torch":  # an extra
            raise
sys.exit(main(sys.argv[1:]))
"""


def test_without_what_only_unix_has(small_scene, tmp_path: Path) -> None:
    paths = ["--database_path", small_scene.database_path, "--image_path", small_scene.path / "images"]
    for command, *more in (
        ["feature_refiner", "--output_path", tmp_path / "refined.db", "--DenseFeatures.use_cache", 1],
        ["reconstructor", "--output_path", tmp_path / "out", "--KeypointAdjustment.apply", 0],
    ):
        more += ["--DenseFeatures.cache_path", tmp_path / "cache.h5", "--log_level", -1]
        program = [sys.executable, "-P", "-c", WITHOUT_UNIX, command, *map(str, [*paths, *more])]
        run = subprocess.run(program, capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "out" / "model").is_dir()
    assert (tmp_path / "refined.db").is_file()


def test_a_folder_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    first, second = open_folder(tmp_path), open_folder(tmp_path)
    assert first is not None
    assert second is not None
    lock(first)
    with pytest.raises(BlockingIOError):
        lock(second)
    os.close(first)
    lock(second)
    os.close(second)


def test_sync_takes_files_and_folders(tmp_path: Path) -> None:
    file = tmp_path / "read_only"
    file.write_bytes(b"1")
    file.chmod(0o444)
    sync(file)
    sync(tmp_path)
    assert peak_memory_mb() > 1


def test_one_request_to_end_that_comes_twice_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` signals its program and then the group: the second must not break the clean-up."""
    monkeypatch.setattr("pixcli.signals._last", float("-inf"))
    with pytest.raises(Terminated) as raised:
        _terminate(15, None)
    assert raised.value.code == 143
    _terminate(15, None)
