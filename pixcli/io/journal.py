"""Results in the order in which they come: what an interrupted run has done is not done again.

A database of SQLite with one row a record: what is ready for JSON, and the arrays beside it. Each record is a
transaction, so it is there whole or not at all.
"""

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError

log = logging.getLogger(__name__)

_APPLICATION = 0x7069786A  # "pixj", at a place in the file that SQLite keeps for it
_OLD_FORMAT = b"pixcli journal 1\n"  # of the file before it was a database

Record = tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]
"""What is ready for JSON, and arrays."""


class Journal:
    """A file of records, open as a context manager; other processes cannot open it meanwhile."""

    count: int
    """Records."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                raise self._error(error) from None
            if not path.read_bytes().startswith(_OLD_FORMAT):
                raise self._foreign() from None
            log.info("%s is of an older version of pixcli and starts anew", path)
            path.unlink()
            self._open()

    def _open(self) -> None:
        """Lock the file until it is closed, and make its tables unless they are there."""
        self._database = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        try:
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("BEGIN EXCLUSIVE")
            if self._value("PRAGMA application_id") != _APPLICATION:
                if self._value("SELECT count(*) FROM sqlite_master"):
                    raise self._foreign()
                self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._database.execute("CREATE TABLE made_with (value TEXT)")
                self._database.execute(
                    "CREATE TABLE records (id INTEGER PRIMARY KEY, contents TEXT, arrays BLOB)"
                )
            self._database.execute("COMMIT")
            self.count = self._value("SELECT count(*) FROM records")
        except BaseException:
            self._database.close()
            raise

    def resume(self, made_with: Mapping[str, Any]) -> None:
        """Keep the records if they were made with the same, else start anew.

        Args:
            made_with: everything that decides the records, ready for JSON.
        """
        wanted = json.dumps(made_with)
        found = self._value("SELECT min(value) FROM made_with")
        if found == wanted:
            return
        if found is not None:
            log.info("%s is of another run and starts anew", self._path)
        try:
            self._database.execute("BEGIN")
            self._database.execute("DELETE FROM records")
            self._database.execute("DELETE FROM made_with")
            self._database.execute("INSERT INTO made_with VALUES (?)", (wanted,))
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._error(error) from None
        self.count = 0

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        if kind is not None and not self.count:  # there is nothing to go on with
            self._path.unlink(missing_ok=True)

    def append(self, contents: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add a record; it is there whole or not at all, also if the process is killed."""
        packed, named = BytesIO(), dict[str, Any](arrays)
        np.savez(packed, **named)
        row = (json.dumps(contents), packed.getvalue())
        try:
            self._database.execute("INSERT INTO records (contents, arrays) VALUES (?, ?)", row)
        except sqlite3.Error as error:
            raise self._error(error) from None
        self.count += 1

    def records(self) -> Iterator[Record]:
        """All records, one at a time in memory."""
        try:
            for contents, packed in self._database.execute(
                "SELECT contents, arrays FROM records ORDER BY id"
            ):
                with np.load(BytesIO(packed)) as arrays:
                    yield json.loads(contents), dict(arrays)
        except sqlite3.Error as error:
            raise self._error(error) from None

    def remove(self) -> None:
        """Delete the file: all that it was for is done."""
        self._database.close()
        self._path.unlink(missing_ok=True)

    def _value(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]

    def _error(self, error: sqlite3.Error) -> UserError:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            return UserError(f"{self._path} is in use: another run writes to the same output")
        if error.sqlite_errorcode == sqlite3.SQLITE_CORRUPT:
            return UserError(f"{self._path} is damaged: delete it to start anew")
        return UserError(f"{self._path} cannot be written: {error}")

    def _foreign(self) -> UserError:
        return UserError(f"{self._path} is no journal of pixcli, but is where one is to be: move it away")
