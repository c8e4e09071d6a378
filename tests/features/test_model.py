"""Models: built in, from a user's file, from an installed package; and what is wrong with bad ones."""

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.features import registry
from pixcli.features.model import FeatureModel, Level
from pixcli.features.registry import load_model, model_identity
from pixcli.options import DenseFeaturesOptions

USER_MODEL = """
import numpy as np
from pixcli.features.model import FeatureModel, Level


class Gradients(FeatureModel):
    default_options = {"gain": 2.0, "device": "cuda"}
    levels = (Level(channels=2, radius=1),)

    def forward(self, image):
        p = np.pad(image * self.options["gain"], 1, mode="edge")
        return [np.stack([p[1:-1, 2:] - p[1:-1, :-2], p[2:, 1:-1] - p[:-2, 1:-1]])]
"""


def user_model(tmp_path: Path, text: str) -> DenseFeaturesOptions:
    path = tmp_path / "my_model.py"
    path.write_text(text)
    return DenseFeaturesOptions(model_path=str(path))


def test_image_is_the_image_in_0_to_1() -> None:
    image = np.random.default_rng(0).random((5, 7, 3), dtype=np.float32) * 255
    grey = load_model(DenseFeaturesOptions())
    assert not grey.color
    np.testing.assert_allclose(grey.forward(image[..., 0])[0], image[None, ..., 0] / 255, rtol=1e-6)
    rgb = load_model(DenseFeaturesOptions(color=True))
    assert rgb.color
    assert rgb.levels == (Level(channels=3),)
    np.testing.assert_allclose(rgb.forward(image)[0], np.moveaxis(image, 2, 0) / 255, rtol=1e-6)


def test_dsift_follows_the_options() -> None:
    model = load_model(DenseFeaturesOptions(model="dsift", spatial_bin_size=3, dtype="float", num_threads=1))
    assert model.levels[0].radius == 8
    (maps,) = model.forward(np.random.default_rng(0).random((20, 30), dtype=np.float32))
    assert np.asarray(maps).shape == (128, 20, 30)
    assert np.asarray(maps).dtype == np.float32


def test_a_model_of_the_users_own(tmp_path: Path) -> None:
    model = load_model(user_model(tmp_path, USER_MODEL))
    # Options of the group DenseFeatures follow the command line, its own keep their defaults.
    assert model.options == {"gain": 2.0, "device": "auto"}
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32), (6, 8))
    np.testing.assert_array_equal(model.forward(ramp)[0][:, 3, 3], [4, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_the_kind", r"my_model\.py: the model cannot be imported \(ModuleNotFoundError"),
        ("def f(:", r"my_model\.py: the model cannot be imported \(SyntaxError"),
        ("x = 1", "holds 0 classes"),
        (USER_MODEL + USER_MODEL.replace("Gradients", "Other"), "holds 2 classes"),
        (USER_MODEL.replace("def forward", "def backward"), "Gradients lacks the method forward"),
        (USER_MODEL.replace("    levels =", "    layers ="), "Gradients declares no levels"),
        (
            USER_MODEL.replace("channels=2", "channels=0"),
            r"declares Level\(channels=0, .*1 to 1024",
        ),
        (USER_MODEL.replace("channels=2", "channels=1025"), r"declares Level\(channels=1025, .*1 to 1024"),
        (USER_MODEL.replace("radius=1", "radius=-1"), "no negative radius"),
        (USER_MODEL.replace("(Level(channels=2, radius=1),)", "2"), "Gradients declares no levels"),
        (
            USER_MODEL + "\n    def __init__(self, options):\n        options['weights']\n",
            r"Gradients cannot be made \(KeyError: 'weights', my_model.py line 15\)",
        ),
    ],
)
def test_bad_models_are_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_model(user_model(tmp_path, text))
    assert "\n" not in str(error.value)


def test_unknown_models_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of .*dsift.*image.*Did you mean dsift\?"):
        load_model(DenseFeaturesOptions(model="dsif"))
    for name in ("none.py", "model.txt"):
        with pytest.raises(UserError, match=f"{name}: no such model"):
            load_model(DenseFeaturesOptions(model_path=str(tmp_path / name)))


class Installed(FeatureModel):
    """A model of an installed package."""

    levels = (Level(channels=1),)

    def forward(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The image."""
        return [image[None]]


def test_installed_models(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("installed", f"{__name__}:Installed", registry.ENTRY_POINTS),
        EntryPoint("function", "json:dumps", registry.ENTRY_POINTS),
        EntryPoint("broken", "nothing_of_the_kind:Model", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "pixcli.features" else [])
    assert type(load_model(DenseFeaturesOptions(model="installed"))).__name__ == "Installed"
    with pytest.raises(UserError, match="a model is a class derived from"):
        load_model(DenseFeaturesOptions(model="function"))
    with pytest.raises(UserError, match=r"'broken' cannot be imported .*: install what it needs"):
        load_model(DenseFeaturesOptions(model="broken"))


def test_identity_follows_the_code_of_a_model(tmp_path: Path) -> None:
    assert model_identity(DenseFeaturesOptions(model="dsift")) == "dsift"
    first = model_identity(user_model(tmp_path, USER_MODEL))
    assert first == model_identity(user_model(tmp_path, USER_MODEL))
    assert first != model_identity(user_model(tmp_path, USER_MODEL + "\n"))


def test_a_chain_is_no_model_of_the_featuremetric_strategies() -> None:
    with pytest.raises(
        UserError, match=r"image\+compact is a chain, which the strategies affine and surface"
    ):
        load_model(DenseFeaturesOptions(model="image+compact"))
