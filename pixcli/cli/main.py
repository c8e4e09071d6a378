"""The entry point: finds a command, runs it and turns what went wrong into one line and an exit code."""

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import click

from pixcli.errors import Interrupted, UserError, did_you_mean
from pixcli.signals import EXIT_CODE, Terminated, raise_on_sigterm, sigterm_held

COMMANDS = {
    "dense_feature_extractor": "Fill a cache of dense features that later commands use again.",
    "feature_refiner": "Refine the keypoints of a COLMAP database, or of hloc's files.",
    "featuremetric_bundle_adjuster": "Refine the cameras, poses and points of a COLMAP model.",
    "help": "List the commands, or show the options of one.",
    "localize": "Find the poses of new images in a COLMAP model.",
    "project_generator": "Write an ini file with every option.",
    "reconstructor": "Make a refined model of a folder of images.",
    "synthetic_dataset_generator": "Render a scene with exactly known geometry.",
    "triangulator": "Make refined points at the cameras and poses of a given model.",
    "version": "Show the version; with --verbose, facts about the build.",
}
"""All commands: what each does. Command NAME is the click command NAME in the module pixcli/cli/NAME.py."""

ALIASES = {"-h": "help", "--help": "help", "-v": "version", "--version": "version"}


def load_command(name: str) -> click.Command:
    """Imports a command. Only the one that runs is imported, so that help is there at once."""
    if name not in COMMANDS:
        raise UserError(f"unknown command '{name}'. {did_you_mean(name, COMMANDS)} See 'pixcli help'.")
    command: click.Command = getattr(importlib.import_module(f"pixcli.cli.{name}"), name)
    return command


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line, given without the program's name, and returns the exit code (see README.md)."""
    name, *rest = list(sys.argv[1:] if args is None else args) or ["help"]
    name = ALIASES.get(name, name)
    program = f"pixcli {name}" if name in COMMANDS else "pixcli"
    try:
        with sigterm_held():
            command = load_command(name)
            raise_on_sigterm()
        command.main(rest, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
        return 0
    except (click.Abort, Interrupted, KeyboardInterrupt, Terminated) as error:
        return _interrupted(program, error)
    except click.ClickException as error:
        return _user_error(program, _one_line(error))
    except UserError as error:
        return _user_error(program, str(error))
    except BrokenPipeError:
        # The reader of our output has gone, as in `pixcli help | head -1`; the rest goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # Files that vanish, full disks and missing permissions may surface anywhere.
        if error.errno is None:
            return _internal_error(program)
        logging.getLogger(__name__).debug("", exc_info=True)
        where = f"{error.filename}: " if error.filename else ""
        return _user_error(program, f"{where}{error.strerror}")
    except MemoryError as error:
        return _user_error(program, f"not enough memory. {error}".strip())
    except Exception as error:
        # Libraries of native code that are interrupted while they load tell it as a failure of their own.
        signal = _signal_behind(error)
        return _interrupted(program, signal) if signal else _internal_error(program)


def _interrupted(program: str, error: BaseException) -> int:
    is_terminated = isinstance(error, Terminated)
    print(f"{program}: {'terminated' if is_terminated else 'interrupted'}", file=sys.stderr)
    return EXIT_CODE if is_terminated else 130


def _signal_behind(error: BaseException | None) -> BaseException | None:
    while error is not None and not isinstance(error, KeyboardInterrupt | Terminated):
        error = error.__cause__ or error.__context__
    return error


def _user_error(program: str, message: str) -> int:
    print(f"{program}: {message}", file=sys.stderr)
    return 1


def _internal_error(program: str) -> int:
    traceback.print_exc()
    print(
        f"{program}: this is an error of pixcli. Please report it where you got pixcli from, "
        "with the lines above and what 'pixcli version --verbose' prints.",
        file=sys.stderr,
    )
    return 2


def _one_line(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        known = [name for parameter in error.ctx.command.params for name in parameter.opts]
        return f"unknown option {error.option_name}. {did_you_mean(error.option_name, known)}"
    return " ".join(error.format_message().split())
