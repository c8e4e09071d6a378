"""What COLMAP makes of a data set with known intrinsics: SIFT, exhaustive matching, mapping. Reproducible."""

import tempfile
from collections import defaultdict
from pathlib import Path

from pixcli.errors import UserError

import pycolmap


def build_database(
    truth: pycolmap.Reconstruction, image_path: Path, database_path: Path, max_num_features: int = 8192
) -> None:
    """Makes a new COLMAP database with SIFT features and verified matches, under the true intrinsics."""
    with pycolmap.Database.open(database_path):
        pass
    by_camera: defaultdict[int, list[str]] = defaultdict(list)
    for image in truth.images.values():
        by_camera[image.camera_id].append(image.name)
    extraction = pycolmap.FeatureExtractionOptions(use_gpu=False)
    extraction.sift.max_num_features = max_num_features
    for camera_id, names in sorted(by_camera.items()):
        camera = truth.cameras[camera_id]
        reader = pycolmap.ImageReaderOptions(
            camera_model=camera.model.name, camera_params=",".join(repr(float(p)) for p in camera.params)
        )
        # Imported before their features, images get the same numbers in every run.
        where = (database_path, image_path)
        pycolmap.import_images(*where, pycolmap.CameraMode.SINGLE, sorted(names), reader)
        pycolmap.extract_features(*where, sorted(names), pycolmap.CameraMode.SINGLE, reader, extraction)
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    pycolmap.set_random_seed(0)
    pycolmap.match_exhaustive(
        database_path,
        pycolmap.FeatureMatchingOptions(use_gpu=False),
        verification_options=verification,
    )


def map_database(database_path: Path, image_path: Path) -> pycolmap.Reconstruction:
    """The largest model that COLMAP's mapper makes of a database, intrinsics fixed."""
    options = pycolmap.IncrementalPipelineOptions()
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
    options.min_model_size = 3
    options.extract_colors = False
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = 0
    options.num_threads = options.mapper.num_threads = 1  # with more, two runs differ
    with tempfile.TemporaryDirectory(prefix="pixcli-") as folder:
        models = pycolmap.incremental_mapping(database_path, image_path, folder, options)
    if not models:
        raise UserError(f"{database_path}: the images could not be mapped; they overlap too little.")
    return max(models.values(), key=lambda model: int(model.num_reg_images()))
