"""Keypoints appended to a database: every table that has a row for each keypoint stays consistent."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.appended_keypoints import AppendedKeypoints
from pixcli.io.database import read_match_graph
from pixcli.io.refined_database import write_refined_database

import pycolmap


def make_database(path: Path, columns: int, descriptors: bool = True) -> MatchGraph:
    """Two images with five and four keypoints, and two matches."""
    rng = np.random.default_rng(0)
    with pycolmap.Database.open(path) as database:
        camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 100.0, 200, 100)
        database.write_camera(camera, True)
        for image_id, count in ((1, 5), (2, 4)):
            image = pycolmap.Image(name=f"{image_id}.jpg", camera_id=1, image_id=image_id)
            database.write_image(image, True)
            database.write_keypoints(image_id, rng.uniform(1, 99, (count, columns)).astype(np.float32))
            if descriptors:
                rows = pycolmap.FeatureDescriptors()
                rows.type = pycolmap.FeatureExtractorType.SIFT
                rows.data = rng.integers(0, 255, (count, 128)).astype(np.uint8)
                database.write_descriptors(image_id, rows)
        geometry = pycolmap.TwoViewGeometry()
        geometry.inlier_matches = np.array([[0, 1], [2, 3]], np.uint32)
        geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
        database.write_two_view_geometry(1, 2, geometry)
    return read_match_graph(path, "inlier")


APPENDED = {2: AppendedKeypoints(np.array([[50.25, 60.5], [7.0, 8.0]]), [(1, 4), (1, 0)])}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("columns", [2, 4, 6])
def test_rows_are_appended(tmp_path: Path, columns: int, in_place: bool) -> None:
    path = tmp_path / "database.db"
    graph = make_database(path, columns)
    output = None if in_place else tmp_path / "refined.db"
    with pycolmap.Database.open(path) as database:
        old = [np.array(database.read_descriptors(k).data) for k in (1, 2)]
    xy = np.full(graph.xy.shape, np.nan)
    xy[0] = 3, 4
    with write_refined_database(path, output, graph, xy, APPENDED) as refined:
        assert refined.num_moved == 1
    with pycolmap.Database.open(output or path) as database:
        first, second = database.read_keypoints(1), database.read_keypoints(2)
        new = [np.array(database.read_descriptors(k).data) for k in (1, 2)]
        matches = database.read_two_view_geometry(1, 2).inlier_matches
    before = graph.keypoints
    np.testing.assert_array_equal(first[1:], before[0][1:])
    np.testing.assert_array_equal(first[0, :2], [3, 4])
    np.testing.assert_array_equal(second[:4], before[1])
    np.testing.assert_array_equal(second[4:, :2], APPENDED[2].xy)
    np.testing.assert_array_equal(second[4:, 2:], before[0][[4, 0], 2:])
    np.testing.assert_array_equal(new[0], old[0])
    np.testing.assert_array_equal(new[1], np.concatenate([old[1], old[0][[4, 0]]]))
    np.testing.assert_array_equal(matches, [[0, 1], [2, 3]])


def test_databases_without_descriptors(tmp_path: Path) -> None:
    graph = make_database(tmp_path / "database.db", 6, descriptors=False)
    output = tmp_path / "refined.db"
    with write_refined_database(tmp_path / "database.db", output, graph, graph.xy, APPENDED):
        pass
    with closing(sqlite3.connect(output)) as connection:
        assert connection.execute("SELECT count(*) FROM descriptors").fetchone() == (0,)
        assert connection.execute("SELECT rows FROM keypoints WHERE image_id = 2").fetchone() == (6,)


def test_nothing_is_appended_if_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    graph = make_database(path, 6)
    before = path.read_bytes()

    def fail() -> None:
        with write_refined_database(path, None, graph, graph.xy, APPENDED):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == before
