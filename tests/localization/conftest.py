"""A small scene with one image left out: the map is made of the others at their true poses."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pixcli.localization.localizer import QueryLocalizer
from pixcli.localization.rig_state import difference
from pixcli.options import DenseFeaturesOptions, LocalizationOptions, SyntheticOptions
from pixcli.options.localization import LocalizeOptions
from pixcli.synthetic.baseline import build_database
from pixcli.synthetic.dataset import generate_dataset

import pycolmap


@dataclass(frozen=True)
class LeftOut:
    """A query, its matches, and a map that knows nothing of it."""

    images: Path
    model: pycolmap.Reconstruction
    references: Path
    name: str
    camera: pycolmap.Camera
    truth: pycolmap.Rigid3d
    keypoints: np.ndarray
    point2D_idxs: np.ndarray
    point3D_ids: np.ndarray
    first: pycolmap.Rigid3d
    """What pycolmap makes of the matches alone."""

    def localizer(self, **options):
        return QueryLocalizer(
            self.model, LocalizeOptions(LocalizationOptions(**options)), references=self.references
        )

    def localize(self, localizer, rows=slice(None), **changes):
        arguments = {
            "keypoints": self.keypoints,
            "point2D_idxs": self.point2D_idxs[rows],
            "point3D_ids": self.point3D_ids[rows],
            "camera": self.camera,
            "image": self.images / self.name,
        }
        return localizer.localize(**{**arguments, **changes})

    def position_error(self, pose):
        return float(np.linalg.norm(pose.inverse().translation - self.truth.inverse().translation))

    def normalised_error(self, result):
        """Squared error over what the covariance says, for each of the six parameters."""
        error = difference(result.cam_from_world, self.truth)
        return float(error @ np.linalg.solve(result.covariance, error) / 6)


@pytest.fixture(scope="session")
def left_out(tmp_path_factory: pytest.TempPathFactory) -> LeftOut:
    folder = tmp_path_factory.mktemp("left_out")
    generate_dataset(folder / "scene", SyntheticOptions(width=480, height=360, num_images=6, seed=3))
    truth = pycolmap.Reconstruction(folder / "scene" / "gt")
    images, database = folder / "scene" / "images", folder / "database.db"
    build_database(truth, images, database)
    name = sorted(image.name for image in truth.images.values())[1]
    model, matches = triangulated_without(name, truth, database)
    keypoints, point2D_idxs, point3D_ids = matches
    query = next(image for image in truth.images.values() if image.name == name)
    camera = truth.cameras[query.camera_id]
    camera.has_prior_focal_length = True
    points = np.array([model.points3D[point_id].xyz for point_id in point3D_ids])
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.ransac.random_seed = 0
    first = pycolmap.estimate_and_refine_absolute_pose(keypoints[point2D_idxs], points, camera, estimation)
    references = folder / "references.h5"
    features = DenseFeaturesOptions(use_cache=True, cache_path=str(references))
    QueryLocalizer(model, LocalizeOptions(dense_features=features), image_path=images)
    return LeftOut(
        images,
        model,
        references,
        name,
        camera,
        query.cam_from_world(),
        keypoints,
        point2D_idxs,
        point3D_ids,
        first["cam_from_world"],
    )


def triangulated_without(name, truth, database):
    """A model at the true poses of all other images; keypoints of this one, its matches with the model."""
    by_name = {image.name: image for image in truth.images.values()}
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as db:
        images = sorted(db.read_all_images(), key=lambda image: image.image_id)
        for camera in db.read_all_cameras():
            model.add_camera_with_trivial_rig(camera)
        for image in images:
            if image.name != name:
                pose = by_name[image.name].cam_from_world()
                new = pycolmap.Image(name=image.name, camera_id=image.camera_id, image_id=image.image_id)
                model.add_image_with_trivial_frame(new, pose)
        options = pycolmap.IncrementalPipelineOptions(extract_colors=False, num_threads=1, random_seed=0)
        with tempfile.TemporaryDirectory() as folder:
            model = pycolmap.triangulate_points(model, database, folder, folder, True, options)
        query = next(image.image_id for image in images if image.name == name)
        keypoints = np.array(db.read_keypoints(query), float)[:, :2]
        pairs = set()
        for image_id in model.reg_image_ids():
            points2D = model.images[image_id].points2D
            for own, other in db.read_two_view_geometry(query, image_id).inlier_matches.tolist():
                if points2D[other].has_point3D():
                    pairs.add((own, points2D[other].point3D_id))
    point2D_idxs, point3D_ids = np.array(sorted(pairs)).T
    return model, (keypoints, point2D_idxs, point3D_ids)
