from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_Mode = Literal["bicubic", "bilinear"]
_Nodes = Sequence[tuple[float, float]]

def build_config() -> dict[str, str]: ...
def dense_sift(
    image: NDArray[np.float32],
    *,
    bin_size: int = 4,
    rootsift: bool = True,
    half: bool = True,
    num_threads: int = -1,
) -> NDArray[Any]: ...
def interpolate(
    patches: NDArray[Any],
    rows: NDArray[np.int64],
    uv: NDArray[np.float64],
    *,
    nodes: _Nodes = ...,
    mode: _Mode = "bicubic",
    l2_normalize: bool = True,
    ncc_normalize: bool = False,
    double_precision: bool = False,
) -> NDArray[Any]: ...
def benchmark_interpolation(
    patch: NDArray[Any],
    *,
    nodes: _Nodes = ...,
    mode: _Mode = "bicubic",
    l2_normalize: bool = False,
    repeats: int = 100000,
) -> dict[str, float]: ...
def evaluate_loss(
    squares: NDArray[np.float64], loss: str, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def adjust_featuremetric(
    xy: NDArray[np.float64],
    track_ptr: NDArray[np.int64],
    members: NDArray[np.int32],
    edges: NDArray[np.int32],
    weights: NDArray[np.float64] | None,
    constant: NDArray[np.bool_] | None,
    levels: list[tuple[NDArray[Any], NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]],
    *,
    nodes: _Nodes = ...,
    mode: _Mode = "bicubic",
    l2_normalize: bool = True,
    ncc_normalize: bool = False,
    loss: str = "cauchy",
    loss_scale: float = 0.25,
    bound: float = 4.0,
    max_iterations: int = 20,
    function_tolerance: float = 0.0,
    gradient_tolerance: float = 0.0,
    parameter_tolerance: float = 1e-4,
    root_edges_only: bool = False,
    root_regularize_weight: float = -1.0,
    max_deviation: float = 1e300,
    guard: bool = True,
    max_kps_per_problem: int = 50,
    num_threads: int = -1,
    poll: Callable[[int], object] | None = None,
) -> dict[str, Any]: ...
