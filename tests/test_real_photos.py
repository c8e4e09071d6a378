"""Photos from the internet: no truth is known, but refined keypoints agree better with epipolar geometry.

They are no part of the project: PIXCLI_DATA and PIXCLI_TOOLS name the folders of data sets and evaluators.
"""

import importlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pixcli.cli.main import main
from pixcli.io.database import read_match_graph
from pixcli.synthetic.baseline import build_database

import pycolmap

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = Path(os.environ.get("PIXCLI_DATA", SHARED / "data"))
TOOLS = Path(os.environ.get("PIXCLI_TOOLS", SHARED / "tools"))
SCENE = DATA / "sacre_coeur"

pytestmark = [
    pytest.mark.skipif(not SCENE.is_dir(), reason=f"no photos in {SCENE}: set PIXCLI_DATA"),
    pytest.mark.skipif(
        not (TOOLS / "eval_epipolar.py").is_file(), reason=f"no evaluators in {TOOLS}: set PIXCLI_TOOLS"
    ),
]


@dataclass(frozen=True)
class Databases:
    """About 2000 SIFT keypoints of every other photo, and what the command makes of them."""

    raw: Path
    refined: Path


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    folder = tmp_path_factory.mktemp("sacre_coeur")
    raw, refined = folder / "database.db", folder / "refined.db"
    model = pycolmap.Reconstruction(SCENE / "gt")
    images = sorted(model.images.values(), key=lambda image: str(image.name))[::2]
    some = SimpleNamespace(cameras=model.cameras, images={image.image_id: image for image in images})
    build_database(some, SCENE / "images", raw, max_num_features=2000)
    paths = ["--database_path", raw, "--image_path", SCENE / "images", "--output_path", refined]
    assert main(["feature_refiner", *map(str, paths)]) == 0
    return Databases(raw, refined)


@pytest.fixture
def eval_epipolar(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("eval_epipolar")


def test_matches_agree_better_with_the_best_epipolar_geometry(databases, eval_epipolar) -> None:
    before = eval_epipolar.evaluate(databases.raw)
    after = eval_epipolar.evaluate(databases.refined, databases.raw)
    assert after["matches"] == before["matches"]
    assert after["median_px"] < 0.7 * before["median_px"]
    assert after["share_below"][1.0] > before["share_below"][1.0]
    assert after["share_above_2px"] <= 1.05 * before["share_above_2px"]


def test_no_image_loses_its_pairs(databases) -> None:
    before, after = (read_match_graph(path, "inlier") for path in (databases.raw, databases.refined))
    assert [image.name for image in after.images] == [image.name for image in before.images]
    pairs = [Counter(graph.pairs.ravel().tolist()) for graph in (before, after)]
    assert pairs[0] == pairs[1]
    assert len(after.edges) > 0.97 * len(before.edges)
