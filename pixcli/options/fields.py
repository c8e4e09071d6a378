"""Options: declared once as fields of a dataclass, checked here, whoever sets them.

A group of options is a frozen dataclass that derives from OptionGroup:

    @dataclass(frozen=True)
    class KeypointAdjustmentOptions(OptionGroup):
        group = "KeypointAdjustment"
        strategy: Literal["affine", "featuremetric"] = option("affine", "How keypoints are aligned.")
        bound: float = option(4.0, "How far a keypoint may move, in pixels.", minimum=0)

Command-line options, ini files, presets and the tables of the documentation are all made from it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pixcli.errors import UserError

Value = bool | int | float | str
UsedWith = Mapping[str, tuple[str, ...]]

_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}
_KINDS = {bool: "0 or 1", int: "an integer", float: "a number", str: "a text"}


def option(
    default: Value,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    parse: Callable[[str], object] | None = None,
    short: str = "",
    affects_result: bool = True,
    advanced: bool = False,
    used_with: UsedWith | None = None,
) -> Any:
    """A dataclass field that is an option. Choices are declared by annotating the field with a Literal.

    Args:
        minimum, maximum: the range of a number, both ends included.
        parse: reads a text that holds a list; raises ValueError on a bad one, which fails the check.
        short: a second name on the command line, without the group.
        affects_result: False where the value only says how fast a result is made or where it is kept: caches,
            journals and steps made with another value stay valid.
        advanced: shown by `pixcli help --all` and in a chapter of its own only.
        used_with: the values of other options without which this one has no effect, {key: values}: one of the
            keys must have one of its values. None: those of the group.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "parse": parse,
        "short": short,
        "affects_result": affects_result,
        "advanced": advanced,
        "used_with": used_with,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Field:
    """One option: its full name, what it holds and which values it takes."""

    key: str
    """The name on the command line: Group.name, or the bare name where the group has none."""
    name: str
    kind: type[bool] | type[int] | type[float] | type[str]
    default: Value
    help: str
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    parse_list: Callable[[str], object] | None
    short: str
    affects_result: bool
    advanced: bool
    used_with: UsedWith

    @property
    def expected(self) -> str:
        """What the option takes, for help and errors: "{affine, featuremetric}" or "a number, at least 0"."""
        if self.choices:
            return "{" + ", ".join(self.choices) + "}"
        if self.minimum is not None and self.maximum is not None:
            return f"{_KINDS[self.kind]} from {self.minimum:.12g} to {self.maximum:.12g}"
        if self.minimum is not None:
            return f"{_KINDS[self.kind]}, at least {self.minimum:.12g}"
        if self.maximum is not None:
            return f"{_KINDS[self.kind]}, at most {self.maximum:.12g}"
        return _KINDS[self.kind]

    @property
    def description(self) -> str:
        """The help text, after the strategies of the same group that use the option."""
        own = self.used_with.get(f"{self.key.rpartition('.')[0]}.strategy", ())
        return f"{', '.join(own)}: {self.help}" if own else self.help

    def unused(self, values: Mapping[str, Value]) -> str:
        """Why the option has no effect beside these values of others; "" if it has one."""
        known = {key: wanted for key, wanted in self.used_with.items() if key in values}
        if not known or any(values[key] in wanted for key, wanted in known.items()):
            return ""
        wants = " or ".join(f"--{key} {' or '.join(wanted)}" for key, wanted in known.items())
        return f"--{self.key} has no effect here: it is used with {wants}"

    def parse(self, text: str) -> Value:
        """The value that a text of the command line or an ini file stands for, checked."""
        text = text.strip()
        try:
            value = _BOOLEANS[text.lower()] if self.kind is bool else self.kind(text)
        except (KeyError, ValueError):
            raise self._error(text) from None
        self.check(value)
        return value

    def format(self, value: Value) -> str:
        """The text that parse() turns into this value."""
        return str(int(value)) if isinstance(value, bool) else str(value)

    def check(self, value: object) -> None:
        """Raises UserError unless the value is of the right type, one of the choices and within the range."""
        # An integer serves as a float, but a bool, which Python counts among the integers, is no number.
        right_type = isinstance(value, (float, int)) if self.kind is float else isinstance(value, self.kind)
        if not right_type or (isinstance(value, bool) and self.kind is not bool):
            raise self._error(value)
        if self.choices and value not in self.choices:
            raise self._error(value)
        if isinstance(value, (int, float)) and not (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
        ):
            raise self._error(value)
        if self.parse_list is not None and isinstance(value, str):
            try:
                self.parse_list(value)
            except ValueError as error:
                raise UserError(f"{self.key} is '{value}': {error}") from None

    def _error(self, value: object) -> UserError:
        return UserError(f"{self.key} is '{value}', but takes {self.expected}")


@dataclass(frozen=True)
class OptionGroup:
    """Base of all groups; an instance holds checked values, whoever made it."""

    group: ClassVar[str]
    """Name of the group, "" for options without a prefix."""
    used_with: ClassVar[UsedWith] = {}
    """What its options are used with, see option()."""

    def __post_init__(self) -> None:
        for field in fields(type(self)):
            field.check(getattr(self, field.name))


Group = TypeVar("Group", bound=OptionGroup)
Bundle = TypeVar("Bundle")


def fields(group: type[OptionGroup]) -> tuple[Field, ...]:
    """The options of a group, in the order of their declaration."""
    annotations = get_type_hints(group)
    result = []
    for declared in dataclasses.fields(group):
        annotation = annotations[declared.name]
        choices = get_args(annotation) if get_origin(annotation) is Literal else ()
        result.append(
            Field(
                key=f"{group.group}.{declared.name}" if group.group else declared.name,
                name=declared.name,
                kind=str if choices else annotation,
                default=cast(Value, declared.default),
                help=declared.metadata["help"],
                choices=choices,
                minimum=declared.metadata["minimum"],
                maximum=declared.metadata["maximum"],
                parse_list=declared.metadata["parse"],
                short=declared.metadata["short"],
                affects_result=declared.metadata["affects_result"],
                advanced=declared.metadata["advanced"],
                used_with=group.used_with if (own := declared.metadata["used_with"]) is None else own,
            )
        )
    return tuple(result)


def result_options(*groups: OptionGroup) -> dict[str, Value]:
    """The values, by key, that decide a result: what caches, journals and steps remember."""
    return {
        field.key: getattr(group, field.name)
        for group in groups
        for field in fields(type(group))
        if field.affects_result
    }


def build(group: type[Group], values: Mapping[str, Value]) -> Group:
    """A group from values by key ("KeypointAdjustment.bound"); what is not there gets its default."""
    return group(**{field.name: values[field.key] for field in fields(group) if field.key in values})


def build_all(bundle: type[Bundle], values: Mapping[str, Value]) -> Bundle:
    """A dataclass of groups, such as ChainOptions, from values by key."""
    return bundle(**{name: build(group, values) for name, group in get_type_hints(bundle).items()})


def part_of(bundle: object, kind: type[Bundle]) -> Bundle:
    """A smaller dataclass of groups from a larger one that has them under the same names."""
    return kind(**{name: getattr(bundle, name) for name in get_type_hints(kind)})


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers separated by commas, such as "1.0,0.5"."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("expected numbers separated by commas, such as 1.0,0.5") from None
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("expected finite numbers")
    return numbers
