"""The generator's folder: complete, reproducible, never half-written."""

import hashlib
import json

import numpy as np
import pytest

from pixcli.cli.main import main
from pixcli.options import SyntheticOptions
from pixcli.synthetic import dataset
from pixcli.synthetic.dataset import generate_dataset

import pycolmap

TINY = {"width": 96, "height": 72, "num_images": 4, "surface_spacing": 0.1}


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("scene", ["court", "relief", "mixed"])
def test_same_seed_same_bytes_whatever_the_threads(scene, tmp_path):
    for name, threads, seed in (("one", 1, 5), ("two", 2, 5), ("other", 2, 6)):
        generate_dataset(
            tmp_path / name, SyntheticOptions(**TINY, scene=scene, num_threads=threads, seed=seed)
        )
    one, other = digests(tmp_path / "one"), digests(tmp_path / "other")
    assert one == digests(tmp_path / "two")
    assert other.keys() == one.keys()
    assert all(other[name] != one[name] for name in one if name.startswith(("images", "depth")))


def test_the_folder_holds_images_model_depth_and_surface(small_scene):
    names = [f"000{k}" for k in range(4)]
    assert sorted(path.name for path in (small_scene.path / "images").iterdir()) == [
        f"{n}.jpg" for n in names
    ]
    assert sorted(path.name for path in (small_scene.path / "depth").iterdir()) == [f"{n}.npz" for n in names]
    assert sorted(image.name for image in small_scene.truth.images.values()) == [f"{n}.jpg" for n in names]
    assert len(small_scene.truth.cameras) == 2
    assert (small_scene.path / "gt" / "frames.txt").exists()
    assert json.loads((small_scene.path / "scene.json").read_text())["width"] == 400


def test_surface_points_are_seen_by_two_images(small_scene):
    with np.load(small_scene.path / "surface.npz") as surface:
        points, normals = surface["points"], surface["normals"]
    assert points.dtype == normals.dtype == np.float32
    assert points.shape == normals.shape
    assert len(points) > 10000
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    points = points[::50].astype(float)
    count = np.zeros(len(points), int)
    for image in small_scene.truth.images.values():
        with np.load(small_scene.path / "depth" / f"{image.name[:4]}.npz") as file:
            depth = file["depth"]
        in_camera = image.cam_from_world() * points
        xy = small_scene.truth.cameras[image.camera_id].img_from_cam(in_camera)
        x, y = np.nan_to_num(xy, nan=-1).T
        inside = (x > 0) & (y > 0) & (x < 400) & (y < 300)
        z = depth[y[inside].astype(int), x[inside].astype(int)]
        count[inside] += np.abs(z - in_camera[inside, 2]) < 0.02 * in_camera[inside, 2]
    assert (count >= 2).all()


def test_photos_as_textures_and_binary_png_output(tmp_path, small_scene):
    options = SyntheticOptions(**TINY, format="png", output_type="binary")
    generate_dataset(tmp_path / "scene", options, texture_path=small_scene.path / "images")
    assert (tmp_path / "scene" / "gt" / "cameras.bin").exists()
    assert len(list((tmp_path / "scene" / "images").glob("*.png"))) == 4
    assert pycolmap.Reconstruction(tmp_path / "scene" / "gt").num_reg_images() == 4


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "_surface", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate_dataset(tmp_path / "scene", SyntheticOptions(**TINY))
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_images(tmp_path):
    options = SyntheticOptions(width=16, height=16, num_images=2, surface_spacing=0.5, samples=1)
    generate_dataset(tmp_path / "scene", options)
    with np.load(tmp_path / "scene" / "depth" / "0001.npz") as file:
        assert file["depth"].shape == (16, 16)


def run(tmp_path, *args):
    return main(["synthetic_dataset_generator", "--output_path", str(tmp_path / "scene"), *args])


def test_command_line(tmp_path):
    assert run(tmp_path, *(f"--Synthetic.{k}={v}" for k, v in TINY.items())) == 0
    assert len(list((tmp_path / "scene" / "images").iterdir())) == 4


def test_a_folder_with_files_is_refused_and_kept(tmp_path, capsys):
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "mine.txt").write_text("mine")
    assert run(tmp_path) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "scene").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--Synthetic.scene", "moon"], "scene"),
        (["--Synthetic.width", "3"], "width"),
        (["--Synthetic.camera_model", "EQUIRECTANGULAR"], "camera_model"),
        (["--texture_path", "nowhere"], "nowhere is not a folder"),
        (["--texture_path", "empty"], "holds no .jpg or .png"),
        (["--texture_path", "broken"], "cannot be read as an image"),
    ],
)
def test_bad_options_are_told_in_one_line_and_nothing_is_left(args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "photo.jpg").write_bytes(b"no photo")
    assert run(tmp_path, *args) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "empty"]


def test_appearance_changes_from_image_to_image_and_nothing_else_does(tmp_path):
    for name, strength in (("plain", 0.0), ("changed", 1.0), ("again", 1.0)):
        generate_dataset(tmp_path / name, SyntheticOptions(**TINY, appearance_change=strength, format="png"))
    plain, changed = digests(tmp_path / "plain"), digests(tmp_path / "changed")
    assert changed == digests(tmp_path / "again")
    for name, digest in plain.items():
        if name != "scene.json":
            assert (changed[name] == digest) == (not name.startswith("images"))
