"""Commands, exit codes and messages of the program itself, in COLMAP's manners."""

import importlib
import signal
import subprocess
import sys
from types import ModuleType

import click
import pytest

from pixcli import __version__
from pixcli.cli.main import COMMANDS, load_command, main
from pixcli.errors import Interrupted, UserError
from pixcli.signals import Terminated


@pytest.fixture
def failing(monkeypatch):
    """Registers a command that raises what the test sets as `failing.error`."""
    module = ModuleType("pixcli.cli.failing")

    @click.command("failing")
    def failing() -> None:
        raise module.error

    module.failing = failing
    monkeypatch.setitem(sys.modules, "pixcli.cli.failing", module)
    monkeypatch.setitem(COMMANDS, "failing", "Fails.")
    return module


@pytest.mark.parametrize("args", [[], ["help"], ["-h"], ["--help"]])
def test_help_lists_all_commands_and_exits_0(args, capsys):
    assert main(args) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and summary in out for name, summary in COMMANDS.items())
    assert "pixsfm" in out


@pytest.mark.parametrize("args", [["version"], ["--version"], ["-v"]])
def test_version(args, capsys):
    assert main(args) == 0
    assert capsys.readouterr().out == f"pixcli {__version__}\n"


def test_verbose_version_names_what_a_bug_report_needs(capsys):
    assert main(["version", "--verbose"]) == 0
    out = capsys.readouterr().out
    names = ["python", "numpy", "pycolmap", "pyceres", "ceres", "torch", "compiler", "kernels"]
    assert [line.split(":")[0] for line in out.splitlines()[1:]] == names
    assert "ceres:      2.2" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help_and_begins_with_its_summary(name, capsys):
    assert main([name, "-h"]) == 0
    assert " ".join(COMMANDS[name].split()) in " ".join(capsys.readouterr().out.split())
    assert main(["help", name]) == 0
    assert f"Usage: pixcli {name}" in capsys.readouterr().out
    assert load_command(name).name == name


def test_help_imports_nothing_that_takes_time():
    code = (
        "import sys; from pixcli.cli.main import main; main(['help']); "
        "print({'numpy', 'pycolmap', 'pyceres', 'rich', 'h5py', 'torch'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["versoin"], "pixcli: unknown command 'versoin'. Did you mean version? See 'pixcli help'."),
        (["help", "versoin"], "pixcli help: unknown command 'versoin'. Did you mean version?"),
        (
            ["project_generator", "--outputpath", "x"],
            "pixcli project_generator: unknown option --outputpath. Did you mean --output_path?",
        ),
        (["project_generator", "--output_path"], "Option '--output_path' requires an argument."),
        (["project_generator", "stray"], "Got unexpected extra argument (stray)"),
        (["project_generator"], "pixcli project_generator: --output_path is missing"),
    ],
)
def test_mistakes_exit_1_with_one_line(args, message, capsys):
    assert main(args) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_user_error_is_one_line(failing, capsys):
    failing.error = UserError("db.db: not a COLMAP database")
    assert main(["failing"]) == 1
    assert capsys.readouterr().err == "pixcli failing: db.db: not a COLMAP database\n"


def test_an_error_of_the_file_system_is_one_line(failing, capsys):
    failing.error = OSError(28, "No space left on device", "/disk/out.db")
    assert main(["failing"]) == 1
    assert capsys.readouterr().err == "pixcli failing: /disk/out.db: No space left on device\n"


def test_too_little_memory_is_one_line(failing, capsys):
    failing.error = MemoryError("Unable to allocate 9 TiB")
    assert main(["failing"]) == 1
    assert capsys.readouterr().err == "pixcli failing: not enough memory. Unable to allocate 9 TiB\n"


def test_an_internal_error_shows_where_and_asks_for_a_report(failing, capsys):
    failing.error = ZeroDivisionError("boom")
    assert main(["failing"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "boom" in err
    assert "version --verbose" in err.splitlines()[-1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted()])
def test_an_interrupt_exits_130(failing, error, capsys):
    failing.error = error
    assert main(["failing"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_termination_exits_143(failing, capsys):
    failing.error = Terminated()
    assert main(["failing"]) == 143
    assert capsys.readouterr().err == "pixcli failing: terminated\n"


@pytest.mark.parametrize(
    ("signal", "code", "word"), [(KeyboardInterrupt(), 130, "interrupted"), (Terminated(), 143, "terminated")]
)
def test_a_signal_that_a_library_hides(failing, capsys, signal, code, word):
    failing.error = RuntimeError("cannot import the native code")
    failing.error.__cause__ = ImportError("initialization failed")
    failing.error.__cause__.__context__ = signal
    assert main(["failing"]) == code
    assert capsys.readouterr().err == f"pixcli failing: {word}\n"


def test_a_reader_that_goes_away_makes_no_noise():
    command = f"'{sys.executable}' -P -m pixcli help project_generator | head -n 0; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.stderr == ""
    assert result.returncode in (0, 1, 128 + signal.SIGPIPE)


def test_the_module_runs_as_the_program_does():
    result = subprocess.run([sys.executable, "-P", "-m", "pixcli", "versoin"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "unknown command 'versoin'" in result.stderr


def test_summaries_are_those_of_the_commands():
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"pixcli.cli.{name}")
        assert getattr(module, name).help.splitlines()[0] == summary
