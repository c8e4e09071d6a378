"""The patch store: what is written comes back; only whole files of the same contents are used."""

import fcntl
import os
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io import patch_store
from pixcli.io.patch_store import Contents, Items, LevelLayout, PatchStore, open_store

COUNTS = [3, 0, 4]
PTR = np.array([0, 3, 3, 7])
CONTENTS = Contents(
    options={"model": "toy", "patch_size": 4, "scales": [1.0, 0.5]},
    images=["a.jpg", "ümlaut/b.jpg", "c.jpg"],
    ptr=PTR,
    items="0123",
    levels=[
        LevelLayout(5, np.dtype(np.float16), np.full((7, 2), 4, np.int32)),
        LevelLayout(1, np.dtype(np.uint8), np.array([[i + 1, 2 * i] for i in range(7)], np.int32)),
    ],
)


def items(image: int) -> list[Items]:
    """Made-up items of an image: level 0 of one size, level 1 of sizes that differ."""
    rng = np.random.default_rng(image)
    first, last = PTR[image], PTR[image + 1]
    result = []
    for level in CONTENTS.levels:
        samples = level.starts[last] - level.starts[first]
        data = rng.integers(0, 200, (samples, level.channels)).astype(level.dtype)
        corners = rng.integers(0, 1000, (last - first, 2)).astype(np.int32)
        result.append((data, corners, rng.random((last - first, 2))))
    return result


def hash_of(image: int) -> str:
    return f"{image:032x}"


def fill(store: PatchStore) -> None:
    for image in store.missing:
        store.write(image, hash_of(image), items(image))


def made(path: Path) -> Path:
    with open_store(path, CONTENTS, hash_of) as store:
        fill(store)
    return path


@pytest.mark.parametrize("in_file", [False, True])
def test_what_is_written_comes_back(tmp_path: Path, in_file: bool) -> None:
    path = tmp_path / "cache.h5" if in_file else None
    with open_store(path, CONTENTS, hash_of) as store:
        assert store.missing == [0, 1, 2]
        fill(store)
    if in_file:
        store = open_store(path, CONTENTS, hash_of)
    assert store.missing == []
    patches = store.patches(0)
    assert patches.data.shape == (7, 4, 4, 5)
    assert patches.data.flags.c_contiguous
    written = [items(image) for image in range(3)]
    np.testing.assert_array_equal(patches.data.reshape(-1, 5), np.concatenate([w[0][0] for w in written]))
    np.testing.assert_array_equal(patches.corners, np.concatenate([w[0][1] for w in written]))
    np.testing.assert_array_equal(patches.scales, np.concatenate([w[0][2] for w in written]))
    np.testing.assert_array_equal(store.item(1, 2), written[0][1][0][-12:].reshape(3, 4, 1))
    with pytest.raises(ValueError, match="differ in size"):
        store.patches(1)


def test_patches_of_a_file_are_a_memory_map_that_outlives_the_store(tmp_path: Path) -> None:
    path = made(tmp_path / "cache.h5")
    with open_store(path, CONTENTS, hash_of) as store:
        data = store.patches(0).data
    base = data
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert data.ctypes.data % 64 == 0
    with h5py.File(path) as file:
        np.testing.assert_array_equal(data.reshape(-1, 5), file["level0/data"][:])


def test_no_items_at_all(tmp_path: Path) -> None:
    levels = [LevelLayout(5, np.dtype("f4"), np.zeros((0, 2), np.int32))]
    empty = replace(CONTENTS, ptr=np.zeros(4, np.int64), levels=levels)
    nothing = (np.zeros((0, 5)), np.zeros((0, 2), np.int32), np.zeros((0, 2)))
    for _ in range(2):
        with open_store(tmp_path / "cache.h5", empty, hash_of) as store:
            for image in store.missing:
                store.write(image, hash_of(image), [nothing])
            assert len(store.patches(0).data) == 0


def test_a_killed_run_is_resumed_at_the_image_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    whole = made(tmp_path / "whole.h5").read_bytes()
    store = open_store(path, CONTENTS, hash_of)
    store.write(0, hash_of(0), items(0))
    # Killed amid the second image's data: everything but its hash may be there.
    store._put(0, "data", 48, items(2)[0][0])
    store._file.close()
    with open_store(path, CONTENTS, hash_of) as resumed:
        assert resumed.missing == [1, 2]
        fill(resumed)
    again, one = open_store(path, CONTENTS, hash_of), open_store(tmp_path / "whole.h5", CONTENTS, hash_of)
    assert again.missing == []
    for a, b in zip(again._levels, one._levels, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert path.stat().st_size == len(whole)


FOREIGN = {
    "patch_size 4, but now it is 8": replace(CONTENTS, options={**CONTENTS.options, "patch_size": 8}),
    "colour None, but now it is True": replace(CONTENTS, options={**CONTENTS.options, "colour": True}),
    "other images": replace(CONTENTS, images=["a.jpg", "b.jpg", "c.jpg"]),
    "keypoints at other positions": replace(CONTENTS, items="4567"),
    "items of other sizes": replace(
        CONTENTS, levels=[LevelLayout(5, np.dtype(np.float32), CONTENTS.levels[0].shapes), CONTENTS.levels[1]]
    ),
}


@pytest.mark.parametrize("reason", FOREIGN)
def test_a_cache_of_other_contents_is_refused_or_replaced(tmp_path: Path, reason: str) -> None:
    path = made(tmp_path / "cache.h5")
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"cache\.h5: .*{reason}.*overwrite_cache 1"):
        open_store(path, FOREIGN[reason], hash_of)
    assert path.read_bytes() == before
    with open_store(path, FOREIGN[reason], hash_of, overwrite=True) as store:
        assert store.missing == [0, 1, 2]


def test_a_changed_image_makes_the_cache_stale(tmp_path: Path) -> None:
    path = made(tmp_path / "cache.h5")
    changed = lambda image: "f" * 32 if image == 2 else hash_of(image)  # noqa: E731
    with pytest.raises(UserError, match=r"the image c\.jpg has changed"):
        open_store(path, CONTENTS, changed)
    # With overwrite_cache a cache that is good is still used.
    with open_store(path, CONTENTS, hash_of, overwrite=True) as store:
        assert store.missing == []


def test_a_truncated_cache_is_refused_or_replaced(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole.h5").read_bytes()
    path = tmp_path / "cut.h5"
    for kept in (0, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"cut\.h5: the cache is truncated or damaged"):
            open_store(path, CONTENTS, hash_of)
    with open_store(path, CONTENTS, hash_of, overwrite=True) as store:
        assert store.missing == [0, 1, 2]


def test_files_of_others_are_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        file["descriptors"] = np.arange(10)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff" + bytes(1000))
    for name in ("features.h5", "photo.jpg"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(UserError, match=r"(of another program|no cache of features); name another"):
            open_store(tmp_path / name, CONTENTS, hash_of, overwrite=True)
        assert (tmp_path / name).read_bytes() == before


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "cache.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(UserError, match="format version 99"):
        open_store(path, CONTENTS, hash_of)


def test_two_runs_do_not_fill_one_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    open_store(path, CONTENTS, hash_of).close()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is filling this cache"):
            open_store(path, CONTENTS, hash_of)


def test_a_disk_too_small_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(patch_store.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(UserError, match=r"the cache takes 0\.00 GB, but the disk has .* left; name"):
        open_store(tmp_path / "cache.h5", CONTENTS, hash_of)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_the_file_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"cannot be made .No space left on device"):
        open_store(tmp_path / "cache.h5", CONTENTS, hash_of)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_half_way_leaves_a_cache_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.h5"
    write, written = os.write, []

    def failing(fd: int, data: bytes) -> int:
        if len(written) > 8:
            raise OSError(28, "No space left on device")
        written.append(len(data))
        return write(fd, data[:100])  # short writes are taken up again

    monkeypatch.setattr(os, "write", failing)
    with (
        pytest.raises(UserError, match=r"cannot be written .No space left on device.*goes on at this image"),
        open_store(path, CONTENTS, hash_of) as store,
    ):
        fill(store)
    monkeypatch.undo()
    with open_store(path, CONTENTS, hash_of) as store:
        assert 2 in store.missing
        fill(store)
    np.testing.assert_array_equal(
        open_store(path, CONTENTS, hash_of).patches(0).data.reshape(-1, 5),
        np.concatenate([items(image)[0][0] for image in range(3)]),
    )


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; make it"):
        open_store(tmp_path / "none" / "cache.h5", CONTENTS, hash_of)
    with pytest.raises(UserError, match="cannot be read"):
        open_store(tmp_path, CONTENTS, hash_of)


def test_num_bytes_is_what_the_file_takes(tmp_path: Path) -> None:
    layout = LevelLayout(128, np.dtype(np.float16), np.full((70, 2), 16, np.int32))
    contents = replace(CONTENTS, ptr=np.array([0, 30, 30, 70]), levels=[layout])
    open_store(tmp_path / "cache.h5", contents, hash_of).close()
    assert contents.num_bytes == pytest.approx((tmp_path / "cache.h5").stat().st_size, rel=0.01)
