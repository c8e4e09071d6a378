"""Results in the order in which they come: what an interrupted run has done is not done again.

A file of records behind each other: the length and CRC-32 of what follows, a JSON header with the names,
types and shapes of arrays beside what else the record holds, a line end, and the arrays' bytes. The first
record says what the run was made with. A record that was cut off, the last one, does not count.
"""

import json
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..system import lock

log = logging.getLogger(__name__)

_FORMAT = b"pixcli journal 1\n"
_FRAME = struct.Struct("<QI")
_ARRAYS = "arrays"
_MADE_WITH = "made with"

Record = tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]
"""What is ready for JSON, and arrays."""


class Journal:
    """A file of records, open as a context manager; others cannot open it meanwhile.

    Args:
        made_with: everything that decides the records, ready for JSON. A journal of another run is emptied.
    """

    def __init__(self, path: Path, made_with: Mapping[str, Any]) -> None:
        self._path = path
        try:
            self._file = path.open("a+b")
            lock(self._file.fileno())
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{path} is in use: another run writes to the same output") from None
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from error
        self.count = -1
        """Records."""
        self._file.seek(0)
        start = self._file.read(len(_FORMAT))
        if not _FORMAT.startswith(start):
            self._file.close()
            raise UserError(f"{path} is no journal of pixcli, but is where one is to be: move it away")
        if len(start) < len(_FORMAT):
            self._file.truncate(0)
            self._write(_FORMAT)
        whole = len(_FORMAT)
        for header, _ in self._records():
            if self.count < 0 and header.get(_MADE_WITH) != json.loads(json.dumps(made_with)):
                log.info("%s is of another run and starts anew", path)
                break
            whole = self._file.tell()
            self.count += 1
        self._file.truncate(whole)
        if self.count < 0:
            self.append({_MADE_WITH: made_with}, {})

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is not None and not self.count:  # there is nothing to go on with
            self._path.unlink(missing_ok=True)

    def append(self, contents: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add a record; it is there whole or not at all, also if the process is killed."""
        layout = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
        header = json.dumps({**contents, _ARRAYS: layout}).encode() + b"\n"
        body = b"".join([header, *(np.ascontiguousarray(array).tobytes() for array in arrays.values())])
        self._write(_FRAME.pack(len(body), zlib.crc32(body)) + body)
        self.count += 1

    def records(self) -> Iterator[Record]:
        """All records, one at a time in memory."""
        records = self._records()
        next(records)
        return records

    def remove(self) -> None:
        """Delete the file: all that it was for is done."""
        self._path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from error

    def _records(self) -> Iterator[Record]:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(len(_FORMAT))
        while len(frame := self._file.read(_FRAME.size)) == _FRAME.size:
            length, checksum = _FRAME.unpack(frame)
            if length > size - self._file.tell():
                return
            body = self._file.read(length)
            if zlib.crc32(body) != checksum:
                return
            header, _, data = body.partition(b"\n")
            contents, arrays, at = json.loads(header), {}, 0
            for name, (kind, shape) in contents.pop(_ARRAYS).items():
                count = int(np.prod(shape, dtype=np.int64))
                arrays[name] = np.frombuffer(data, kind, count, at).reshape(shape)
                at += arrays[name].nbytes
            yield contents, arrays
