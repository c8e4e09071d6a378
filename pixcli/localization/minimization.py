"""The minimizer of localization: Levenberg-Marquardt on the pose of a rig and the intrinsics of its cameras.

A problem says what its residuals are, what they cost, how normal equations accumulate from them, and whether
a step is worth taking; damping and acceptance are here.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pixcli.localization.rig_state import RigState

Float64 = npt.NDArray[np.float64]

Verdict = Literal["take", "take as last", "stop"]

_MIN_FACTOR, _MAX_FACTOR = 1e-9, 1e6  # of the damping


@dataclass(frozen=True)
class Equations:
    """Normal equations: hessian @ step = -gradient."""

    jacobian: Float64
    """(n, 2, k) of the residuals or projections that they accumulate from."""
    hessian: Float64
    """(k, k)"""
    gradient: Float64
    """(k,)"""


class Problem(Protocol):
    """What is minimized, as a function of k parameters around a state: see RigState.moved."""

    def residuals(self, state: RigState) -> Float64:
        """Of n measurements: whatever their costs and equations are made of."""

    def cost(self, residuals: Float64) -> float:
        """Not finite where a state is none to be in."""

    def equations(self, state: RigState, residuals: Float64) -> Equations:
        """Around a state; asked for again only after a step was accepted."""

    def moved(self, state: RigState, step: Float64) -> RigState:
        """The state after a step (k,)."""

    def verdict(self, equations: Equations, step: Float64, cost: float) -> Verdict:
        """Whether a step from a state of this cost is worth taking, and another one after it."""


@dataclass(frozen=True)
class Minimum:
    """Where the minimizer stopped."""

    state: RigState
    residuals: Float64
    cost: float
    equations: Equations
    """Around it."""
    start_cost: float


@dataclass(frozen=True)
class Damping:
    """Of the Hessian's diagonal, relative to it; a tenth after an accepted step, tenfold after another."""

    start: float
    least_after_rejection: float = 0.0
    """A start near zero would take too many rejections to have an effect."""


def minimize(problem: Problem, state: RigState, max_iterations: int, damping: Damping) -> Minimum | None:
    """Move a state to the least cost near it.

    None where the start has no finite cost, or where the equations are singular.

    Args:
        max_iterations: trial steps, accepted or not; 0 only evaluates the state.
    """
    residuals = problem.residuals(state)
    start_cost = cost = problem.cost(residuals)
    if not np.isfinite(cost):
        return None
    equations = problem.equations(state, residuals)
    factor = damping.start
    for _ in range(max_iterations):
        hessian = equations.hessian
        try:
            damped = hessian + factor * np.diag(np.diag(hessian))
            step = np.asarray(-np.linalg.solve(damped, equations.gradient), np.float64)
        except np.linalg.LinAlgError:
            return None
        verdict = problem.verdict(equations, step, cost)
        if verdict == "stop":
            break
        candidate = problem.moved(state, step)
        candidate_residuals = problem.residuals(candidate)
        candidate_cost = problem.cost(candidate_residuals)
        if candidate_cost < cost:
            state, residuals, cost = candidate, candidate_residuals, candidate_cost
            equations = problem.equations(state, residuals)
            factor = max(factor / 10, _MIN_FACTOR)
        else:
            factor = max(10 * factor, damping.least_after_rejection)
        if verdict == "take as last" or factor > _MAX_FACTOR:
            break
    return Minimum(state, residuals, cost, equations, start_cost)
