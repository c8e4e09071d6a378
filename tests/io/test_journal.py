"""Records of interrupted runs."""

import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io.journal import Journal

MADE_WITH = {"seed": 1, "queries": ["a", "b"]}


def fill(path: Path, count: int) -> None:
    with Journal(path) as journal:
        journal.resume(MADE_WITH)
        for k in range(count):
            arrays = {"xy": np.full((k, 2), k + 0.5), "ok": np.array([True, False])}
            journal.append({"name": f"image {k}\n", "value": k / 3}, arrays)


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    fill(path, 3)
    with Journal(path) as journal:
        journal.resume(MADE_WITH)
        assert journal.count == 3
        journal.append({"name": "last"}, {})
        records = list(journal.records())
        assert [contents["name"] for contents, _ in records] == [
            "image 0\n",
            "image 1\n",
            "image 2\n",
            "last",
        ]
        assert records[2][0]["value"] == 2 / 3
        np.testing.assert_array_equal(records[2][1]["xy"], np.full((2, 2), 2.5))
        assert records[0][1]["xy"].shape == (0, 2)
        assert records[0][1]["ok"].tolist() == [True, False]
        journal.remove()
    assert not path.exists()


KILLED = """
import os
import numpy as np
from pathlib import Path
from pixcli.io.journal import Journal

with Journal(Path({path!r})) as journal:
    journal.resume({made_with!r})
    for k in range(3):
        journal.append({{"name": f"image {{k}}"}}, {{"xy": np.zeros((1000, 2))}})
    journal._database.execute("BEGIN")
    journal.append({{"name": "half"}}, {{"xy": np.zeros((1000000, 2))}})
    os.kill(os.getpid(), 9)
"""


def test_records_of_a_killed_process_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    code = KILLED.format(path=str(path), made_with=MADE_WITH)
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == -signal.SIGKILL
    with Journal(path) as journal:
        journal.resume(MADE_WITH)
        assert [contents["name"] for contents, _ in journal.records()] == ["image 0", "image 1", "image 2"]
        journal.append({"name": "again"}, {})
    with Journal(path) as journal:
        journal.resume(MADE_WITH)
        assert journal.count == 4
    assert [file.name for file in tmp_path.iterdir()] == ["journal"]


def test_a_journal_of_another_run_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    fill(path, 2)
    with Journal(path) as journal:
        journal.resume({"seed": 2})
        assert journal.count == 0
        assert list(journal.records()) == []


def test_a_journal_of_the_old_format_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"pixcli journal 1\n" + bytes(1000))
    caplog.set_level("INFO")
    with Journal(path) as journal:
        journal.resume(MADE_WITH)
        assert journal.count == 0
        journal.append({"name": "first"}, {})
    assert [record.message for record in caplog.records] == [
        f"{path} is of an older version of pixcli and starts anew"
    ]


def test_memory_does_not_grow_with_records(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.resume(MADE_WITH)
        for _ in range(50):
            journal.append({}, {"xy": np.ones(125_000)})  # a megabyte
        tracemalloc.start()
        assert sum(arrays["xy"].sum() for _, arrays in journal.records()) == 50 * 125_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10e6


def test_a_file_of_something_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for contents in (b"something else entirely", 100 * b"something else entirely"):
        path.write_bytes(contents)
        with pytest.raises(UserError, match="no journal of pixcli"):
            Journal(path)
        assert path.read_bytes() == contents
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE cameras (id INTEGER)")
    with pytest.raises(UserError, match="no journal of pixcli"):
        Journal(path)


def test_two_runs_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    code = f"from pathlib import Path; from pixcli.io.journal import Journal; Journal(Path({str(path)!r}))"
    with Journal(path) as journal:
        journal.resume(MADE_WITH)
        for _ in range(2):
            with pytest.raises(UserError, match="another run"):
                Journal(path)
        ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
        assert "another run writes to the same output" in ran.stderr
        journal.append({}, {})
        assert journal.count == 1
