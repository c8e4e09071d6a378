"""Commands made from functions: their command-line options come from the types of the parameters.

    @command
    def feature_refiner(
        database_path: Path,                          # --database_path, required; from PathOptions
        output_path: Path | None,                     # --output_path, may be left out
        adjustment: KeypointAdjustmentOptions,        # --KeypointAdjustment.bound and all others of the group
        common: CommonOptions,                        # if the command wants to see --default_random_seed
        progress: Progress,
    ) -> None:
        \"\"\"Refine the keypoints of a database.\"\"\"

Every command also takes the common options, --project_path and --preset. The command line goes before the ini
file, the ini file before the preset, the preset before the defaults.
"""

import inspect
import logging
from collections import ChainMap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import click

from pixcli.cli.log import configure_logging
from pixcli.errors import UserError
from pixcli.options import CommonOptions, PathOptions
from pixcli.options.fields import Field, OptionGroup, Value, build, fields
from pixcli.options.ini import read_ini
from pixcli.options.presets import read_preset
from pixcli.progress import Progress

log = logging.getLogger(__name__)

Values = Mapping[str, Value]
"""The type of a parameter that gets everything that is set, by key."""


class _Option(click.Option):
    """--Group.name; its value is None where the command line does not give it."""

    def __init__(self, field: Field, section: str, required: bool = False) -> None:
        self.section = section
        default = field.format(field.default)
        notes = "required" if required else f"default: {default}" if default else ""
        super().__init__(
            [f"--{field.key}", field.key.replace(".", "__")],
            type=field.parse,
            metavar=field.expected if field.choices else _METAVARS[field.kind],
            help=f"{field.help} [{notes}]" if notes else field.help,
        )


_METAVARS = {bool: "{0, 1}", int: "INTEGER", float: "NUMBER", str: "TEXT"}


class _Command(click.Command):
    """A command whose help shows the options under the headings of their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", "Common"), []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records, col_max=0)


def command(function: Callable[..., None]) -> click.Command:
    """Makes a click command of a function, as the head of this file shows."""
    path_fields = {field.name: field for field in fields(PathOptions)}
    parameters = _parameters(function)
    keyed: dict[str, Field] = {}
    params: list[click.Parameter] = []

    def add(field: Field, section: str, required: bool = False) -> None:
        keyed[field.key.replace(".", "__")] = field
        params.append(_Option(field, section, required))

    for name, kind in parameters.items():
        if kind in (Path, Path | None):
            add(path_fields[name], "Paths", required=kind is Path)
    for kind in parameters.values():
        if _is_group(kind) and kind is not CommonOptions:
            for field in fields(kind):
                add(field, kind.group or "Options")
    for field in fields(CommonOptions):
        add(field, "Common")
    params.append(click.Option(["--project_path"], metavar="FILE", help="Ini file with options."))
    preset_help = "Options that go together; 'pixcli help' lists them."
    params.append(click.Option(["--preset"], metavar="NAME", help=preset_help))

    def callback(project_path: str | None, preset: str | None, **given: Value | None) -> None:
        command_line = {keyed[name].key: value for name, value in given.items() if value is not None}
        ini = read_ini(Path(project_path)) if project_path else {}
        values = ChainMap(command_line, ini, read_preset(preset) if preset else {})
        common = build(CommonOptions, values)
        configure_logging(common)
        _log_sources(command_line, ini, project_path, preset)
        function(**{name: _argument(name, kind, values, common) for name, kind in parameters.items()})

    return _Command(
        function.__name__,
        params=params,
        callback=callback,
        help=inspect.getdoc(function),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


def _parameters(function: Callable[..., None]) -> dict[str, Any]:
    annotations = get_type_hints(function)
    annotations.pop("return", None)
    path_names = {field.name for field in fields(PathOptions)}
    for name, kind in annotations.items():
        is_path = kind in (Path, Path | None) and name in path_names
        if not is_path and kind not in (Progress, Values) and not _is_group(kind):
            raise TypeError(f"{function.__name__}: parameter {name} is no path of PathOptions and no group")
    return annotations


def _is_group(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, OptionGroup)


def _argument(name: str, kind: Any, values: Values, common: CommonOptions) -> object:
    if kind is CommonOptions:
        return common
    if kind == Values:
        return values
    if kind is Progress:
        from pixcli.cli.progress import TerminalProgress  # rich, which takes its time to import

        return TerminalProgress()
    if _is_group(kind):
        return build(kind, values)
    if values.get(name, "") != "":
        return Path(str(values[name]))
    if kind is Path:
        raise UserError(f"--{name} is missing: give it on the command line or in the file of --project_path")
    return None


def _log_sources(
    command_line: Mapping[str, Value], ini: Mapping[str, Value], project_path: str | None, preset: str | None
) -> None:
    """Says where values come from, since COLMAP lets the ini file win silently."""
    if project_path is not None and preset is not None:
        log.info("%s goes before preset %s", project_path, preset)
    for key, value in command_line.items():
        if key in ini and ini[key] != value:
            log.info("%s=%s from the command line goes before %s in %s", key, value, ini[key], project_path)
