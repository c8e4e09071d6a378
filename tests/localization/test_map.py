"""Maps: made once, kept, and refused where they are of another model."""

from copy import deepcopy

import h5py
import numpy as np
import pytest
from scipy.spatial import cKDTree

from pixcli.adapters.refine_model import ModelFiles, refine_model
from pixcli.errors import UserError
from pixcli.localization.localizer import QueryLocalizer
from pixcli.localization.map import _spread, read_map
from pixcli.options import (
    BundleAdjustmentOptions,
    DenseFeaturesOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.options.bundle_adjustment import FeaturemetricBundleAdjusterOptions
from pixcli.options.localization import LocalizeOptions

import pycolmap


def test_a_map_that_was_made_is_used_again(left_out, tmp_path):
    path = tmp_path / "map.h5"
    features = DenseFeaturesOptions(use_cache=True, cache_path=str(path))
    made = QueryLocalizer(
        left_out.model, LocalizeOptions(dense_features=features), image_path=left_out.images
    )
    assert made.map.source == "images"
    content = path.read_bytes()
    again = QueryLocalizer(
        left_out.model, LocalizeOptions(dense_features=features), image_path=left_out.images
    )
    assert again.map.source == "file"
    assert path.read_bytes() == content
    unkept = QueryLocalizer(left_out.model, image_path=left_out.images)
    assert np.array_equal(unkept.map.references.templates[0].sample, again.map.references.templates[0].sample)


def test_references_are_near_the_true_surface(left_out):
    references = read_map(left_out.model, left_out.references).references
    assert np.isfinite(references.normal).all(1).mean() > 0.9
    with np.load(left_out.images.parent / "surface.npz") as file:
        surface, normals = file["points"], file["normals"]
    _, nearest = cKDTree(surface).query(references.point)
    off = np.abs(((references.point - surface[nearest]) * normals[nearest]).sum(1))
    raw = np.array([left_out.model.points3D[i].xyz for i in references.point_id.tolist()])
    raw_off = np.abs(((raw - surface[nearest]) * normals[nearest]).sum(1))
    assert np.median(off) < 0.5 * np.median(raw_off)
    count = np.diff(references.ptr)
    assert count.min() >= 2


def test_visible_points_are_in_front_inside_and_spread(left_out):
    known = read_map(left_out.model, left_out.references)
    seen = known.rows_of(left_out.point3D_ids[:20])
    rows, observation = known.visible(left_out.camera, left_out.truth, seen[seen >= 0], 10**6, 0.1)
    ptr = known.references.ptr
    assert (ptr[rows] <= observation).all()
    assert (observation < ptr[rows + 1]).all()
    xy = left_out.camera.img_from_cam(left_out.truth * known.references.point[rows])
    assert (xy > 0).all()
    assert (xy < [left_out.camera.width, left_out.camera.height]).all()
    matched = known.rows_of(left_out.point3D_ids)
    assert np.isin(matched[matched >= 0], rows).mean() > 0.85
    few, _ = known.visible(left_out.camera, left_out.truth, seen[seen >= 0], 100, 0.1)
    assert len(few) == 100
    assert np.isin(few, rows).all()


def test_points_are_taken_from_everywhere_first():
    rng = np.random.default_rng(0)
    crowd, others = rng.uniform(0, 50, (900, 2)), rng.uniform(0, 800, (100, 2))
    chosen = _spread(np.concatenate([crowd, others]), np.array([800.0, 800.0]), rng.random(1000), 200)
    assert len(chosen) == 200
    assert (chosen >= 900).sum() > 85


def moved_pose(model):
    frame = model.frames[sorted(model.frames)[0]]
    frame.rig_from_world = (
        pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([0.01, 0, 0])) * frame.rig_from_world
    )


def other_camera(model):
    camera = model.cameras[sorted(model.cameras)[0]]
    camera.params = np.array(camera.params) * 1.001


def moved_points(model):
    for point in model.points3D.values():
        point.xyz = point.xyz + np.array([0.2, 0, 0])


def no_points(model):
    for point_id in list(model.points3D)[::5] + list(model.points3D)[1::2]:
        if point_id in model.points3D:
            model.delete_point3D(point_id)


@pytest.mark.parametrize("change", [moved_pose, other_camera, moved_points, no_points])
def test_references_of_another_model_are_refused(left_out, change):
    model = deepcopy(left_out.model)
    read_map(model, left_out.references)
    change(model)
    with pytest.raises(UserError, match="make them again from this model"):
        read_map(model, left_out.references)


def test_damaged_references_are_refused(left_out, tmp_path):
    path = tmp_path / "map.h5"
    whole = left_out.references.read_bytes()
    for content in (whole[:1000], whole[: len(whole) // 2], b"no HDF5", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            read_map(left_out.model, path)
    with pytest.raises(UserError, match="no such file"):
        read_map(left_out.model, tmp_path / "nothing.h5")
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(UserError, match="holds no surface references"):
        read_map(left_out.model, path)


def test_a_refined_model_comes_with_references(left_out, tmp_path):
    """featuremetric_bundle_adjuster writes them for the poses that it found; queries need no image then."""
    source, refined, path = tmp_path / "model", tmp_path / "refined", tmp_path / "references.h5"
    source.mkdir()
    left_out.model.write_binary(str(source))
    refine_model(
        ModelFiles(source, refined, left_out.images, references_path=path),
        FeaturemetricBundleAdjusterOptions(
            FeaturemetricBundleAdjustmentOptions(rounds=1, complete_tracks=False),
            BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False),
        ),
    )
    localizer = QueryLocalizer(pycolmap.Reconstruction(refined), references=path)
    assert localizer.map.source == "file"
    result = left_out.localize(localizer, slice(None, None, 20))
    assert result.success
    points = next(step for step in result.steps if step.name == "points")
    assert points.measurements > 1000
    assert points.cost_after < 2
    with pytest.raises(UserError, match="make them again from this model"):
        read_map(left_out.model, path)
