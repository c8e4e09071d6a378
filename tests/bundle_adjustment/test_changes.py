"""What a refinement changed is told after alignment, and outliers are named."""

import numpy as np
import pytest

from pixcli.bundle_adjustment.changes import baseline, changes_between, focal_changes
from pixcli.geometry.similarity import align

import pycolmap


def moved(model: pycolmap.Reconstruction, frame_id: int, degrees: float, distance: float) -> None:
    frame = model.frames[frame_id]
    centre = frame.rig_from_world.inverse().translation + np.array([distance, 0, 0])
    turn = pycolmap.Rotation3d(np.array([0, np.radians(degrees), 0]))
    rotation = turn * frame.rig_from_world.rotation
    frame.rig_from_world = pycolmap.Rigid3d(rotation, -(rotation.matrix() @ centre))


@pytest.mark.parametrize("frames", [2, 6])
def test_the_frame_of_a_model_is_no_change(feature_scene, frames):
    before = pycolmap.Reconstruction(feature_scene(frames=frames, points=100).truth)
    after = pycolmap.Reconstruction(before)
    change = pycolmap.Sim3d(0.4, pycolmap.Rotation3d(np.array([1.0, 0.2, -0.7])), np.array([5.0, 0, 1]))
    after.transform(change)
    before.transform(align(before, after))
    for pose in changes_between(before, after).poses:
        assert pose.rotation < 1e-6
        assert pose.centre < 1e-9
        assert not pose.jumped


def test_alignment_is_not_misled_by_what_moved(feature_scene, caplog):
    before = pycolmap.Reconstruction(feature_scene(frames=8, points=100).truth)
    after = pycolmap.Reconstruction(before)
    rng = np.random.default_rng(0)
    for frame_id in after.frames:
        moved(after, frame_id, 0.01 * rng.normal(), 0.001 * rng.normal())
    for _, point in sorted(after.points3D.items())[:30]:
        point.xyz = point.xyz + 1
    far = sorted(after.frames)[3]
    moved(after, far, 1.0, 0.3)
    name = next(image.name for image in after.images.values() if image.frame_id == far)
    before.transform(align(before, after))
    poses = {pose.name: pose for pose in changes_between(before, after).poses}
    assert [pose.name for pose in poses.values() if pose.jumped] == [name]
    assert f"{name} moved far more than others" in caplog.text
    assert poses[name].rotation == pytest.approx(1.0, abs=0.03)
    assert poses[name].centre == pytest.approx(0.3, abs=0.005)
    assert poses[name].baselines == pytest.approx(0.3 / baseline(after), rel=0.03)


def test_a_baseline_is_the_distance_of_neighbours(feature_scene):
    model = pycolmap.Reconstruction(feature_scene(frames=4, cameras_per_rig=2).truth)
    for k, frame_id in enumerate(sorted(model.frames)):
        pose = model.frames[frame_id].rig_from_world
        model.frames[frame_id].rig_from_world = pycolmap.Rigid3d(
            pose.rotation, -(pose.rotation.matrix() @ np.array([2.0 * (k % 2), 2.0 * (k // 2), 0]))
        )
    assert baseline(model) == pytest.approx(2.0)  # of 2, 2 and 2.8
    model.transform(pycolmap.Sim3d(3.0, pycolmap.Rotation3d(), np.zeros(3)))
    assert baseline(model) == pytest.approx(6.0)


def test_focal_lengths_that_changed_much_are_named():
    before = {
        k: pycolmap.Camera(model="SIMPLE_RADIAL", width=640, height=480, params=[500, 320, 240, 0])
        for k in range(6)
    }
    factors = [1.0001, 0.9999, 1.0002, 1.01, 1.0001, 0.9998]
    after = {
        k: pycolmap.Camera(model="SIMPLE_RADIAL", width=640, height=480, params=[500 * f, 320, 240, 0])
        for k, f in enumerate(factors)
    }
    changes = focal_changes(before, after)
    assert [change.camera for change in changes if change.jumped] == [3]
    assert [change.change for change in changes] == pytest.approx([f - 1 for f in factors])
    for camera in after.values():  # all alike, but by 5 %
        camera.params = [525, 320, 240, 0]
    assert all(change.jumped for change in focal_changes(before, after))
