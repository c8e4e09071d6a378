import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.evaluation.poses import aligned_errors, area_under_curve, pair_errors

import pycolmap


def moved(
    model: pycolmap.Reconstruction, name: str, by: np.ndarray, degrees: float
) -> pycolmap.Reconstruction:
    """A copy in which one camera is moved, in the world, and turned about its own axis."""
    copy = pycolmap.Reconstruction(model)
    image = copy.find_image_with_name(name)
    world_from_cam = image.cam_from_world().inverse()
    turn = pycolmap.Rotation3d(np.array([0, 0, np.radians(degrees)]))
    pose = pycolmap.Rigid3d(world_from_cam.rotation * turn, world_from_cam.translation + by)
    copy.frames[image.frame_id].rig_from_world = pose.inverse()
    return copy


def test_a_similarity_leaves_no_errors(small_scene) -> None:
    other = pycolmap.Reconstruction(small_scene.truth)
    other.transform(
        pycolmap.Sim3d(2.5, pycolmap.Rotation3d(np.array([0.3, 0.1, -0.2])), np.array([1.0, 2, 3]))
    )
    errors = aligned_errors(small_scene.truth, other)
    assert errors.centres.max() < 1e-9
    assert errors.rotations.max() < 1e-6
    rotations, directions = pair_errors(small_scene.truth, other)
    assert len(rotations) == 6
    assert max(rotations.max(), np.nanmax(directions)) < 1e-6


def test_one_wrong_camera_is_found_where_it_is(small_scene) -> None:
    other = moved(small_scene.truth, "0001.jpg", np.array([0.5, 0, 0]), 3.0)
    errors = aligned_errors(small_scene.truth, other, robust=True)
    index = errors.names.index("0001.jpg")
    assert errors.centres[index] == pytest.approx(0.5, rel=0.05)
    assert np.delete(errors.centres, index).max() < 0.02
    assert errors.rotations[index] == pytest.approx(3.0, rel=0.02)
    rotations, _ = pair_errors(small_scene.truth, other)
    assert sorted(rotations.round(6)) == pytest.approx([0, 0, 0, 3, 3, 3], abs=1e-5)


def test_missing_images_are_failures(small_scene) -> None:
    other = pycolmap.Reconstruction(small_scene.truth)
    other.deregister_frame(other.find_image_with_name("0000.jpg").frame_id)
    rotations, directions = pair_errors(small_scene.truth, other)
    assert np.isinf(rotations).sum() == np.isinf(directions).sum() == 3
    other.deregister_frame(other.find_image_with_name("0001.jpg").frame_id)
    with pytest.raises(UserError, match="2 images do not fix an alignment"):
        aligned_errors(small_scene.truth, other)


def test_the_area_under_the_recall_curve() -> None:
    errors = np.array([0.5, np.inf])
    # Trapezoids: up to 0.5 recall rises from 0 to 1/2, and stays there up to 1.
    assert area_under_curve(errors, np.array([1.0]))[0] == pytest.approx(0.5 * 0.25 + 0.5 * 0.5)
    assert area_under_curve(errors, np.array([1.0]), floor=0.6)[0] == pytest.approx(0.5)
    assert area_under_curve(np.array([2.0]), np.array([1.0]))[0] == 0.0
