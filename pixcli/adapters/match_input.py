"""Where keypoints and matches come from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from pixcli.errors import UserError


@dataclass(frozen=True)
class MatchInput:
    """Files with keypoints and matches: a COLMAP database, or else hloc's features and matches.

    Paths may be given as text. UserError if both are given, or hloc's are incomplete.
    """

    database_path: Path | None = None
    features_path: Path | None = None
    matches_path: Path | None = None
    pairs_path: Path | None = None
    """Selects from the matches; None: all of them count, where that is possible."""
    queries_path: Path | None = None
    """The images to localize, with their cameras."""

    def __post_init__(self) -> None:
        for field in fields(self):
            path = getattr(self, field.name)
            object.__setattr__(self, field.name, Path(path) if path else None)
        hloc = [name for name in self.paths if name != "database_path"]
        if self.database_path is not None and hloc:
            raise UserError(f"give either --database_path or --{hloc[0]}, not both: matches come from one")
        if hloc:
            self.require("features_path", "matches_path")

    @property
    def paths(self) -> Mapping[str, Path]:
        """What is given, by the names of the options."""
        return {field.name: path for field in fields(self) if (path := getattr(self, field.name)) is not None}

    @property
    def is_hloc(self) -> bool:
        """Whether hloc's files are given."""
        return self.features_path is not None

    def require(self, *hloc: str) -> None:
        """Raises UserError unless a database is given, or all of these files of hloc's."""
        if self.database_path is not None:
            return
        options = [f"--{name}" for name in hloc]
        together = f"{', '.join(options[:-1])} and {options[-1]}"
        if not self.paths:
            raise UserError(
                "--database_path is missing: give it on the command line or in the file of --project_path, "
                f"or else hloc's {together}"
            )
        if missing := [f"--{name}" for name in hloc if name not in self.paths]:
            raise UserError(f"hloc's {together} go together: give {' and '.join(missing)} too")
