"""The command fills a cache that a later extraction for the same database finds complete."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixcli.cli.main import main
from pixcli.io.database import read_match_graph
from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.extraction import extraction_for

import pycolmap


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A folder with a database of two matched images and one alone, and the images."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=80, height=60, params=[70, 40, 30])
        camera_id = database.write_camera(camera)
        ids = []
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            pixels = rng.integers(0, 256, (60, 80), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name)
            ids.append(database.write_image(pycolmap.Image(name=name, camera_id=camera_id)))
            database.write_keypoints(ids[-1], (rng.random((10, 2)) * [80, 60]).astype(np.float32))
        matches = np.array([[0, 1], [4, 7], [5, 0]], np.uint32)
        geometry = pycolmap.TwoViewGeometry(config=2, inlier_matches=matches)
        database.write_matches(ids[0], ids[1], matches)
        database.write_two_view_geometry(ids[0], ids[1], geometry)
    return tmp_path


def arguments(scene: Path, *more: str) -> list[str]:
    paths = ["--database_path", str(scene / "database.db"), "--image_path", str(scene / "images")]
    strategy = ["--KeypointAdjustment.strategy", "featuremetric"]
    return ["dense_feature_extractor", *paths, *strategy, *more]


def test_fills_a_cache_for_keypoints_with_matches(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = scene / "cache.h5"
    (scene / "images" / "c.jpg").unlink()  # nothing of it is needed
    assert (
        main(arguments(scene, "--DenseFeatures.cache_path", str(cache), "--DenseFeatures.model", "dsift"))
        == 0
    )
    assert "3 images, 30 keypoints, 3 matches in 1 pairs" in capsys.readouterr().err
    for path in (scene / "images").iterdir():
        path.touch()  # the content counts, not the time
    graph = read_match_graph(scene / "database.db", "inlier")
    options = DenseFeaturesOptions(model="dsift", use_cache=True, cache_path=str(cache))
    before = cache.read_bytes()
    ((patches, rows),) = extraction_for(graph, scene / "images", options).patches()
    np.testing.assert_array_equal(np.flatnonzero(rows >= 0), [0, 4, 5, 10, 11, 17])
    assert patches.data.shape == (6, 16, 16, 128)
    assert cache.read_bytes() == before


def test_says_what_is_wrong_in_one_line(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(scene)) == 1
    assert "--DenseFeatures.cache_path is missing" in capsys.readouterr().err
    cache = scene / "cache.h5"
    options = ["--DenseFeatures.cache_path", str(cache)]
    (scene / "images" / "b.jpg").write_bytes(b"\xff\xd8\xff")
    assert main(arguments(scene, *options)) == 1
    assert "b.jpg: the image cannot be read" in capsys.readouterr().err.splitlines()[-1]
    Image.new("L", (80, 60)).save(scene / "images" / "b.jpg")
    assert main(arguments(scene, *options)) == 0
    assert main(arguments(scene, *options, "--DenseFeatures.patch_size", "8")) == 1
    assert "patch_size 16, but now it is 8" in capsys.readouterr().err
    assert (
        main(
            arguments(
                scene, *options, "--DenseFeatures.patch_size", "8", "--DenseFeatures.overwrite_cache", "1"
            )
        )
        == 0
    )
