"""Networks in torch: batches, memory that ends, precision and devices, with a made-up network."""

import logging

import numpy as np
import pytest

from pixcli.errors import UserError
from pixcli.features.model import Level
from pixcli.features.tiling import maps_of_regions, tiles
from pixcli.options import DenseFeaturesOptions

torch = pytest.importorskip("torch")
network = pytest.importorskip("pixcli.features.network")

IMAGE = np.random.default_rng(0).uniform(0, 255, (64, 96, 3)).astype(np.float32)


class Blur(network.NetworkModel):
    """A convolution that runs out of memory with more images than `room`, where it plays the GPU."""

    levels = (Level(4, radius=1),)
    offset = 0.0
    room = 100

    def __init__(self, device="auto", precision="float"):
        self.seen = []
        super().__init__({**network.NetworkModel.default_options, "device": device, "precision": precision})

    def move(self, device, dtype):
        torch.manual_seed(0)
        self.kernel = torch.rand(4, 3, 3, 3).to(device, dtype)

    def maps(self, x):
        assert x.is_contiguous(memory_format=torch.channels_last)
        if self.batched:
            self.seen.append(len(x))
            if len(x) > self.room:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return [torch.nn.functional.conv2d(x, self.kernel, padding=1) + self.offset]


@pytest.fixture
def on_gpu(monkeypatch):
    """A function that lets a network believe that it runs on a GPU with room for 8 tiles and more."""

    def pretend(model, room):
        monkeypatch.setattr(model, "_room_for", lambda pixels: 8 * pixels)
        model.batched, model.room = True, room
        return model

    return pretend


def tiled(model):
    regions = list(tiles(*IMAGE.shape[:2], 16, 1))
    return [maps[0].copy() for maps in maps_of_regions(model, IMAGE, regions)]


def test_tiles_make_batches_that_are_halved_when_the_memory_ends(on_gpu, caplog):
    expected = tiled(Blur())
    roomy = on_gpu(Blur(), room=100)
    for a, b in zip(tiled(roomy), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert roomy.seen == [1, 8, 8, 7]  # the first tells what a tile takes
    tight = on_gpu(Blur(), room=3)
    with caplog.at_level(logging.INFO):
        for a, b in zip(tiled(tight), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    assert tight.seen[:5] == [1, 8, 4, 2, 2]
    assert set(tight.seen[5:]) <= {1, 2, 4}
    assert tight.seen.count(8) == 1
    assert "batches of 2 tiles instead of 4" in caplog.text


def test_no_room_for_one_tile(on_gpu, caplog):
    model = on_gpu(Blur(), room=0)
    with caplog.at_level(logging.WARNING):
        for a, b in zip(tiled(model), tiled(Blur()), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    assert "on with the CPU" in caplog.text
    model = on_gpu(Blur(), room=0)
    model.options = {**model.options, "device": "cuda"}
    with pytest.raises(UserError, match=r"single tile of 18x18 pixels.*tile_size"):
        tiled(model)


def test_reduced_precision_is_used_where_the_network_bears_it(monkeypatch, caplog):
    monkeypatch.setattr(network, "_fast_dtype", lambda device: torch.bfloat16)
    exact = Blur().forward(IMAGE)[0]
    reduced = Blur(precision="auto").forward(IMAGE)[0]
    error = np.sqrt(np.mean((exact - reduced) ** 2)) / exact.std()
    assert 0 < error < network.TOLERANCE
    monkeypatch.setattr(Blur, "offset", 100.0)
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(Blur(precision="auto").forward(IMAGE)[0], Blur().forward(IMAGE)[0])
    assert "computed in float" in caplog.text


def test_devices(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch finds no GPU: set it to auto or cpu"):
        Blur("cuda")
    with caplog.at_level(logging.INFO):
        assert Blur("auto").device.type == "cpu"
    assert "on the CPU" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert network.device_of("auto", -1) == torch.device("cuda", 0)
    assert network.device_of("cpu", -1) == torch.device("cpu")
    with pytest.raises(UserError, match="gpu_index is 3, but there are 1 GPUs"):
        network.device_of("cuda", 3)


def test_tiles_are_smaller_where_maps_are_large():
    from pixcli.sampling.map_patches import Extractor

    assert Extractor(DenseFeaturesOptions(model="compact")).tile_size == 1024
    assert Extractor(DenseFeaturesOptions(model="dsift")).tile_size == 500
    assert Extractor(DenseFeaturesOptions(model="dsift", tile_size=64)).tile_size == 64
