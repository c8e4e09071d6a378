import h5py
import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io.references import ObservedFeatures, References, read_references, write_references

OPTIONS = {"DenseFeatures.model": "dsift", "Interpolation.l2_normalize": True}


@pytest.fixture
def levels():
    rng = np.random.default_rng(0)
    result = []
    for channels in (8, 3):
        observed = ObservedFeatures(
            np.array([0, 2, 5], np.int64),
            rng.integers(0, 9, 5),
            rng.integers(0, 99, 5),
            rng.normal(size=(5, channels)).astype(np.float32),
        )
        features = rng.normal(size=(2, channels)).astype(np.float32)
        kept = observed if channels == 8 else None
        result.append(References(np.array([4, 11]), features, np.array([1, 2]), np.array([30, 40]), kept))
    return result


def _assert_same(a, b):
    assert (a is None) == (b is None)
    for name, value in vars(a).items() if a is not None else ():
        other = getattr(b, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype
            np.testing.assert_array_equal(value, other)
        else:
            _assert_same(value, other)


def test_round_trip(tmp_path, levels):
    path = tmp_path / "references.h5"
    write_references(path, levels, OPTIONS)
    read = read_references(path, OPTIONS)
    assert len(read) == 2
    for one, other in zip(levels, read, strict=True):
        _assert_same(one, other)
    assert [entry.name for entry in tmp_path.iterdir()] == ["references.h5"]


def test_rows_of_points(levels):
    np.testing.assert_array_equal(levels[0].rows_of(np.array([11, 3, 4, 99, 5])), [1, -1, 0, -1, -1])
    nothing = References(np.zeros(0, np.int64), np.zeros((0, 3), np.float32), *np.zeros((2, 0), np.int64))
    np.testing.assert_array_equal(nothing.rows_of(np.array([1, 2])), [-1, -1])


def test_other_options_are_named(tmp_path, levels):
    path = tmp_path / "references.h5"
    write_references(path, levels, OPTIONS)
    with pytest.raises(UserError, match=r"DenseFeatures\.model dsift, but now it is image"):
        read_references(path, {**OPTIONS, "DenseFeatures.model": "image"})


def test_a_damaged_file_is_told(tmp_path, levels):
    path = tmp_path / "references.h5"
    write_references(path, levels, OPTIONS)
    whole = path.read_bytes()
    for keep in (0, 3, len(whole) // 3, len(whole) - 200):
        path.write_bytes(whole[:keep])
        with pytest.raises(UserError, match="truncated or damaged"):
            read_references(path)


@pytest.mark.parametrize("name", ["point_id", "feature", "observation_ptr", "observation_feature"])
def test_arrays_that_do_not_fit_together_are_told(tmp_path, levels, name):
    path = tmp_path / "references.h5"
    write_references(path, levels, OPTIONS)
    with h5py.File(path, "r+") as file:
        values = file[f"level0/{name}"][:]
        del file[f"level0/{name}"]
        file[f"level0/{name}"] = values[::-1] if name == "point_id" else values[:-1]
    with pytest.raises(UserError, match="damaged"):
        read_references(path)


def test_other_files_are_told(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_references(tmp_path / "nothing.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(UserError, match="no references"):
        read_references(tmp_path / "other.h5")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, levels, monkeypatch):
    path = tmp_path / "references.h5"
    write_references(path, levels, OPTIONS)
    before = path.read_bytes()

    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("pixcli.io.references._write_arrays", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_references(path, levels[:1], OPTIONS)
    assert path.read_bytes() == before
