"""Which files with matches go together."""

from pathlib import Path

import pytest

from pixcli.adapters.match_input import MatchInput
from pixcli.errors import UserError

HLOC = ("features_path", "matches_path")


def test_text_becomes_paths() -> None:
    matches = MatchInput(features_path="f.h5", matches_path="m.h5")
    assert matches.paths == {"features_path": Path("f.h5"), "matches_path": Path("m.h5")}
    assert matches.is_hloc
    assert not MatchInput("a.db").is_hloc
    assert MatchInput().paths == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"database_path": "a.db", "pairs_path": "p.txt"},
            "either --database_path or --pairs_path, not both",
        ),
        ({"features_path": "f.h5"}, "go together: give --matches_path too"),
        ({"pairs_path": "p.txt"}, "go together: give --features_path and --matches_path too"),
    ],
)
def test_what_does_not_go_together(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MatchInput(**given)


def test_what_a_command_needs() -> None:
    MatchInput("a.db").require(*HLOC)
    MatchInput(features_path="f.h5", matches_path="m.h5").require(*HLOC)
    with pytest.raises(UserError, match="--database_path is missing"):
        MatchInput().require(*HLOC)
    with pytest.raises(UserError, match="give --queries_path and --pairs_path too"):
        MatchInput(features_path="f.h5", matches_path="m.h5").require("queries_path", *HLOC, "pairs_path")
