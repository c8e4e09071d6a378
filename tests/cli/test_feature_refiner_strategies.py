"""The featuremetric strategies, their presets and models, and the caches that commands share."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixcli.io.database import read_match_graph

import pycolmap


def contents(path: Path) -> list[str]:
    """Every row of a database, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


DSIFT = ("--KeypointAdjustment.strategy", "featuremetric", "--DenseFeatures.model", "dsift")
NODES = " ".join(f"{x},{y}" for y in range(-3, 4) for x in range(-3, 4))
NCC = (
    *("--KeypointAdjustment.strategy", "featuremetric", "--Interpolation.nodes", NODES),
    *("--Interpolation.ncc_normalize", "1", "--Interpolation.l2_normalize", "0"),
    *("--DenseFeatures.l2_normalize", "0"),
)
FEATUREMETRIC = {
    "dsift": DSIFT,
    "dsift to the root": ("--KeypointAdjustment.strategy", "topological_reference", *DSIFT[2:]),
    "dsift, whole maps": (*DSIFT, "--DenseFeatures.sparse", "0"),
    "dsift, two scales": (*DSIFT, "--DenseFeatures.pyramid_scales", "1.0,0.5"),
    "pixsfm": ("--preset", "pixsfm"),
    "grey nodes": NCC,
    "colour nodes": (*NCC, "--DenseFeatures.color", "1"),
}


@pytest.fixture
def shifted_pair(workplace):
    """Two views half a pixel apart, their keypoints off by 0.4 pixels at random."""
    source = np.asarray(Image.open(workplace.first_image()).convert("L"), np.float32)
    shutil.rmtree(workplace.images)
    workplace.images.mkdir()
    for name, offset in (("a.png", 0), ("b.png", 1)):
        cropped = source[offset : offset + 298, offset : offset + 398]
        pixels = cropped.reshape(149, 2, 199, 2).mean((1, 3))
        Image.fromarray((pixels + 0.5).astype(np.uint8)).save(workplace.images / name)
    rng = np.random.default_rng(0)
    xy = rng.uniform([25, 25], [170, 120], (150, 2))
    workplace.database.unlink()
    with workplace.edited() as database:
        camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=199, height=149, params=[200, 99.5, 74.5])
        camera_id = database.write_camera(camera)
        images = [pycolmap.Image(name=name, camera_id=camera_id) for name in ("a.png", "b.png")]
        first, second = (database.write_image(image) for image in images)
        database.write_keypoints(first, xy.astype(np.float32))
        database.write_keypoints(second, (xy - 0.5 + rng.normal(0, 0.4, xy.shape)).astype(np.float32))
        matches = np.repeat(np.arange(len(xy), dtype=np.uint32)[:, None], 2, axis=1)
        database.write_matches(first, second, matches)
        geometry = pycolmap.TwoViewGeometry(config=2, inlier_matches=matches)
        database.write_two_view_geometry(first, second, geometry)
    return workplace


@pytest.mark.parametrize("options", FEATUREMETRIC.values(), ids=FEATUREMETRIC)
def test_other_strategies(shifted_pair, options: tuple[str, ...], tmp_path: Path) -> None:
    def error(path: Path) -> float:
        first, second = read_match_graph(path, "inlier").keypoints
        return float(np.median(np.linalg.norm(first - second - 0.5, axis=1)))

    report_path = tmp_path / "report.json"
    cache = ("--DenseFeatures.use_cache", 1, "--DenseFeatures.cache_path", tmp_path / "cache.h5")
    run = shifted_pair.run(*options, "--report_path", report_path, *cache)
    assert run.code == 0
    limit = 0.7 if "pixsfm" in options else 0.5  # eight channels of a single point
    assert error(shifted_pair.output) < limit * error(shifted_pair.database)
    report = json.loads(report_path.read_text(encoding="utf-8"))
    assert report["cost"]["after"] < report["cost"]["before"]
    phases = [phase["name"] for phase in report["phases"]]
    assert phases == ["read", "build tracks", "features", "adjust", "check", "verify"]


def test_featuremetric_threads_give_the_same_bytes(workplace) -> None:
    dumps = []
    for threads in (1, 2):
        assert workplace.run(*DSIFT, "--KeypointAdjustment.num_threads", threads).code == 0
        dumps.append(contents(workplace.output))
        workplace.output.unlink()
    assert dumps[0] == dumps[1]


@pytest.mark.parametrize("options", [(), DSIFT], ids=["affine", "dsift"])
def test_a_filled_cache_is_used_instead_of_the_images(
    workplace, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_path = workplace.output.with_name("cache.h5")
    cache = ("--DenseFeatures.cache_path", str(cache_path), *options)
    extractor = ["dense_feature_extractor", *workplace.arguments(*cache, in_place=True)[1:]]
    assert workplace.run_main(extractor).code == 0
    filled = cache_path.read_bytes()
    use = ("--DenseFeatures.use_cache", "1", *cache)
    with monkeypatch.context() as patch:
        patch.delattr("pixcli.sampling.streaming.read_image")
        assert workplace.run(*use).code == 0
    assert cache_path.read_bytes() == filled
    uncached = workplace.output.rename(workplace.output.with_name("uncached.db"))
    assert workplace.run(*options).code == 0
    assert contents(workplace.output) == contents(uncached)


def test_a_cache_of_other_images_or_positions_is_refused(workplace) -> None:
    cache = ("--DenseFeatures.use_cache", "1", "--DenseFeatures.cache_path", str(workplace.output) + ".h5")
    assert workplace.run(*cache).code == 0
    first = workplace.first_image()
    pixels = np.asarray(Image.open(first)).copy()
    pixels[:9] ^= 255
    original = first.read_bytes()
    Image.fromarray(pixels).save(first, format="JPEG")
    workplace.output.unlink()
    run = workplace.run(*cache)
    assert run.code == 1
    assert f"image {first.name} has changed" in run.messages[-1]
    assert "overwrite_cache" in run.messages[-1]
    assert len(run.messages) == 1
    first.write_bytes(original)
    workplace.set_keypoints(lambda _, rows: rows + np.eye(1, rows.shape[1], dtype=np.float32) * 9)
    run = workplace.run(*cache)
    assert run.code == 1
    assert "keypoints at other positions" in run.messages[-1]
    assert not workplace.output.exists()
    assert workplace.run(*cache, "--DenseFeatures.overwrite_cache", 1).code == 0
