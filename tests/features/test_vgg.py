"""VGG16 and S2DNet with made-up weights of the right shapes, against a plain description of the networks."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from pixcli.errors import UserError
from pixcli.features.registry import load_model
from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.model_check import check_model

torch = pytest.importorskip("torch")

# Of torchvision's VGG16: the index of each convolution in `features`, with its channels.
CONVOLUTIONS = {
    "1_1": (0, 3, 64), "1_2": (2, 64, 64), "2_1": (5, 64, 128), "2_2": (7, 128, 128), "3_1": (10, 128, 256),
    "3_2": (12, 256, 256), "3_3": (14, 256, 256), "4_1": (17, 256, 512), "4_2": (19, 512, 512),
    "4_3": (21, 512, 512), "5_1": (24, 512, 512), "5_2": (26, 512, 512), "5_3": (28, 512, 512),
}  # fmt: skip


def made_up_weights(last="3_3", adapted=2):
    """A state as the checkpoints have it, by the names of VGG16 without a prefix and of the adaptation."""
    rng = np.random.default_rng(0)
    trunk, adaptation = {}, {}
    for name, (index, inputs, outputs) in CONVOLUTIONS.items():
        deviation = (2 / (9 * inputs)) ** 0.5
        trunk[f"{index}.weight"] = rng.normal(0, deviation, (outputs, inputs, 3, 3))
        trunk[f"{index}.bias"] = rng.normal(0, 0.1, outputs)
        if name == last:
            break
    for k, inputs in enumerate((64, 256, 512)[:adapted]):
        layer = f"adap_layer_{k}"
        adaptation[f"{layer}.0.weight"] = rng.normal(0, inputs**-0.5, (64, inputs, 1, 1))
        adaptation[f"{layer}.0.bias"] = rng.normal(0, 0.1, 64)
        adaptation[f"{layer}.2.weight"] = rng.normal(0, 0.04, (128, 64, 5, 5))
        adaptation[f"{layer}.2.bias"] = rng.normal(0, 0.1, 128)
        adaptation[f"{layer}.3.weight"] = rng.uniform(0.5, 2, 128)
        adaptation[f"{layer}.3.bias"] = rng.normal(0, 0.1, 128)
        adaptation[f"{layer}.3.running_mean"] = rng.normal(0, 0.1, 128)
        adaptation[f"{layer}.3.running_var"] = rng.uniform(0.5, 2, 128)
    return trunk, adaptation


def tensors(values, prefix):
    return {prefix + name: torch.tensor(array, dtype=torch.float32) for name, array in values.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files in the layouts in which the networks are published."""
    folder = tmp_path_factory.mktemp("weights")
    trunk, adaptation = made_up_weights()
    vgg = tensors(trunk, "features.") | {"classifier.0.weight": torch.zeros(2, 2)}
    torch.save(vgg, folder / "vgg16.pth")
    s2dnet = tensors(trunk, "encoder.") | tensors(adaptation, "adaptation_layers.")
    torch.save({"epoch": 3, "state_dict": s2dnet}, folder / "s2dnet.pth")
    return folder


def plain_convolution(x, weight, bias):
    """(C', H, W) of (C, H, W), by the definition, zeros beyond the border."""
    pad = weight.shape[2] // 2
    windows = sliding_window_view(np.pad(x, ((0, 0), (pad, pad), (pad, pad))), weight.shape[2:], (1, 2))
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True) + bias[:, None, None]


def plain_activations(image, trunk):
    """After each convolution and after its rectification, by name, in double precision."""
    x = np.moveaxis(image / 255, 2, 0).astype(float)
    x = (x - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
    found, previous = {}, "1"
    for name, (index, _, _) in CONVOLUTIONS.items():
        if f"{index}.weight" not in trunk:
            break
        if name[0] != previous:
            _, h, w = x.shape
            x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(len(x), h // 2, 2, w // 2, 2).max((2, 4))
            previous = name[0]
        x = plain_convolution(x, trunk[f"{index}.weight"], trunk[f"{index}.bias"])
        found[f"conv{name}"] = x
        x = np.maximum(x, 0)
        found[f"relu{name}"] = x
    return found


IMAGE = np.random.default_rng(1).uniform(0, 255, (22, 30, 3)).astype(np.float32)


@pytest.mark.parametrize("layers", ["conv1_1,relu1_1,conv1_2", "relu1_2,conv2_1,relu2_2", "conv3_1,relu3_3"])
def test_vgg16_layer_by_layer(weights, layers):
    model = load_model(
        DenseFeaturesOptions(
            model="vgg16", weights_path=str(weights / "vgg16.pth"), layers=layers, precision="float"
        )
    )
    expected = plain_activations(IMAGE, made_up_weights()[0])
    for name, level, values in zip(layers.split(","), model.levels, model.forward(IMAGE), strict=True):
        assert values.shape == (level.channels, 22 // level.stride, 30 // level.stride)
        np.testing.assert_allclose(values, expected[name], atol=2e-4)


def test_s2dnet_level_by_level(weights):
    options = DenseFeaturesOptions(
        model="s2dnet", weights_path=str(weights / "s2dnet.pth"), num_layers=2, precision="float"
    )
    model = load_model(options)
    trunk, adaptation = made_up_weights()
    activations = plain_activations(IMAGE, trunk)
    assert [(level.channels, level.stride) for level in model.levels] == [(128, 1), (128, 4)]
    for k, (source, values) in enumerate(zip(("relu1_2", "relu3_3"), model.forward(IMAGE), strict=True)):
        prefix = f"adap_layer_{k}."
        part = {
            key.removeprefix(prefix): value for key, value in adaptation.items() if key.startswith(prefix)
        }
        x = np.maximum(plain_convolution(activations[source], part["0.weight"], part["0.bias"]), 0)
        x = plain_convolution(x, part["2.weight"], part["2.bias"])
        mean, variance, gain, bias = (
            part[f"3.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        expected = (x - mean) / np.sqrt(variance + 1e-5) * gain + bias
        np.testing.assert_allclose(values, expected, atol=5e-4)


def test_tiles_are_as_the_whole_image(weights):
    options = DenseFeaturesOptions(model="s2dnet", weights_path=str(weights / "s2dnet.pth"))
    assert check_model(options, (160, 96)).tiling < 1e-4


def test_safetensors_are_read(weights):
    safetensors = pytest.importorskip("safetensors.torch")
    trunk, _ = made_up_weights()
    safetensors.save_file(tensors(trunk, "features."), str(weights / "vgg16.safetensors"))
    found = [
        load_model(DenseFeaturesOptions(model="vgg16", weights_path=str(weights / name), layers="conv1_1"))
        for name in ("vgg16.pth", "vgg16.safetensors")
    ]
    np.testing.assert_array_equal(found[0].forward(IMAGE)[0], found[1].forward(IMAGE)[0])


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_weights_that_cannot_be_used_say_so_in_a_line(weights, tmp_path, capsys):
    def refused(match, model="s2dnet", **options):
        with pytest.raises(UserError, match=match) as error:
            load_model(DenseFeaturesOptions(model=model, **options))
        assert "\n" not in str(error.value)

    refused(r"needs its weights.*weights_path.*S2DNet-Minimal")
    refused(r"nowhere\.pth: there is no such file.*torchvision", "vgg16", weights_path="nowhere.pth")
    refused(r"not the weights of S2dnet.*lacks adaptation_layers", weights_path=str(weights / "vgg16.pth"))
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3)}, other)
    refused(r"features\.0\.weight has the shape \(8, 3, 3, 3\), not", "vgg16", weights_path=str(other))
    short = tmp_path / "short.pth"
    short.write_bytes((weights / "vgg16.pth").read_bytes()[:5000])
    refused("truncated or foreign", "vgg16", weights_path=str(short))
    torch.save({"state_dict": Evil()}, other)
    refused("truncated or foreign", "vgg16", weights_path=str(other))
    assert "executed" not in capsys.readouterr().out
    torch.save({"state_dict": {}}, other)
    refused("holds no weights", "vgg16", weights_path=str(other))
    path = str(weights / "vgg16.pth")
    refused("'conv6_1', which is no layer", "vgg16", weights_path=path, layers="conv6_1")
    refused("from the first on", "vgg16", weights_path=path, layers="conv2_1,conv1_1")
    if not torch.cuda.is_available():
        refused("torch finds no GPU", "vgg16", weights_path=path, layers="conv1_1", device="cuda")
