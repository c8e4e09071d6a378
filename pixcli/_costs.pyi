from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyceres
from numpy.typing import NDArray

_Pair = Sequence[float]

class FeaturemetricEdgeCost(pyceres.CostFunction):  # type: ignore[misc]
    def __init__(
        self,
        patch_i: NDArray[Any],
        patch_j: NDArray[Any],
        corner_i: _Pair,
        corner_j: _Pair,
        scale_i: _Pair = (1, 1),
        scale_j: _Pair = (1, 1),
        *,
        nodes: Sequence[_Pair] = ((0, 0),),
        mode: Literal["bicubic", "bilinear"] = "bicubic",
        l2_normalize: bool = True,
        ncc_normalize: bool = False,
        portable: bool = False,
    ) -> None: ...

class FeaturemetricReferenceCost(pyceres.CostFunction):  # type: ignore[misc]
    def __init__(
        self,
        patch: NDArray[Any],
        reference: NDArray[np.float64],
        corner: _Pair,
        scale: _Pair = (1, 1),
        *,
        nodes: Sequence[_Pair] = ((0, 0),),
        mode: Literal["bicubic", "bilinear"] = "bicubic",
        l2_normalize: bool = True,
        ncc_normalize: bool = False,
        portable: bool = False,
    ) -> None: ...
