"""pixcli localize: both ways in and out."""

import dataclasses
import json
import shutil

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


def failures(query_scene, tmp_path, *more):
    """The reasons of failed queries, by name, of a run of hloc's files in which at least one succeeds."""
    report = tmp_path / "report.json"
    assert main([*query_scene.hloc(tmp_path / "results.txt", *more), "--report_path", str(report)]) == 0
    queries = json.loads(report.read_text())["queries"]
    return {query["name"]: query["reason"] for query in queries if not query["success"]}


@pytest.fixture
def own_scene(query_scene, tmp_path):
    """A copy of the scene that a test may change."""
    shutil.copytree(query_scene.path, tmp_path / "scene", symlinks=True)
    return dataclasses.replace(query_scene, path=tmp_path / "scene")


def test_a_failed_query_is_a_row_and_disturbs_no_other(own_scene, tmp_path, capsys):
    good, bad = QUERIES
    images = tmp_path / "scene" / "own images"
    shutil.copytree(own_scene.path / "images", images)
    size = (images / bad).stat().st_size
    names = ["truncated.jpg", "sub folder/no file.jpg", "no intrinsics.jpg", "in no pair.jpg", "few.jpg"]
    with h5py.File(own_scene.path / "features.h5", "a") as file:
        for name in names:
            file[f"{name}/keypoints"] = file[f"{bad}/keypoints"][:]
        file.create_dataset("no keypoints.jpg/keypoints", data=np.zeros((0, 2), np.float32))
    with h5py.File(own_scene.path / "matches.h5", "a") as file:
        for name in ("truncated.jpg", "sub folder/no file.jpg", "few.jpg"):
            for other in file[bad]:
                matches = file[f"{bad}/{other}/matches0"][:]
                if name == "few.jpg":
                    matches[np.flatnonzero(matches >= 0)[2:]] = -1
                file[f"{name.replace('/', '-')}/{other}/matches0"] = matches
        for other in list(file[bad]):
            file[f"no keypoints.jpg/{other}/matches0"] = np.zeros(0, np.int16)
    (images / "truncated.jpg").write_bytes((images / bad).read_bytes()[: size // 2])
    shutil.copy(images / bad, images / "few.jpg")
    line = next(line for line in (own_scene.path / "queries.txt").read_text().splitlines() if bad in line)
    names += ["no keypoints.jpg", "no features.jpg", "0000.jpg"]
    listed = [line.replace(bad, name) for name in names if name != "no intrinsics.jpg"]
    with (own_scene.path / "queries.txt").open("a") as file:
        file.write("\n".join([*listed, "no intrinsics.jpg"]) + "\n")
    with (own_scene.path / "pairs.txt").open("a") as file:
        for name in names:
            if name != "in no pair.jpg":
                file.write(f"{name} 0000.jpg\n{name} 0003.jpg\n{name} not in the model.jpg\n")
    reasons = failures(own_scene, tmp_path, "--image_path", images, *FEATUREMETRIC)
    assert set(reasons) == set(names)
    expected = {
        "truncated.jpg": "truncated.jpg: the image cannot be read",
        "sub folder/no file.jpg": "no such image",
        "no intrinsics.jpg": "no intrinsics",
        "in no pair.jpg": "in no pair",
        "few.jpg": "a pose takes 4 at least",
        "no keypoints.jpg": "it has no keypoints",
        "no features.jpg": "has no keypoints of no features.jpg",
        "0000.jpg": "registered it already",
    }
    for name, words in expected.items():
        assert words in reasons[name], name
    assert list(read_poses(tmp_path / "results.txt")) == [good, bad]
