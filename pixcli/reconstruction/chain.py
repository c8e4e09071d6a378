"""A run on its way: what it is made from, and the steps that it has done."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pixcli.adapters.isolation import isolated
from pixcli.adapters.match_input import MatchInput
from pixcli.errors import UserError
from pixcli.options import ChainOptions, DenseFeaturesOptions
from pixcli.options.fields import OptionGroup, result_options
from pixcli.progress import Progress, Update
from pixcli.reconstruction.steps import Steps, digest


@dataclass(frozen=True)
class ChainInput:
    """What a model is made from; paths as the user gave them."""

    image_path: Path
    matches: MatchInput = field(default_factory=MatchInput)
    """Where features and matches come from; empty: from the images."""
    reference_path: Path | None = None

    def check(self) -> None:
        """Raises UserError unless there is a folder of images."""
        if not self.image_path.is_dir():
            raise UserError(f"there is no folder {self.image_path}: check --image_path")

    @property
    def paths(self) -> dict[str, Path]:
        """What is given, by the names of the options."""
        reference = {} if self.reference_path is None else {"reference_path": self.reference_path}
        return {"image_path": self.image_path, **self.matches.paths, **reference}


@dataclass
class Chain:
    """A run on its way."""

    input: ChainInput
    folder: Path
    options: ChainOptions
    seed: int
    progress: Progress
    steps: Steps
    figures: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the steps so far."""
    done: list[str] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    """The last step, and a hash of what it was made from."""

    def step(
        self,
        name: str,
        groups: Iterable[OptionGroup],
        outputs: Sequence[Path],
        work: Callable[[bool], Mapping[str, Any]],
        **inputs: Any,
    ) -> None:
        inputs = {**inputs, "options": result_options(*groups), "after": self.before}
        figures, new = self.steps.run(name, inputs, outputs, work)
        self.figures[name] = figures
        self.done += [name] if new else []
        self.before = {name: digest(inputs)}

    def colmap(
        self,
        what: str,
        function: Callable[..., dict[str, Any]],
        *arguments: Any,
        update: Update | None = None,
    ) -> dict[str, Any]:
        """Figures of a call of COLMAP, and its peak memory."""
        figures, memory = isolated(what, self.folder, function, *arguments, update=update)
        return {**figures, "peak_memory_mb": memory}

    def features(self, step: str) -> DenseFeaturesOptions:
        """The options of features for a step: each has a cache of its own, if there are to be any."""
        features = self.options.dense_features
        if not (features.use_cache and features.cache_path):
            return features
        path = Path(features.cache_path)
        of_step = path.with_name(f"{path.stem}_{step}{path.suffix}")
        return replace(features, cache_path=str(of_step), overwrite_cache=True)

    def phases(self) -> Progress:
        """For the phases of one step: those of others may be called the same."""
        return type(self.progress)()
