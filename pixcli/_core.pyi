from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

alignment_dtype: np.dtype[Any]
surface_view_dtype: np.dtype[Any]
OUTCOME_OUTSIDE: int
OUTCOME_FLAT: int
OUTCOME_DIVERGED: int

def build_config() -> dict[str, str]: ...
def build_tracks(
    edges: NDArray[np.int32], image: NDArray[np.int32], scores: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]: ...
def resample(
    image: NDArray[np.float32],
    first_row: NDArray[np.int32],
    row_weights: NDArray[np.float32],
    first_col: NDArray[np.int32],
    col_weights: NDArray[np.float32],
) -> NDArray[np.float32]: ...
def cut_patches(
    map: NDArray[np.float32], boxes: NDArray[np.int32], offset: NDArray[np.int64], buffer: NDArray[np.uint8]
) -> None: ...
def align_patches(
    buffer: NDArray[np.uint8],
    offset: NDArray[np.int64],
    size: NDArray[np.int32],
    origin: NDArray[np.float64],
    radius: int,
    window: float,
    template_patch: NDArray[np.integer[Any]],
    template_xy: NDArray[np.float64],
    template_spacing: NDArray[np.float64],
    perspective_deviation: NDArray[np.float64],
    job_ptr: NDArray[np.int64],
    job_patch: NDArray[np.int32],
    starts: NDArray[np.float64],
    max_iterations: int,
    max_excursion: float,
    step_tolerance: float,
    translation: bool,
    num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> NDArray[Any]: ...
def convolve(
    input: NDArray[np.float32],
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
    stride: int,
    padding: int,
    rectify: bool,
    num_threads: int,
) -> NDArray[np.float32]: ...
def align_features(
    buffer: NDArray[Any],
    gains: NDArray[np.float32] | None,
    comparison: str,
    offset: NDArray[np.int64],
    size: NDArray[np.int32],
    origin: NDArray[np.float64],
    radius: int,
    window: float,
    template_patch: NDArray[np.integer[Any]],
    template_xy: NDArray[np.float64],
    template_spacing: NDArray[np.float64],
    job_ptr: NDArray[np.int64],
    job_patch: NDArray[np.int32],
    starts: NDArray[np.float64],
    max_iterations: int,
    max_excursion: float,
    step_tolerance: float,
    translation: bool,
    num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> NDArray[Any]: ...
def refine_surfaces(
    buffer: NDArray[Any],
    offset: NDArray[np.int64],
    size: NDArray[np.int32],
    origin: NDArray[np.float64],
    radius: int,
    window: float,
    views: NDArray[Any],
    reference: NDArray[np.int32],
    ptr: NDArray[np.int64],
    view: NDArray[np.int32],
    patch: NDArray[np.int32],
    reference_patch: NDArray[np.int32],
    spacing: NDArray[np.float64],
    planes: NDArray[np.float64],
    max_iterations: int,
    max_shift: float,
    step_tolerance: float,
    num_threads: int,
    progress: Callable[[int], None] | None = None,
    gains: NDArray[np.float32] | None = None,
    comparison: str | None = None,
) -> NDArray[Any]: ...
def measure_shifts(
    buffer: NDArray[Any],
    offset: NDArray[np.int64],
    size: NDArray[np.int32],
    origin: NDArray[np.float64],
    radius: int,
    window: float,
    views: NDArray[Any],
    reference: NDArray[np.int32],
    ptr: NDArray[np.int64],
    view: NDArray[np.int32],
    patch: NDArray[np.int32],
    reference_patch: NDArray[np.int32],
    spacing: NDArray[np.float64],
    planes: NDArray[np.float64],
    max_iterations: int,
    max_shift: float,
    step_tolerance: float,
    num_threads: int,
    progress: Callable[[int], None] | None = None,
    gains: NDArray[np.float32] | None = None,
    comparison: str | None = None,
) -> NDArray[Any]: ...
def dense_sift(
    image: NDArray[np.float32],
    *,
    bin_size: int = 4,
    rootsift: bool = True,
    half: bool = True,
    num_threads: int = -1,
) -> NDArray[Any]: ...

_Mode = Literal["bicubic", "bilinear"]
_Nodes = Sequence[tuple[float, float]]

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
def compute_references(
    xy: NDArray[np.float64],
    point_ptr: NDArray[np.int64],
    patches: NDArray[Any],
    corners: NDArray[np.int32],
    scales: NDArray[np.float64],
    rows: NDArray[np.int64],
    *,
    nodes: _Nodes = ...,
    mode: _Mode = "bicubic",
    l2_normalize: bool = True,
    ncc_normalize: bool = False,
    loss_scale: float = 0.25,
    max_iterations: int = 100,
    keep_observations: bool = False,
    num_threads: int = -1,
    poll: Callable[[int], object] | None = None,
) -> dict[str, Any]: ...
def compute_cost_maps(
    patches: NDArray[Any],
    corners: NDArray[np.int32],
    scales: NDArray[np.float64],
    rows: NDArray[np.int64],
    references: NDArray[np.float32],
    reference: NDArray[np.int64],
    *,
    nodes: _Nodes = ...,
    mode: _Mode = "bicubic",
    l2_normalize: bool = True,
    ncc_normalize: bool = False,
    num_threads: int = -1,
    poll: Callable[[int], object] | None = None,
) -> NDArray[np.float32]: ...

TARGET_ALIGNED: int
TARGET_AT_BOUND: int
TARGET_UNUSABLE: int

_Level = tuple[NDArray[Any], NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]

def evaluate_targets(
    xy: NDArray[np.float64],
    level: _Level,
    ptr: NDArray[np.int64],
    reference: NDArray[np.int64],
    references: NDArray[np.float32],
    warps: NDArray[np.float64] | None = None,
    *,
    nodes: _Nodes = ...,
    mode: _Mode = "bicubic",
    l2_normalize: bool = True,
    ncc_normalize: bool = False,
    loss: str = "trivial",
    loss_scale: float = 1.0,
) -> NDArray[np.float64]: ...
def align_to_targets(
    detected: NDArray[np.float64],
    xy: NDArray[np.float64],
    level: _Level,
    ptr: NDArray[np.int64],
    reference: NDArray[np.int64],
    references: NDArray[np.float32],
    warps: NDArray[np.float64] | None = None,
    *,
    nodes: _Nodes = ...,
    mode: _Mode = "bicubic",
    l2_normalize: bool = True,
    ncc_normalize: bool = False,
    loss: str = "trivial",
    loss_scale: float = 1.0,
    bound: float = 4.0,
    max_iterations: int = 100,
    parameter_tolerance: float = 1e-5,
) -> dict[str, Any]: ...
