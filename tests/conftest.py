import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pixcli.bundle_adjustment.completion import ImagePose
from pixcli.geometry.linearisation import linearise
from pixcli.geometry.observations import Observations, project, read_observations
from pixcli.io.patch_store import Patches
from pixcli.io.references import References
from pixcli.options import SyntheticOptions
from pixcli.options.synthetic import CameraModel
from pixcli.sampling.streaming import ImageFile
from pixcli.surfaces.planes import Surfaces, choose_references
from pixcli.synthetic.baseline import build_database, map_database
from pixcli.synthetic.dataset import generate_dataset

import pycolmap

# A shell that starts the tests in the background has them ignore Ctrl-C; programs that they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_log_handlers_left() -> Iterator[None]:
    """A command line run inside a test logs to that test's captured streams, which do not outlive it."""
    yield
    log = logging.getLogger("pixcli")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.NOTSET)


@dataclass(frozen=True)
class SmallScene:
    """Four views of a synthetic scene, 400 x 300 and SIFT matches. Shared: copy what a test changes."""

    path: Path
    """As the generator wrote it: images, gt, depth, surface.npz."""
    database_path: Path
    truth: pycolmap.Reconstruction


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> SmallScene:
    return make_small_scene(tmp_path_factory.mktemp("small_scene"))


def make_small_scene(folder: Path, camera_model: CameraModel = "OPENCV") -> SmallScene:
    path, database_path = folder / "scene", folder / "database.db"
    options = SyntheticOptions(width=400, height=300, num_images=4, seed=1, camera_model=camera_model)
    generate_dataset(path, options)
    truth = pycolmap.Reconstruction(path / "gt")
    build_database(truth, path / "images", database_path)
    return SmallScene(path, database_path, truth)


@pytest.fixture(scope="session")
def mapped(small_scene: SmallScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of raw SIFT, mapped with the true intrinsics. Shared: copy what a test changes."""
    folder = tmp_path_factory.mktemp("mapped") / "sparse"
    folder.mkdir()
    map_database(small_scene.database_path, small_scene.path / "images").write_binary(str(folder))
    return folder


@pytest.fixture
def rigs() -> pycolmap.Reconstruction:
    """Two rigs of three cameras with noise, three frames each."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=2, num_cameras_per_rig=3, num_frames_per_rig=3, num_points3D=60
    )
    model = pycolmap.synthesize_dataset(options)
    noise = pycolmap.SyntheticNoiseOptions(point2D_stddev=0.3, rig_from_world_translation_stddev=0.01)
    pycolmap.synthesize_noise(noise, model)
    return model


EDGE = 16


@dataclass(frozen=True)
class FeatureScene:
    """A model at the truth with patches of its observations, each of which meets its reference there."""

    truth: pycolmap.Reconstruction
    observations: Observations
    projected: NDArray[np.float64]
    patches: Patches
    references: References

    def perturbed(
        self,
        degrees: float = 0.1,
        position: float = 0.005,
        focal: float = 0.0,
        distortion: float = 0.0,
        hold: int = 2,
        seed: int = 0,
    ) -> tuple[pycolmap.Reconstruction, frozenset[int]]:
        """The model with errors, and the images (of the first `hold` frames) that have none."""
        rng = np.random.default_rng(seed)
        model = pycolmap.Reconstruction(self.truth)
        for place, (_, frame) in enumerate(sorted(model.frames.items())):
            if place >= hold:
                turn = pycolmap.Rotation3d(np.radians(degrees) * rng.uniform(-1, 1, 3))
                step = pycolmap.Rigid3d(turn, position * rng.uniform(-1, 1, 3))
                frame.rig_from_world = step * frame.rig_from_world
        for _, point in sorted(model.points3D.items()):
            point.xyz = point.xyz + position * rng.uniform(-1, 1, 3)
        for _, camera in sorted(model.cameras.items()):
            params = np.array(camera.params)
            params[camera.focal_length_idxs()] *= 1 + focal * rng.uniform(-1, 1)
            params[camera.extra_params_idxs()] += distortion * rng.uniform(
                -1, 1, len(camera.extra_params_idxs())
            )
            camera.params = params
        held = sorted(model.frames)[:hold]
        images = {image_id for image_id, image in model.images.items() if image.frame_id in held}
        return model, frozenset(images)

    def pixel_errors(self, model: pycolmap.Reconstruction) -> NDArray[np.float64]:
        """(n,) distances of the projections to the true ones, in pixels."""
        return np.linalg.norm(project(model, self.observations) - self.projected, axis=1)


def _change_cameras(model: pycolmap.Reconstruction, others: dict[str, list[float]]) -> None:
    """Gives all cameras but the first other models, and the observations the places where points are then."""
    cameras = [camera for _, camera in sorted(model.cameras.items())]
    for camera, (name, params) in zip(cameras[1:], others.items(), strict=True):
        camera.model = pycolmap.CameraModelId.__members__[name]
        camera.params = params
    observations = read_observations(model)
    for image_id, members in observations.by_image.items():
        points2D = model.images[image_id].points2D
        xy = project(model, observations)[members]
        for row, at in zip(observations.keypoints[members].tolist(), xy, strict=True):
            points2D[row].xy = at


@pytest.fixture(scope="session")
def feature_scene() -> Callable[..., FeatureScene]:
    """Makes scenes of quadratic features around the true pixels, which bicubic sampling gives exactly.

    `other_models` are those of the second camera, the third and so on, by name.
    """

    def make(
        model: str = "SIMPLE_RADIAL",
        params: list[float] | None = None,
        channels: int = 4,
        dtype: type = np.float64,
        cameras_per_rig: int = 1,
        frames: int = 4,
        points: int = 60,
        seed: int = 3,
        other_models: dict[str, list[float]] | None = None,
    ) -> FeatureScene:
        pycolmap.set_random_seed(seed)
        options = pycolmap.SyntheticDatasetOptions()
        options.num_rigs, options.num_cameras_per_rig = 1, cameras_per_rig
        options.num_frames_per_rig, options.num_points3D = frames, points
        options.camera_model_id = pycolmap.CameraModelId.__members__[model]
        if params is not None:
            options.camera_params = params
        truth = pycolmap.synthesize_dataset(options)
        if other_models:
            _change_cameras(truth, other_models)
        observations = read_observations(truth)
        projected = project(truth, observations)
        assert np.isfinite(projected).all()

        rng = np.random.default_rng(seed)
        corners = np.floor(projected - EDGE / 2).astype(np.int32)
        features = rng.uniform(-1, 1, (len(observations.point_ids), channels)).astype(np.float32)
        n = len(projected)
        slopes = rng.uniform(-0.3, 0.3, (n, 1, 1, channels, 2))
        bends = rng.uniform(-0.01, 0.01, (n, 1, 1, channels, 2))
        rows, columns = np.mgrid[:EDGE, :EDGE]
        samples = np.stack([columns, rows], -1) + 0.5 + corners[:, None, None]
        offset = (samples - projected[:, None, None])[..., None, :]
        data = features[observations.point_index][:, None, None] + (slopes * offset + bends * offset**2).sum(
            -1
        )
        first = observations.ptr[:-1]
        references = References(
            observations.point_ids, features, observations.image_ids[first], observations.keypoints[first]
        )
        patches = Patches(np.ascontiguousarray(data, dtype), corners, np.ones((n, 2)))
        return FeatureScene(truth, observations, projected, patches, references)

    return make


@dataclass(frozen=True)
class TrueSurface:
    """Points of the small scene's surface, exact, in all views that see them; true poses."""

    surfaces: Surfaces
    points: np.ndarray
    normals: np.ndarray
    poses: list[ImagePose]
    files: list[ImageFile]

    def moved(self, points):
        """The same with other points: what the views see of them."""
        old = self.surfaces
        views = views_of(self.poses, points, old.image, old.point)
        return Surfaces(views, old.image, old.image_size, old.reference, old.ptr, old.pair_view)

    def exact_xy(self, points):
        """(n, 2) where each pair's view sees these points."""
        views = self.moved(points).views[self.surfaces.pair_view]
        return np.stack([views["x"], views["y"]], 1)


def views_of(poses, points, image, point):
    views = None
    for k, pose in enumerate(poses):
        rows = image == k
        here = linearise(pose.camera, pose.rotation, pose.translation, points[point[rows]])
        if views is None:
            views = np.empty(len(image), here.dtype)
        views[rows] = here
    return views


@pytest.fixture(scope="session")
def true_surface(small_scene):
    """Surface samples that three or more images see, away from occlusions."""
    truth = small_scene.truth
    images = sorted(truth.images.values(), key=lambda image: image.name)
    poses = []
    for image in images:
        pose = image.cam_from_world()
        poses.append(ImagePose(truth.cameras[image.camera_id], pose.rotation.matrix(), pose.translation))
    files = [
        ImageFile(i.name, small_scene.path / "images" / i.name, (p.camera.width, p.camera.height))
        for i, p in zip(images, poses, strict=True)
    ]
    with np.load(small_scene.path / "surface.npz") as file:
        pick = np.random.default_rng(0).choice(len(file["points"]), 1500, replace=False)
        points, normals = file["points"][pick].astype(float), file["normals"][pick].astype(float)
    seen = np.zeros((len(points), len(poses)), bool)
    for k, (image, pose) in enumerate(zip(images, poses, strict=True)):
        depth = np.load(small_scene.path / "depth" / f"{image.name[:4]}.npz")["depth"]
        in_camera = points @ pose.rotation.T + pose.translation
        column, row = np.asarray(pose.camera.img_from_cam(in_camera)).T
        inside = (column > 25) & (row > 25) & (column < 375) & (row < 275)
        rows = np.flatnonzero(inside)
        # The whole patch of the depth map must be about as far away: no edge of an occluding body.
        around = np.stack(
            [
                depth[row[rows].astype(int) + r, column[rows].astype(int) + c]
                for r in (-8, 0, 8)
                for c in (-8, 0, 8)
            ],
            1,
        )
        seen[rows, k] = (np.abs(around - in_camera[rows, 2:]) < 0.05 * in_camera[rows, 2:]).all(1)
    keep = seen.sum(1) >= 3
    points, normals, seen = points[keep], normals[keep], seen[keep]
    point, image = np.nonzero(seen)
    ptr = np.concatenate([[0], np.cumsum(seen.sum(1))]).astype(np.int64)
    image = image.astype(np.int32)
    views = views_of(poses, points, image, point)
    size = np.array([file.size for file in files], float)
    surfaces = Surfaces(
        views, image, size, choose_references(views, ptr), ptr, np.arange(len(image), dtype=np.int32)
    )
    return TrueSurface(surfaces, points, normals, poses, files)
