"""Chains of models and features in the affine strategy, as a user gives them."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from pixcli.cli.main import main


def run(small_scene, tmp_path: Path, *more: str) -> int:
    paths = [
        "--database_path",
        str(small_scene.database_path),
        "--image_path",
        str(small_scene.path / "images"),
    ]
    output = ["--output_path", str(tmp_path / "refined.db"), "--report_path", str(tmp_path / "report.json")]
    return main(["feature_refiner", *paths, *output, "--KeypointAdjustment.reverify", "0", *more])


def test_the_report_counts_who_was_refined_by_what(small_scene, tmp_path, capsys):
    assert run(small_scene, tmp_path, "--preset", "appearance_change") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["moved_by"]) == {"image", "compact"}
    assert sum(report["moved_by"].values()) == report["keypoints"]["moved"]
    captured = capsys.readouterr()
    assert "moved by compact" in captured.out
    assert "KiB a keypoint" in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--DenseFeatures.model", "image+image"], "every model once"),
        (["--DenseFeatures.model", "image+compakt"], "Did you mean compact?"),
        (["--DenseFeatures.model", "image+"], "none of"),
        (
            ["--DenseFeatures.model", "image+compact", "--KeypointAdjustment.strategy", "featuremetric"],
            "is a chain",
        ),
        (["--DenseFeatures.model", "s2dnet"], "weights" if find_spec("torch") else "pixcli[learned]"),
        (["--DenseFeatures.dtype", "byte"], "int8"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(small_scene, tmp_path, capsys, options, message):
    assert run(small_scene, tmp_path, *options) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "refined.db").exists()
