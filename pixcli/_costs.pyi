from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import pyceres

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

class ReferencedPatches:
    def __init__(
        self,
        patches: NDArray[Any],
        corners: NDArray[np.int32],
        scales: NDArray[np.float64],
        references: NDArray[np.float32],
        *,
        warps: NDArray[np.float64] | None = None,
        nodes: Sequence[_Pair] = ((0, 0),),
        mode: Literal["bicubic", "bilinear"] = "bicubic",
        l2_normalize: bool = True,
        ncc_normalize: bool = False,
        portable: bool = False,
        mapped: bool = False,
    ) -> None: ...

class FeaturemetricProjectionCost(pyceres.CostFunction):  # type: ignore[misc]
    def __init__(
        self,
        projection: pyceres.CostFunction,
        patches: ReferencedPatches,
        patch: int,
        reference: int,
        *,
        wrap_width: float = 0,
        compressed: bool = True,
    ) -> None: ...

class CostMaps:
    def __init__(
        self, maps: NDArray[np.float32], corners: NDArray[np.int32], scales: NDArray[np.float64]
    ) -> None: ...

class CostMapProjectionCost(pyceres.CostFunction):  # type: ignore[misc]
    def __init__(
        self, projection: pyceres.CostFunction, maps: CostMaps, map: int, *, wrap_width: float = 0
    ) -> None: ...

class RigidManifold(pyceres.Manifold):  # type: ignore[misc]
    def __init__(self, constant_axis: int = -1) -> None: ...
    def plus(self, pose: Sequence[float], delta: Sequence[float]) -> list[float]: ...
    def minus(self, to: Sequence[float], from_: Sequence[float]) -> list[float]: ...
    def jacobians(self, pose: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
