"""Image lists, covariance files and reports."""

import json
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import h5py
import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io.covariance import read_covariances, write_covariances
from pixcli.io.files import replacing
from pixcli.io.image_list import read_image_list
from pixcli.io.report import write_report

NAMES = ["a.jpg", "sub folder/b c.jpg", "ümlaut.png", "#1.jpg"]


def test_image_list(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(
        "﻿# a comment\r\n\r\n  ümlaut.png \r\nsub folder/b c.jpg\r\n#1.jpg\r\nümlaut.png".encode()
    )
    assert read_image_list(path, NAMES) == ["ümlaut.png", "sub folder/b c.jpg", "#1.jpg"]
    path.write_text("# nothing\n")
    assert read_image_list(path, NAMES) == []


def test_names_in_an_image_list_may_have_backslashes(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("sub folder\\b c.jpg\n", encoding="utf-8")
    assert read_image_list(path, NAMES) == ["sub folder/b c.jpg"]
    path.write_text("a\\b.jpg\n", encoding="utf-8")
    assert read_image_list(path, ["a\\b.jpg", "a/b.jpg"]) == ["a\\b.jpg"]


def test_image_list_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    with pytest.raises(UserError, match="cannot be read"):
        read_image_list(path, NAMES)
    path.write_text("a.jpg\n\nsubfolder/b c.jpg\n")
    with pytest.raises(
        UserError, match=r"line 3: there is no image subfolder/b c.jpg; .* sub folder/b c.jpg\?"
    ):
        read_image_list(path, NAMES)
    path.write_bytes(b"\xff\xd8\xff\xe0 a photo")
    with pytest.raises(UserError, match="not a text file"):
        read_image_list(path, NAMES)


def test_covariances_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "covariance.h5"
    names = ["b.jpg", "sub/b.jpg", "sub", "empty.jpg"]  # "sub" is an image and a folder
    offsets = np.array([0, 3, 4, 6, 6])
    covariance = np.arange(18, dtype=np.float32).reshape(6, 3)
    covariance[2] = np.nan
    write_covariances(path, names, offsets, covariance)
    read = read_covariances(path)
    assert set(read) == set(names)
    for i, name in enumerate(names):
        assert read[name].dtype == np.float32
        assert np.array_equal(read[name], covariance[offsets[i] : offsets[i + 1]], equal_nan=True)
    with h5py.File(path) as file:
        assert list(file.attrs["columns"]) == ["xx", "xy", "yy"]
        assert file.attrs["units"] == "pixels squared"
        assert file["sub/b.jpg/covariance"].shape == (1, 3)
    first = path.read_bytes()
    write_covariances(path, names, offsets, covariance)
    assert path.read_bytes() == first


def test_covariance_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "covariance.h5"
    with pytest.raises(UserError, match="there is no covariance file"):
        read_covariances(path)
    write_covariances(path, ["a"], np.array([0, 1]), np.zeros((1, 3), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole HDF5 file"):
        read_covariances(path)
    with h5py.File(path, "w") as file:
        file["a"] = 1
    with pytest.raises(UserError, match="not a covariance file"):
        read_covariances(path)


class Colour(Enum):
    RED = 1


@dataclass
class Options:
    bound: float = 4.0
    colour: Colour = Colour.RED


def test_report_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    contents = {
        "options": {"Group": Options()},
        "shift": {"median": np.float32(0.5), "max": np.float64("nan")},
        "phases": [{"seconds": float("inf"), "peak_memory_mb": np.int64(3)}],
        "input": Path("a") / "b.db",
        "counts": {Colour.RED: np.arange(2)},
    }
    write_report(path, "feature_refiner", contents)
    text = path.read_text()
    assert list(json.loads(text)) == ["schema", "command", *contents]
    assert json.loads(text) == {
        "schema": 1,
        "command": "feature_refiner",
        "options": {"Group": {"bound": 4.0, "colour": "red"}},
        "shift": {"median": 0.5, "max": None},
        "phases": [{"seconds": None, "peak_memory_mb": 3}],
        "input": "a/b.db",
        "counts": {"red": [0, 1]},
    }
    write_report(path, "feature_refiner", contents)
    assert path.read_text() == text


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ha")
            raise error

    with pytest.raises(UserError if error is OSError else error):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]
    with pytest.raises(UserError, match="cannot be written"):
        write_report(tmp_path / "nowhere" / "report.json", "feature_refiner", {})
