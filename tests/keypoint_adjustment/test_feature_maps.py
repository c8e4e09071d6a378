"""The affine strategy on feature maps: any model inside the local warp, several levels, chains, storage."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.keypoint_adjustment.affine import AffineAlignment
from pixcli.keypoint_adjustment.tracks import build_tracks
from pixcli.options import DenseFeaturesOptions, FeatureRefinerOptions, KeypointAdjustmentOptions
from pixcli.progress import Progress
from pixcli.sampling import feature_boxes as boxes
from pixcli.sampling.status import Status

WIDTH, HEIGHT = 320, 240
OFFSET = np.array([6.2, 9.6])
DARK_FROM = 170  # columns of the second image under an uneven light

TWO_LEVELS = """
import numpy as np
from pixcli.features.model import FeatureModel, Level

class TwoLevels(FeatureModel):
    normalizable = False
    color = True
    levels = (Level(3, radius=0, basin=2), Level(5, stride=2, radius=2, basin=6))

    def forward(self, image):
        fine = np.moveaxis(image, 2, 0) / 255
        h, w = fine.shape[1] // 2, fine.shape[2] // 2
        coarse = fine[:, :2 * h, :2 * w].reshape(3, h, 2, w, 2).mean((2, 4))
        return [fine, np.concatenate([coarse, coarse[:2] ** 2])]
"""


def write_pair(folder, linear, relit):
    """Two images of one plane, and a graph whose keypoints in the second are off by half a pixel or so."""
    rng = np.random.default_rng(0)
    texture = sum(s * gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), s) for s in (1.2, 2.5, 5))
    first = 128 + 45 * texture / texture.std()
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    source = (np.stack([x, y], -1) - OFFSET) @ np.linalg.inv(linear).T - 0.5
    second = map_coordinates(first, [source[..., 1], source[..., 0]], order=3, mode="nearest")
    if relit:
        shade = np.where(np.sin(x / 9 + y / 15) > 0, 1, 0.3)
        second = np.where(x > DARK_FROM, second * gaussian_filter(shade, 0.7), second)
    for name, values in (("a.png", first), ("b.png", second)):
        Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).save(folder / name)
    grid = np.stack(np.meshgrid(np.arange(24.0, WIDTH, 22), np.arange(24.0, HEIGHT, 22)), -1).reshape(-1, 2)
    truth = grid @ linear.T + OFFSET
    inside = ((truth > 24) & (truth < [WIDTH - 24, HEIGHT - 24])).all(1) & (grid < [296, 216]).all(1)
    grid, truth = grid[inside], truth[inside]
    n = len(grid)
    xy = truth + rng.uniform(-0.6, 0.6, (n, 2))
    frames = [np.tile([1.0, 0, 0, 1], (n, 1)), np.tile(linear.ravel(), (n, 1))]
    keypoints = [np.hstack([p, f]) for p, f in zip((grid, xy), frames, strict=True)]
    graph = MatchGraph.from_matches(
        {"a.png": (WIDTH, HEIGHT), "b.png": (WIDTH, HEIGHT)},
        {"a.png": keypoints[0], "b.png": keypoints[1]},
        {("a.png", "b.png"): np.stack([np.arange(n)] * 2, 1)},
    )
    return Pair(folder, graph, truth)


@dataclasses.dataclass
class Pair:
    folder: Path
    graph: MatchGraph
    truth: np.ndarray

    def align(self, features, **options):
        alignment = AffineAlignment(
            self.graph,
            build_tracks(self.graph),
            self.folder,
            FeatureRefinerOptions(KeypointAdjustmentOptions(**options), DenseFeaturesOptions(**features)),
            np.zeros(len(self.graph.xy), bool),
        )
        return alignment.run(Progress())

    def errors(self, result):
        """Of the moved keypoints of the second image."""
        n = len(self.truth)
        return np.linalg.norm(result.xy[n:] - self.truth, axis=1)[result.status[n:] == Status.MOVED]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"), np.array([[1.05, 0.06], [-0.04, 0.96]]), False)


@pytest.fixture(scope="module")
def relit_pair(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("relit"), np.array([[1.02, 0.03], [-0.02, 1.0]]), True)


@pytest.fixture
def two_levels(tmp_path):
    path = tmp_path / "two_levels.py"
    path.write_text(TWO_LEVELS)
    return str(path)


@pytest.mark.parametrize("model", ["compact", "gradients", "dsift"])
def test_keypoints_move_to_where_the_content_is(pair, model):
    result = pair.align({"model": model})
    error = pair.errors(result)
    assert len(error) > 0.9 * len(pair.truth)
    assert np.median(error) < 0.1
    assert result.cost_after < result.cost_before
    assert result.moved_by == {model: len(error)}


def test_colour_images_are_aligned_as_three_channels(pair):
    assert np.median(pair.errors(pair.align({"color": True}))) < 0.1


def test_views_of_different_scale_are_compared_at_the_coarser_ones(tmp_path):
    for scale in (0.6, 1.5):
        folder = tmp_path / str(scale)
        folder.mkdir()
        scaled = write_pair(folder, scale * np.array([[1, 0.05], [-0.05, 1]]), False)
        error = scaled.errors(scaled.align({"model": "gradients"}))
        assert len(error) > 0.8 * len(scaled.truth)
        assert np.median(error) < 0.12 * max(scale, 1)


def test_levels_of_a_model_are_used_from_wide_to_fine(pair, two_levels):
    far = dataclasses.replace(
        pair, graph=dataclasses.replace(pair.graph, keypoints=list(pair.graph.keypoints))
    )
    moved = far.graph.keypoints[1].copy()
    moved[:, :2] += [1.8, -1.5]
    far.graph.keypoints[1] = moved
    options = {"bound": 5.0, "feature_min_correlation": 0.5}
    error = far.errors(far.align({"model_path": two_levels}, **options))
    assert len(error) > 0.85 * len(far.truth)
    assert np.median(error) < 0.15


def test_a_coarse_result_is_kept_only_where_it_was_accepted(pair, two_levels, monkeypatch):
    native = boxes.maps_of_regions

    def without_fine(model, image, regions):
        for fine, coarse in native(model, image, regions):
            yield [np.zeros_like(fine), coarse]

    monkeypatch.setattr(boxes, "maps_of_regions", without_fine)
    n = len(pair.truth)
    coarse_only = pair.align({"model_path": two_levels})
    assert (coarse_only.status[n:] == Status.MOVED).mean() > 0.8
    strict = pair.align({"model_path": two_levels}, feature_min_correlation=1.0)
    assert not (strict.status[n:] == Status.MOVED).any()
    np.testing.assert_array_equal(strict.xy, pair.graph.xy)


def test_a_chain_aligns_what_its_first_model_rejects(relit_pair):
    grey, chain = relit_pair.align({}), relit_pair.align({"model": "image+compact"})
    by_grey = grey.status == Status.MOVED
    np.testing.assert_array_equal(chain.xy[by_grey], grey.xy[by_grey])
    np.testing.assert_array_equal(chain.covariance[by_grey], grey.covariance[by_grey])
    added = (chain.status == Status.MOVED) & ~by_grey
    assert added.sum() >= 5
    assert chain.moved_by == {"image": int(by_grey.sum()), "compact": int(added.sum())}
    n = len(relit_pair.truth)
    error = np.linalg.norm(chain.xy[n:] - relit_pair.truth, axis=1)[added[n:]]
    before = np.linalg.norm(relit_pair.graph.xy[n:] - relit_pair.truth, axis=1)[added[n:]]
    assert np.median(error) < 0.7 * np.median(before)


def test_later_models_see_only_what_was_rejected(relit_pair, monkeypatch):
    seen = []
    native = boxes.BoxExtractor.items

    def counted(self, level, corner, shape, image):
        seen.append(len(level))
        return native(self, level, corner, shape, image)

    monkeypatch.setattr(boxes.BoxExtractor, "items", counted)
    result = relit_pair.align({"model": "image+gradients"})
    n = len(relit_pair.truth)
    assert seen[-1] <= 2 * (n - result.moved_by["image"])


def test_integers_serve_nearly_as_well_as_halves(pair):
    exact = pair.align({"model": "compact", "dtype": "float"})
    both = exact.status == Status.MOVED
    for dtype, limit in (("half", 0.002), ("int8", 0.02), ("int4", 0.15)):
        stored = pair.align({"model": "compact", "dtype": dtype})
        assert (stored.status == exact.status).mean() > 0.98
        shift = np.linalg.norm(stored.xy - exact.xy, axis=1)[both & (stored.status == Status.MOVED)]
        assert np.percentile(shift, 95) < limit


def test_a_cache_serves_the_next_run_and_no_other_model(pair, tmp_path):
    features = {"model": "compact", "dtype": "int8", "use_cache": True, "cache_path": str(tmp_path / "c.h5")}
    first = pair.align(features)
    changed = (tmp_path / "c.h5").stat().st_mtime_ns
    again = pair.align(features)
    np.testing.assert_array_equal(first.xy, again.xy)
    assert (tmp_path / "c.h5").stat().st_mtime_ns == changed
    with pytest.raises(UserError, match=r"made with .*compact"):
        pair.align({**features, "model": "gradients"})
    with pytest.raises(UserError, match=r"made with dtype int8, but now it is half|other sizes"):
        pair.align({**features, "dtype": "half"})


def test_results_do_not_depend_on_threads_or_tiles(pair):
    first = pair.align({"model": "compact", "num_threads": 1}, num_threads=1)
    second = pair.align({"model": "compact", "num_threads": 3, "tile_size": 64}, num_threads=3)
    np.testing.assert_array_equal(first.xy, second.xy)


def test_images_are_reduced_to_max_edge(pair):
    result = pair.align({"model": "gradients", "max_edge": 160})
    assert np.median(pair.errors(result)) < 0.3
    assert not np.array_equal(result.xy, pair.align({"model": "gradients"}).xy)


def test_a_chain_names_every_model_once():
    with pytest.raises(UserError, match="every model once"):
        DenseFeaturesOptions(model="image+compact+image")
