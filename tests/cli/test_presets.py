"""Every preset through the commands that it changes, on the small scene."""

from pathlib import Path

import numpy as np
import pytest

from pixcli.cli.main import main
from pixcli.io.database import read_match_graph
from pixcli.options.presets import preset_names, read_preset
from pixcli.synthetic.evaluation import center_errors, keypoint_errors

import pycolmap


def arguments(name: str, tmp_path: Path, small_scene) -> list[str]:
    cache = ["--DenseFeatures.cache_path", str(tmp_path / "cache")]
    uses_cache = read_preset(name).get("DenseFeatures.use_cache", False)
    return [
        "--image_path",
        str(small_scene.path / "images"),
        "--preset",
        name,
        *(cache if uses_cache else []),
    ]


def median_error(small_scene, database: Path) -> float:
    graph = read_match_graph(database, "inlier")
    error = keypoint_errors(small_scene.truth, graph, small_scene.path / "depth")
    return float(np.median(error[np.isfinite(error) & (error < 5)]))


@pytest.mark.parametrize("name", preset_names())
def test_keypoint_adjustment(name: str, small_scene, tmp_path: Path, capsys) -> None:
    database, output, preset = small_scene.database_path, tmp_path / "refined.db", read_preset(name)
    paths = ["--database_path", str(database), "--output_path", str(output)]
    code = main(["feature_refiner", *paths, *arguments(name, tmp_path, small_scene)])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if not preset.get("KeypointAdjustment.apply", True):
        assert code == 1
        assert "KeypointAdjustment.apply" in error
        assert not output.exists()
        return
    assert code == 0
    before, after = median_error(small_scene, database), median_error(small_scene, output)
    if preset.get("KeypointAdjustment.strategy", "affine") != "affine":
        # Upright features of a single point, as the peer has them, would make keypoints worse here.
        assert "All stay where they were" in error
        assert after == before
    else:
        assert after < 0.6 * before


def test_the_guard_can_be_switched_off(small_scene, tmp_path: Path, capsys) -> None:
    database, output = small_scene.database_path, tmp_path / "refined.db"
    paths = ["--database_path", str(database), "--output_path", str(output)]
    options = [*arguments("pixsfm", tmp_path, small_scene), "--KeypointAdjustment.guard", "0"]
    assert main(["feature_refiner", *paths, *options]) == 0
    assert "KeypointAdjustment.guard is 0: they move nevertheless" in capsys.readouterr().err
    assert median_error(small_scene, output) > median_error(small_scene, database)


@pytest.mark.parametrize("name", preset_names())
def test_bundle_adjustment(name: str, small_scene, mapped: Path, tmp_path: Path, capsys) -> None:
    output, preset = tmp_path / "model", read_preset(name)
    paths = ["--input_path", str(mapped), "--output_path", str(output)]
    fixed = [f"--BundleAdjustment.refine_{part}=0" for part in ("focal_length", "extra_params")]
    options = arguments(name, tmp_path, small_scene)
    code = main(["featuremetric_bundle_adjuster", *paths, *fixed, *options])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if not preset.get("FeaturemetricBundleAdjustment.apply", True):
        assert code == 1
        assert "FeaturemetricBundleAdjustment.apply" in error
        assert not output.exists()
        return
    assert code == 0
    raw, refined = pycolmap.Reconstruction(mapped), pycolmap.Reconstruction(output)
    before, after = (center_errors(small_scene.truth, model).mean() for model in (raw, refined))
    if "FeaturemetricBundleAdjustment.strategy" in preset:  # upright features, or few grey nodes
        assert 0 < after < 4 * before
    else:
        assert after < 0.6 * before
