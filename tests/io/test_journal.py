"""Records of interrupted runs."""

from pathlib import Path

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io.journal import Journal

MADE_WITH = {"seed": 1, "queries": ["a", "b"]}


def fill(path: Path, count: int) -> None:
    with Journal(path, MADE_WITH) as journal:
        for k in range(count):
            arrays = {"xy": np.full((k, 2), k + 0.5), "ok": np.array([True, False])}
            journal.append({"name": f"image {k}\n", "value": k / 3}, arrays)


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    fill(path, 3)
    with Journal(path, MADE_WITH) as journal:
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


@pytest.mark.parametrize("missing", [1, 20, 60])
def test_a_record_that_was_cut_off_does_not_count(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "journal"
    fill(path, 3)
    path.write_bytes(path.read_bytes()[:-missing])
    with Journal(path, MADE_WITH) as journal:
        assert journal.count == 2
        journal.append({"name": "again"}, {})
    with Journal(path, MADE_WITH) as journal:
        assert [contents["name"] for contents, _ in journal.records()][-1] == "again"
        assert journal.count == 3


def test_a_journal_of_another_run_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    fill(path, 2)
    with Journal(path, {"seed": 2}) as journal:
        assert journal.count == 0
    path.write_bytes(path.read_bytes()[:10])
    with Journal(path, MADE_WITH) as journal:
        assert journal.count == 0
        assert list(journal.records()) == []


def test_a_file_of_something_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"something else entirely")
    with pytest.raises(UserError, match="no journal of pixcli"):
        Journal(path, MADE_WITH)
    assert path.read_bytes() == b"something else entirely"


def test_two_runs_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", MADE_WITH), pytest.raises(UserError, match="another run"):
        Journal(tmp_path / "journal", MADE_WITH)
