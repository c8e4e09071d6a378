"""Mistakes that `reconstructor` tells in one line, with exit code 1 and nothing lost."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib  # noqa: F401  before pycolmap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pycolmap

from .conftest import SMALL, Run

OFF = [
    *("--KeypointAdjustment.apply", 0, "--FeaturemetricBundleAdjustment.apply", 0),
    *("--Reconstruction.report_pictures", 0),
]


def test_an_empty_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.txt").write_text("no image")
    paths = ["--image_path", tmp_path / "images", "--output_path", tmp_path / "out"]
    result = run("reconstructor", *paths)
    assert result.code == 1
    assert "holds no images" in result.message
    assert not (tmp_path / "out").exists()
    (tmp_path / "images" / "notes.txt").unlink()
    assert "there is no folder" in run("reconstructor", *_with(paths, 1, tmp_path / "nowhere")).message


def _with(arguments: list, index: int, value: object) -> list:
    return [*arguments[:index], value, *arguments[index + 1 :]]


def test_images_that_cannot_be_read_are_named_and_left_out_on_request(run: Run, images: Path, tmp_path: Path):
    whole = (images / "0001.jpg").read_bytes()
    (images / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "text.png").write_text("not an image")
    paths = ["--image_path", images, "--output_path", tmp_path / "out", *SMALL]
    result = run("reconstructor", *paths)
    assert result.code == 1
    assert "broken.jpg: the image cannot be read" in result.message
    assert "So it is with text.png." in result.message
    skipped = run("reconstructor", *paths, *OFF, "--Reconstruction.skip_unreadable_images", 1)
    assert skipped.code == 0, skipped.err
    assert skipped.err.count("left out: ") == 2
    assert pycolmap.Reconstruction(tmp_path / "out" / "model").num_reg_images() == 4


def test_one_image_in_two_formats(run: Run, images: Path, tmp_path: Path) -> None:
    Image.open(images / "0001.jpg").save(images / "0001.png")
    result = run("reconstructor", "--image_path", images, "--output_path", tmp_path / "out")
    assert result.code == 1
    assert "0001.jpg and 0001.png, one image in 2 formats" in result.message


def test_the_folder_of_another_run_or_of_something_else(
    run: Run, first_run: Path, finished: Path, images: Path
):
    before = (finished / "model" / "points3D.bin").read_bytes()
    result = run("reconstructor", "--image_path", images, "--output_path", finished)
    assert result.code == 1
    assert "holds another run (image_path is " in result.message
    assert (finished / "model" / "points3D.bin").read_bytes() == before
    result = run("reconstructor", "--image_path", first_run / "images", "--output_path", images)
    assert "holds files, but no run of pixcli" in result.message
    for damaged in ("{", "[]"):
        (finished / "steps.json").write_text(damaged)
        result = run("reconstructor", "--image_path", first_run / "images", "--output_path", finished)
        assert "steps.json is damaged" in result.message


def test_a_scene_that_cannot_be_mapped(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(2):
        coarse = Image.fromarray(rng.integers(0, 255, (30, 40), np.uint8)).resize((320, 240))
        coarse.save(tmp_path / "images" / f"{k}.png")
    paths = ["--image_path", tmp_path / "images", "--output_path", tmp_path / "out"]
    result = run("reconstructor", *paths, *SMALL)
    assert result.code == 1
    assert "no pair of images has verified matches" in result.message
    assert (tmp_path / "out" / "database.db").is_file()


def test_a_mapper_that_finds_no_start_says_what_it_had(run: Run, first_run: Path, finished: Path) -> None:
    paths = ["--image_path", first_run / "images", "--output_path", finished, *SMALL]
    sparse = (finished / "sparse" / "0" / "points3D.bin").read_bytes()
    result = run("reconstructor", *paths, "--Mapper.init_min_num_inliers", 100000)
    assert result.code == 1
    assert "no model could be made of the 4 images by the incremental mapper: 6 pairs have" in result.message
    assert "and 0 have enough to begin with" in result.message
    assert (finished / "sparse" / "0" / "points3D.bin").read_bytes() == sparse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ImageReader.camera_model", "FOO"], "COLMAP does not take ImageReader.camera_model FOO: it says"),
        (["--TwoViewGeometry.confidence", 7], "TwoViewGeometry.confidence 7.0: [ransac.h"),
        (["--ImageReader.mask_path", "nowhere"], "there is no nowhere: check --ImageReader.mask_path"),
        (["--VocabTreeMatching.vocab_tree_path", "t.bin"], "check --VocabTreeMatching.vocab_tree_path"),
    ],
)
def test_options_that_colmap_would_refuse(
    run: Run, first_run: Path, tmp_path: Path, options: list, message: str
) -> None:
    result = run("reconstructor", "--image_path", first_run / "images", "--output_path", tmp_path, *options)
    assert result.code == 1
    assert message in result.message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--database_path", "d.db", "--features_path", "f.h5", "--matches_path", "m.h5"], "not both"),
        (["--features_path", "f.h5"], "--features_path and --matches_path go together"),
        (["--pairs_path", "p.txt"], "give --features_path and --matches_path too"),
        (["--database_path", "nowhere.db"], "nowhere.db"),
    ],
)
def test_sources_that_do_not_go_together(run: Run, first_run: Path, tmp_path: Path, options, message: str):
    paths = ["--image_path", first_run / "images", "--output_path", tmp_path / "out"]
    result = run("reconstructor", *paths, *options)
    assert result.code == 1
    assert message in result.message


def _program(*arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-P", "-m", "pixcli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)


def test_a_full_disk_in_the_middle_of_extraction(run: Run, first_run: Path, tmp_path: Path) -> None:
    paths = ["--image_path", first_run / "images", "--output_path", tmp_path / "out", *SMALL, *OFF]

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # what is larger cannot be written

    with _program("reconstructor", *paths, preexec_fn=small_files) as process:
        _, err = process.communicate()
    assert process.returncode == 1, err
    assert err.count("\n") == 1
    assert "COLMAP died while it was extracting features" in err
    assert "is the disk of" in err
    assert run("reconstructor", *paths).code == 0
    assert pycolmap.Reconstruction(tmp_path / "out" / "model").num_reg_images() == 4


def _children(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text(encoding="ascii").split()]


def _is_running(number: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text(encoding="ascii").rsplit(")")[1].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "pixcli reconstructor: interrupted"),
        (signal.SIGTERM, 143, "pixcli reconstructor: terminated"),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    ],
)
def test_a_signal_while_colmap_works(
    run: Run, first_run: Path, tmp_path: Path, number: int, code: int, words: str
) -> None:
    """COLMAP ends too, and the same command goes on."""
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    shutil.copytree(first_run / "images", tmp_path / "images")
    with Image.open(tmp_path / "images" / "0000.jpg") as image:
        large = image.resize((3200, 2400))
    for k in range(4):
        large.save(tmp_path / "images" / f"large{k}.png", compress_level=1)  # something to be busy with
    paths = ["--image_path", tmp_path / "images", "--output_path", out, *SMALL, *OFF]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with _program("reconstructor", *paths, start_new_session=True, env=environment) as process:
        while not ((out / "database.db").is_file() and (children := _children(process))):
            time.sleep(0.05)
        (child,) = children
        process.send_signal(number)
        _, err = process.communicate()
    assert (process.returncode, err.strip()) == (code, words)
    deadline = time.monotonic() + 60
    while _is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list(out.glob(".pixcli-*"))
    assert number == signal.SIGKILL or not list(temporary.iterdir())
    for k in range(4):
        (tmp_path / "images" / f"large{k}.png").unlink()
    result = run("reconstructor", *paths)
    assert result.code == 0
    assert "features again: large" in result.again[0]
