from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

alignment_dtype: np.dtype[Any]
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
    num_threads: int,
    progress: Callable[[int], None] | None = None,
) -> NDArray[Any]: ...
def dense_sift(
    image: NDArray[np.float32],
    *,
    bin_size: int = 4,
    rootsift: bool = True,
    half: bool = True,
    num_threads: int = -1,
) -> NDArray[Any]: ...
