"""A small COLMAP database with all that one can hold, made by pycolmap itself."""

import zlib  # noqa: F401  before pycolmap
from pathlib import Path

import numpy as np
import pytest

import pycolmap

NAMES = ["z last.jpg", "sub folder/b c.jpg", "sub folder/a.jpg", "m.png", "alone.jpg"]
"""By image id: neither sorted nor without spaces and folders."""


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    """Five images, one unmatched: rigs, pose priors, descriptors, 6-column keypoints, wrong raw matches."""
    path = tmp_path / "in" / "database.db"
    path.parent.mkdir()
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=2,
        num_frames_per_rig=2,
        num_points3D=60,
        num_points2D_without_point3D=5,
        inlier_match_ratio=0.8,
        prior_position=True,
        camera_has_prior_focal_length=True,
    )
    pycolmap.set_random_seed(0)
    rng = np.random.default_rng(0)
    with pycolmap.Database.open(path) as database:
        pycolmap.synthesize_dataset(options, database)
        alone = pycolmap.Image(name="alone", camera_id=1)
        database.write_image(alone)
        for image in database.read_all_images():
            image.name = NAMES[image.image_id - 1]
            database.update_image(image)
            xy = database.read_keypoints(image.image_id)[:, :2]
            if image.name == "alone.jpg":
                xy = np.array([[3.25, 4.5], [7.0, 1.0]], np.float32)
            rows = np.hstack([xy, rng.normal(size=(len(xy), 4)).astype(np.float32)])
            if database.exists_keypoints(image.image_id):
                database.update_keypoints(image.image_id, rows)
            else:
                database.write_keypoints(image.image_id, rows)
    return path
