from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

alignment_dtype: np.dtype[Any]
surface_view_dtype: np.dtype[Any]

class Status(IntEnum):
    UNMATCHED = 0
    MOVED = 1
    ROOT = 2
    CONSTANT = 3
    OUT_OF_BOUND = 4
    OUT_OF_IMAGE = 5
    WEAK_TEXTURE = 6
    LOW_CORRELATION = 7
    WORSE_SCORE = 8
    DISTORTED = 9
    INVALID = 10
    UNDONE = 11
    @property
    def label(self) -> str: ...

class Outcome(IntEnum):
    CONVERGED = 0
    OUTSIDE = 1
    FLAT = 2
    DIVERGED = 3

class TargetOutcome(IntEnum):
    ALIGNED = 0
    AT_BOUND = 1
    UNUSABLE = 2

class PatchArrays:
    def __init__(
        self,
        buffer: NDArray[Any],
        offset: NDArray[np.int64],
        size: NDArray[np.int32],
        origin: NDArray[np.float64],
        *,
        gains: NDArray[np.float32] | None = None,
        comparison: str | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...

class Support:
    def __init__(self, radius: int, window: float) -> None: ...

class TemplateArrays:
    def __init__(
        self,
        *,
        patch: NDArray[np.int32],
        xy: NDArray[np.float64],
        spacing: NDArray[np.float64],
        job_ptr: NDArray[np.int64],
        job_patch: NDArray[np.int32],
        starts: NDArray[np.float64],
        perspective_deviation: NDArray[np.float64] | None = None,
    ) -> None: ...

class AlignmentLimits:
    def __init__(
        self, *, max_iterations: int, max_excursion: float, step_tolerance: float, translation: bool
    ) -> None: ...

class SurfaceArrays:
    def __init__(
        self,
        *,
        views: NDArray[Any],
        reference: NDArray[np.int32],
        ptr: NDArray[np.int64],
        view: NDArray[np.int32],
        patch: NDArray[np.int32],
        reference_patch: NDArray[np.int32],
        spacing: NDArray[np.float64],
    ) -> None: ...

class SurfaceLimits:
    def __init__(self, *, max_iterations: int, max_shift: float, step_tolerance: float) -> None: ...

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
def align(
    patches: PatchArrays,
    support: Support,
    templates: TemplateArrays,
    limits: AlignmentLimits,
    *,
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
def refine_surfaces(
    patches: PatchArrays,
    support: Support,
    surfaces: SurfaceArrays,
    planes: NDArray[np.float64],
    limits: SurfaceLimits,
    *,
    num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> NDArray[Any]: ...
def measure_shifts(
    patches: PatchArrays,
    support: Support,
    surfaces: SurfaceArrays,
    planes: NDArray[np.float64],
    limits: SurfaceLimits,
    *,
    num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> NDArray[Any]: ...
def dense_sift(
    image: NDArray[np.float32],
    *,
    bin_size: int,
    rootsift: bool,
    half: bool,
    num_threads: int,
) -> NDArray[Any]: ...

_Mode = Literal["bicubic", "bilinear"]
_Nodes = Sequence[tuple[float, float]]

def interpolate(
    patches: NDArray[Any],
    rows: NDArray[np.int64],
    uv: NDArray[np.float64],
    *,
    nodes: _Nodes,
    mode: _Mode,
    l2_normalize: bool,
    ncc_normalize: bool,
    double_precision: bool = False,
) -> NDArray[Any]: ...
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
    nodes: _Nodes,
    mode: _Mode,
    l2_normalize: bool,
    ncc_normalize: bool,
    loss: str,
    loss_scale: float,
    bound: float,
    max_iterations: int,
    function_tolerance: float,
    gradient_tolerance: float,
    parameter_tolerance: float,
    root_edges_only: bool,
    root_regularize_weight: float,
    max_deviation: float,
    guard: bool,
    max_kps_per_problem: int,
    num_threads: int,
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
    nodes: _Nodes,
    mode: _Mode,
    l2_normalize: bool,
    ncc_normalize: bool,
    loss_scale: float,
    max_iterations: int,
    keep_observations: bool,
    num_threads: int,
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
    nodes: _Nodes,
    mode: _Mode,
    l2_normalize: bool,
    ncc_normalize: bool,
    num_threads: int,
    poll: Callable[[int], object] | None = None,
) -> NDArray[np.float32]: ...

_Level = tuple[NDArray[Any], NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]

def evaluate_targets(
    xy: NDArray[np.float64],
    level: _Level,
    ptr: NDArray[np.int64],
    reference: NDArray[np.int64],
    references: NDArray[np.float32],
    warps: NDArray[np.float64] | None = None,
    *,
    nodes: _Nodes,
    mode: _Mode,
    l2_normalize: bool,
    ncc_normalize: bool,
    loss: str,
    loss_scale: float,
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
    nodes: _Nodes,
    mode: _Mode,
    l2_normalize: bool,
    ncc_normalize: bool,
    loss: str,
    loss_scale: float,
    bound: float,
    max_iterations: int,
    parameter_tolerance: float,
) -> dict[str, Any]: ...
