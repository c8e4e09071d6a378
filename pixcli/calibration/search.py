"""The search for a lens: which camera models are tried, and which one is taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixcli.calibration.held_out import advantage
from pixcli.calibration.lenses import Rung

Float64 = NDArray[np.float64]

Fit = Mapping[int, Float64]
"""(k,) parameters by camera."""

BETTER = 3.0
"""Standard errors: a richer model that is ahead by less is not taken."""

_HOPE = 1.0  # standard errors: where no model is ahead by more, there is no better one to be found
_LEAST = 200  # held-out observations; fewer judge nothing


@dataclass(frozen=True)
class Candidate:
    """A camera model that was tried."""

    model: str
    centred: bool
    """With its principal point held where it was."""
    held_out: float
    """Median residual of held-out observations, in pixels."""
    ahead: float
    """Of the one that was chosen, in standard errors; negative: behind it."""
    chosen: bool


class Search:
    """The search for the simplest camera model that no other beats, one model at a time.

    The first two of the ladder are tried first, then the richest: where none is clearly ahead, there is
    nothing to be found. Else the others follow, simple ones first, until no model leads the chosen one.
    """

    def __init__(self, ladder: Sequence[Rung]) -> None:
        self._ladder = ladder
        self._errors: dict[Rung, Float64] = {}
        self._fits: dict[Rung, Sequence[Fit]] = {}
        self._block = np.empty(0, np.int64)
        self._waiting = [*ladder[:2], *ladder[:1:-1][:1], *ladder[2:-1]]
        self.chosen = ladder[0]

    @property
    def next(self) -> Rung | None:
        """What to try; None: the search is over."""
        return self._waiting[0] if self._waiting else None

    def judge(self, errors: Float64 | None, block: NDArray[np.int64], fits: Sequence[Fit]) -> None:
        """Take what the model to try leaves, and decide what comes next.

        Args:
            errors: (n,) of held-out observations, in pixels; None: what came out is no lens.
            block: (n,) equal where observations are neighbours.
            fits: what each half of the points made of the cameras.
        """
        name = self._waiting.pop(0)
        self._fits[name] = fits
        if errors is None:
            return
        self._block = block
        self._errors[name] = errors
        if len(errors) < _LEAST:
            self._waiting = []
            return
        tried = self._tried()
        self.chosen = tried[0]
        for model in tried[1:]:
            if self.ahead(model, self.chosen) > BETTER:
                self.chosen = model
        if len(tried) > 2 and max(self.ahead(model, self.chosen) for model in tried) < _HOPE:
            simpler = self._ladder[: self._ladder.index(self.chosen)]
            self._waiting = [model for model in self._waiting if model in simpler]

    def ahead(self, model: Rung, other: Rung) -> float:
        """By how many standard errors one model leaves less than another; both were tried."""
        if model == other:
            return 0.0
        return advantage(self._errors[other], self._errors[model], self.scale, self._block)

    @property
    def scale(self) -> float:
        """Pixels: what errors are compared by."""
        return 2 * max(min(float(np.median(errors)) for errors in self._errors.values()), 0.01)

    @property
    def errors(self) -> Float64 | None:
        """(n,) those of the chosen model; None if it was not tried."""
        return self._errors.get(self.chosen)

    @property
    def differences(self) -> dict[int, Float64]:
        """(k,) by camera: how much the parameters of the chosen model differ between the halves."""
        first, *others = self._fits.get(self.chosen, [{}])
        return {k: params - other[k] for other in others for k, params in first.items()}

    def candidates(self) -> list[Candidate]:
        """What was tried, in the order of the ladder."""
        if self.chosen not in self._errors:
            return []
        return [
            Candidate(
                model=model.model,
                centred=model.centred,
                held_out=float(np.median(self._errors[model])),
                ahead=self.ahead(model, self.chosen),
                chosen=model == self.chosen,
            )
            for model in self._tried()
            if len(self._errors[model])
        ]

    def _tried(self) -> list[Rung]:
        return [model for model in self._ladder if model in self._errors]
