"""The tables of docs/options.md."""

from pixcli.options import GROUPS, all_fields
from pixcli.options.fields import Field, OptionGroup, fields
from pixcli.options.presets import preset_names, read_preset


def docs_table(group: type[OptionGroup], advanced: bool) -> str:
    """A Markdown table of the advanced options of a group, or of the others; "" if there are none."""
    rows = [("option", "default", "takes", "meaning")]
    for field in fields(group):
        if field.advanced != advanced:
            continue
        default = field.format(field.default)
        names = f"`{field.key}`" + (f" or `{field.short}`" if field.short else "")
        rows.append((names, f"`{default}`" if default else "", _takes(field), field.description))
    if len(rows) == 1:
        return ""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- | --- | --- | --- |", *lines[1:]])


def options_page() -> str:
    """The whole page: every group and every preset."""
    parts = [
        "# Options",
        "Made by `scripts/make_option_docs.py` from `pixcli/options`; do not edit.",
        "Set an option by `--Group.name value`, in an ini file (`--project_path`) or by a preset "
        "(`--preset`); the first of these wins. `pixcli project_generator` writes an ini file with all "
        "options. A strategy's name before the meaning (*affine:*) says that only this strategy uses the "
        "option.",
    ]
    for chapter, heading, advanced in (("", "##", False), ("## Advanced options", "###", True)):
        parts += [chapter] * bool(chapter)
        for group in GROUPS:
            if table := docs_table(group, advanced):
                name = group.group or group.__name__.removesuffix("Options")
                parts += [f"{heading} {name}", group.__doc__ or "", table]
    parts += ["## Presets"]
    for name in preset_names():
        items = read_preset(name).items()
        values = ", ".join(f"`{key}={all_fields()[key].format(value)}`" for key, value in items)
        parts += [f"**{name}**: {values}."]
    return "\n\n".join(parts) + "\n"


def _takes(field: Field) -> str:
    return f"`{field.expected}`" if field.choices else field.expected
