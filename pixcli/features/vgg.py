"""The networks of the peer, with torch: VGG16's intermediate activations, and S2DNet, which adapts them.

VGG16: Simonyan and Zisserman (2015). S2DNet: Germain, Bourmaud and Lepetit (ECCV 2020), the default features
of Pixel-Perfect Structure-from-Motion. Weights are not part of pixcli: the user names a file.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from pixcli.errors import UserError
from pixcli.features.model import Level
from pixcli.features.network import NetworkModel

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG16's convolutions; there is a pooling layer after each block."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in 0..1
_VGG_SOURCE = "torchvision publishes them as vgg16-*.pth"
_S2DNET_SOURCE = "the authors publish them as s2dnet_weights.pth in github.com/germain-hug/S2DNet-Minimal"


class VggModel(NetworkModel):
    """Activations of VGG16 after any of its layers, such as relu1_2 or conv3_3, each a level."""

    default_options: ClassVar[Mapping[str, Any]] = {
        "weights_path": "",
        "layers": "conv1_2,conv3_3,conv5_3",
        **NetworkModel.default_options,
    }
    known_as = "vgg16"
    source = _VGG_SOURCE

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.names = [_checked_layer(name) for name in options["layers"].split(",")]
        if sorted(self.names, key=_order) != self.names:
            raise UserError(
                f"DenseFeatures.layers is '{options['layers']}': name layers from the first on, each once"
            )
        self.levels = tuple(_level_after(name) for name in self.names)
        self._state = self._prepared(read_checkpoint(options["weights_path"], self.known_as, self.source))
        self.weights = self._state

    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Puts the weights there, kernels channels last."""
        self.weights = {
            name: tuple(
                tensor.to(device, dtype, memory_format=torch.channels_last)
                if tensor.ndim == 4
                else tensor.to(device, dtype)
                for tensor in tensors
            )
            for name, tensors in self._state.items()
        }

    def maps(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """The activations of all levels."""
        return list(self._activations(_normalized(x)))

    def _activations(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """After each of the layers."""
        wanted = list(self.names)
        for block, channels in enumerate(BLOCKS, 1):
            for k in range(1, len(channels) + 1):
                x = F.conv2d(x, *self.weights[f"conv{block}_{k}"], padding=1)
                if wanted[0] == f"conv{block}_{k}":
                    yield x
                    wanted.pop(0)
                    if not wanted:
                        return
                    x = F.relu(x)
                else:
                    x = x.relu_()
                if wanted[0] == f"relu{block}_{k}":
                    yield x
                    wanted.pop(0)
                    if not wanted:
                        return
            x = F.max_pool2d(x, 2)

    def _prepared(self, state: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, ...]]:
        """Weights and biases by layer, from those of torchvision's `features` or of S2DNet's `encoder`."""
        result, index, inputs = {}, 0, 3
        last = _order(self.names[-1])
        for block, channels in enumerate(BLOCKS, 1):
            for k, outputs in enumerate(channels, 1):
                name = f"conv{block}_{k}"
                if _order(name) <= last:
                    result[name] = (
                        self._tensor(state, f"{index}.weight", (outputs, inputs, 3, 3)),
                        self._tensor(state, f"{index}.bias", (outputs,)),
                    )
                index, inputs = index + 2, outputs
            index += 1
        return result

    def _tensor(
        self,
        state: Mapping[str, torch.Tensor],
        name: str,
        shape: tuple[int, ...],
        prefixes: Sequence[str] = (),
    ) -> torch.Tensor:
        for prefix in prefixes or ("features.", "encoder.", ""):
            if prefix + name in state:
                tensor = state[prefix + name]
                if tuple(tensor.shape) != shape:
                    raise self._foreign(f"{prefix + name} has the shape {tuple(tensor.shape)}, not {shape}")
                return tensor.float()
        raise self._foreign(f"it lacks {(prefixes or ('features.',))[0]}{name}")

    def _foreign(self, what: str) -> UserError:
        path, model = self.options["weights_path"], type(self).__name__.removesuffix("Model")
        return UserError(f"{path}: these are not the weights of {model} ({what}); {self.source}")


class S2dnetModel(VggModel):
    """128 channels a level: VGG16 to conv1_2, conv3_3 and conv5_3, each adapted by two convolutions."""

    default_options: ClassVar[Mapping[str, Any]] = {
        "weights_path": "",
        "num_layers": 1,
        **NetworkModel.default_options,
    }
    known_as = "s2dnet"
    source = _S2DNET_SOURCE

    def __init__(self, options: Mapping[str, Any]) -> None:
        layers = ("relu1_2", "relu3_3", "relu5_3")[: options["num_layers"]]
        super().__init__({**options, "layers": ",".join(layers)})
        # The 5x5 convolution reaches two samples of its level further.
        self.levels = tuple(
            Level(128, level.stride, level.radius + 2 * level.stride, level.basin) for level in self.levels
        )

    def maps(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """The adapted maps of all levels."""
        maps = []
        for k, activation in enumerate(self._activations(_normalized(x))):
            reduced = F.conv2d(activation, *self.weights[f"adapt{k}_0"]).relu_()
            maps.append(F.conv2d(reduced, *self.weights[f"adapt{k}_1"], padding=2))
        return maps

    def _prepared(self, state: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, ...]]:
        result = super()._prepared(state)
        for k, level in enumerate(self.levels):
            prefixes = (f"adaptation_layers.adap_layer_{k}.",)

            def tensor(name: str, *shape: int, prefixes: Sequence[str] = prefixes) -> torch.Tensor:
                return self._tensor(state, name, shape, prefixes)

            result[f"adapt{k}_0"] = tensor("0.weight", 64, level.channels, 1, 1), tensor("0.bias", 64)
            # Batch normalisation with its running statistics is a factor and an offset for each channel.
            scale = tensor("3.weight", 128) / torch.sqrt(tensor("3.running_var", 128) + 1e-5)
            shift = tensor("3.bias", 128) - tensor("3.running_mean", 128) * scale
            widen = tensor("2.weight", 128, 64, 5, 5) * scale.view(-1, 1, 1, 1)
            result[f"adapt{k}_1"] = widen, tensor("2.bias", 128) * scale + shift
        return result


def read_checkpoint(path: str, model: str, source: str) -> Mapping[str, torch.Tensor]:
    """The tensors of a .safetensors file or of torch's own, by name; nothing in it is executed.

    Raises:
        UserError: there is no such file, or it holds no tensors.
    """
    if not path:
        raise UserError(
            f"DenseFeatures.model {model} needs its weights: name their file by "
            f"--DenseFeatures.weights_path; {source}"
        )
    if not Path(path).is_file():
        raise UserError(
            f"{path}: there is no such file; --DenseFeatures.weights_path names the weights; {source}"
        )
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise UserError(f"{path}: install the package safetensors to read it") from None
    except Exception as error:  # of many kinds: truncated archives, foreign pickles, bad headers
        words = str(error).splitlines()[0][:80] if str(error) else ""
        reason = f" ({words})" if " " in words else ""  # some are but a number
        raise UserError(
            f"{path}: these weights cannot be read, the file is truncated or foreign{reason}; {source}"
        ) from None
    state = state.get("state_dict", state) if isinstance(state, Mapping) else {}
    tensors = {
        name.removeprefix("module."): value
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise UserError(f"{path}: holds no weights; {source}")
    return tensors


def _normalized(x: torch.Tensor) -> torch.Tensor:
    """By ImageNet's statistics. Tiles at the border see zeros of it beyond, as whole images do."""
    mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (x - mean) / std


def _checked_layer(name: str) -> str:
    name = name.strip()
    known = [
        f"{kind}{b}_{k}"
        for b, c in enumerate(BLOCKS, 1)
        for k in range(1, len(c) + 1)
        for kind in ("conv", "relu")
    ]
    if name not in known:
        raise UserError(
            f"DenseFeatures.layers names '{name}', which is no layer of VGG16: these are {', '.join(known)}"
        )
    return name


def _order(name: str) -> tuple[int, int, bool]:
    block, layer = name[4:].split("_")
    return int(block), int(layer), name.startswith("relu")


def _level_after(name: str) -> Level:
    """What a layer's map is like: a convolution reaches a sample further, a pooling half of a larger one."""
    block, layer, _ = _order(name)
    radius, stride = 0.0, 1
    for b, channels in enumerate(BLOCKS, 1):
        for k in range(1, len(channels) + 1):
            radius += stride
            if (b, k) == (block, layer):
                return Level(BLOCKS[b - 1][k - 1], stride, int(np.ceil(radius)), 2.0 * stride + 2)
        radius += stride / 2
        stride *= 2
    raise AssertionError(name)
