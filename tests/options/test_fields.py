from dataclasses import dataclass
from typing import Literal

import pytest

from pixcli.errors import UserError
from pixcli.options import (
    GROUPS,
    BundleAdjustmentCeresOptions,
    DenseFeaturesOptions,
    InterpolationOptions,
    KeypointAdjustmentOptions,
    all_fields,
)
from pixcli.options.fields import OptionGroup, build, fields, option, result_options


def _parse_even(text: str) -> int:
    if int(text) % 2:
        raise ValueError("expected an even number")
    return int(text)


@dataclass(frozen=True)
class TinyOptions(OptionGroup):
    group = "Tiny"

    mode: Literal["fast", "exact"] = option("fast", "How.")
    size: int = option(3, "How large.", minimum=1, maximum=9)
    scale: float = option(0.5, "How wide.", minimum=0)
    on: bool = option(True, "Whether.")
    name: str = option("", "Which.")
    even: str = option("2", "A list.", parse=_parse_even)


BY_NAME = {field.name: field for field in fields(TinyOptions)}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("mode", "exact", "exact"),
        ("size", " 9 ", 9),
        ("scale", "1e-3", 1e-3),
        ("scale", "2", 2.0),
        ("on", "0", False),
        ("on", "TRUE", True),
        ("name", "any text = ok", "any text = ok"),
        ("even", "4", "4"),
    ],
)
def test_parse_gives_the_value_and_format_the_text_back(name, text, value):
    field = BY_NAME[name]
    parsed = field.parse(text)
    assert parsed == value
    assert type(parsed) is type(field.default)
    assert field.parse(field.format(parsed)) == parsed


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("mode", "quick", "Tiny.mode is 'quick', but takes {fast, exact}"),
        ("mode", "", "{fast, exact}"),
        ("size", "10", "Tiny.size is '10', but takes an integer from 1 to 9"),
        ("size", "0", "an integer from 1 to 9"),
        ("size", "2.5", "an integer from 1 to 9"),
        ("scale", "-1", "a number, at least 0"),
        ("scale", "nan", "a number, at least 0"),
        ("scale", "inf", "a number, at least 0"),
        ("on", "2", "0 or 1"),
        ("even", "3", "Tiny.even is '3': expected an even number"),
    ],
)
def test_parse_refuses_with_what_is_expected(name, text, expected):
    with pytest.raises(UserError) as error:
        BY_NAME[name].parse(text)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "quick"},
        {"size": 10},
        {"size": 2.0},
        {"size": True},
        {"on": 1},
        {"scale": "1"},
        {"even": "3"},
    ],
)
def test_a_group_cannot_hold_a_bad_value(values):
    with pytest.raises(UserError, match="Tiny"):
        TinyOptions(**values)


def test_an_integer_serves_as_a_float():
    assert TinyOptions(scale=2).scale == 2


def test_build_takes_what_belongs_to_the_group_and_defaults_for_the_rest():
    options = build(TinyOptions, {"Tiny.size": 5, "KeypointAdjustment.bound": 2.0})
    assert options == TinyOptions(size=5)


@pytest.mark.parametrize("group", GROUPS)
def test_defaults_of_every_group_pass_their_own_check_and_survive_as_text(group):
    group()
    for field in fields(group):
        assert field.help.endswith("."), field.key
        assert field.parse(field.format(field.default)) == field.default, field.key


def test_keys_are_unique_and_carry_their_group():
    assert len(all_fields()) == sum(len(fields(group)) for group in GROUPS)
    assert all_fields()["KeypointAdjustment.bound"].name == "bound"
    assert all_fields()["database_path"].name == "database_path"


def test_lists_in_texts():
    assert KeypointAdjustmentOptions(supports="8:1,11:2").support_list == ((8, 1.0), (11, 2.0))
    assert InterpolationOptions(nodes="0,0 1,-0.5").offsets == ((0.0, 0.0), (1.0, -0.5))
    assert DenseFeaturesOptions(pyramid_scales="1,.5").scales == (1.0, 0.5)


@pytest.mark.parametrize(
    ("group", "values"),
    [
        (KeypointAdjustmentOptions, {"supports": "11"}),
        (KeypointAdjustmentOptions, {"supports": "0:1"}),
        (KeypointAdjustmentOptions, {"supports": ""}),
        (InterpolationOptions, {"nodes": "0"}),
        (InterpolationOptions, {"nodes": ""}),
        (InterpolationOptions, {"nodes": "0,nan"}),
        (DenseFeaturesOptions, {"pyramid_scales": "2"}),
        (DenseFeaturesOptions, {"pyramid_scales": "one"}),
    ],
)
def test_bad_lists_are_refused(group, values):
    with pytest.raises(UserError, match=next(iter(values))):
        group(**values)


def test_only_options_that_affect_the_result_are_remembered() -> None:
    few, many = DenseFeaturesOptions(num_threads=1), DenseFeaturesOptions(num_threads=8, cache_path="c.h5")
    assert result_options(few) == result_options(many)
    assert result_options(few) != result_options(DenseFeaturesOptions(max_edge=800))
    # Ceres adds up as its threads end: the last digits of two runs differ.
    ceres = BundleAdjustmentCeresOptions(num_threads=4)
    assert result_options(ceres) != result_options(BundleAdjustmentCeresOptions())
