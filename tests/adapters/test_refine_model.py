"""A model in a folder, refined; and the same in memory, without a file."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

import pixcli
from pixcli.adapters.refine_model import ModelFiles, _constants, refine_model
from pixcli.bundle_adjustment.problem import Constants
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentCeresOptions,
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjusterOptions,
    FeaturemetricBundleAdjustmentOptions,
)
from pixcli.synthetic.evaluation import center_errors

import pycolmap

QUICK = FeaturemetricBundleAdjusterOptions(
    FeaturemetricBundleAdjustmentOptions(rounds=1),
    BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False),
)


def test_a_model_is_refined_in_memory(small_scene, mapped: Path, tmp_path: Path, monkeypatch) -> None:
    images = shutil.copytree(small_scene.path / "images", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    model = pycolmap.Reconstruction(mapped)
    given = [point.xyz.copy() for _, point in sorted(model.points3D.items())]
    result = pixcli.refine_reconstruction(model, str(images), QUICK)
    before = center_errors(small_scene.truth, model).mean()
    assert center_errors(small_scene.truth, result.reconstruction).mean() < before
    unchanged = [point.xyz for _, point in sorted(model.points3D.items())]
    np.testing.assert_array_equal(given, unchanged)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert "reprojection error (pixels)" in repr(result)
    assert result._repr_html_().startswith("<table>")


def test_text_serves_as_paths_and_the_result_is_the_written_model(
    small_scene, mapped: Path, tmp_path: Path
) -> None:
    files = ModelFiles(str(mapped), str(tmp_path / "out"), str(small_scene.path / "images"))
    result = refine_model(files, QUICK)
    written = pycolmap.Reconstruction(tmp_path / "out")
    for image_id, image in result.reconstruction.images.items():
        np.testing.assert_array_equal(
            image.cam_from_world().params, written.images[image_id].cam_from_world().params
        )


def test_every_solve_is_reported(small_scene, mapped: Path) -> None:
    result = pixcli.refine_reconstruction(pycolmap.Reconstruction(mapped), small_scene.path / "images", QUICK)
    assert len(result.solves) == 4  # two scales to start with, two in the round
    for solve in result.contents()["solves"]:
        assert solve.converged
        assert solve.final_cost <= solve.initial_cost


def test_a_solve_that_did_not_converge_is_said(small_scene, mapped: Path, caplog) -> None:
    few = replace(QUICK, bundle_adjustment_ceres=BundleAdjustmentCeresOptions(max_num_iterations=1))
    result = pixcli.refine_reconstruction(pycolmap.Reconstruction(mapped), small_scene.path / "images", few)
    assert not result.solves[-1].converged
    assert "raise --BundleAdjustmentCeres.max_num_iterations" in caplog.text


def test_lists_become_constants(rigs, tmp_path: Path) -> None:
    images = sorted(image.name for image in rigs.images.values())[:2]
    contents = {
        "constant_image_list_path": images,
        "constant_camera_list_path": [2, 5],
        "constant_rig_list_path": [1],
        "constant_point_list_path": [3, 1, 3],
    }
    paths = {name: tmp_path / name for name in contents}
    for name, lines in contents.items():
        paths[name].write_text("# a comment\n\n" + "\n".join(map(str, lines)))
    constants = _constants(rigs, ModelFiles("in", "out", "images", **paths))
    assert {rigs.images[image_id].name for image_id in constants.images} == set(images)
    assert (constants.cameras, constants.rigs, constants.points) == ({2, 5}, {1}, {1, 3})
    assert _constants(rigs, ModelFiles("in", "out", "images")) == Constants()
