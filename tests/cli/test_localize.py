"""pixcli localize: both ways in and out."""

import json

import h5py
import numpy as np
import pycolmap
import pytest

from pixcli.cli.main import main
from tests.cli.query_scene import QUERIES, read_poses

FEATUREMETRIC = ["--Localization.strategy", "featuremetric", "--DenseFeatures.model", "dsift"]


@pytest.mark.parametrize("strategy", [[], FEATUREMETRIC], ids=["surface", "featuremetric"])
def test_both_ways_give_the_same_pose(query_scene, tmp_path, capsys, strategy):
    report = tmp_path / "report.json"
    out = tmp_path / "out"
    assert main(query_scene.colmap(out, "--report_path", str(report), *strategy)) == 0, capsys.readouterr()
    printed = capsys.readouterr().out
    assert "localized" in printed
    assert "first pose" in printed
    poses = read_poses(out / "poses.txt")
    assert list(poses) == QUERIES
    results = tmp_path / "results.txt"
    assert main(query_scene.hloc(results, *strategy)) == 0, capsys.readouterr()
    other = read_poses(results)
    assert list(other) == QUERIES
    for name in QUERIES:
        assert query_scene.centre_error(poses[name], name) < 0.01
        np.testing.assert_allclose(other[name].matrix(), poses[name].matrix(), atol=1e-5)

    model = pycolmap.Reconstruction(out)
    kinds = ("cameras", "frames", "images", "points3D", "rigs")
    assert {f"{kind}.bin" for kind in kinds} < {file.name for file in out.iterdir()}
    assert model.num_reg_images() == 4
    for name in QUERIES:
        image = model.find_image_with_name(name)
        np.testing.assert_allclose(image.cam_from_world().matrix(), poses[name].matrix(), atol=1e-12)
        assert image.num_points3D > 20
        errors = [
            np.linalg.norm(image.project_point(model.points3D[point.point3D_id].xyz) - point.xy)
            for point in image.get_observation_points2D()
        ]
        assert np.median(errors) < 1
    contents = json.loads(report.read_text())
    assert contents["localized"] == 2
    assert [query["name"] for query in contents["queries"]] == QUERIES
    assert all(query["position_deviation"] < 0.1 for query in contents["queries"])
    with h5py.File(f"{results}_logs.h5") as log:
        group = log[QUERIES[0]]
        assert group.attrs["success"]
        assert len(group["point3D_ids"]) == group.attrs["num_matches"]
        assert group["inliers"][:].sum() == group.attrs["num_inliers"]
    assert not list(tmp_path.glob("*.journal"))
