"""Presets: ini files that come with pixcli, each a few options that differ from the defaults."""

from importlib import resources

from pixcli.errors import UserError, did_you_mean
from pixcli.options.fields import Value


def preset_names() -> list[str]:
    """Names of all presets, sorted."""
    files = (resources.files("pixcli") / "presets").iterdir()
    return sorted(file.name.removesuffix(".ini") for file in files if file.name.endswith(".ini"))


def read_preset(name: str) -> dict[str, Value]:
    """What a preset changes, by key ("KeypointAdjustment.bound")."""
    names = preset_names()
    if name not in names:
        raise UserError(f"unknown preset '{name}'. {did_you_mean(name, names)} Presets: {', '.join(names)}.")
    from pixcli.options.ini import parse_ini  # all options, which take their time to import

    text = (resources.files("pixcli") / "presets" / f"{name}.ini").read_text(encoding="utf-8")
    return parse_ini(text, f"preset {name}")
