"""Images and points that take no part in the refinement of a model."""

import numpy as np
import pytest

from pixcli.bundle_adjustment.geometric import adjust_geometrically
from pixcli.bundle_adjustment.inputs import check_observations, set_aside
from pixcli.bundle_adjustment.problem import Constants
from pixcli.errors import UserError
from pixcli.geometry.observations import read_observations
from pixcli.options import BundleAdjustmentCeresOptions, BundleAdjustmentOptions

import pycolmap


def tracks(model: pycolmap.Reconstruction) -> dict:
    points = {
        point_id: [(e.image_id, e.point2D_idx) for e in point.track.elements]
        for point_id, point in model.points3D.items()
    }
    images = {k: [p.point3D_id for p in image.points2D] for k, image in model.images.items()}
    counts = {k: image.num_points3D for k, image in model.images.items()}
    return {"points": points, "images": images, "counts": counts}


def adjust(model: pycolmap.Reconstruction, constants: Constants | None = None) -> None:
    adjust_geometrically(model, (1.0,), BundleAdjustmentOptions(), BundleAdjustmentCeresOptions(), constants)


def test_constant_rigs_keep_their_sensors(rigs) -> None:
    def sensors(rig_id: int) -> list[float]:
        return [x for _, pose in sorted(rigs.rigs[rig_id].non_ref_sensors.items()) for x in pose.params]

    before = {rig_id: sensors(rig_id) for rig_id in rigs.rigs}
    adjust(rigs, Constants(rigs=frozenset({1})))
    assert sensors(1) == before[1]
    assert sensors(2) != before[2]


def test_what_is_set_aside_comes_back_as_it_was(rigs) -> None:
    before = tracks(rigs)
    missing = sorted(rigs.images)[:4]
    with set_aside(rigs, missing):
        seen = set(read_observations(rigs, 1).image_ids.tolist())
        assert seen == set(rigs.images) - set(missing)
        lengths = {point.track.length() for point in rigs.points3D.values()}
        assert 1 not in lengths
        adjust(rigs)
    assert tracks(rigs) == before


def test_it_comes_back_after_errors_too(rigs) -> None:
    before = tracks(rigs)

    def fail() -> None:
        with set_aside(rigs, [1]):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert tracks(rigs) == before


def test_a_frame_without_images_stays_and_one_with_some_moves(rigs) -> None:
    frames = sorted(rigs.frames)
    members = {k: sorted(i for i, image in rigs.images.items() if image.frame_id == k) for k in frames}
    before = {k: np.array(rigs.frames[k].rig_from_world.params) for k in frames}
    lost, partial = frames[-1], frames[-2]
    with set_aside(rigs, [*members[lost], members[partial][0]]):
        adjust(rigs)
    np.testing.assert_array_equal(rigs.frames[lost].rig_from_world.params, before[lost])
    assert not np.array_equal(rigs.frames[partial].rig_from_world.params, before[partial])


def test_a_projection_that_fails_is_told_with_its_camera(rigs) -> None:
    check_observations(rigs, 2)
    assert rigs.cameras[4].model == pycolmap.CameraModelId.SIMPLE_RADIAL
    rigs.cameras[4].params = np.array([1e308, 512.0, 384.0, 1e308])  # overflows
    with pytest.raises(UserError, match=r"camera 4 \(SIMPLE_RADIAL\) projects none of its \d+ points"):
        check_observations(rigs, 2)
