"""Solving with pyceres: losses, options, and what came out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pixcli.ceres import pyceres
from pixcli.errors import UserError
from pixcli.options.bundle_adjustment import BundleAdjustmentCeresOptions


class Loss(NamedTuple):
    """A robust loss: trivial, cauchy, huber or soft_l1, and where it begins to flatten."""

    name: str
    scale: float = 1.0


def ceres_loss(loss: Loss) -> Any:
    """The loss as Ceres has it."""
    if loss.name == "trivial":
        return pyceres.TrivialLoss()
    kinds = {"cauchy": pyceres.CauchyLoss, "huber": pyceres.HuberLoss, "soft_l1": pyceres.SoftLOneLoss}
    return kinds[loss.name](loss.scale)


@dataclass(frozen=True)
class BundleSummary:
    """What a solve did."""

    initial_cost: float
    """Half the sum of the losses, as Ceres counts."""
    final_cost: float
    iterations: int
    converged: bool
    """Else it ran out of iterations."""
    linear_solver: str
    num_residuals: int
    num_parameters: int
    """Those that vary, in their tangent spaces."""
    seconds: float
    jacobian_seconds: float
    residual_seconds: float
    linear_solver_seconds: float


def solve_problem(
    problem: Any,
    num_images: int,
    options: BundleAdjustmentCeresOptions,
    poll: Callable[[int, float], object] | None = None,
) -> BundleSummary:
    """Minimises a pyceres.Problem.

    Args:
        num_images: what the linear solver is chosen by.
        poll: called after each iteration with its number and cost; may raise to stop.
    """
    callback = _Poll(poll)
    solver_options = _solver_options(num_images, options)
    solver_options.callbacks = [callback]
    summary = pyceres.SolverSummary()
    pyceres.solve(solver_options, problem, summary)
    if callback.error is not None:
        raise callback.error
    if not summary.IsSolutionUsable():
        raise UserError(f"bundle adjustment failed: {summary.message}")
    return BundleSummary(
        initial_cost=summary.initial_cost,
        final_cost=summary.final_cost,
        iterations=summary.num_successful_steps + summary.num_unsuccessful_steps - 1,
        converged=summary.termination_type == pyceres.TerminationType.CONVERGENCE,
        linear_solver=summary.linear_solver_type_used.name.lower(),
        num_residuals=summary.num_residuals_reduced,
        num_parameters=summary.num_effective_parameters_reduced,
        seconds=summary.total_time_in_seconds,
        jacobian_seconds=summary.jacobian_evaluation_time_in_seconds,
        residual_seconds=summary.residual_evaluation_time_in_seconds,
        linear_solver_seconds=summary.linear_solver_time_in_seconds,
    )


def _solver_options(num_images: int, options: BundleAdjustmentCeresOptions) -> Any:
    """The linear solver by the number of images, with the limits of COLMAP."""
    result = pyceres.SolverOptions()
    if num_images <= options.max_num_images_direct_dense_cpu_solver:
        result.linear_solver_type = pyceres.LinearSolverType.DENSE_SCHUR
    elif num_images <= options.max_num_images_direct_sparse_cpu_solver:
        result.linear_solver_type = pyceres.LinearSolverType.SPARSE_SCHUR
    else:
        result.linear_solver_type = pyceres.LinearSolverType.ITERATIVE_SCHUR
        result.preconditioner_type = pyceres.PreconditionerType.SCHUR_JACOBI
    result.max_num_iterations = options.max_num_iterations
    result.max_linear_solver_iterations = options.max_linear_solver_iterations
    result.function_tolerance = options.function_tolerance
    result.gradient_tolerance = options.gradient_tolerance
    result.parameter_tolerance = options.parameter_tolerance
    result.use_inner_iterations = options.use_inner_iterations
    result.num_threads = options.num_threads
    result.logging_type = pyceres.LoggingType.SILENT
    result.minimizer_progress_to_stdout = False
    return result


class _Poll(pyceres.IterationCallback):  # type: ignore[misc]
    """Calls Python after each iteration; what that raises, Ctrl-C included, ends the solve and is kept."""

    def __init__(self, poll: Callable[[int, float], object] | None) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._poll = poll

    def __call__(self, summary: Any) -> Any:
        try:
            if self._poll is not None:
                self._poll(summary.iteration, summary.cost)
        except BaseException as error:
            self.error = error
            return pyceres.CallbackReturnType.SOLVER_ABORT
        return pyceres.CallbackReturnType.SOLVER_CONTINUE
