"""The checker of feature models: what passes, and what each broken model is told."""

import pytest

from pixcli.cli.main import main
from pixcli.errors import UserError
from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.model_check import check_model

MODEL = """
import numpy as np
from pixcli.features.model import FeatureModel, Level

class Mine(FeatureModel):
    levels = (Level(2, radius={radius}),)
    calls = 0

    def forward(self, image):
        Mine.calls += 1
        p = np.pad(image / 255, 2, mode="edge")
        p = p[2:-2, 4:] - p[2:-2, :-4]
        return [{result}]
"""
GOOD = "np.stack([p, p * 2])"


def check(tmp_path, result=GOOD, radius=2):
    path = tmp_path / "mine.py"
    path.write_text(MODEL.format(result=result, radius=radius))
    return check_model(DenseFeaturesOptions(model_path=str(path)), (304, 208))


@pytest.mark.parametrize("model", ["image", "compact", "gradients", "dsift"])
def test_the_models_that_come_with_pixcli_pass(model):
    found = check_model(DenseFeaturesOptions(model=model), (304, 208))
    assert found.tiling < 1e-5
    assert found.seconds_per_megapixel > 0


def test_a_model_of_ones_own_passes(tmp_path):
    found = check(tmp_path)
    assert found.tiling == 0
    assert found.levels == ["2 channels, stride 1, radius 2, cosine"]


@pytest.mark.parametrize(
    ("result", "radius", "match"),
    [
        (GOOD, 1, "radius is larger than declared"),
        ("np.stack([p, p - image.mean()])", 2, "sees the whole image"),
        ("np.stack([p, p * Mine.calls])", 2, "deterministic"),
        ("p[None]", 2, "shapes"),
        ("np.stack([p, p]), p[None]", 2, "shapes"),
        ("np.stack([p, p * np.nan])", 2, "not finite"),
        ("np.stack([p, p * 1e6])", 2, "half precision"),
    ],
)
def test_a_broken_model_is_told_why(tmp_path, result, radius, match):
    with pytest.raises(UserError, match=match):
        check(tmp_path, result, radius)


def test_the_command_prints_what_it_found(tmp_path, capsys):
    assert main(["dense_feature_extractor", "--check_model", "1", "--DenseFeatures.model", "compact"]) == 0
    assert "CPU seconds for a megapixel" in capsys.readouterr().out
    assert main(["dense_feature_extractor"]) == 1
    assert "--database_path is missing" in capsys.readouterr().err
