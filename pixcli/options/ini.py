"""Ini files as COLMAP has them: keys without a group first, then a [Group] section each."""

from collections.abc import Mapping
from pathlib import Path

from pixcli.errors import UserError, did_you_mean
from pixcli.options import GROUPS, all_fields
from pixcli.options.fields import Field, Value, fields


def read_ini(path: Path) -> dict[str, Value]:
    """Reads an ini file into values by key ("KeypointAdjustment.bound"); an empty path is not there."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read the options: {error.strerror}") from None
    return parse_ini(text, str(path))


def parse_ini(text: str, source: str) -> dict[str, Value]:
    """Like read_ini, of a text; `source` names it in errors."""
    values: dict[str, Value] = {}
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            line = line.strip()
            if not line or line[0] in "#;":
                continue
            if line[0] == "[":
                section = _section(line)
                continue
            field, value = _assignment(line, section)
            if field.key in lines:
                raise UserError(f"{field.key} is set already in line {lines[field.key]}")
        except UserError as error:
            raise UserError(f"{source}, line {number}: {error}") from None
        lines[field.key] = number
        if value != "" or field.default != "":
            values[field.key] = value
    return values


def write_ini(path: Path, values: Mapping[str, Value]) -> None:
    """Writes every option of every group, commented; the default where no value is given."""
    lines = ["# Options of pixcli: pixcli <command> --project_path <this file>", ""]
    for group in GROUPS:
        if group.group:
            lines += [f"[{group.group}]"]
        for field in fields(group):
            lines += [f"# {field.help}" + (f" {field.expected}" if field.choices else "")]
            lines += [f"{field.name}={field.format(values.get(field.key, field.default))}"]
        lines += [""]
    try:
        path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot write the options: {error.strerror}") from None


def _section(line: str) -> str:
    name = line[1:-1].strip()
    known = [group.group for group in GROUPS if group.group]
    if not line.endswith("]"):
        raise UserError(f"expected a section such as [{known[0]}], found '{line}'")
    if name not in known:
        raise UserError(f"unknown section [{name}]. {did_you_mean(name, known)}")
    return name


def _assignment(line: str, section: str) -> tuple[Field, Value]:
    name, equals, text = line.partition("=")
    if not equals:
        raise UserError(f"expected 'name=value', found '{line}'")
    name = name.strip()
    key = f"{section}.{name}" if section else name
    if key not in all_fields():
        raise UserError(f"unknown option {key}. {did_you_mean(key, all_fields())}")
    field = all_fields()[key]
    return field, field.parse(text)
