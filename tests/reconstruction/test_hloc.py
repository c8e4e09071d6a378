"""hloc's files into a model and through feature_refiner, written and read here as hloc's functions do.

hloc stores for every image a group of its name (sub-folders are groups above it) with `keypoints` (n, 2),
whose attribute `uncertainty` is the detector's standard deviation in pixels, `scores` (n,), `descriptors`
(d, n) and `image_size` (width, height), floats in half precision unless told otherwise. For every pair there
is a group `name0/name1`, "/" in names replaced by "-", with `matches0` (n0,) int16, -1 for none, and
`matching_scores0` (n0,) float16. The centre of the top-left pixel is (0, 0).

Semi-dense matchers store `keypoints` float32 and `score`; with every pair also `keypoints0`, `keypoints1` and
`scores` of what was matched, and `matches0` int32 ends with the last keypoint that is matched, or is empty.

hloc reads `keypoints` with its attribute, and of `matches0` what is not -1, under the names in either order.
"""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest

from pixcli.adapters.hloc_import import one_to_one
from pixcli.io.database import read_match_graph

from .conftest import Run, database_without_geometries

OFF = ["--FeaturemetricBundleAdjustment.apply", 0, "--Reconstruction.report_pictures", 0]


class Files:
    """A folder with features.h5, matches.h5 and pairs.txt, made of the raw matches of a COLMAP database."""

    def __init__(self, folder: Path, database_path: Path) -> None:
        self.features, self.matches, self.pairs = (folder / n for n in ("f.h5", "m.h5", "pairs.txt"))
        with pycolmap.Database.open(database_path) as database:
            names = {image.image_id: image.name for image in database.read_all_images()}
            keypoints = {i: database.read_keypoints(i)[:, :2] for i in names}
            found = [pycolmap.pair_id_to_image_pair(k) for k in sorted(database.read_num_matches()[0])]
            matches = {pair: database.read_matches(*pair) for pair in found}
        with h5py.File(str(self.features), "w", libver="latest") as file:
            for image_id, name in names.items():
                group = file.create_group(name)
                group.create_dataset("keypoints", data=keypoints[image_id] - 0.5)
                group.create_dataset("scores", data=np.linspace(0, 1, len(keypoints[image_id])))
                group.create_dataset("descriptors", data=np.ones((2, len(keypoints[image_id])), np.float16))
                group.create_dataset("image_size", data=np.array([400, 300]))
                group["keypoints"].attrs["uncertainty"] = 1.25
        lines = []
        with h5py.File(str(self.matches), "w", libver="latest") as file:
            for number, (pair, rows) in enumerate(matches.items()):
                # Every other pair is listed in the other order than that in which it is stored.
                stored = [names[i].replace("/", "-") for i in pair]
                lines.append(" ".join(names[i] for i in (pair if number % 2 else pair[::-1])))
                matches0 = np.full(len(keypoints[pair[0]]), -1, np.int64)
                matches0[rows[:, 0]] = rows[:, 1]
                group = file.create_group("/".join(stored))
                group.create_dataset("matches0", data=matches0.astype(np.int16))
                group.create_dataset("matching_scores0", data=(matches0 >= 0).astype(np.float16))
        self.pairs.write_text("\n".join(lines) + "\n")

    def options(self, pairs: bool = True) -> list[object]:
        given = ["--features_path", self.features, "--matches_path", self.matches]
        return [*given, "--pairs_path", self.pairs] if pairs else given


@pytest.fixture
def files(first_run: Path, tmp_path: Path) -> Files:
    return Files(tmp_path, first_run / "out" / "database.db")


def test_hlocs_way_and_colmaps_way_lead_to_the_same_model(run: Run, first_run: Path, files: Files, tmp_path):
    database = tmp_path / "same.db"
    database_without_geometries(first_run / "out" / "database.db", database, columns=2)
    models = []
    for name, source in (("colmap", ["--database_path", database]), ("hloc", files.options())):
        paths = ["--image_path", first_run / "images", "--output_path", tmp_path / name]
        result = run("reconstructor", *paths, *source, "--FeaturemetricBundleAdjustment.rounds", 1)
        assert result.code == 0, result.err
        models.append(pycolmap.Reconstruction(tmp_path / name / "model"))
    one, other = models
    assert one.num_reg_images() == other.num_reg_images() == 4
    assert one.num_points3D() == other.num_points3D()
    for image in one.images.values():
        same = other.find_image_with_name(image.name)
        assert np.allclose(image.cam_from_world().matrix(), same.cam_from_world().matrix(), atol=1e-6)
        assert np.allclose(
            [point.xy for point in image.points2D], [point.xy for point in same.points2D], atol=1e-6
        )


def test_feature_refiner_moves_keypoints_and_keeps_all_else(
    run: Run, first_run, files: Files, tmp_path
) -> None:
    images, out = first_run / "images", tmp_path / "refined.h5"
    assert run("feature_refiner", *files.options(), "--image_path", images, "--output_path", out).code == 0
    with h5py.File(out, "r") as new, h5py.File(files.features, "r") as old:  # as hloc's get_keypoints reads
        assert sorted(new) == sorted(old)
        moved = 0
        for name in old:
            assert sorted(new[name]) == sorted(old[name])
            for key in ("scores", "descriptors", "image_size"):
                assert (new[name][key][()] == old[name][key][()]).all()
                assert new[name][key].dtype == old[name][key].dtype
            keypoints, before = new[name]["keypoints"], old[name]["keypoints"]
            assert keypoints.attrs["uncertainty"] == 1.25
            assert (keypoints.shape, keypoints.dtype) == (before.shape, before.dtype)
            shift = np.linalg.norm(keypoints[()] - before[()], axis=1)
            assert shift.max() <= 4.001
            moved += np.count_nonzero(shift)
    assert moved > 300
    raw = tmp_path / "raw.db"
    database_without_geometries(first_run / "out" / "database.db", raw, columns=2)
    given = ["--database_path", raw, "--output_path", tmp_path / "refined.db", "--image_path", images]
    assert run("feature_refiner", *given, "--KeypointAdjustment.match_source", "raw").code == 0
    graph = read_match_graph(tmp_path / "refined.db", "raw")
    with h5py.File(
        out, "r"
    ) as new:  # nearly all raw matches are verified: most keypoints end at the same place
        both = [
            (new[i.name]["keypoints"][()] + 0.5, k)
            for i, k in zip(graph.images, graph.keypoints, strict=True)
        ]
    close = np.concatenate([np.abs(a - b).max(axis=1) < 0.02 for a, b in both])
    assert close.mean() > 0.9


def test_keypoints_in_half_precision_become_single(run: Run, first_run, files: Files, tmp_path: Path) -> None:
    with h5py.File(files.features, "r+") as file:
        for name in list(file):
            half = file[name]["keypoints"][()].astype(np.float16)
            del file[name]["keypoints"]
            file[name].create_dataset("keypoints", data=half)
    paths = ["--image_path", first_run / "images", "--output_path", tmp_path / "refined.h5"]
    assert run("feature_refiner", *files.options(pairs=False), *paths).code == 0
    with h5py.File(tmp_path / "refined.h5", "r") as file:
        assert all(file[name]["keypoints"].dtype == np.float32 for name in file)


def test_of_many_matches_with_one_keypoint_the_best_is_kept() -> None:
    matches = np.array([[0, 5], [1, 5], [2, 6], [3, 5]])
    assert one_to_one(matches, np.array([0.1, 0.9, 0.2, 0.9], np.float32)).tolist() == [[1, 5], [2, 6]]
    assert one_to_one(matches, None).tolist() == [[0, 5], [2, 6]]
    assert one_to_one(matches[:, ::-1], None).tolist() == [[5, 0], [6, 2]]


def test_semi_dense_matches_do_not_break_tracks(run: Run, first_run, files, tmp_path) -> None:
    with h5py.File(files.matches, "r+") as file:
        for first in file:
            for second in file[first]:
                rows = file[first][second]["matches0"][()]
                free = np.flatnonzero(rows < 0)[:200]
                rows[free] = rows[rows >= 0][
                    : len(free)
                ]  # a second keypoint for some that are matched already
                file[first][second]["matches0"][...] = rows
    paths = ["--image_path", first_run / "images", "--output_path", tmp_path / "out"]
    assert run("reconstructor", *files.options(), *paths, *OFF).code == 0
    model = pycolmap.Reconstruction(tmp_path / "out" / "model")
    undisturbed = pycolmap.Reconstruction(first_run / "out" / "model")
    assert model.num_points3D() > 0.9 * undisturbed.num_points3D()
    assert model.compute_mean_track_length() > 0.95 * undisturbed.compute_mean_track_length()
    with pycolmap.Database.open(tmp_path / "out" / "database.db") as database:
        for pair_id in database.read_num_matches()[0]:
            matches = database.read_matches(*pycolmap.pair_id_to_image_pair(pair_id))
            assert all(len(np.unique(column)) == len(matches) for column in matches.T)


def in_the_layout_of_semi_dense_matchers(files: Files, folder: str) -> None:
    """Rewrites files as such a matcher does, for images in a sub-folder."""
    keypoints = {}
    with h5py.File(files.features, "r") as old:
        for name in old:
            keypoints[name] = old[name]["keypoints"][()]
    with h5py.File(files.matches, "r") as old:
        matches = {(a, b): old[a][b]["matches0"][()].astype(int) for a in old for b in old[a]}
    with h5py.File(str(files.features), "w") as file:
        for name, rows in keypoints.items():
            group = file.create_group(f"{folder}/{name}")
            group.create_dataset("keypoints", data=rows.astype(np.float32))
            group["keypoints"].attrs["uncertainty"] = 1.0
            group.create_dataset("score", data=np.ones(len(rows)))
    with h5py.File(str(files.matches), "w") as file:
        for (a, b), other in matches.items():
            group = file.create_group(f"{folder}-{a}/{folder}-{b}")
            matched = np.flatnonzero(other >= 0)
            group.create_dataset("keypoints0", data=keypoints[a][matched])
            group.create_dataset("keypoints1", data=keypoints[b][other[matched]])
            group.create_dataset("scores", data=np.ones(len(matched)))
            length = matched.max(initial=-1) + 1
            group.create_dataset("matches0", data=other[:length].astype(np.int32))
            group.create_dataset("matching_scores0", data=(other[:length] >= 0).astype(np.float16))
    lines = [" ".join(f"{folder}/{name}" for name in pair) for pair in matches]
    files.pairs.write_text("\n".join(lines) + "\n")


def test_the_layout_of_semi_dense_matchers(run: Run, first_run: Path, files: Files, tmp_path: Path) -> None:
    shutil.copytree(first_run / "images", tmp_path / "images" / "sub")
    out = tmp_path / "refined.h5"
    paths = ["--image_path", first_run / "images", "--output_path"]
    assert run("feature_refiner", *files.options(), *paths, tmp_path / "plain.h5").code == 0
    in_the_layout_of_semi_dense_matchers(files, "sub")
    paths = ["--image_path", tmp_path / "images", "--output_path", out]
    result = run("feature_refiner", *files.options(), *paths)
    assert result.code == 0, result.err
    with h5py.File(out, "r") as new, h5py.File(tmp_path / "plain.h5", "r") as plain:
        for name in plain:
            assert sorted(new["sub"][name]) == ["keypoints", "score"]
            assert new["sub"][name]["keypoints"].attrs["uncertainty"] == 1.0
            assert np.allclose(new["sub"][name]["keypoints"], plain[name]["keypoints"], atol=1e-3)
    # Without a list, the pairs are those of the matches.
    again = run(
        "feature_refiner", *files.options(pairs=False), *paths[:2], "--output_path", tmp_path / "2.h5"
    )
    assert again.code == 0, again.err
    with h5py.File(out, "r") as new, h5py.File(tmp_path / "2.h5", "r") as other:
        assert all(
            (new["sub"][n]["keypoints"][()] == other["sub"][n]["keypoints"][()]).all() for n in new["sub"]
        )


def test_an_image_of_the_pairs_without_features(
    run: Run, first_run: Path, files: Files, tmp_path: Path
) -> None:
    with h5py.File(files.features, "r+") as file:
        del file["0002.jpg"]
    paths = ["--image_path", first_run / "images", "--output_path", tmp_path / "out"]
    result = run("reconstructor", *files.options(), *paths)
    assert result.code == 1
    assert "has no keypoints of 0002.jpg" in result.message


def test_an_image_of_the_pairs_that_is_not_there(
    run: Run, first_run: Path, files: Files, tmp_path: Path
) -> None:
    files.pairs.write_text("0000.jpg 0009.jpg\n")
    paths = ["--image_path", first_run / "images", "--output_path", tmp_path / "out.h5"]
    result = run("feature_refiner", *files.options(), *paths)
    assert result.code == 1
    assert "there is no image 0009.jpg" in result.message
    assert not (tmp_path / "out.h5").exists()


def test_matches_beyond_the_keypoints(run: Run, first_run: Path, files: Files, tmp_path: Path) -> None:
    with h5py.File(files.matches, "r+") as file:
        first = file[sorted(file)[0]]
        first[sorted(first)[0]]["matches0"][3] = 9999
    paths = ["--image_path", first_run / "images", "--output_path", tmp_path / "out.h5"]
    result = run("feature_refiner", *files.options(), *paths)
    assert result.code == 1
    assert "match again with these features" in result.message
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--features_path", "f.h5"], "--features_path and --matches_path go together"),
        (["--pairs_path", "p.txt", "--database_path", "d.db"], "not both"),
        ([], "--database_path is missing"),
    ],
)
def test_files_that_do_not_go_together(run: Run, first_run: Path, options: list[str], message: str) -> None:
    result = run("feature_refiner", "--image_path", first_run / "images", *options)
    assert result.code == 1
    assert message in result.message
