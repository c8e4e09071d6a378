"""Interrupted or killed at any moment: the input is whole, an output is there completely or not at all."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pixcli.io.database import read_match_graph


def positions(path: Path) -> np.ndarray:
    return read_match_graph(path, "raw").xy


STALLING = """
import sys, time
from contextlib import contextmanager
from pixcli.cli.main import main
from pixcli.cli.terminal import TerminalProgress

@contextmanager
def show(self, name, total):
    if name != sys.argv[1]:
        yield lambda done: None
        return

    def update(done):
        print("now", file=sys.stderr, flush=True)
        time.sleep(60)

    if name == "read":
        update(0)
    yield update

TerminalProgress._show = show
sys.exit(main(sys.argv[2:]))
"""


def interrupt(phase: str, arguments: list[str], temporary: Path) -> None:
    """Runs the program up to a moment in this phase, and presses Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", STALLING, phase, *arguments, "--log_level", "-1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().strip() == f"pixcli {arguments[0]}: interrupted"
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("phase", "in_place"),
    [
        ("read", True),
        ("features", False),
        ("align", True),
        ("adjust", False),
        ("verify", False),
        ("verify", True),
    ],
)
def test_interrupted(workplace, phase: str, in_place: bool) -> None:
    before, files = workplace.database.read_bytes(), workplace.files()
    temporary = workplace.database.parent.parent / "tmp"
    temporary.mkdir()
    outputs = ("--covariance_path", workplace.output.with_suffix(".h5"))
    outputs += ("--report_path", workplace.output.with_suffix(".json"))
    strategy = ("--preset", "pixsfm") if phase == "adjust" else ()
    interrupt(phase, workplace.arguments(*outputs, *strategy, in_place=in_place), temporary)
    assert workplace.database.read_bytes() == before
    assert workplace.files() == files
    assert list(temporary.iterdir()) == []


def test_an_interrupted_extraction_is_taken_up_again(workplace, refined, tmp_path: Path) -> None:
    cache_path = workplace.output.with_name("cache.h5")
    cache = ("--DenseFeatures.cache_path", cache_path)
    interrupt(
        "features", ["dense_feature_extractor", *workplace.arguments(*cache, in_place=True)[1:]], tmp_path
    )
    assert workplace.files() == {"database.db", "images", "cache.h5"}
    made = cache_path.stat().st_ino
    assert workplace.run("--DenseFeatures.use_cache", 1, *cache).code == 0
    assert cache_path.stat().st_ino == made
    np.testing.assert_array_equal(positions(workplace.output), refined.xy)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_interrupted_in_native_code(workplace, number: int, code: int, word: str) -> None:
    """An alignment that would go on for long stops although nobody asks how far it is."""
    supports = ",".join(["15:1"] * 400)
    with workplace.start("--KeypointAdjustment.supports", supports) as process:
        assert process.stderr is not None
        while "expecting to use" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.3)  # wherever it is by then
        process.send_signal(number)
        words = process.stderr.read()
    assert words.endswith(f"pixcli feature_refiner: {word}\n")
    assert "***" not in words  # as C++ says it
    assert process.returncode == code
    assert not workplace.output.exists()


@pytest.mark.parametrize("in_place", [False, True])
def test_killed_at_any_moment(workplace, refined, in_place: bool) -> None:
    before, raw = workplace.database.read_bytes(), positions(workplace.database)
    moments = random.Random(0)
    for sign in ("expecting to use", "align:", "verify:", "verify:"):  # after which line of the log
        with workplace.start("--log_level", 1, in_place=in_place) as process:
            assert process.stderr is not None
            while sign not in process.stderr.readline():
                assert process.poll() is None
            time.sleep(moments.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        if in_place:
            after = positions(workplace.database)
            assert np.array_equal(after, raw) or np.array_equal(after, refined.xy)
            for log in workplace.database.parent.glob("database.db-*"):
                log.unlink()
            workplace.database.write_bytes(before)
        else:
            assert workplace.database.read_bytes() == before
            if workplace.output.exists():
                np.testing.assert_array_equal(positions(workplace.output), refined.xy)
                workplace.output.unlink()
    assert workplace.run(in_place=in_place).code == 0  # whatever the killed ones left does not disturb
    result = workplace.database if in_place else workplace.output
    np.testing.assert_array_equal(positions(result), refined.xy)
