from typing import Any

import numpy as np
from numpy.typing import NDArray

def build_config() -> dict[str, str]: ...
def dense_sift(
    image: NDArray[np.float32],
    *,
    bin_size: int = 4,
    rootsift: bool = True,
    half: bool = True,
    num_threads: int = -1,
) -> NDArray[Any]: ...
