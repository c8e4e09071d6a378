"""A model whose cameras and poses are given, and databases under its ids.

COLMAP numbers images as its threads finish, and triangulates only where a model has the ids of the database.
"""

import logging
from pathlib import Path

from pixcli.errors import UserError
from pixcli.io.models import read_model

import pycolmap

log = logging.getLogger(__name__)


def read_reference(path: Path) -> pycolmap.Reconstruction:
    """The cameras, rigs and poses of a model, without its points and keypoints."""
    reference = read_model(path, option="--reference_path", needs_points=False)
    reference.delete_all_points2D_and_points3D()
    return reference


def reference_images(
    reference: pycolmap.Reconstruction, path: Path, names: list[str], skip: bool
) -> list[str]:
    """Those images that have a pose in the reference; without `skip`, all must.

    Raises:
        UserError: the reference lacks an image, has none of them, or has one that is not there.
    """
    posed = {image.name for image in reference.images.values() if image.has_pose}
    both = sorted(posed & set(names))
    if not both:
        raise UserError(
            f"{path} has no pose of any of these images: its names are such as {min(posed)}, theirs such as "
            f"{min(names)}"
        )
    if missing := sorted(posed - set(names)):
        raise UserError(
            f"image {missing[0]} of {path} is not in --image_path{_others(missing)}: put it there, or take "
            "it out of the model"
        )
    if without := sorted(set(names) - posed):
        told = f"{path} has no pose of {without[0]}{_others(without)}"
        if not skip:
            raise UserError(
                f"{told}: leave out what it has no pose of by --Reconstruction.skip_images_without_pose 1"
            )
        log.warning("left out: %s", told)
    return both


def _others(names: list[str]) -> str:
    return f", nor {len(names) - 1} more" if len(names) > 1 else ""


def write_reference(reference: pycolmap.Reconstruction, database_path: Path) -> None:
    """Writes cameras, rigs, frames and images of a reference into an empty database, under its ids."""
    with pycolmap.Database.open(database_path) as database:
        for camera in reference.cameras.values():
            camera.has_prior_focal_length = True
            database.write_camera(camera, True)
        for rig in reference.rigs.values():
            database.write_rig(rig, True)
        for frame_id in sorted(reference.reg_frame_ids()):
            database.write_frame(reference.frames[frame_id], True)
        for image_id in sorted(reference.reg_image_ids()):
            database.write_image(reference.images[image_id], True)


def copy_features(source_path: Path, database_path: Path) -> None:
    """Copies features and matches of a database into one that `write_reference` has written, under its ids.

    Cameras and poses are those of the reference then; images that it does not have are left out.
    """
    with (
        pycolmap.Database.open(source_path) as source,
        pycolmap.Database.open(database_path) as target,
        pycolmap.DatabaseTransaction(target),
    ):
        ids = {image.name: image.image_id for image in target.read_all_images()}
        both = {image.image_id: ids[image.name] for image in source.read_all_images() if image.name in ids}
        for old, new in both.items():
            if source.exists_keypoints(old):
                target.write_keypoints(new, source.read_keypoints(old))
            if source.exists_descriptors(old):
                target.write_descriptors(new, source.read_descriptors(old))
        pair_ids = {*source.read_num_matches()[0], *source.read_two_view_geometry_num_inliers()[0]}
        for pair_id in sorted(pair_ids):
            pair = pycolmap.pair_id_to_image_pair(pair_id)
            if not all(image_id in both for image_id in pair):
                continue
            renamed = [both[image_id] for image_id in pair]
            if source.exists_matches(*pair):
                target.write_matches(*renamed, source.read_matches(*pair))
            if source.exists_two_view_geometry(*pair):
                target.write_two_view_geometry(*renamed, source.read_two_view_geometry(*pair))
