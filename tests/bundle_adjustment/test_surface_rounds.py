"""The surface rounds bring models back to the truth, whatever their cameras, rigs and keypoints are.

The scene is a room whose walls show a solid texture of waves, which any camera's images can be computed of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixcli.bundle_adjustment.problem import Constants
from pixcli.bundle_adjustment.strategy import Adjustment, Task
from pixcli.bundle_adjustment.surface_rounds import adjust_by_surfaces
from pixcli.geometry.observations import project
from pixcli.options import BundleAdjustmentOptions
from pixcli.options.bundle_adjustment import (
    FeaturemetricBundleAdjusterOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.progress import Progress
from pixcli.sampling.streaming import ImageFile
from pixcli.synthetic.evaluation import center_errors

import pycolmap

HALF = 2.0  # of the room's side, in metres
NUM_POINTS = 300
FIXED = BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)

PINHOLE = ("PINHOLE", [190.0, 192.0, 120.0, 90.0], (240, 180))
RADIAL = ("RADIAL", [180.0, 122.0, 89.0, -0.12, 0.03], (240, 180))
FISHEYE = ("OPENCV_FISHEYE", [120.0, 121.0, 121.0, 89.0, -0.04, 0.01, -0.003, 0.0005], (240, 180))
SPHERE = ("EQUIRECTANGULAR", [560.0, 280.0], (560, 280))
CameraSpec = tuple[str, list[float], tuple[int, int]]


def texture(points: np.ndarray) -> np.ndarray:
    """(n,) grey levels of the solid that the walls are cut from."""
    rng = np.random.default_rng(5)
    directions = rng.standard_normal((60, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    frequency = 2 * np.pi / rng.uniform(0.08, 0.4, 60)  # per metre: some 5 pixels and more
    waves = (points @ (directions * frequency[:, None]).T + rng.uniform(0, 2 * np.pi, 60)).astype(np.float32)
    return 128 + 110 * np.tanh(np.cos(waves).sum(1) / 8)


def wall_points(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(n, 3) where rays from inside leave the room."""
    with np.errstate(divide="ignore"):
        reach = (np.copysign(HALF, directions) - origins) / directions
    return origins + reach.min(1)[:, None] * directions


def show(model: pycolmap.Reconstruction, image: pycolmap.Image, noise: float = 1.0) -> np.ndarray:
    """What a camera sees of the room."""
    camera, pose = model.cameras[image.camera_id], image.cam_from_world()
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.asarray(camera.cam_ray_from_img(np.stack([columns.ravel(), rows.ravel()], 1)))
    centre = image.projection_center()
    grey = texture(wall_points(np.tile(centre, (len(rays), 1)), rays @ pose.rotation.matrix()))
    grey += noise * np.random.default_rng(image.image_id).standard_normal(len(grey))
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8).reshape(camera.height, camera.width)


def turned(yaw: float, pitch: float = 0.0) -> pycolmap.Rotation3d:
    return pycolmap.Rotation3d(np.radians([0, yaw, 0])) * pycolmap.Rotation3d(np.radians([pitch, 0, 0]))


@dataclass(frozen=True)
class Room:
    """The truth, with tracks of points that three or more images see, and images of it on disk."""

    truth: pycolmap.Reconstruction
    files: list[ImageFile]

    def disturbed(
        self, keypoints: float = 0.5, position: float = 0.01, degrees: float = 0.1, seed: int = 1
    ) -> pycolmap.Reconstruction:
        """The model with noise on 2D points (pixels), points and poses of all frames."""
        model, rng = pycolmap.Reconstruction(self.truth), np.random.default_rng(seed)
        for _, image in sorted(model.images.items()):
            for point2D in image.points2D:
                point2D.xy = point2D.xy + rng.normal(0, keypoints, 2)
        for _, point in sorted(model.points3D.items()):
            point.xyz = point.xyz + rng.normal(0, position, 3)
        for _, frame in sorted(model.frames.items()):
            turn = pycolmap.Rotation3d(np.radians(degrees) * unit(rng))
            frame.rig_from_world = pycolmap.Rigid3d(turn, position * unit(rng)) * frame.rig_from_world
        return model

    def adjust(self, model: pycolmap.Reconstruction, rounds: int = 2) -> Adjustment:
        options = FeaturemetricBundleAdjusterOptions(
            FeaturemetricBundleAdjustmentOptions(rounds=rounds), FIXED
        )
        task = Task(
            model,
            self.files,
            options,
            Constants(),
            ladders={},
            last=True,
            with_residuals=False,
            progress=Progress(),
        )
        return adjust_by_surfaces(task)


def unit(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def build(folder: Path, rigs: Sequence[tuple[Sequence[CameraSpec], int]]) -> Room:
    """Rigs of cameras side by side, each in so many frames; all look around the same corner of the room."""
    rng, model = np.random.default_rng(2), pycolmap.Reconstruction()
    camera_id = image_id = frame_id = 0
    for rig_id, (specs, num_frames) in enumerate(rigs, 1):
        rig = pycolmap.Rig(rig_id=rig_id)
        first = camera_id + 1
        for k, (name, params, (width, height)) in enumerate(specs):
            camera_id += 1
            model.add_camera(
                pycolmap.Camera(camera_id=camera_id, model=name, params=params, width=width, height=height)
            )
            sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id)
            if k == 0:
                rig.add_ref_sensor(sensor)
            else:
                place = np.array([0.12 * k, 0.03, 0.0])
                rig.add_sensor(sensor, pycolmap.Rigid3d(turned(8.0 * (-1) ** k, 3.0), place))
        model.add_rig(rig)
        for _ in range(num_frames):
            frame_id += 1
            yaw, pitch = rng.uniform(-8, 8, 2)
            centre = rng.uniform(-0.6, 0.6, 3)
            rotation = turned(yaw, pitch)
            frame = pycolmap.Frame(frame_id=frame_id, rig_id=rig_id)
            frame.rig_from_world = pycolmap.Rigid3d(rotation, -rotation.matrix() @ centre)
            ids = []
            for sensor_camera in range(first, camera_id + 1):
                image_id += 1
                ids.append((image_id, sensor_camera))
                sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, sensor_camera)
                frame.add_data_id(pycolmap.data_t(sensor, image_id))
            model.add_frame(frame)
            for number, sensor_camera in ids:
                model.add_image(
                    pycolmap.Image(
                        name=f"{number:02d}.png", camera_id=sensor_camera, image_id=number, frame_id=frame_id
                    )
                )
            model.register_frame(frame_id)
    files = []
    for _, image in sorted(model.images.items()):
        path = folder / image.name
        Image.fromarray(show(model, image)).save(path)
        files.append(ImageFile(image.name, path, (image.camera.width, image.camera.height)))
    add_tracks(model, rng)
    return Room(model, files)


def add_tracks(model: pycolmap.Reconstruction, rng: np.random.Generator) -> None:
    """Points of the walls, with an observation in three of four images that see them; no frames."""
    directions = np.stack([unit(rng) for _ in range(40 * NUM_POINTS)])
    points = wall_points(np.zeros_like(directions), directions)
    points = points[np.sort(np.abs(points), axis=1)[:, 1] < HALF - 0.25]  # away from the edges
    seen: dict[int, np.ndarray] = {}
    for image_id, image in model.images.items():
        local = np.asarray(image.cam_from_world() * points)
        xy = np.asarray(image.camera.img_from_cam(local), float)
        size = np.array([image.camera.width, image.camera.height])
        ahead = (local[:, 2] > 0.3) | image.camera.is_spherical()
        inside = ahead & (xy > 14).all(1) & (xy < size - 14).all(1) & (rng.random(len(xy)) < 0.75)
        seen[image_id] = np.where(inside[:, None], xy, np.nan)
    count = sum(np.isfinite(xy[:, 0]).astype(int) for xy in seen.values())
    chosen = np.flatnonzero(count >= 3)[:NUM_POINTS]
    tracks: dict[int, list[pycolmap.TrackElement]] = {int(k): [] for k in chosen}
    for image_id, xy in seen.items():
        rows = [int(k) for k in chosen if np.isfinite(xy[k, 0])]
        model.images[image_id].points2D = pycolmap.Point2DList([pycolmap.Point2D(xy[k]) for k in rows])
        for place, k in enumerate(rows):
            tracks[k].append(pycolmap.TrackElement(image_id, place))
    for k, elements in tracks.items():
        track = pycolmap.Track()
        track.add_elements(elements)
        model.add_point3D(points[k], track)


CASES: dict[str, list[tuple[Sequence[CameraSpec], int]]] = {
    "fisheye": [((FISHEYE,), 1)] * 5,
    "mixed": [((PINHOLE,), 3), ((FISHEYE,), 2), ((RADIAL,), 2)],
    "rig": [((PINHOLE, FISHEYE, RADIAL), 4)],
    "sphere": [((SPHERE,), 4)],
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Room]:
    made: dict[str, Room] = {}

    def make(case: str) -> Room:
        if case not in made:
            made[case] = build(tmp_path_factory.mktemp(case), CASES[case])
        return made[case]

    return make


@pytest.mark.parametrize("case", CASES)
def test_models_of_all_cameras_come_back_to_the_truth(room: Callable[[str], Room], case: str) -> None:
    scene = room(case)
    model = scene.disturbed()
    before = center_errors(scene.truth, model)
    result = scene.adjust(model)
    assert result.accepted.mean() > 0.95
    after = center_errors(scene.truth, model)
    assert before.mean() > 4e-3
    assert after.max() < 6e-4  # metres; a pixel is 15 mm there
    assert np.median(distances_to_walls(scene.truth, model)) < 1e-3
    for rig_id, rig in scene.truth.rigs.items():
        for sensor in rig.non_ref_sensors:
            found = model.rigs[rig_id].sensor_from_rig(sensor)
            assert np.degrees((found * rig.sensor_from_rig(sensor).inverse()).rotation.angle()) < 0.02


def distances_to_walls(truth: pycolmap.Reconstruction, model: pycolmap.Reconstruction) -> np.ndarray:
    """(points,) in metres, after an alignment by the camera centres.

    Along the walls, points go with the keypoints of their references.
    """
    aligned = pycolmap.Reconstruction(model)
    aligned.transform(pycolmap.align_reconstructions_via_proj_centers(aligned, truth, 1e9))
    points = np.array([point.xyz for point in aligned.points3D.values()])
    return np.asarray(np.abs(np.abs(points).max(1) - HALF))


def test_keypoints_with_two_pixels_of_noise_come_back_in_three_rounds(room: Callable[[str], Room]) -> None:
    scene = room("mixed")
    model = scene.disturbed(keypoints=2.0)
    result = scene.adjust(model, rounds=3)
    assert result.rounds[0].residual_before > 2 * result.rounds[-1].residual_before
    assert result.accepted.mean() > 0.8
    assert center_errors(scene.truth, model).max() < 6e-4


def test_poses_that_are_far_off_come_back(room: Callable[[str], Room]) -> None:
    scene = room("mixed")
    model = scene.disturbed(position=0.03, degrees=1.0)  # some four pixels
    scene.adjust(model, rounds=3)
    assert center_errors(scene.truth, model).max() < 6e-4


def test_rounds_end_when_nothing_moves(room: Callable[[str], Room]) -> None:
    scene = room("fisheye")
    model = scene.disturbed()
    scene.adjust(model, rounds=3)
    result = scene.adjust(model, rounds=9)
    assert len(result.rounds) < 5
    assert result.rounds[-1].completed > 0  # whichever round is the last
    assert all(a.completed == 0 for a in result.rounds[:-1])


def test_the_result_tells_what_was_accepted(room: Callable[[str], Room]) -> None:
    """Points whose 2D points lie elsewhere keep them; the others have a covariance and a reference."""
    scene = room("fisheye")
    model = scene.disturbed()
    image = model.images[2]
    for point2D in image.points2D[:20]:
        point2D.xy = point2D.xy + 40.0
    wrong = {(2, k): image.points2D[k].xy.copy() for k in range(20)}
    result = scene.adjust(model)
    observations = result.observations
    for k, (image_id, keypoint) in enumerate(
        zip(observations.image_ids.tolist(), observations.keypoints.tolist(), strict=True)
    ):
        written = model.images[image_id].points2D[keypoint].xy
        np.testing.assert_array_equal(written, observations.xy[k])
        if not result.accepted[k] and (image_id, keypoint) in wrong:
            np.testing.assert_array_equal(written, wrong[image_id, keypoint])
    references = np.zeros(len(result.accepted), bool)
    references[result.reference] = True
    measured = result.accepted & ~references
    assert np.isfinite(result.covariance[measured]).all()
    assert np.isnan(result.covariance[~measured]).all()
    assert (observations.point_index[result.reference] == np.arange(len(result.normals))).all()
    error = np.linalg.norm(observations.xy - project(model, observations), axis=1)
    assert np.median(error[measured]) < 0.02
