"""A map of two views at true poses and two queries, in COLMAP's files and in hloc's."""

import shutil
import zlib  # noqa: F401  before pycolmap
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from tests.conftest import SmallScene

import pycolmap

QUERIES = ["0001.jpg", "0002.jpg"]


@dataclass(frozen=True)
class QueryScene:
    """Shared: copy what a test changes."""

    path: Path
    """database.db, model, images, and hloc's files of the same matches."""
    truth: pycolmap.Reconstruction

    def colmap(self, output: Path, *more: str) -> list[str]:
        paths = {"database_path": "database.db", "input_path": "model", "image_path": "images"}
        return self._arguments(paths, output, more)

    def hloc(self, output: Path, *more: str) -> list[str]:
        names = ("queries.txt", "features.h5", "matches.h5", "pairs.txt")
        paths = {f"{name.split('.')[0]}_path": name for name in names}
        return self._arguments({**paths, "input_path": "model", "image_path": "images"}, output, more)

    def _arguments(self, paths, output, more):
        given = [part for name, file in paths.items() for part in (f"--{name}", str(self.path / file))]
        return ["localize", *given, "--output_path", str(output), *map(str, more)]

    def centre_error(self, pose: pycolmap.Rigid3d, name: str) -> float:
        true = self.truth.find_image_with_name(name).projection_center()
        return float(np.linalg.norm(pose.inverse().translation - true))


def make_query_scene(scene: SmallScene, path: Path) -> QueryScene:
    """A map of all images but the queries, and hloc's files, in an empty folder."""
    shutil.copy(scene.database_path, path / "database.db")
    (path / "images").symlink_to(scene.path / "images")
    names = sorted({image.name for image in scene.truth.images.values()} - set(QUERIES))
    triangulate(scene.truth, path / "database.db", path / "images", names, path / "model")
    write_hloc_files(path, scene.truth, names)
    return QueryScene(path, scene.truth)


def read_poses(path: Path) -> dict[str, pycolmap.Rigid3d]:
    poses = {}
    for line in path.read_text().splitlines():
        name, *numbers = line.rsplit(" ", 7)
        w, x, y, z, *translation = map(float, numbers)
        poses[name] = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([x, y, z, w])), np.array(translation))
    return poses


def triangulate(
    truth: pycolmap.Reconstruction, database: Path, images: Path, names: list[str], output: Path
) -> None:
    """A map of some images at their true poses, under the database's ids."""
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as opened:
        records = {image.name: image for image in opened.read_all_images()}
    for name in names:
        image, true = records[name], truth.find_image_with_name(name)
        if image.camera_id not in model.cameras:
            camera = copy(true.camera)
            camera.camera_id = image.camera_id
            model.add_camera_with_trivial_rig(camera)
        new = pycolmap.Image(name=name, camera_id=image.camera_id, image_id=image.image_id)
        model.add_image_with_trivial_frame(new, true.cam_from_world())
    options = pycolmap.IncrementalPipelineOptions()
    options.extract_colors = False
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = 0
    options.num_threads = options.mapper.num_threads = 1
    output.mkdir()
    pycolmap.triangulate_points(model, database, images, output, True, options)


def write_hloc_files(path: Path, truth: pycolmap.Reconstruction, names: list[str]) -> None:
    with (
        pycolmap.Database.open(path / "database.db") as database,
        h5py.File(path / "features.h5", "w", libver="latest") as features,
        h5py.File(path / "matches.h5", "w", libver="latest") as matches,
    ):
        ids = {image.name: image.image_id for image in database.read_all_images()}
        lines, pairs = [], []
        for name in QUERIES:
            camera = truth.find_image_with_name(name).camera
            intrinsics = [camera.width, camera.height, *map(float, camera.params)]
            lines.append(" ".join([name, camera.model_name, *map(repr, intrinsics)]))
            keypoints = database.read_keypoints(ids[name])[:, :2]
            features.create_dataset(f"{name}/keypoints", data=keypoints - np.float32(0.5))
            for other in names:
                rows = database.read_two_view_geometry(ids[name], ids[other]).inlier_matches.astype(int)
                matches0 = np.full(len(keypoints), -1, np.int16)
                matches0[rows[:, 0]] = rows[:, 1]
                group = matches.create_group(f"{name}/{other}")
                group.create_dataset("matches0", data=matches0)
                group.create_dataset("matching_scores0", data=np.ones(len(keypoints), np.float16))
                pairs.append(f"{name} {other}")
    (path / "queries.txt").write_text("\n".join(lines) + "\n")
    (path / "pairs.txt").write_text("\n".join(pairs) + "\n")
