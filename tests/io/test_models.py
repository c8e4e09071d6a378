"""COLMAP models: every field survives reading and writing, and an old model is whole whatever happens."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.io.models import read_model, write_model, writing_model

import pycolmap

MODELS = sorted(name for name in pycolmap.CameraModelId.__members__ if name != "INVALID")
FILES = ("cameras", "frames", "images", "points3D", "rigs")


def synthesize(camera_model: str = "OPENCV", seed: int = 0) -> pycolmap.Reconstruction:
    """Two rigs of two cameras, with 2D points that have no 3D point, colours and errors."""
    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=2, num_cameras_per_rig=2, num_frames_per_rig=2, num_points3D=20
    )
    options.num_points2D_without_point3D = 3
    options.camera_model_id = pycolmap.CameraModelId.__members__[camera_model]
    size = (options.camera_width, options.camera_height)
    camera = pycolmap.Camera.create_from_model_name(1, camera_model, 1000.0, *size)
    options.camera_params = list(camera.params)
    model = pycolmap.synthesize_dataset(options)
    rng = np.random.default_rng(seed)
    for k, (_, point) in enumerate(sorted(model.points3D.items())):
        point.color = rng.integers(0, 256, 3).astype(np.uint8)
        point.error = 0.25 * k
    for k, image in sorted(model.images.items()):
        image.name = f"folder{k}/ümlaut{k}.jpg"
    for camera in model.cameras.values():
        camera.params = np.array(camera.params) + rng.uniform(0, 0.001, len(camera.params))
    model.cameras[1].has_prior_focal_length = True
    return model


def fields(model: pycolmap.Reconstruction) -> dict:
    """All that a model says, exactly."""
    return {
        "cameras": {k: (c.model, c.width, c.height, tuple(c.params)) for k, c in model.cameras.items()},
        "rigs": {
            k: (
                rig.ref_sensor_id,
                {s: tuple(pose.params) for s, pose in rig.non_ref_sensors.items()},
            )
            for k, rig in model.rigs.items()
        },
        "frames": {
            k: (frame.rig_id, tuple(frame.rig_from_world.params), sorted(map(str, frame.data_ids)))
            for k, frame in model.frames.items()
        },
        "images": {
            k: (i.name, i.camera_id, i.frame_id, [(*p.xy, p.point3D_id) for p in i.points2D])
            for k, i in model.images.items()
        },
        "points": {
            k: (
                tuple(p.xyz),
                tuple(p.color),
                p.error,
                [(e.image_id, e.point2D_idx) for e in p.track.elements],
            )
            for k, p in model.points3D.items()
        },
    }


def write(model: pycolmap.Reconstruction, path: Path, kind: str) -> None:
    with writing_model(path) as folder:
        write_model(folder, model, kind)


def test_there_are_18_camera_models() -> None:
    assert len(MODELS) == 18


@pytest.mark.parametrize("kind", ["bin", "txt"])
@pytest.mark.parametrize("camera_model", MODELS)
def test_every_field_survives(tmp_path: Path, camera_model: str, kind: str) -> None:
    model = synthesize(camera_model)
    write(model, tmp_path / "model", kind)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [f"{n}.{kind}" for n in FILES]
    assert fields(read_model(tmp_path / "model")) == fields(model)


def test_another_type_takes_the_place_of_a_model_and_other_files_stay(tmp_path: Path) -> None:
    write(synthesize(seed=0), tmp_path / "model", "txt")
    (tmp_path / "model" / "project.ini").write_text("of somebody else")
    other = synthesize(seed=1)
    write(other, tmp_path / "model", "bin")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["cameras.bin", "frames.bin", "images.bin", "points3D.bin", "project.ini", "rigs.bin"]
    assert fields(read_model(tmp_path / "model")) == fields(other)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_old_model_stays_if_writing_fails(tmp_path: Path) -> None:
    old = synthesize(seed=0)
    write(old, tmp_path / "model", "bin")

    def fail() -> None:
        with writing_model(tmp_path / "model") as folder:
            write_model(folder, synthesize(seed=1), "bin")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert fields(read_model(tmp_path / "model")) == fields(old)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("moment", range(10))
def test_an_old_model_stays_if_the_exchange_of_files_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Ctrl-C after each of the ten steps of the exchange."""
    old = synthesize(seed=0)
    write(old, tmp_path / "model", "bin")
    (tmp_path / "model" / "project.ini").write_text("of somebody else")
    rename, count = Path.rename, 0

    def interrupted(self: Path, target: Path) -> Path:
        nonlocal count
        result = rename(self, target)
        count += 1
        if count == moment + 1:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(synthesize(seed=1), tmp_path / "model", "bin")
    assert fields(read_model(tmp_path / "model")) == fields(old)
    assert (tmp_path / "model" / "project.ini").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


OVERWRITING = """
import sys
from pathlib import Path
import pycolmap
from pixcli.io.models import write_model, writing_model
models = [pycolmap.Reconstruction(path) for path in sys.argv[2:]]
print("now", flush=True)
while True:
    for model in models:
        with writing_model(Path(sys.argv[1])) as folder:
            write_model(folder, model, "bin")
"""


def test_killed_at_any_moment_a_folder_never_holds_parts_of_two_models(tmp_path: Path) -> None:
    both = [fields(synthesize(seed=seed)) for seed in (0, 1)]
    for seed, name in enumerate(("first", "second")):
        write(synthesize(seed=seed), tmp_path / name, "bin")
    paths = [str(tmp_path / name) for name in ("model", "first", "second")]
    for delay in (0.1, 0.13, 0.17):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", OVERWRITING, *paths], stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "now\n"
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        with contextlib.suppress(UserError):  # the instant of the exchange: a part of one, told as such
            assert fields(read_model(tmp_path / "model")) in both


def test_text_files_cannot_hold_names_with_spaces(tmp_path: Path) -> None:
    """COLMAP would read them back cut off."""
    model = synthesize()
    model.images[1].name = "my photo.jpg"
    write(model, tmp_path / "model", "bin")
    assert fields(read_model(tmp_path / "model")) == fields(model)
    with pytest.raises(UserError, match="name of image"):
        write(model, tmp_path / "text", "txt")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write(synthesize(), tmp_path / "model", "bin")
    assert (tmp_path / "model").read_text() == "in the way"
