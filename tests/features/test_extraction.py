"""From image files to patches: right place, right values, bounded memory, caches that can be trusted."""

import tracemalloc
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixcli.errors import UserError
from pixcli.features.model import FeatureModel
from pixcli.features.registry import load_model
from pixcli.io.images import read_image
from pixcli.options import DenseFeaturesOptions
from pixcli.progress import Progress
from pixcli.sampling import map_patches as patches
from pixcli.sampling import streaming
from pixcli.sampling.extraction import Extraction
from pixcli.sampling.streaming import ImageFile

TOY_MODEL = str(Path(__file__).with_name("toy_model.py"))
SIZES = [(120, 90), (75, 121), (64, 64)]


def ramp(width: int, height: int) -> NDArray[np.uint8]:
    """x in 0..width, so that a sample tells where it was taken: its value over 255 is x / 255."""
    return np.broadcast_to(np.arange(width, dtype=np.uint8), (height, width))


def noise(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(width).integers(0, 256, (height, width), dtype=np.uint8)


def scene(folder: Path, pixels: Any = noise) -> list[ImageFile]:
    files = []
    for index, (width, height) in enumerate(SIZES):
        path = folder / f"{index}.png"
        Image.fromarray(np.ascontiguousarray(pixels(width, height))).save(path)
        files.append(ImageFile(path.name, path, (width, height)))
    return files


def keypoints(seed: int = 0, count: int = 40) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [(rng.random((count, 4)) * [*size, 1, 1]).astype(np.float32) for size in SIZES]


def test_patches_lie_around_their_keypoints(tmp_path: Path) -> None:
    files, points = scene(tmp_path, ramp), keypoints()
    ((found, rows),) = Extraction(files, points, DenseFeaturesOptions(dtype="float")).patches()
    np.testing.assert_array_equal(rows, np.arange(120))
    assert found.data.shape == (120, 16, 16, 1)
    assert found.data.flags.c_contiguous
    xy = np.concatenate(points)[:, :2].astype(np.float64)
    sizes = np.repeat(SIZES, 40, axis=0)
    np.testing.assert_array_equal(found.scales, 1)
    u = xy - 0.5 - found.corners
    inner = ((xy > 8.5) & (xy < sizes - 8.5)).all(axis=1)
    # The keypoint is between the two samples in the middle, so that it may move as far to either side.
    assert (u[inner] >= 7).all()
    assert (u[inner] <= 8).all()
    assert (found.corners >= 0).all()
    assert (found.corners <= sizes - 16).all()
    # Sample (r, c) of the ramp has the value of its column in the image.
    columns = found.corners[:, 0, None, None] + np.arange(16)
    np.testing.assert_allclose(found.data[..., 0] * 255, np.broadcast_to(columns, (120, 16, 16)), atol=1e-4)


def test_reduced_images_keep_exact_scales(tmp_path: Path) -> None:
    files, points = scene(tmp_path, ramp), keypoints()
    options = DenseFeaturesOptions(dtype="double", max_edge=61, resize="area", patch_size=8)
    ((found, _),) = Extraction(files, points, options).patches()
    assert found.data.dtype == np.float64
    for index, (size, reduced) in enumerate(zip(SIZES, [(61, 46), (38, 61), (61, 61)], strict=True)):
        mine = slice(40 * index, 40 * index + 40)
        np.testing.assert_array_equal(found.scales[mine], np.tile(np.divide(reduced, size), (40, 1)))
        # Interpolated at the keypoint along the middle row, the ramp (which is x - 0.5) gives x back.
        u = points[index][:, 0].astype(float) * found.scales[mine, 0] - 0.5 - found.corners[mine, 0]
        at = np.array(
            [np.interp(x, np.arange(8), row) for x, row in zip(u, found.data[mine, 4, :, 0], strict=True)]
        )
        inner = (u > 1) & (u < 6)
        np.testing.assert_allclose(at[inner] * 255, points[index][inner, 0] - 0.5, atol=0.5)


@pytest.mark.parametrize("tile_size", [64, 1024])
@pytest.mark.parametrize("model", ["image", "dsift", "toy"])
def test_patches_equal_those_of_whole_maps(tmp_path: Path, model: str, tile_size: int) -> None:
    files, points = scene(tmp_path), keypoints()
    options = DenseFeaturesOptions(
        model=model,
        model_path=TOY_MODEL if model == "toy" else "",
        pyramid_scales="1.0,0.6",
        dtype="float",
        patch_size=10,
        tile_size=tile_size,
        l2_normalize=False,
    )
    levels = Extraction(files, points, options).patches()
    reference = load_model(options)
    assert len(levels) == 2 * len(reference.levels)
    if model == "toy":  # coarse to fine: a basin of 5 pixels at 0.6, at 1.0; then of one pixel
        assert [round(found.scales[0, 0], 2) for found, _ in levels] == [0.3, 0.5, 0.6, 1.0]
    for found, _ in levels:
        for index, file in enumerate(files):
            whole = whole_map(reference, file, found.scales[40 * index, 0], options)
            for row in range(40 * index, 40 * index + 40, 7):
                x, y = found.corners[row]
                np.testing.assert_array_equal(found.data[row], whole[y : y + 10, x : x + 10])


def whole_map(
    model: FeatureModel, file: ImageFile, scale: float, options: DenseFeaturesOptions
) -> NDArray[np.float32]:
    """The map of this scale, computed from the whole image at once."""
    image = read_image(file.path)
    for pyramid_scale in options.scales:
        width, height = (round(edge * pyramid_scale) for edge in file.size)
        scaled = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
        for level, values in zip(model.levels, model.forward(scaled), strict=True):
            if np.isclose(width / file.size[0] / level.stride, scale):
                return np.moveaxis(np.asarray(values, np.float32), 0, 2)
    raise AssertionError(scale)


def test_only_needed_keypoints_get_patches(tmp_path: Path) -> None:
    files, points = scene(tmp_path), keypoints()
    needed = np.random.default_rng(1).random(120) < 0.3
    ((all_of_them, _),) = Extraction(files, points, DenseFeaturesOptions()).patches()
    ((found, rows),) = Extraction(files, points, DenseFeaturesOptions(), needed).patches()
    np.testing.assert_array_equal(rows >= 0, needed)
    np.testing.assert_array_equal(found.data[rows[needed]], all_of_them.data[needed])
    assert len(found.data) == needed.sum()
    ((none, rows),) = Extraction(files, points, DenseFeaturesOptions(), np.zeros(120, bool)).patches()
    assert len(none.data) == 0
    assert (rows == -1).all()
    nothing = np.zeros((0, 2), np.float32)
    for images, empty in (([], []), (files[:1], [nothing])):
        ((none, rows),) = Extraction(images, empty, DenseFeaturesOptions()).patches()
        assert len(none.data) == len(rows) == 0


def test_only_tiles_with_keypoints_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(noise(600, 400)).save(path)
    seen: list[int] = []
    compute = patches.maps_of_regions
    monkeypatch.setattr(
        patches,
        "maps_of_regions",
        lambda model, image, regions: (
            seen.extend((region.x1 - region.x0) * (region.y1 - region.y0) for region in regions),
            compute(model, image, regions),
        )[1],
    )
    points = [np.array([[70.0, 70.0], [80.0, 75.0], [500.0, 300.0]], np.float32)]
    options = DenseFeaturesOptions(model="dsift", tile_size=64)
    Extraction([ImageFile("large.png", path, (600, 400))], points, options).patches()
    # Two tiles hold keypoints, and of these no more than their patches cover.
    assert len(seen) == 2
    assert sum(seen) < 2 * (16 + 11) ** 2


def test_keypoints_beyond_the_image_or_nowhere_get_a_patch_inside(tmp_path: Path) -> None:
    files, points = scene(tmp_path), keypoints()
    points[0][:4, :2] = [[-50, 20], [1e9, -1e9], [np.nan, 3], [np.inf, -np.inf]]
    ((found, _),) = Extraction(files, points, DenseFeaturesOptions()).patches()
    assert (found.corners >= 0).all()
    assert (found.corners[:40] <= np.array(SIZES[0]) - 16).all()


def test_maps_smaller_than_a_patch_are_continued(tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    Image.fromarray(noise(9, 30)).save(path)
    points = [np.array([[4.0, 15.0]], np.float32)]
    options = DenseFeaturesOptions(dtype="float")
    ((found, _),) = Extraction([ImageFile("small.png", path, (9, 30))], points, options).patches()
    column, row = found.corners[0]
    assert column == 0
    image = read_image(path)[row : row + 16] / 255
    np.testing.assert_allclose(found.data[0, :, :9, 0], image, rtol=1e-6)
    np.testing.assert_allclose(found.data[0, :, 9:, 0], np.tile(image[:, -1:], 7), rtol=1e-6)


def test_l2_normalize_and_dtypes(tmp_path: Path) -> None:
    files, points = scene(tmp_path), keypoints()
    for dtype in ("half", "float", "double"):
        options = DenseFeaturesOptions(model_path=TOY_MODEL, dtype=dtype, pyramid_scales="0.5")
        for found, _ in Extraction(files, points, options).patches():
            norms = np.linalg.norm(found.data.astype(np.float64), axis=-1)
            np.testing.assert_allclose(norms[norms > 0.1], 1, atol=2e-3)
    # Intensities of unit length would all be 1.
    ((grey, _),) = Extraction(files, points, DenseFeaturesOptions(l2_normalize=True)).patches()
    assert len(np.unique(grey.data)) > 100


def test_the_number_of_threads_changes_no_byte(tmp_path: Path) -> None:
    files, points = scene(tmp_path), keypoints()
    results = [
        Extraction(files, points, DenseFeaturesOptions(model="dsift", num_threads=threads)).patches()[0][0]
        for threads in (1, 4)
    ]
    np.testing.assert_array_equal(results[0].data, results[1].data)


def test_a_model_that_makes_nan_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        "import numpy as np\nfrom pixcli.features.model import FeatureModel, Level\n"
        "class Bad(FeatureModel):\n    levels = (Level(channels=2),)\n"
        "    def forward(self, image):\n        return [np.full((2, *image.shape), np.nan, np.float32)]\n"
    )
    for normalize in (False, True):
        options = DenseFeaturesOptions(model_path=str(path), l2_normalize=normalize)
        with pytest.raises(UserError, match="the model Bad made values that are not finite"):
            Extraction(scene(tmp_path), keypoints(), options).patches()


@pytest.mark.parametrize("sparse", [True, False])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, sparse: bool) -> None:
    rng = np.random.default_rng(0)
    size = (400, 300)
    for index in range(24):
        Image.fromarray(rng.integers(0, 256, size[::-1], dtype=np.uint8)).save(tmp_path / f"{index:02}.png")
    files = [ImageFile(f"{index:02}.png", tmp_path / f"{index:02}.png", size) for index in range(24)]
    points = [(rng.random((30, 2)) * size).astype(np.float32)] * len(files)

    def peak(count: int) -> int:
        options = DenseFeaturesOptions(
            model="dsift",
            tile_size=128,
            sparse=sparse,
            use_cache=True,
            cache_path=str(tmp_path / f"{count}.h5"),
            num_threads=2,
        )
        tracemalloc.start()
        Extraction(files[:count], points[:count], options).fill_cache()
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(2)  # what is allocated once
    few, many = peak(6), peak(24)
    # An image's patches take 2 MB and its map 31 MB, all of the 18 more images' 35 or 550 MB.
    # How far ahead images are decoded at the worst moment varies by one or two of .7 MB.
    assert many < few + 4e6


def cached(tmp_path: Path, **changes: Any) -> DenseFeaturesOptions:
    values = {"model": "dsift", "use_cache": True, "cache_path": str(tmp_path / "cache.h5"), **changes}
    return DenseFeaturesOptions(**values)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are decoded from now on."""
    names: list[str] = []
    read = read_image

    def counting(path: Path, **options: Any) -> NDArray[np.float32]:
        names.append(path.name)
        return read(path, **options)

    monkeypatch.setattr(streaming, "read_image", counting)
    return names


@pytest.mark.parametrize("sparse", [True, False])
def test_a_cache_gives_the_same_patches_without_images_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparse: bool
) -> None:
    files, points = scene(tmp_path), keypoints()
    ((expected, _),) = Extraction(files, points, DenseFeaturesOptions(model="dsift")).patches()
    options = cached(tmp_path, sparse=sparse)
    Extraction(files, points, options).fill_cache()
    names = counted(monkeypatch)
    # How fast and in what pieces features are computed makes no other cache.
    again = cached(tmp_path, sparse=sparse, num_threads=1, tile_size=64)
    ((found, _),) = Extraction(files, points, again).patches()
    assert names == []
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.corners, expected.corners)
    np.testing.assert_array_equal(found.scales, expected.scales)
    if not sparse:  # whole maps serve other keypoints, too
        Extraction(files, keypoints(seed=1), options).patches()
        assert names == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"patch_size": 8}, "patch_size 16, but now it is 8"),
        ({"spatial_bin_size": 3}, "spatial_bin_size 4, but now it is 3"),
        ({"model": "image"}, "model dsift, but now it is image"),
        ({"dtype": "float"}, "dtype half, but now it is float"),
        ({"sparse": False}, "sparse True, but now it is False"),
    ],
)
def test_a_cache_of_other_options_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    files, points = scene(tmp_path), keypoints()
    Extraction(files, points, cached(tmp_path)).fill_cache()
    with pytest.raises(UserError, match=reason):
        Extraction(files, points, cached(tmp_path, **change)).patches()
    replaced = Extraction(files, points, cached(tmp_path, overwrite_cache=True, **change)).patches()
    assert len(replaced[0][0].data) == 120
    Extraction(files, points, cached(tmp_path, **change)).patches()


def test_options_of_other_models_make_no_other_cache(tmp_path: Path) -> None:
    files, points = scene(tmp_path), keypoints()
    Extraction(files, points, cached(tmp_path)).fill_cache()
    Extraction(files, points, cached(tmp_path, color=True)).patches()


def test_a_cache_of_other_keypoints_or_images_is_refused(tmp_path: Path) -> None:
    files, points = scene(tmp_path), keypoints()
    Extraction(files, points, cached(tmp_path)).fill_cache()
    with pytest.raises(UserError, match="keypoints at other positions"):
        Extraction(files, keypoints(seed=1), cached(tmp_path)).patches()
    needed = np.arange(120) != 5
    with pytest.raises(UserError, match="keypoints at other positions"):
        Extraction(files, points, cached(tmp_path), needed).patches()
    with pytest.raises(UserError, match="other images"):
        Extraction(files[:2], points[:2], cached(tmp_path)).patches()
    Image.fromarray(noise(64, 64) // 2).save(files[2].path)
    with pytest.raises(UserError, match=r"the image 2\.png has changed"):
        Extraction(files, points, cached(tmp_path)).patches()


@pytest.mark.parametrize("sparse", [True, False])
def test_an_interrupted_extraction_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparse: bool
) -> None:
    files, points = scene(tmp_path), keypoints()
    options = cached(tmp_path, sparse=sparse)
    good = files[1].path.read_bytes()
    files[1].path.write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match=r"1\.png: the image cannot be read"):
        Extraction(files, points, options).fill_cache()
    files[1].path.write_bytes(good)
    names = counted(monkeypatch)
    ((found, _),) = Extraction(files, points, options).patches()
    assert sorted(names) == ["1.png", "2.png"]
    ((expected, _),) = Extraction(files, points, DenseFeaturesOptions(model="dsift")).patches()
    np.testing.assert_array_equal(found.data, expected.data)


def test_ctrl_c_leaves_a_cache_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, points = scene(tmp_path), keypoints()

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    class Interrupting(Progress):
        """Stops after the first image."""

        def _show(self, name: str, total: int | None) -> Any:
            return nullcontext(interrupt)

    with pytest.raises(KeyboardInterrupt):
        Extraction(files, points, cached(tmp_path)).fill_cache(Interrupting())
    names = counted(monkeypatch)
    Extraction(files, points, cached(tmp_path)).fill_cache()
    assert sorted(names) == ["1.png", "2.png"]


def test_bad_images_are_told(tmp_path: Path) -> None:
    files, points = scene(tmp_path), keypoints()
    wrong = [files[0]._replace(size=(90, 120)), *files[1:]]
    with pytest.raises(UserError, match=r"0\.png: the image is 120x90, but"):
        Extraction(wrong, points, DenseFeaturesOptions()).patches()
    files[2].path.unlink()
    with pytest.raises(UserError, match=r"2\.png: no such image"):
        Extraction(files, points, DenseFeaturesOptions()).patches()


def test_use_cache_needs_a_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"name the file by DenseFeatures\.cache_path"):
        Extraction(scene(tmp_path), keypoints(), DenseFeaturesOptions(use_cache=True)).estimate()


def test_the_estimate_is_near_what_is_taken(tmp_path: Path) -> None:
    files, points = scene(tmp_path), keypoints(count=400)
    in_memory = Extraction(files, points, DenseFeaturesOptions(model="dsift", num_threads=1)).estimate()
    assert in_memory.disk == 0
    tracemalloc.start()
    Extraction(files, points, DenseFeaturesOptions(model="dsift", num_threads=1)).patches()
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.7 * taken < in_memory.memory < 1.6 * taken
    on_disk = Extraction(files, points, cached(tmp_path)).estimate()
    assert not (tmp_path / "cache.h5").exists()
    Extraction(files, points, cached(tmp_path)).fill_cache()
    assert on_disk.disk == pytest.approx((tmp_path / "cache.h5").stat().st_size, rel=0.01)
    assert on_disk.memory < in_memory.memory


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(("dtype", "largest"), [("int8", 127), ("int4", 7)])
def test_integers_come_back_as_nearly_what_they_were(
    tmp_path: Path, sparse: bool, dtype: str, largest: int
) -> None:
    files, points = scene(tmp_path), keypoints()
    options = {"model_path": TOY_MODEL, "l2_normalize": False, "sparse": sparse}
    cache = {} if sparse else {"use_cache": True, "cache_path": str(tmp_path / "cache.h5")}
    exact = Extraction(
        files, points, DenseFeaturesOptions(model_path=TOY_MODEL, l2_normalize=False, dtype="float")
    )
    stored = Extraction(files, points, DenseFeaturesOptions(**options, **cache, dtype=dtype))
    for (a, _), (b, _) in zip(exact.patches(), stored.patches(), strict=True):
        assert b.data.dtype == np.float16
        step = np.abs(a.data).max() / largest
        assert np.abs(a.data - b.data.astype(np.float32)).max() < step
    assert stored.num_bytes < 0.4 * exact.num_bytes
