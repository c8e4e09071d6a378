import logging
import os
from pathlib import Path

import pytest

from pixcli.adapters.isolation import isolated
from pixcli.errors import UserError
from pixcli.io.images import check_image
from pixcli.reconstruction.steps import Steps, difference

import pycolmap


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"options": {"A.x": 1}}, {"options": {"A.x": 2}}, "A.x is 2, was 1"),
        ({"options": {"A.x": 1, "A.y": 1}}, {"options": {}}, "A.x is not set, was 1, and 1 more"),
        ({"files": {"a.jpg": "1"}}, {"files": {"a.jpg": "2"}}, "a.jpg has changed"),
        ({"files": {}}, {"files": {"a.jpg": "2"}}, "a.jpg is new"),
        ({"files": {"a.jpg": "1"}}, {"files": {}}, "a.jpg is gone"),
        ({"after": {"map": "1"}}, {"after": {"map": "2"}}, "the step map has changed"),
        ({"after": {"map": "1"}}, {"after": {"copy": "2"}}, "it follows copy, not map"),
        ({"options": {"A.on": True}}, {"options": {"A.on": False}}, "A.on is 0, was 1"),
        ({"version": {"pycolmap": "4.2"}}, {"version": {"pycolmap": "4.3"}}, "pycolmap is 4.3, was 4.2"),
    ],
)
def test_what_differs_is_told_in_words(old: dict, new: dict, words: str) -> None:
    assert difference(old, new) == words


def test_a_failed_step_is_not_done(tmp_path: Path) -> None:
    output = tmp_path / "run" / "result"
    resumed: list[bool] = []

    def work(resume: bool) -> dict:
        resumed.append(resume)
        if len(resumed) == 1:
            raise UserError("no")
        output.touch()
        return {"count": 3}

    steps = Steps(tmp_path / "run", {"image_path": "a"}, overwrite=False)
    with pytest.raises(UserError):
        steps.run("one", {"x": 1}, [output], work)
    for expected in (True, False):
        figures, new = Steps(tmp_path / "run", {"image_path": "a"}, overwrite=False).run(
            "one", {"x": 1}, [output], work
        )
        assert figures["count"] == 3
        assert new is expected
    assert resumed == [False, True]
    with pytest.raises(UserError, match="image_path is b, was a"):
        Steps(tmp_path / "run", {"image_path": "b"}, overwrite=False)
    forgotten = Steps(tmp_path / "run", {"image_path": "b"}, overwrite=True)
    assert forgotten.run("one", {"x": 1}, [output], work)[1]


def test_what_follows_a_step_is_outdated_when_that_is_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = tmp_path / "run" / "result"

    def run(*steps: tuple[str, int]) -> list[bool]:
        run = Steps(tmp_path / "run", {}, overwrite=False)

        def write(x: int) -> dict:
            made.write_text(str(x))
            return {}

        return [run.run(name, {"x": x}, [made], lambda _, x=x: write(x))[1] for name, x in steps]

    caplog.set_level("INFO", "pixcli")
    assert run(("first", 1), ("refined", 2)) == [True, True]
    assert run(("first", 1), ("copied", 3)) == [False, True]
    # What `refined` is made from is the same as ever, but another step has put its result there.
    assert run(("first", 1), ("refined", 2)) == [False, True]
    assert made.read_text() == "2"
    assert "refined again: the step copied was done since" in caplog.text
    assert run(("first", 4)) == [True]
    assert run(("first", 1), ("refined", 2)) == [True, True]
    assert run(("first", 1), ("refined", 2)) == [False, False]


def test_two_runs_do_not_work_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with Steps(tmp_path / "run", {}, overwrite=False):
        (tmp_path / "run" / ".pixcli-begun").mkdir()
        with (
            pytest.raises(UserError, match="another run is at work in"),
            Steps(tmp_path / "run", {}, overwrite=False),
        ):
            pass
        assert (tmp_path / "run" / ".pixcli-begun").is_dir()
    with Steps(tmp_path / "run", {}, overwrite=False):
        assert not (tmp_path / "run" / ".pixcli-begun").exists()


def test_errors_and_results_come_back_from_another_process(tmp_path: Path) -> None:
    assert isolated("adding", tmp_path, sum, [1, 2])[0] == 3
    with pytest.raises(UserError, match=r"nothing\.jpg"):
        isolated("looking", tmp_path, check_image, tmp_path / "nothing.jpg")
    with pytest.raises(UserError, match=r"COLMAP stopped while it was adding: \[\w+\.h"):
        isolated("adding", tmp_path, pycolmap.RANSACOptions(confidence=7.0).check)
    with pytest.raises(TypeError) as raised:
        isolated("adding", tmp_path, sum, 3)
    assert "Traceback" in raised.value.__notes__[0]


def glog(text: str) -> bytes:
    return f"{text[0]}20260102 03:04:05.678901 140485691800448 some_file.cc:12] {text[2:]}\n".encode()


def test_what_colmap_says_becomes_progress_and_warnings(tmp_path: Path, caplog, capfd) -> None:
    seen: list[int] = []

    def said(*texts: str, level: int = logging.INFO) -> tuple[list[int], list[str]]:
        seen.clear()
        caplog.clear()
        with caplog.at_level(level, "pixcli"):
            isolated("mapping", tmp_path, os.write, 2, b"".join(map(glog, texts)), update=seen.append)
        return seen, caplog.messages

    assert said("I Processed file [3/10]", "I   Name:            0001.jpg") == ([3], [])
    assert said("I Processing block [2/3, 1/3]", "I Processing image [4/9]") == ([3, 3], [])
    assert said("I Registering image #4 (num_reg_frames=2)", "W Linear solver failure.") == ([2], [])
    assert said("E No camera 3", "E No camera 4") == ([], ["COLMAP, while it was mapping: No camera 4"])
    assert said("W Linear solver failure.", level=logging.DEBUG)[1][0].endswith("] Linear solver failure.")
    assert capfd.readouterr() == ("", "")


def test_the_last_words_of_a_process_that_died_are_told(tmp_path: Path) -> None:
    code = f"import os; os.write(2, {glog('F Check failed: disk I/O error')!r}); os._exit(3)"
    with pytest.raises(UserError, match=r"was mapping \(Check failed: disk I/O error\): is the disk"):
        isolated("mapping", tmp_path, exec, code)


def test_what_a_process_that_died_has_begun_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".pixcli-begun" / "models").mkdir(parents=True)
    with pytest.raises(UserError, match="COLMAP died while it was mapping"):
        isolated("mapping", tmp_path, os._exit, 3)
    assert not list(tmp_path.iterdir())
