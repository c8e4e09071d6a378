"""hloc's files, written here exactly as hloc's own functions write them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io.hloc import (
    FeatureFile,
    MatchFile,
    read_pairs,
    read_queries,
    short_names,
    write_log,
    write_pairs,
    write_poses,
)

import pycolmap

XY = np.array([[0.0, 0.0], [10.25, 3.5], [99.0, 49.0]], np.float32)


def hloc_features(path: Path, name: str, uncertainty: float | None = 1.5, half: bool = True) -> None:
    """As hloc.extract_features: arrays are halved, keypoints have the first pixel's centre at (0, 0)."""
    prediction = {
        "keypoints": XY,
        "scores": np.array([0.5, 0.25, 1.0], np.float32),
        "descriptors": np.arange(12, dtype=np.float32).reshape(4, 3),
        "image_size": np.array([100, 50]),
    }
    with h5py.File(str(path), "a", libver="latest") as file:
        group = file.create_group(name)
        for key, value in prediction.items():
            as_half = half and value.dtype == np.float32
            group.create_dataset(key, data=value.astype(np.float16) if as_half else value)
        if uncertainty is not None:
            group["keypoints"].attrs["uncertainty"] = uncertainty


def hloc_matches(path: Path, key: str, matches: list[int], scores: bool = True) -> None:
    """As hloc.match_features."""
    with h5py.File(str(path), "a", libver="latest") as file:
        group = file.create_group(key)
        group.create_dataset("matches0", data=np.array(matches, np.int16))
        if scores:
            group.create_dataset(
                "matching_scores0", data=np.linspace(0.25, 1, len(matches)).astype(np.float16)
            )


def both(file: MatchFile, name0: str, name1: str) -> tuple[np.ndarray, np.ndarray | None]:
    found = file.read(name0, name1)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["a.jpg", "query/night/a.jpg", "with space/b c.jpg"])
def test_features_get_half_a_pixel(tmp_path: Path, name: str) -> None:
    path = tmp_path / "features.h5"
    hloc_features(path, name)
    hloc_features(path, "other", uncertainty=None, half=False)
    with FeatureFile(path) as file:
        features = file.read(name)
        np.testing.assert_array_equal(features.xy, XY.astype(np.float64) + 0.5)
        assert features.xy.dtype == np.float64
        assert features.uncertainty == 1.5
        np.testing.assert_array_equal(features.scores, [0.5, 0.25, 1.0])
        np.testing.assert_array_equal(file.read_descriptors(name), np.arange(12).reshape(4, 3))
        assert file.read("other").uncertainty is None
        assert name in file
        assert "missing.jpg" not in file
        assert "query" not in file  # a folder at most
        with pytest.raises(UserError, match=r"features.h5 has no keypoints of missing.jpg"):
            file.read("missing.jpg")


def test_features_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    with pytest.raises(UserError, match=r"no file of features .*--features_path"):
        FeatureFile(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(UserError, match="is no whole HDF5 file"):
        FeatureFile(path)
    path.unlink()
    with h5py.File(path, "w") as file:
        file["a.jpg/keypoints"] = np.zeros(3)
    with FeatureFile(path) as features, pytest.raises(UserError, match=r"features of a.jpg are damaged"):
        features.read("a.jpg")


@pytest.mark.parametrize("key", ["q-a.jpg/db-b.jpg", "q-a.jpg_db-b.jpg"])
def test_matches_either_way(tmp_path: Path, key: str) -> None:
    path = tmp_path / "matches.h5"
    hloc_matches(path, key, [2, -1, -1, 0])
    with MatchFile(path) as file:
        matches, scores = both(file, "q/a.jpg", "db/b.jpg")
        np.testing.assert_array_equal(matches, [[0, 2], [3, 0]])
        np.testing.assert_array_equal(scores, [0.25, 1])
        matches, scores = both(file, "db/b.jpg", "q/a.jpg")
        np.testing.assert_array_equal(matches, [[2, 0], [0, 3]])
        np.testing.assert_array_equal(scores, [0.25, 1])
        assert file.read("q/a.jpg", "db/c.jpg") is None


def test_matches_without_scores_and_empty(tmp_path: Path) -> None:
    path = tmp_path / "matches.h5"
    hloc_matches(path, "a/b", [-1, 1], scores=False)
    hloc_matches(path, "a/c", [-1, -1])
    with h5py.File(path, "a") as file:
        file["a/d/matches0"] = np.zeros(3, np.int16)
        file["a/d/matching_scores0"] = np.zeros(2, np.float16)
    with MatchFile(path) as file:
        matches, scores = both(file, "a", "b")
        assert matches.tolist() == [[1, 1]]
        assert scores is None
        assert both(file, "a", "c")[0].shape == (0, 2)
        with pytest.raises(UserError, match="matches of a and d are damaged"):
            file.read("a", "d")


def test_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_pairs(path, [("q/a.jpg", "db/1.jpg"), ("q/a.jpg", "db/2.jpg"), ("q/b.jpg", "db/1.jpg")])
    assert read_pairs(path) == {"q/a.jpg": ["db/1.jpg", "db/2.jpg"], "q/b.jpg": ["db/1.jpg"]}
    assert read_pairs(path, first=["q/b.jpg"]) == {"q/b.jpg": ["db/1.jpg"]}
    path.write_text("my query.jpg my db 1.jpg\nmy query.jpg unknown one.jpg\r\n\nmy query.jpg\tmy db 1.jpg\n")
    found = read_pairs(path, first=["my query.jpg", "my"], second=["my db 1.jpg"])
    assert found == {"my query.jpg": ["my db 1.jpg", "unknown one.jpg"]}
    with pytest.raises(UserError, match=r"line 1: expected two image names without spaces"):
        read_pairs(path)
    path.write_text("a.jpg\n")
    with pytest.raises(UserError, match=r"pairs.txt, line 1: expected two image names"):
        read_pairs(path)


def test_queries(tmp_path: Path) -> None:
    path = tmp_path / "queries.txt"
    path.write_text(
        "# comment\n\nq/a.jpg SIMPLE_RADIAL 640 480 500 320 240 0.1\n"
        "my PINHOLE 1.jpg PINHOLE 640 480 500.5 501 320 240\nwithout intrinsics.jpg\n"
    )
    queries = read_queries(path)
    assert list(queries) == ["q/a.jpg", "my PINHOLE 1.jpg", "without intrinsics.jpg"]
    first, second, third = queries.values()
    assert first is not None
    assert second is not None
    assert (first.model_name, first.width, first.height) == ("SIMPLE_RADIAL", 640, 480)
    np.testing.assert_array_equal(first.params, [500, 320, 240, 0.1])
    np.testing.assert_array_equal(second.params, [500.5, 501, 320, 240])
    assert first.has_prior_focal_length
    assert third is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg PINHOL 640 480 1 2 3 4", r"line 2: unknown camera model 'PINHOL'. Did you mean PINHOLE\?"),
        ("a.jpg PINHOLE 640 480 500", "line 2: PINHOLE takes the parameters fx, fy, cx, cy, found 1 numbers"),
        ("a.jpg PINHOLE 640.5 480 1 1 1 1", "line 2: expected a width and a height"),
        ("a.jpg PINHOLE 640 480 nan 1 1 1", "line 2: the parameters must be finite"),
        ("b.jpg", "line 2: the query b.jpg is there twice"),
    ],
)
def test_queries_mistakes(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "queries.txt"
    path.write_text(f"b.jpg PINHOLE 640 480 500 500 320 240\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_queries(path)


def test_no_queries(tmp_path: Path) -> None:
    path = tmp_path / "queries.txt"
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match="holds no queries"):
        read_queries(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_queries(tmp_path / "missing.txt")


def test_results(tmp_path: Path) -> None:
    names = ["q/rear/1.jpg", "q/left/2.jpg"]
    assert short_names(names, False) == ["1.jpg", "2.jpg"]
    assert short_names(names, True) == ["rear/1.jpg", "left/2.jpg"]
    assert short_names(["q/rear/1.jpg", "q/left/1.jpg"], False) == ["q/rear/1.jpg", "q/left/1.jpg"]
    rotation = pycolmap.Rotation3d(np.array([0.1, -0.2, 0.3]))
    pose = pycolmap.Rigid3d(rotation, np.array([1 / 3, -2.0, 3e-9]))
    write_poses(tmp_path / "poses.txt", [("1.jpg", pose)])
    (line,) = (tmp_path / "poses.txt").read_text().splitlines()
    name, *numbers = line.split()
    assert name == "1.jpg"
    x, y, z, w = rotation.quat
    assert [float(number) for number in numbers] == [w, x, y, z, 1 / 3, -2.0, 3e-9]


def test_log(tmp_path: Path) -> None:
    path = tmp_path / "log.h5"
    write_log(
        path, [("q/a b.jpg", {"success": True, "point3D_ids": np.array([4, 5])}), ("q", {"reason": "x"})]
    )
    with h5py.File(path) as file:
        assert file["q/a b.jpg"].attrs["success"]
        assert file["q/a b.jpg/point3D_ids"][:].tolist() == [4, 5]
        assert file["q"].attrs["reason"] == "x"
