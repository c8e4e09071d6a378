"""How a command's options are made from its parameters, and which value wins."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from pixcli.cli.main import COMMANDS, main
from pixcli.cli.params import Values, command
from pixcli.options import CommonOptions, KeypointAdjustmentOptions
from pixcli.options.fields import OptionGroup, option
from pixcli.progress import Progress

import pycolmap


@pytest.fixture
def calls(monkeypatch):
    """Registers a command `tiny` and returns the list that its calls are kept in."""
    calls = []

    @command
    def tiny(
        database_path: Path,
        output_path: Path | None,
        adjustment: KeypointAdjustmentOptions,
        common: CommonOptions,
        progress: Progress,
    ) -> None:
        """Do little."""
        logging.getLogger("pixcli.tiny").info("working")
        logging.getLogger("pixcli.tiny").debug("in detail")
        logging.getLogger("pixcli.tiny").warning("beware")
        calls.append((database_path, output_path, adjustment, common, progress))

    module = ModuleType("pixcli.cli.tiny")
    module.tiny = tiny
    monkeypatch.setitem(sys.modules, "pixcli.cli.tiny", module)
    monkeypatch.setitem(COMMANDS, "tiny", "Do little.")
    return calls


def _run(calls, *args):
    assert main(["tiny", "--database_path", "a.db", *map(str, args)]) == 0
    return calls[-1]


def _ini(tmp_path, text):
    path = tmp_path / "project.ini"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults(calls):
    database_path, output_path, adjustment, common, progress = _run(calls)
    assert (database_path, output_path) == (Path("a.db"), None)
    assert (adjustment, common) == (KeypointAdjustmentOptions(), CommonOptions())
    assert isinstance(progress, Progress)


def test_values_of_all_kinds(calls):
    args = ["--KeypointAdjustment.bound", "2", "--KeypointAdjustment.reverify=false"]
    args += ["--KeypointAdjustment.loss", "huber"]
    args += ["--KeypointAdjustment.num_threads", "-1", "--default_random_seed", "7", "--output_path", "b.db"]
    _, output_path, adjustment, common, _ = _run(calls, *args)
    assert adjustment == KeypointAdjustmentOptions(bound=2.0, reverify=False, loss="huber")
    assert common.default_random_seed == 7
    assert output_path == Path("b.db")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--KeypointAdjustment.loss", "l3"], "KeypointAdjustment.loss is 'l3', but takes {trivial, cauchy,"),
        (
            ["--KeypointAdjustment.bound", "-1"],
            "KeypointAdjustment.bound is '-1.0', but takes a number, at least 0",
        ),
        (["--KeypointAdjustment.boud", "1"], "Did you mean --KeypointAdjustment.bound?"),
        (["--KeypointAdjustment.reverify"], "requires an argument"),
        (["--preset", "pixfsm"], "unknown preset 'pixfsm'. Did you mean pixsfm?"),
        (["--project_path", "missing.ini"], "missing.ini: cannot read the options"),
        (["--log_level", "9"], "log_level is '9', but takes an integer from -2 to 1"),
        (["--log_target", "file"], "needs --log_path"),
        (
            ["--log_target", "file", "--log_path", "/no/such/folder/log"],
            "/no/such/folder/log: cannot write the log",
        ),
    ],
)
def test_mistakes_exit_1_with_one_line_and_nothing_is_run(calls, args, message, capsys):
    assert main(["tiny", "--database_path", "a.db", *args]) == 1
    err = capsys.readouterr().err
    assert err.startswith("pixcli tiny: ")
    assert message in err
    assert err.count("\n") == 1
    assert calls == []


def test_command_line_before_ini_before_preset_before_default(calls, tmp_path):
    ini = _ini(tmp_path, "[KeypointAdjustment]\nbound=3\nmax_iterations=30\n")
    adjustment = _run(calls, "--KeypointAdjustment.bound", 2, "--project_path", ini, "--preset", "pixsfm")[2]
    assert adjustment.bound == 2.0
    assert adjustment.max_iterations == 30
    assert adjustment.strategy == "featuremetric"
    assert adjustment.window == KeypointAdjustmentOptions().window


def test_a_default_given_on_the_command_line_counts_as_given(calls, tmp_path):
    ini = _ini(tmp_path, "[KeypointAdjustment]\nbound=3\n")
    assert _run(calls, "--KeypointAdjustment.bound", 4, "--project_path", ini)[2].bound == 4.0


def test_the_log_says_that_the_command_line_beat_the_ini(calls, tmp_path, capsys):
    ini = _ini(tmp_path, "[KeypointAdjustment]\nbound=3\nmax_iterations=30\n")
    _run(calls, "--KeypointAdjustment.bound", 2, "--project_path", ini)
    err = capsys.readouterr().err
    assert f"KeypointAdjustment.bound is 2.0 (command line), not 3.0 ({ini})" in err
    assert "max_iterations" not in err


def test_paths_may_come_from_the_ini(calls, tmp_path):
    ini = _ini(tmp_path, "database_path=c.db\n[DenseFeatures]\nmodel=dsift\n")
    assert main(["tiny", "--project_path", str(ini)]) == 0
    assert calls[-1][0] == Path("c.db")


def test_a_missing_path_is_asked_for(calls, capsys):
    assert main(["tiny"]) == 1
    assert "--database_path is missing" in capsys.readouterr().err
    assert main(["tiny", "--database_path", ""]) == 1


def test_help_shows_groups_choices_and_defaults(calls, capsys):
    assert main(["help", "tiny", "--all"]) == 0
    out = capsys.readouterr().out
    assert "KeypointAdjustment:\n" in out
    assert "--KeypointAdjustment.match_source {inlier, raw}  " in out
    assert "[default: inlier]" in out
    for name in ("project_path", "preset", "default_random_seed", "log_level", "log_target", "log_path"):
        assert f"--{name} " in out
    assert "--image_path" not in out


def test_help_leaves_advanced_options_to_help_all(calls, capsys):
    assert main(["tiny", "-h"]) == 0
    short = capsys.readouterr().out
    assert "--KeypointAdjustment.strategy" in short
    assert "--KeypointAdjustment.max_distortion" not in short
    assert "advanced options: pixcli help tiny --all" in short
    assert main(["help", "tiny", "--all"]) == 0
    assert "--KeypointAdjustment.max_distortion NUMBER  affine: Reject" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_fits_on_two_screens(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    assert main(["help", name]) == 0
    assert len(capsys.readouterr().out.splitlines()) <= 2 * 60


def test_an_option_that_the_strategy_ignores_is_named(calls, tmp_path, capsys):
    given = ["--KeypointAdjustment.strategy", "featuremetric", "--KeypointAdjustment.max_distortion", 3]
    _run(calls, *given)
    wanted = (
        "--KeypointAdjustment.max_distortion has no effect here: it is used with "
        "--KeypointAdjustment.strategy affine"
    )
    assert wanted in capsys.readouterr().err
    # A project file holds every default; what differs from its default was meant.
    ini = _ini(tmp_path, "[KeypointAdjustment]\nstrategy=featuremetric\nmax_distortion=2\nwindow=0.7\n")
    _run(calls, "--project_path", ini)
    err = capsys.readouterr().err
    assert "max_distortion" not in err
    assert "--KeypointAdjustment.window has no effect here" in err
    _run(calls, "--KeypointAdjustment.max_distortion", 3)
    assert "no effect" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("level", "seen"),
    [(-2, []), (-1, ["beware"]), (0, ["working", "beware"]), (1, ["working", "in detail", "beware"])],
)
def test_log_level(calls, level, seen, capsys):
    _run(calls, "--log_level", level)
    lines = [line for line in capsys.readouterr().err.splitlines() if "test_params.py" in line]
    assert [line.split("] ")[1] for line in lines] == seen


@pytest.mark.parametrize(
    ("target", "in_out", "in_err", "in_file"),
    [
        ("stderr", False, True, False),
        ("stdout", True, False, False),
        ("file", False, False, True),
        ("stderr_and_file", False, True, True),
    ],
)
def test_log_target(calls, tmp_path, target, in_out, in_err, in_file, capsys):
    path = tmp_path / "log.txt"
    _run(calls, "--log_target", target, "--log_path", path)
    captured = capsys.readouterr()
    assert ("working" in captured.out) == in_out
    assert ("working" in captured.err) == in_err
    assert (path.exists() and "working" in path.read_text()) == in_file


@pytest.mark.parametrize(("level", "least"), [(1, 0), (0, 3), (-1, 3), (-2, 3)])
def test_lines_of_pycolmap_are_details(calls, monkeypatch, level, least):
    monkeypatch.setattr(pycolmap.logging, "minloglevel", 1)
    monkeypatch.setattr(pycolmap.logging, "logtostderr", False)
    monkeypatch.setenv("GLOG_minloglevel", "0")
    _run(calls, "--log_level", level)
    assert pycolmap.logging.minloglevel == least


def test_a_short_name_serves_as_well():
    @dataclass(frozen=True)
    class SceneOptions(OptionGroup):
        group = "Scene"
        seed: int = option(0, "Which scene.", short="seed")

    seen = []

    @command
    def scene(options: SceneOptions) -> None:
        seen.append(options.seed)

    scene.main(["--seed", "3"], standalone_mode=False)
    scene.main(["--Scene.seed", "4"], standalone_mode=False)
    assert seen == [3, 4]


def test_a_parameter_that_no_option_can_be_made_of_is_refused():
    def wrong(database_pth: Path) -> None: ...

    with pytest.raises(TypeError, match="database_pth"):
        command(wrong)


def test_a_command_may_ask_for_all_values(tmp_path):
    seen = {}

    @command
    def all_of_them(values: Values) -> None:
        seen.update(values)

    ini = _ini(tmp_path, "[KeypointAdjustment]\nbound=3\n")
    all_of_them.main(["--project_path", str(ini), "--default_random_seed", "1"], standalone_mode=False)
    assert seen == {"KeypointAdjustment.bound": 3.0, "default_random_seed": 1}
