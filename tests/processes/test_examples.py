"""The examples of README, docs and the notebook, as they stand there, in processes of their own."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest

from pixcli.io.hloc import Features, write_features, write_matches, write_pairs
from tests.processes.pages import ROOT, notebook_code, python_examples, shell_examples
from tests.processes.place import NEW_PHOTO, Place, add_new_photo

import pycolmap

PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
EXAMPLES = {  # how many for the shell and for Python; the tests below run them, but for
    "README.md": (3, 0),  # test_commands.py
    "docs/batch.md": (1, 0),  # tests/test_batch.py
    "docs/feature_models.md": (1, 1),
    "docs/from_pixsfm.md": (8, 8),
    "docs/localization.md": (2, 1),  # the latter in tests/localization/test_example.py
    "docs/pyceres.md": (0, 1),
}


@pytest.mark.parametrize("page", PAGES)
def test_every_example_of_a_page_is_run(page):
    found = len(shell_examples(page)), len(python_examples(page))
    assert found == EXAMPLES.get(page, (0, 0))


@pytest.fixture(scope="session")
def hloc_scene(localized, photos, tmp_path_factory) -> Path:
    """What the pages name: a database, a model, images, hloc's files of the same matches; one query."""
    folder = tmp_path_factory.mktemp("hloc_scene")
    for name in ("images", "refined"):
        shutil.copytree(localized / name, folder / name)
    for name in ("model", "in"):
        shutil.copytree(localized / "refined", folder / name)
    shutil.copytree(photos / "gt", folder / "ref")
    shutil.copy(localized / "refined.db", folder / "database.db")
    with pycolmap.Database.open(folder / "database.db") as database:
        images = {image.image_id: image for image in database.read_all_images()}
        (query,) = (image for image in images.values() if image.name == NEW_PHOTO)
        camera = database.read_camera(query.camera_id)
        xy = {image.name: database.read_keypoints(k)[:, :2].astype(float) for k, image in images.items()}
        pairs = [pycolmap.pair_id_to_image_pair(pair_id) for pair_id in database.read_num_matches()[0]]
        matches = {
            (images[a].name, images[b].name): database.read_two_view_geometry(a, b).inlier_matches.astype(int)
            for a, b in pairs
        }
    write_features(folder / "features.h5", {name: Features(each, None, None) for name, each in xy.items()})
    write_matches(folder / "matches.h5", matches, {name: len(each) for name, each in xy.items()})
    # In hloc's pairs for localization the query comes first.
    write_pairs(folder / "pairs.txt", (pair[::-1] if pair[1] == NEW_PHOTO else pair for pair in matches))
    numbers = " ".join(map(repr, [camera.width, camera.height, *map(float, camera.params)]))
    (folder / "queries.txt").write_text(f"{NEW_PHOTO} {camera.model.name} {numbers}\n")
    return folder


@pytest.fixture
def hloc_files(hloc_scene, tmp_path: Path) -> Place:
    shutil.copytree(hloc_scene, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path)


def test_localization(refined, photos, hloc_scene):
    from_database, from_hloc = shell_examples("docs/localization.md")
    add_new_photo(refined.path, photos)
    refined.shell(from_database)
    for source, name in (
        ("queries.txt", "queries_with_intrinsics.txt"),
        ("features.h5", "feats.h5"),
        ("matches.h5", "matches.h5"),
        ("pairs.txt", "pairs-loc.txt"),
    ):
        shutil.copy(hloc_scene / source, refined.path / name)
    refined.shell(from_hloc)
    for poses in ("localized/poses.txt", "results.txt"):
        (line,) = (refined.path / poses).read_text().splitlines()
        assert line.startswith(f"{NEW_PHOTO} ")


def test_feature_models(place):
    (model,) = python_examples("docs/feature_models.md")
    (check,) = shell_examples("docs/feature_models.md")
    (place.path / "my_model.py").write_text(model)
    assert "1 channels, stride 1, radius 4, correlation" in place.shell(check)


def test_pyceres(place):
    (example,) = python_examples("docs/pyceres.md")
    printed = place.python(example)
    assert "CONVERGENCE" in printed
    assert float(re.search(r"points off by (\S+)", printed)[1]) < 1e-3
    assert float(re.search(r"camera off by (\S+)", printed)[1]) < 1e-4


def our_lines(block: str) -> str:
    """The commands of a block of from_pixsfm.md that are not the peer's."""
    lines = re.sub(r" \\\n *", " ", block).splitlines()
    return "\n".join(line for line in lines if line.startswith(("pixcli ", "python scripts/")))


OUTPUTS_OF_PIXSFM_PAGE = [
    "out/model/points3D.bin",
    "again/model/points3D.bin",
    "out/model/points3D.bin",
    "refined.h5",
    "refined.db",
    "out/points3D.bin",
    "poses.txt",
]


@pytest.mark.parametrize("number", range(len(OUTPUTS_OF_PIXSFM_PAGE)))
def test_from_pixsfm(hloc_files, number):
    blocks = shell_examples("docs/from_pixsfm.md")
    assert len(blocks) == len(OUTPUTS_OF_PIXSFM_PAGE) + 1  # the last one is that of scripts
    omitted = "--output_path again --image_path images" if number == 1 else ""
    hloc_files.shell(our_lines(blocks[number]).replace("[...]", omitted))
    output = hloc_files.path / OUTPUTS_OF_PIXSFM_PAGE[number]
    assert output.stat().st_size > 50


COMMANDS_OF_SCRIPTS = our_lines(shell_examples("docs/from_pixsfm.md")[-1]).splitlines()


@pytest.mark.parametrize("command", COMMANDS_OF_SCRIPTS)
def test_from_pixsfm_knows_the_options_of_scripts(place, command):
    """They need data sets; tests/scripts runs the scripts on small ones."""
    if "download.py" in command:
        pytest.skip("needs a network; tests/scripts has a server for it")
    run = place.run("bash", "-c", command.replace("python scripts", f"python {ROOT}/scripts"), code=1)
    assert "usage:" not in run.stderr
    assert run.stderr.count("\n") == 1


def our_statements(block: str) -> str:
    """Of a block of from_pixsfm.md, without the peer's calls and the use of their results."""
    theirs = ("PixSfM(", "pixsfm.", "image_dir=", "pose")
    sources = [ast.get_source_segment(block, statement) for statement in ast.parse(block).body]
    return "\n".join(source for source in sources if not any(word in source for word in theirs))


PIXSFM_PRELUDE = """
import os
from pathlib import Path

import pixcli
from pixcli.adapters.localize_queries import QueryFiles, localize_queries
from pixcli.options import *
from pixcli.options.fields import build_all
from pixcli.options.presets import read_preset

import numpy as np
import pycolmap

image_dir, model_path, results = Path("images"), Path("model"), Path("poses.txt")
features, matches, pairs, queries = map(Path, ("features.h5", "matches.h5", "pairs.txt", "queries.txt"))
reference, input = Path("ref"), Path("in")
"""


@pytest.mark.slow
def test_from_pixsfm_in_python(hloc_files, localized):
    (hloc_files.path / "refined.db").unlink(missing_ok=True)
    code = PIXSFM_PRELUDE
    for number, block in enumerate(python_examples("docs/from_pixsfm.md")):
        ours = our_statements(block)
        code += f"sfm_dir, output = Path('sfm{number}'), Path('out{number}')\n"
        if "pixcli.QueryLocalizer" in ours:
            shutil.copytree(localized / "localized", hloc_files.path / "localized")
            code += QUERY
        code += ours + "\n"
    printed = hloc_files.python(code + "print(cam_from_world)\n")
    assert "Rigid3d" in printed
    for number in (0, 1, 2):
        assert pycolmap.Reconstruction(hloc_files.path / f"sfm{number}" / "model").num_reg_images() == 5
    for name in ("out3", "refined.db", "out5/points3D.bin", "map.h5", "poses.txt"):
        assert (hloc_files.path / name).stat().st_size > 50


QUERY = f"""
model = pycolmap.Reconstruction("model")
query = pycolmap.Reconstruction("localized").find_image_with_name("{NEW_PHOTO}")
camera, path = query.camera, image_dir / "{NEW_PHOTO}"
keypoints = np.array([point.xy for point in query.points2D])
seen = [(k, point.point3D_id) for k, point in enumerate(query.points2D) if point.has_point3D()]
point2D_idxs, point3D_ids = np.array(seen).T
"""


@pytest.mark.slow
def test_the_notebook_with_photos(place, photos):
    pytest.importorskip("plotly")
    code = notebook_code("docs/demo.ipynb")
    (place.path / "notebook.py").write_text(code + "\nprint(pose.success, len(errors['moved']))\n")
    command = ["env", f"PHOTOS={photos / 'images'}", sys.executable, "-P", "notebook.py"]
    printed = place.run(*command).stdout
    assert "cameras moved by" in printed
    assert printed.split()[-2:] == ["True", "4"]
