"""The strategies of `pixcli featuremetric_bundle_adjuster` that compare features with references."""

import os
from pathlib import Path

import numpy as np
import pytest

from pixcli.cli.main import main
from pixcli.io.references import read_references
from pixcli.synthetic.evaluation import center_errors

import pycolmap

DSIFT = ("--DenseFeatures.model", "dsift")
GROUP = "--FeaturemetricBundleAdjustment"


@pytest.fixture
def refine(small_scene, mapped: Path, tmp_path: Path):
    """Runs the command on the small scene with fixed intrinsics; the model goes to the folder `output`."""

    def run(*more: object, output: Path = tmp_path / "out") -> int:
        paths = {"input_path": mapped, "output_path": output, "image_path": small_scene.path / "images"}
        fixed = [f"--BundleAdjustment.refine_{name}=0" for name in ("focal_length", "extra_params")]
        given = [str(word) for name, path in paths.items() for word in (f"--{name}", path)]
        return main(["featuremetric_bundle_adjuster", *given, *fixed, *map(str, more)])

    return run


def model_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_patch_warp_needs_no_other_option_and_improves_the_model(
    small_scene, mapped: Path, refine, tmp_path: Path
) -> None:
    assert refine(f"{GROUP}.strategy", "patch_warp") == 0
    truth = small_scene.truth
    before, after = (
        center_errors(truth, pycolmap.Reconstruction(path)).mean() for path in (mapped, tmp_path / "out")
    )
    assert after < 0.6 * before


@pytest.mark.parametrize("strategy", ["feature_reference", "costmaps", "patch_warp"])
def test_references_are_written_for_the_refined_model_and_read_again(
    refine, tmp_path: Path, strategy: str
) -> None:
    path = tmp_path / "references.h5"
    options = (*DSIFT, f"{GROUP}.strategy", strategy, "--references_path", path)
    assert refine(*options, f"{GROUP}.keep_observations", 1) == 0
    (references,) = read_references(path)
    model = pycolmap.Reconstruction(tmp_path / "out")
    assert set(references.point_ids) <= set(model.points3D)
    assert len(references.point_ids) > 0.95 * model.num_points3D()
    for row in range(0, len(references.point_ids), 50):
        image = model.images[int(references.image_ids[row])]
        keypoint = image.points2D[int(references.keypoints[row])]
        assert keypoint.point3D_id == references.point_ids[row]
    kept = references.observations
    assert kept is not None
    assert len(kept.features) > 0.95 * model.compute_num_observations()
    # The reference of each point is one of its observations.
    for row in range(0, len(references.point_ids), 50):
        own = slice(kept.ptr[row], kept.ptr[row + 1])
        origin = (kept.image_ids[own] == references.image_ids[row]) & (
            kept.keypoints[own] == references.keypoints[row]
        )
        np.testing.assert_array_equal(kept.features[own][origin], references.features[row : row + 1])

    content = path.read_bytes()
    assert refine(*options, output=tmp_path / "again") == 0
    assert path.read_bytes() == content
    assert model_bytes(tmp_path / "again") != model_bytes(tmp_path / "out")


def test_references_serve_any_strategy_later(refine, tmp_path: Path) -> None:
    path = tmp_path / "references.h5"
    more = (*DSIFT, f"{GROUP}.strategy", "geometric", "--references_path", path)
    assert refine(*more) == 0
    (references,) = read_references(path)
    assert references.observations is None
    assert references.features.shape[1] == 128


REFUSED = {
    "other features": (
        (*DSIFT, f"{GROUP}.strategy", "feature_reference", "--DenseFeatures.spatial_bin_size", "5"),
        "made with DenseFeatures.spatial_bin_size 4, but now it is 5",
    ),
    "other nodes": (
        (*DSIFT, f"{GROUP}.strategy", "patch_warp"),
        "made with Interpolation.l2_normalize True, but now it is False",
    ),
    "a strategy without": (DSIFT, "which the strategy surface does not use"),
    "one channel": (
        (f"{GROUP}.strategy", "geometric"),
        "a single channel of unit length is 1 everywhere: set --DenseFeatures.model dsift",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_references_that_do_not_fit_are_refused(
    refine, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "references.h5"
    first = (
        *DSIFT,
        f"{GROUP}.strategy",
        "feature_reference",
        "--BundleAdjustmentCeres.max_num_iterations",
        1,
    )
    assert refine(*first, "--references_path", path) == 0
    content = path.read_bytes()
    capsys.readouterr()
    assert refine(*options, "--references_path", path, output=tmp_path / "second") == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pixcli")]
    assert len(errors) == 1
    assert message in errors[0]
    assert path.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["out", "references.h5"]


def test_references_of_another_model_are_refused(
    refine, mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "references.h5"
    options = (*DSIFT, f"{GROUP}.strategy", "feature_reference", "--references_path", path)
    assert refine(*options, "--BundleAdjustmentCeres.max_num_iterations", 1) == 0
    model = pycolmap.Reconstruction(mapped)
    model.delete_point3D(min(model.point3D_ids()))
    (tmp_path / "other").mkdir()
    model.write_binary(str(tmp_path / "other"))
    capsys.readouterr()
    assert refine(*options, "--input_path", tmp_path / "other", output=tmp_path / "second") == 1
    assert "the references are of another model: they have point" in capsys.readouterr().err


def test_repeats_cut_patches_anew_and_leave_the_cache_as_it_was(
    refine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strategy = (*DSIFT, f"{GROUP}.strategy", "feature_reference", "--DenseFeatures.patch_size", 4)
    assert refine(*strategy) == 0
    assert "patches recut" not in capsys.readouterr().err
    twice = (*strategy, f"{GROUP}.repeats", 2)
    assert refine(*twice, output=tmp_path / "twice") == 0
    assert "patches recut for points that left theirs" in capsys.readouterr().err
    assert model_bytes(tmp_path / "twice") != model_bytes(tmp_path / "out")
    cache = ("--DenseFeatures.use_cache", 1, "--DenseFeatures.cache_path", tmp_path / "cache.h5")
    assert refine(*strategy, *cache, output=tmp_path / "cached") == 0
    content = (tmp_path / "cache.h5").read_bytes()
    assert refine(*twice, *cache, output=tmp_path / "cached_twice") == 0
    assert (tmp_path / "cache.h5").read_bytes() == content
    assert model_bytes(tmp_path / "cached_twice") == model_bytes(tmp_path / "twice")
    # Whole maps serve every place.
    maps = ("--DenseFeatures.use_cache", 1, "--DenseFeatures.cache_path", tmp_path / "maps.h5")
    assert refine(*twice, *maps, "--DenseFeatures.sparse", 0, output=tmp_path / "maps_twice") == 0
    assert model_bytes(tmp_path / "maps_twice") == model_bytes(tmp_path / "twice")


def test_whole_maps_of_the_extractor_are_used(small_scene, refine, tmp_path: Path, capsys) -> None:
    maps = (*DSIFT, "--DenseFeatures.use_cache", 1, "--DenseFeatures.sparse", 0)
    maps += (
        "--DenseFeatures.cache_path",
        tmp_path / "maps.h5",
        "--KeypointAdjustment.strategy",
        "featuremetric",
    )
    paths = ("--database_path", small_scene.database_path, "--image_path", small_scene.path / "images")
    assert main(["dense_feature_extractor", *map(str, (*paths, *maps))]) == 0
    content = (tmp_path / "maps.h5").read_bytes()
    strategy = (f"{GROUP}.strategy", "feature_reference")
    assert refine(*strategy, *maps[:-2], output=tmp_path / "cached") == 0
    assert (tmp_path / "maps.h5").read_bytes() == content
    assert refine(*strategy, *DSIFT) == 0
    one, other = (pycolmap.Reconstruction(tmp_path / name) for name in ("cached", "out"))
    for image_id, image in one.images.items():
        expected = other.images[image_id].cam_from_world().matrix()
        np.testing.assert_allclose(image.cam_from_world().matrix(), expected, atol=1e-5)


def test_levels_are_used_as_they_are_asked_for(
    refine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (*DSIFT, f"{GROUP}.strategy", "feature_reference", "--DenseFeatures.pyramid_scales", "1,0.5")
    results = {}
    for indices in ("all", "0,1", "1,0", "1"):
        output = tmp_path / indices.replace(",", "_")
        assert refine(*options, f"{GROUP}.level_indices", indices, output=output) == 0
        results[indices] = model_bytes(output)
    assert results["all"] == results["0,1"]
    assert len({model["images.bin"] for model in results.values()}) == 3
    # The second level is the finest: the image in full size.
    fine = tmp_path / "fine"
    assert refine(*DSIFT, f"{GROUP}.strategy", "feature_reference", output=fine) == 0
    one, other = (pycolmap.Reconstruction(path) for path in (tmp_path / "1", fine))
    for image_id, image in one.images.items():
        expected = other.images[image_id].cam_from_world().matrix()
        np.testing.assert_allclose(image.cam_from_world().matrix(), expected, atol=1e-5)
    capsys.readouterr()
    for indices, message in (("2", "names the level 2, but the features have the levels 0 to 1"),):
        assert refine(*options, f"{GROUP}.level_indices", indices, output=tmp_path / "none") == 1
        assert message in capsys.readouterr().err
    for indices in ("-1", "0,0", "1.5", "x"):
        assert refine(*options, f"{GROUP}.level_indices", indices, output=tmp_path / "none") == 1
        assert f"FeaturemetricBundleAdjustment.level_indices is '{indices}'" in capsys.readouterr().err


def test_a_single_channel_is_refused_with_the_remedy(refine, capsys: pytest.CaptureFixture[str]) -> None:
    assert refine(f"{GROUP}.strategy", "feature_reference") == 1
    assert "set --DenseFeatures.model dsift, or --Interpolation.l2_normalize 0" in capsys.readouterr().err


def test_what_memory_it_takes_is_told_before(
    refine, mapped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (*DSIFT, f"{GROUP}.strategy", "feature_reference", f"{GROUP}.repeats", 2)
    assert refine(*options, "--DenseFeatures.patch_size", 8) == 0
    log = capsys.readouterr().err
    count = pycolmap.Reconstruction(mapped).compute_num_observations()
    (line,) = (line for line in log.splitlines() if "observations with patches" in line)
    assert f"{count} observations with patches of" in line
    assert line.endswith("adjusted 2 times by at most 50 iterations")
    # 8 x 8 half floats of 128 channels, and where they lie.
    assert 8 * 8 * 128 * 2 <= int(line.split(" bytes each")[0].split()[-1]) < 8 * 8 * 128 * 2 + 64
    assert log.index(line) < log.index("expecting to use")


def test_the_preset_for_little_memory_refines_poses_and_intrinsics(
    small_scene, mapped: Path, tmp_path: Path
) -> None:
    paths = {"input_path": mapped, "output_path": tmp_path / "out", "image_path": small_scene.path / "images"}
    command = ["featuremetric_bundle_adjuster", *(str(w) for n, p in paths.items() for w in (f"--{n}", p))]
    assert main([*command, "--preset", "low_memory"]) == 0
    before, after = pycolmap.Reconstruction(mapped), pycolmap.Reconstruction(tmp_path / "out")
    for camera_id, camera in after.cameras.items():
        assert (camera.params != before.cameras[camera_id].params).any()
    moved = [
        np.abs(image.cam_from_world().matrix() - before.images[k].cam_from_world().matrix()).max()
        for k, image in after.images.items()
    ]
    assert sum(move > 1e-6 for move in moved) == len(moved) - 1  # one holds the gauge
