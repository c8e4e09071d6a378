"""Databases: what the core finds is written, and geometries are those that the options ask for."""

from pathlib import Path

import numpy as np
import pytest

import pixcli
from pixcli.adapters.refine_database import RefinerFiles
from pixcli.errors import UserError
from pixcli.io.database import read_match_graph
from pixcli.options import TwoViewGeometryOptions


def test_what_the_core_finds_is_written(small_scene, tmp_path: Path) -> None:
    paths = (str(small_scene.database_path), str(small_scene.path / "images"), str(tmp_path / "refined.db"))
    refinement = pixcli.refine_database(*paths, files=RefinerFiles(covariance_path=str(tmp_path / "c.h5")))
    graph = read_match_graph(small_scene.database_path)
    result = pixcli.refine_keypoints(graph, small_scene.path / "images")
    np.testing.assert_array_equal(refinement.keypoints.xy, result.xy)
    np.testing.assert_array_equal(read_match_graph(paths[2], "raw").xy, result.xy.astype(np.float32))
    assert refinement.verification is not None
    assert refinement.verification.updated == len(graph.pairs)
    assert {path.name for path in tmp_path.iterdir()} == {"refined.db", "c.h5"}


def test_options_of_two_view_geometries_hold_in_reverification(small_scene, tmp_path: Path) -> None:
    paths = (small_scene.database_path, small_scene.path / "images")
    default = pixcli.refine_database(*paths, tmp_path / "default.db")
    strict = pixcli.refine_database(
        *paths, tmp_path / "strict.db", two_view_geometry=TwoViewGeometryOptions(max_error=0.02)
    )
    assert default.verification is not None
    assert strict.verification is not None
    assert strict.verification.inliers_after < 0.95 * default.verification.inliers_after
    assert len(read_match_graph(tmp_path / "strict.db").edges) == strict.verification.inliers_after


def test_options_that_colmap_refuses_leave_no_trace(small_scene, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="COLMAP does not take"):
        pixcli.refine_database(
            small_scene.database_path,
            small_scene.path / "images",
            tmp_path / "refined.db",
            two_view_geometry=TwoViewGeometryOptions(max_error=-1.0),
        )
    assert list(tmp_path.iterdir()) == []
