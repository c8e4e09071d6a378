"""The training of compact: it runs, resumes, and its network is the one that pixcli runs natively."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixcli.features import compact

torch = pytest.importorskip("torch")
SCRIPTS = Path(__file__).parents[1] / "scripts"


def train(photos, output, steps):
    command = [sys.executable, str(SCRIPTS / "train_features.py"), str(photos), "--output", str(output)]
    small = [
        "--steps",
        str(steps),
        "--pairs",
        "1",
        "--points",
        "8",
        "--threads",
        "1",
        "--validation_pairs",
        "1",
    ]
    return subprocess.run([*command, *small], capture_output=True, text=True, check=True).stdout


def test_training_resumes_and_gives_what_runs_natively(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for k in range(3):
        pixels = np.kron(rng.integers(0, 256, (30, 30, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{k}.png")
    output = tmp_path / "weights.npz"
    assert "step 1 at" in train(tmp_path / "photos", output, 1)
    log = train(tmp_path / "photos", output, 2)
    assert "resuming at step 1" in log
    assert "step 2 at" in log
    weights = compact.read_weights(output)
    assert sum(w.size + b.size for w, b in weights) < 60_000
    monkeypatch.setattr(compact, "_weights", lambda: weights)
    image = rng.uniform(0, 255, (37, 51)).astype(np.float32)
    x = torch.log(torch.from_numpy(image)[None, None] / 255 + compact.OFFSET)
    for k, (layer, (weight, bias)) in enumerate(zip(compact.LAYERS, weights, strict=True)):
        kernel = torch.from_numpy(weight).permute(3, 2, 0, 1)
        x = torch.nn.functional.conv2d(x, kernel, torch.from_numpy(bias), layer.stride, layer.padding)
        x = torch.relu(x) if k + 1 < len(compact.LAYERS) else x
    (native,) = compact.CompactModel({"num_threads": 2}).forward(image)
    np.testing.assert_allclose(native, x[0].numpy(), atol=1e-5)


def test_the_weights_that_ship_are_small():
    path = Path(compact.__file__).with_name("compact.npz")
    assert path.stat().st_size <= 400_000
