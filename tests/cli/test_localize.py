"""pixcli localize: both ways in and out."""

import dataclasses
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from copy import copy

import h5py
import numpy as np
import pytest

from pixcli.cli.main import main
from pixcli.localization.localizer import QueryLocalizer
from tests.cli.conftest import messages_in
from tests.cli.query_scene import QUERIES, make_query_scene, read_poses
from tests.conftest import make_small_scene

import pycolmap

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


def test_without_refinement_poses_are_the_first_ones(query_scene, tmp_path, capsys):
    out, report = tmp_path / "out.txt", tmp_path / "report.json"
    more = ["--preset", "norefine", "--references_path", tmp_path / "map.h5", "--report_path", report]
    assert main(query_scene.hloc(out, *more)) == 0, capsys.readouterr()
    printed = capsys.readouterr()
    assert "first poses are not refined" in printed.err
    assert "none: poses are not refined" in printed.out
    poses = read_poses(out)
    model = pycolmap.Reconstruction(query_scene.path / "model")
    for query in json.loads(report.read_text())["queries"]:
        assert [step["name"] for step in query["steps"]] == ["first pose"]
        with h5py.File(f"{out}_logs.h5") as log, h5py.File(query_scene.path / "features.h5") as features:
            group, name = log[query["name"]], query["name"]
            rows, ids = group["point2D_idxs"][:], group["point3D_ids"][:]
            keypoints = features[f"{name}/keypoints"][:].astype(float) + 0.5
            np.testing.assert_array_equal(group["keypoints"][:], keypoints[rows])
        camera = copy(query_scene.truth.find_image_with_name(name).camera)
        points = np.array([model.points3D[point_id].xyz for point_id in ids.tolist()])
        ransac = pycolmap.AbsolutePoseEstimationOptions()
        ransac.ransac.random_seed = 0
        first = pycolmap.estimate_and_refine_absolute_pose(keypoints[rows], points, camera, ransac)
        np.testing.assert_allclose(poses[name].matrix(), first["cam_from_world"].matrix(), atol=1e-6)
    assert not (tmp_path / "map.h5").exists()


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
    model = pycolmap.Reconstruction(own_scene.path / "model")
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
                    points2D = model.find_image_with_name(other).points2D
                    matched = np.flatnonzero(matches >= 0)
                    lead = [row for row in matched if points2D[matches[row]].has_point3D()]
                    matches[np.setdiff1d(matched, lead[:1])] = -1
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


def test_failures_of_a_database(own_scene, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text(f"{QUERIES[1]}\n0000.jpg\n")
    arguments = own_scene.colmap(tmp_path / "out", "--image_list_path", names, *FEATUREMETRIC)
    assert main(arguments) == 0
    assert "the model has registered it already" in capsys.readouterr().out
    assert list(read_poses(tmp_path / "out" / "poses.txt")) == [QUERIES[1]]
    names.write_text("0000.jpg\n")
    arguments = own_scene.colmap(tmp_path / "other", "--image_list_path", names, *FEATUREMETRIC)
    assert_refused(capsys, arguments, "nothing was localized: the model has registered it already (0000.jpg)")
    assert not (tmp_path / "other").exists()


def assert_refused(capsys, arguments, *expected):
    assert main(arguments) == 1
    lines = messages_in(capsys.readouterr().err)
    assert len(lines) == 1
    for words in expected:
        assert words in lines[0]


def edited(scene, file, old, new):
    path = scene.path / file
    path.write_text(path.read_text().replace(old, new))


def test_what_cannot_be_used_at_all(own_scene, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = own_scene.hloc(out)
    paths = {name: arguments.index(f"--{name}") for name in ("matches_path", "features_path", "input_path")}
    without = [word for k, word in enumerate(arguments) if k - paths["matches_path"] not in (0, 1)]
    assert_refused(capsys, without, "give --matches_path")
    both = [*arguments, "--database_path", str(own_scene.path / "database.db")]
    assert_refused(capsys, both, "--database_path and --queries_path exclude each other")
    assert_refused(capsys, ["localize", *arguments[9:]], "--queries_path")
    assert_refused(
        capsys, own_scene.hloc(out, "--features_path", tmp_path / "no.h5"), "no.h5", "--features_path"
    )
    assert_refused(capsys, own_scene.hloc(out, "--image_path", tmp_path / "no"), "no folder", "--image_path")
    nothing = own_scene.colmap(out, "--image_list_path", own_scene.path / "pairs.txt")
    assert_refused(capsys, nothing, "pairs.txt, line 1: there is no image")
    out.write_text("mine")
    assert_refused(capsys, arguments, "exists already", "--Localization.overwrite 1")
    assert out.read_text() == "mine"
    out.unlink()
    (own_scene.path / "pairs.txt").write_text("other.jpg 0000.jpg\n")
    assert_refused(capsys, arguments, "pairs.txt has no pair of any query")
    (own_scene.path / "queries.txt").write_text(f"{QUERIES[0]} PINHOLE 400 300 300\n")
    assert_refused(capsys, arguments, "queries.txt, line 1", "fx, fy, cx, cy")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["scene"]


def test_pairs_that_are_not_matched_or_reversed(own_scene, tmp_path, capsys):
    first, second = QUERIES
    with h5py.File(own_scene.path / "matches.h5", "a") as file:
        del file[f"{first}/0000.jpg"], file[f"{first}/0003.jpg"]
        for other in ("0000.jpg", "0003.jpg"):
            matches = file[f"{second}/{other}/matches0"][:]
            del file[f"{second}/{other}"]
            count = len(
                pycolmap.Reconstruction(own_scene.path / "model").find_image_with_name(other).points2D
            )
            backwards = np.full(count, -1, np.int16)
            matched = np.flatnonzero(matches >= 0)
            backwards[matches[matched]] = matched
            file[f"{other}_{second}/matches0"] = backwards  # reversed, in the older form, without scores
    assert failures(own_scene, tmp_path, *FEATUREMETRIC) == {
        first: "no matches with the 2 images that it is paired with"
    }
    pose = read_poses(tmp_path / "results.txt")[second]
    assert own_scene.centre_error(pose, second) < 0.01


def test_references_of_another_model_or_of_other_features(own_scene, tmp_path, capsys):
    references = tmp_path / "references.h5"
    more = ["--references_path", references, *FEATUREMETRIC]
    assert main(own_scene.hloc(tmp_path / "one.txt", *more)) == 0
    assert "images" in capsys.readouterr().out
    assert main(own_scene.hloc(tmp_path / "two.txt", *more)) == 0
    assert "file" in capsys.readouterr().out
    assert (tmp_path / "one.txt").read_bytes() == (tmp_path / "two.txt").read_bytes()
    out = tmp_path / "out.txt"
    other_features = own_scene.hloc(out, *more, "--DenseFeatures.spatial_bin_size", "5")
    assert_refused(capsys, other_features, "references.h5", "spatial_bin_size")
    model = pycolmap.Reconstruction(own_scene.path / "model")
    for point_id in sorted(model.points3D)[::3]:
        model.delete_point3D(point_id)
    model.write_binary(own_scene.path / "model")
    assert_refused(capsys, own_scene.hloc(out, *more), "references.h5", "another model")
    assert not out.exists()


def test_an_interrupted_batch_goes_on_and_threads_change_nothing(query_scene, tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole.txt"
    assert main(query_scene.hloc(whole, "--Localization.num_threads", "3", *FEATUREMETRIC)) == 0
    localize = QueryLocalizer.localize
    calls = []

    def interrupted(self, *args, **kwargs):
        calls.append(kwargs["image"].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return localize(self, *args, **kwargs)

    monkeypatch.setattr(QueryLocalizer, "localize", interrupted)
    again = tmp_path / "again.txt"
    arguments = query_scene.hloc(again, "--Localization.num_threads", "1", *FEATUREMETRIC)
    assert main(arguments) == 130
    assert not again.exists()
    assert (tmp_path / "again.txt.journal").exists()
    assert main(arguments) == 0
    assert calls[2:] == [QUERIES[1]]  # the first one was done
    assert again.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "again.txt.journal").exists()


KILLED = """
import os, sys
from pixcli.cli.main import main
from pixcli.io.journal import Journal

append = Journal.append

def killed(self, *args):
    if self.count:
        os.kill(os.getpid(), 9)
    append(self, *args)

Journal.append = killed
main(sys.argv[1:])
"""


def queries_after_a_kill(arguments, killed_with, resumed_with, monkeypatch):
    """The queries that a run localizes after one with other options was killed after its first query."""
    code = [sys.executable, "-P", "-c", KILLED, *arguments, *map(str, killed_with)]
    ran = subprocess.run(code, check=False, capture_output=True, text=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    localize, calls = QueryLocalizer.localize, []

    def counted(self, *args, **kwargs):
        calls.append(kwargs["image"].name)
        return localize(self, *args, **kwargs)

    monkeypatch.setattr(QueryLocalizer, "localize", counted)
    assert main([*arguments, *map(str, resumed_with)]) == 0
    return calls


@pytest.mark.parametrize("strategy", [[], FEATUREMETRIC], ids=["surface", "featuremetric"])
def test_a_killed_run_that_wrote_references_goes_on(query_scene, tmp_path, monkeypatch, strategy):
    whole, out, references = (tmp_path / name for name in ("whole.txt", "out.txt", "map.h5"))
    assert main(query_scene.hloc(whole, *strategy)) == 0
    arguments = query_scene.hloc(out, "--references_path", references, *strategy)
    assert queries_after_a_kill(arguments, [], [], monkeypatch) == QUERIES[1:]
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("out.txt*")) == ["out.txt", "out.txt_logs.h5"]


def test_what_changes_no_result_does_not_start_a_killed_run_anew(query_scene, tmp_path, monkeypatch):
    cache, other = (["--DenseFeatures.cache_path", tmp_path / name] for name in ("a.h5", "b.h5"))
    more = ["--Localization.num_threads", "2", "--DenseFeatures.gpu_index", "0"]
    arguments = query_scene.hloc(tmp_path / "out.txt", "--DenseFeatures.use_cache", "1")
    assert queries_after_a_kill(arguments, cache, [*other, *more], monkeypatch) == QUERIES[1:]


def test_what_changes_results_starts_a_killed_run_anew(query_scene, tmp_path, monkeypatch, capsys):
    arguments = query_scene.hloc(tmp_path / "out.txt")
    more = ["--AbsolutePose.max_error", "11"]
    assert queries_after_a_kill(arguments, [], more, monkeypatch) == QUERIES
    assert "out.txt.journal is of another run and starts anew" in capsys.readouterr().err


def test_little_memory_takes_no_named_cache(query_scene, tmp_path):
    for number, strategy in enumerate(([], FEATUREMETRIC)):
        out = tmp_path / f"{number}.txt"
        assert main(query_scene.hloc(out, "--preset", "low_memory", *strategy)) == 0
        assert sorted(path.name for path in tmp_path.glob(".pixcli*")) == []
        assert list(read_poses(out)) == QUERIES


def test_results_are_named_as_benchmark_servers_want(own_scene, tmp_path):
    for folder in ("left", "right"):
        (own_scene.path / folder).mkdir()
    images = own_scene.path / "own"
    shutil.copytree(own_scene.path / "images", images)
    for folder, name in zip(("left", "right"), QUERIES, strict=True):
        (images / "rig" / folder).mkdir(parents=True)
        shutil.copy(images / name, images / "rig" / folder / "1.jpg")
        edited(own_scene, "queries.txt", name, f"rig/{folder}/1.jpg")
        edited(own_scene, "pairs.txt", name, f"rig/{folder}/1.jpg")
        with h5py.File(own_scene.path / "features.h5", "a") as file:
            file.copy(name, f"rig/{folder}/1.jpg")
        with h5py.File(own_scene.path / "matches.h5", "a") as file:
            file.copy(name, f"rig-{folder}-1.jpg")
    out = tmp_path / "results.txt"
    more = ["--image_path", images, *FEATUREMETRIC]
    assert (
        main(own_scene.hloc(out, "--prepend_camera_name", "1", "--covisibility_clustering", "1", *more)) == 0
    )
    assert list(read_poses(out)) == ["left/1.jpg", "right/1.jpg"]


def make_rig(scene):
    """Let the database say that one rig took both queries; the rig and its cameras."""
    true = [scene.truth.find_image_with_name(name) for name in QUERIES]
    with pycolmap.Database.open(scene.path / "database.db") as database:
        images = [database.read_image_with_name(name) for name in QUERIES]
        rig = pycolmap.Rig(rig_id=77)
        frame = pycolmap.Frame(frame_id=77)
        frame.rig_id = 77
        cameras = []
        for k, (image, at) in enumerate(zip(images, true, strict=True)):
            camera = copy(at.camera)
            camera.has_prior_focal_length = True
            camera.camera_id = 70 + k
            database.write_camera(camera, use_camera_id=True)
            cameras.append(camera)
            image.camera_id = camera.camera_id
            if k == 0:
                rig.add_ref_sensor(camera.sensor_id)
            else:
                place = at.cam_from_world() * true[0].cam_from_world().inverse()
                rig.add_sensor(camera.sensor_id, place)
            frame.add_data_id(pycolmap.data_t(camera.sensor_id, image.image_id))
        database.write_rig(rig, use_rig_id=True)
    with sqlite3.connect(scene.path / "database.db") as connection:
        for image in images:
            connection.execute("DELETE FROM frame_data WHERE data_id = ?", (image.image_id,))
            row = (image.camera_id, image.image_id)
            connection.execute("UPDATE images SET camera_id = ? WHERE image_id = ?", row)
    with pycolmap.Database.open(scene.path / "database.db") as database:
        database.write_frame(frame, use_frame_id=True)
    return rig, cameras


@pytest.mark.parametrize("strategy", [[], FEATUREMETRIC], ids=["surface", "featuremetric"])
@pytest.mark.parametrize("model_has_rig", [False, True])
def test_images_of_a_rig_are_localized_as_one(own_scene, tmp_path, model_has_rig, strategy):
    rig, cameras = make_rig(own_scene)
    if model_has_rig:
        model = pycolmap.Reconstruction(own_scene.path / "model")
        for camera in cameras:
            model.add_camera(camera)
        model.add_rig(rig)
        model.write_binary(own_scene.path / "model")
    out = tmp_path / "out"
    assert main(own_scene.colmap(out, *strategy)) == 0
    poses = [read_poses(out / "poses.txt")[name] for name in QUERIES]
    true = [own_scene.truth.find_image_with_name(name) for name in QUERIES]
    expected = true[1].cam_from_world() * true[0].cam_from_world().inverse()
    np.testing.assert_allclose((poses[1] * poses[0].inverse()).matrix(), expected.matrix(), atol=1e-9)
    for name, pose in zip(QUERIES, poses, strict=True):
        assert own_scene.centre_error(pose, name) < 0.01
    written = pycolmap.Reconstruction(out)
    frames = {written.find_image_with_name(name).frame_id for name in QUERIES}
    assert len(frames) == (1 if model_has_rig else 2)
    assert all(written.find_image_with_name(name).num_points3D > 20 for name in QUERIES)


@pytest.mark.parametrize("strategy", [[], FEATUREMETRIC], ids=["surface", "featuremetric"])
def test_a_damaged_image_of_a_rig_leaves_the_others(own_scene, tmp_path, capsys, strategy):
    make_rig(own_scene)
    images = own_scene.path / "own"
    shutil.copytree(own_scene.path / "images", images)
    (images / QUERIES[1]).write_bytes((images / QUERIES[1]).read_bytes()[:5000])
    report = tmp_path / "report.json"
    more = ["--image_path", images, "--report_path", report, *strategy]
    assert main(own_scene.colmap(tmp_path / "out", *more)) == 0, capsys.readouterr()
    good, bad = json.loads(report.read_text())["queries"]
    assert good["success"]
    assert QUERIES[1] in bad["reason"]
    poses = read_poses(tmp_path / "out" / "poses.txt")
    assert list(poses) == [QUERIES[0]]
    assert own_scene.centre_error(poses[QUERIES[0]], QUERIES[0]) < 0.01


def test_references_of_surfaces_are_kept_where_they_are_named(query_scene, tmp_path, capsys):
    references = tmp_path / "references.h5"
    more = ["--references_path", references]
    assert main(query_scene.hloc(tmp_path / "one.txt", *more)) == 0
    assert references.is_file()
    stamp = references.stat().st_mtime_ns
    capsys.readouterr()
    assert main(query_scene.hloc(tmp_path / "two.txt", *more)) == 0
    assert "file" in capsys.readouterr().out
    assert references.stat().st_mtime_ns == stamp
    assert (tmp_path / "one.txt").read_bytes() == (tmp_path / "two.txt").read_bytes()


@pytest.mark.parametrize("target_reference", ["robust_mean", "all_observations", "full"])
def test_what_keypoints_are_compared_with(query_scene, tmp_path, target_reference):
    more = ["--Localization.target_reference", target_reference, *FEATUREMETRIC]
    assert main(query_scene.hloc(tmp_path / "results.txt", *more)) == 0
    poses = read_poses(tmp_path / "results.txt")
    assert all(query_scene.centre_error(poses[name], name) < 0.01 for name in QUERIES)


def test_several_levels_of_features(query_scene, tmp_path):
    more = ["--DenseFeatures.pyramid_scales", "1.0,0.5", *FEATUREMETRIC]
    assert main(query_scene.hloc(tmp_path / "results.txt", *more)) == 0
    poses = read_poses(tmp_path / "results.txt")
    assert all(query_scene.centre_error(poses[name], name) < 0.01 for name in QUERIES)


def test_cameras_of_another_model(tmp_path):
    (tmp_path / "queries").mkdir()
    scene = make_query_scene(make_small_scene(tmp_path, "FOV"), tmp_path / "queries")
    for number, strategy in enumerate(([], FEATUREMETRIC)):
        out = tmp_path / f"{number}.txt"
        assert main(scene.hloc(out, *strategy)) == 0
        poses = read_poses(out)
        assert all(scene.centre_error(poses[name], name) < 0.01 for name in QUERIES)


def test_focal_lengths_of_a_query_list_are_known(query_scene, tmp_path):
    poses = []
    for estimate in "01":
        out = tmp_path / f"{estimate}.txt"
        more = ["--AbsolutePose.estimate_focal_length", estimate, *FEATUREMETRIC]
        assert main(query_scene.hloc(out, *more)) == 0
        poses.append(out.read_bytes())
    assert poses[0] == poses[1]
