"""Presets: ini files that come with pixcli, each a few options that differ from the defaults."""

from importlib import resources
from typing import get_type_hints

from pixcli.errors import UserError, did_you_mean
from pixcli.options.fields import Bundle, Value, build_all, fields


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


def preset(name: str, kind: type[Bundle], **changes: Value) -> Bundle:
    """The options of a preset, for a Python call.

    options = preset("low_memory", FeaturemetricBundleAdjusterOptions, strategy="surface")
    refine_reconstruction(model, "images", options)

    Args:
        kind: the dataclass of groups that the call takes, such as FeatureRefinerOptions.
        changes: other values, by the name of an option that only one of these groups has.

    Raises:
        UserError: there is no such preset or option, or more than one.
    """
    values = dict(read_preset(name))
    keys: dict[str, list[str]] = {}
    for group in get_type_hints(kind).values():
        for field in fields(group):
            keys.setdefault(field.name, []).append(field.key)
    for option, value in changes.items():
        if len(found := keys.get(option, [])) != 1:
            many = f"is one of {', '.join(found)}: make that group yourself" if found else "is no option here"
            raise UserError(f"{option} {many}. {'' if found else did_you_mean(option, keys)}".strip())
        values[found[0]] = value
    return build_all(kind, values)
