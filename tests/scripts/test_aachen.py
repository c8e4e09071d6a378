"""scripts/aachen on a synthetic scene of 60 images and 10 queries, in its layout."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pixcli.options import SyntheticOptions
from pixcli.synthetic.dataset import generate_dataset

import pycolmap

SCRIPT = Path(__file__).parents[2] / "scripts" / "aachen" / "localization.py"


@pytest.mark.slow
def test_from_known_poses_to_a_submission(tmp_path: Path) -> None:
    size = {"width": 160, "height": 120, "num_images": 70, "samples": 1, "noise": 1.0, "surface_spacing": 1.0}
    generate_dataset(tmp_path / "scene", SyntheticOptions(num_threads=1, **size))
    truth = pycolmap.Reconstruction(tmp_path / "scene" / "gt")
    data = tmp_path / "data"
    images = data / "images_upright"
    lines = []
    mapped = pycolmap.Reconstruction(truth)
    for k, image_id in enumerate(sorted(truth.images)):
        image = truth.images[image_id]
        is_query = k % 7 == 3
        name = f"query/night/{image.name}" if is_query else f"db/{image.name}"
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scene" / "images" / image.name).rename(images / name)
        mapped.images[image_id].name = name
        if is_query:
            camera = image.camera
            numbers = " ".join(map(repr, map(float, camera.params)))
            lines.append(f"{name} {camera.model.name} {camera.width} {camera.height} {numbers}\n")
            mapped.deregister_frame(image.frame_id)
    assert len(lines) == 10
    (data / "3D-models" / "aachen_v_1_1").mkdir(parents=True)
    mapped.write_text(data / "3D-models" / "aachen_v_1_1")
    (data / "queries").mkdir()
    (data / "queries" / "night_time_queries_with_intrinsics.txt").write_text("".join(lines))
    mapped_names = [image.name for image in mapped.images.values() if image.name.startswith("db/")]
    retrieved = tmp_path / "retrieved.txt"  # in hloc's way, 6 images for each query
    with retrieved.open("w") as file:
        for query in (line.split()[0] for line in lines):
            number = int(Path(query).stem)
            nearest = sorted(mapped_names, key=lambda name: (abs(int(Path(name).stem) - number), name))
            file.writelines(f"{query} {name}\n" for name in nearest[:6])
    out = tmp_path / "out"
    options = ["--num_covisible", "4", "--query_pairs", retrieved, "--preset", "low_memory"]
    options += ["SiftExtraction.max_num_features=150"]
    run = subprocess.run([sys.executable, SCRIPT, data, out, *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert pycolmap.Reconstruction(out / "map" / "model").num_reg_images() == 60
    poses = [line.split() for line in (out / "submission.txt").read_text().splitlines()]
    assert len(poses) == 10
    errors = []
    for name, *numbers in poses:
        w, x, y, z, *translation = map(float, numbers)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d([x, y, z, w]), translation)
        true = truth.find_image_with_name(name.split("/")[-1])
        errors.append(np.linalg.norm(np.array(pose.inverse().translation) - true.projection_center()))
    assert np.median(errors) < 0.05  # metres, in images of 160x120 pixels
