"""Commands made from functions: their command-line options come from the types of the parameters.

    @command
    def feature_refiner(
        database_path: Path,                          # --database_path, required; from PathOptions
        output_path: Path | None,                     # --output_path, may be left out
        adjustment: KeypointAdjustmentOptions,        # --KeypointAdjustment.bound and all others of the group
        options: ChainOptions,                        # a dataclass of groups: those of every one
        common: CommonOptions,                        # if the command wants to see --default_random_seed
        progress: Progress,
    ) -> None:
        \"\"\"Refine the keypoints of a database.\"\"\"

Every command also takes the common options, --project_path and --preset. The command line goes before the ini
file, the ini file before the preset, the preset before the defaults.
"""

import dataclasses
import inspect
import logging
from collections import ChainMap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import click
from click.formatting import wrap_text

from pixcli.cli.log import configure_logging
from pixcli.errors import UserError
from pixcli.options import CommonOptions, PathOptions
from pixcli.options.fields import Field, OptionGroup, Value, build, build_all, fields
from pixcli.options.ini import read_ini
from pixcli.options.presets import read_preset
from pixcli.progress import Progress

log = logging.getLogger(__name__)

Values = Mapping[str, Value]
"""The type of a parameter that gets everything that is set, by key."""


ALL_OPTIONS = object()
"""As the object of a context, has the help show advanced options too."""

_METAVARS = {bool: "{0, 1}", int: "INTEGER", float: "NUMBER", str: "TEXT"}


class _Option(click.Option):
    """An option of a field, under the heading of a section; None where the command line does not give it."""

    def __init__(self, field: Field, section: str, note: str = "") -> None:
        default = field.format(field.default)
        note = note or (f"default: {default}" if default else "")
        metavar = field.expected if field.choices else "PATH" if section == "Paths" else _METAVARS[field.kind]
        super().__init__(
            [*(f"--{name}" for name in (field.key, field.short) if name), field.key.replace(".", "__")],
            type=field.parse,
            metavar=metavar,
            help=f"{field.description} [{note}]" if note else field.description,
        )
        self.section = section
        self.field = field


class _Command(click.Command):
    """A command whose help shows the options under the headings of their sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        left_out = 0
        for param in self.get_params(ctx):
            if ctx.obj is not ALL_OPTIONS and isinstance(param, _Option) and param.field.advanced:
                left_out += 1
            elif (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(getattr(param, "section", "Common"), []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                for names, text in records:
                    _write_entry(formatter, names, text)
        if left_out:
            formatter.write_paragraph()
            formatter.write_text(f"{left_out} advanced options: pixcli help {self.name} --all")


def _write_entry(formatter: click.HelpFormatter, names: str, text: str) -> None:
    """An option and its text, which begins in the same line: click's two columns take twice as many."""
    indent = " " * formatter.current_indent
    formatter.write(wrap_text(f"{names}  {text}", formatter.width, indent, f"{indent}    ") + "\n")


def command(function: Callable[..., None]) -> click.Command:
    """Makes a click command of a function, as the head of this file shows."""
    parameters = _parameters(function)

    def callback(project_path: str | None, preset: str | None, **given: Value | None) -> None:
        command_line = {name.replace("__", "."): value for name, value in given.items() if value is not None}
        ini = read_ini(Path(project_path)) if project_path else {}
        from_preset = read_preset(preset) if preset else {}
        values = ChainMap(command_line, ini, from_preset)
        common = build(CommonOptions, values)
        configure_logging(common)
        _log_sources(command_line, ini, from_preset, project_path, preset)
        _warn_of_unused(parameters, command_line, ini, values)
        function(**{name: _argument(name, kind, values, common) for name, kind in parameters.items()})

    return _Command(
        function.__name__,
        params=_options(parameters),
        callback=callback,
        help=inspect.getdoc(function),
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )


def _warn_of_unused(parameters: Mapping[str, Any], command_line: Values, ini: Values, values: Values) -> None:
    """Names what the user set although the chosen strategies ignore it; project files hold all defaults."""
    groups = {group for kind in parameters.values() for group in _groups(kind)}
    known = [field for group in groups for field in fields(group)]
    all_values = {field.key: values.get(field.key, field.default) for field in known}
    for field in sorted(known, key=lambda field: field.key):
        given = field.key in command_line or ini.get(field.key, field.default) != field.default
        if given and (reason := field.unused(all_values)):
            log.warning("%s", reason)


def _options(parameters: Mapping[str, Any]) -> list[click.Parameter]:
    paths = {field.name: field for field in fields(PathOptions)}
    options: list[click.Parameter] = [
        _Option(paths[name], "Paths", note="required" if kind is Path else "")
        for name, kind in parameters.items()
        if name in paths
    ]
    groups = {group: None for kind in parameters.values() for group in _groups(kind)}
    groups.pop(CommonOptions, None)
    groups[CommonOptions] = None  # last
    for group in groups:
        section = "Common" if group is CommonOptions else group.group or "Options"
        options += [_Option(field, section) for field in fields(group)]
    preset_help = "Options that go together; 'pixcli help' lists them."
    return [
        *options,
        click.Option(["--project_path"], metavar="PATH", help="Ini file with options."),
        click.Option(["--preset"], metavar="NAME", help=preset_help),
    ]


def _parameters(function: Callable[..., None]) -> dict[str, Any]:
    annotations = get_type_hints(function)
    annotations.pop("return", None)
    path_names = {field.name for field in fields(PathOptions)}
    for name, kind in annotations.items():
        is_path = kind in (Path, Path | None) and name in path_names
        if not is_path and kind not in (Progress, Values) and not _groups(kind):
            raise TypeError(f"{function.__name__}: parameter {name} is no path of PathOptions and no group")
    return annotations


def _is_group(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, OptionGroup)


def _groups(kind: Any) -> list[type[OptionGroup]]:
    """The groups that a parameter of this type stands for: itself, or those of a dataclass of groups."""
    if isinstance(kind, type) and issubclass(kind, OptionGroup):
        return [kind]
    return list(get_type_hints(kind).values()) if dataclasses.is_dataclass(kind) else []


def _argument(name: str, kind: Any, values: Values, common: CommonOptions) -> object:
    if kind is CommonOptions:
        return common
    if kind == Values:
        return values
    if kind is Progress:
        from pixcli.cli.terminal import TerminalProgress  # rich, which takes its time to import

        return TerminalProgress()
    if _is_group(kind):
        return build(kind, values)
    if _groups(kind):
        return build_all(kind, values)
    if values.get(name, "") != "":
        return Path(str(values[name]))
    if kind is Path:
        raise UserError(f"--{name} is missing: give it on the command line or in the file of --project_path")
    return None


def _log_sources(
    command_line: Values, ini: Values, from_preset: Values, project_path: str | None, preset: str | None
) -> None:
    """Says where values come from; above all that the command line won, since in COLMAP the ini file does."""
    sources = {"command line": command_line, str(project_path): ini, f"preset {preset}": from_preset}
    for key in dict.fromkeys(key for values in sources.values() for key in values):
        (source, value), *others = [(name, values[key]) for name, values in sources.items() if key in values]
        others = [(name, other) for name, other in others if other != value]
        level = logging.INFO if others and key in ini else logging.DEBUG
        beaten = "".join(f", not {other} ({name})" for name, other in others)
        log.log(level, "%s is %s (%s)%s", key, value, source, beaten)
