"""Queries: images with matches to points of a model."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

import pycolmap

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Query:
    """An image to be localized, with its m matches to points of a model."""

    name: str
    camera: pycolmap.Camera
    keypoints: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    """(k, 2) COLMAP pixels."""
    point2D_idxs: npt.NDArray[np.int64] = field(default_factory=lambda: _NONE)
    """(m,) rows of keypoints, ascending; by point where they are the same."""
    point3D_ids: npt.NDArray[np.int64] = field(default_factory=lambda: _NONE)
    """(m,)"""
    place: npt.NDArray[np.int64] = field(default_factory=lambda: _NONE)
    """(m,) which place of the model a match is from, where queries are clustered: images of the model that
    share points show the same place."""
    cam_from_rig: pycolmap.Rigid3d = field(default_factory=pycolmap.Rigid3d)
    """Of an image of a rig."""
    reason: str = ""
    """Why this query cannot even be tried; empty where it can."""


class Queries(ABC):
    """Queries that are read one by one; a context manager, for one thread at a time."""

    names: Sequence[str]
    """Those of a frame, images that a rig took at a time, lie together."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def frame_of(self, name: str) -> Hashable:
        """What queries that are localized as one have in common."""
        return name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @abstractmethod
    def read(self, name: str) -> Query:
        """A query with its matches; UserError if what it is made of is damaged, or does not fit the model."""
