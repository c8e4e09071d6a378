"""Localization of single queries, for users' own programs and for batches."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from pixcli.localization.map import LocalizationMap
from pixcli.localization.result import LocalizationResult
from pixcli.options import AbsolutePoseOptions, DenseFeaturesOptions, LocalizationOptions
from pixcli.progress import Progress


class QueryLocalizer:
    """Localizes queries against one model; loads once, then serves any number of threads.

    localizer = QueryLocalizer(model, references="map.h5")
    result = localizer.localize(keypoints, point2D_idxs, point3D_ids, camera, image="query.jpg")
    """

    def __init__(
        self,
        reconstruction: pycolmap.Reconstruction,
        options: LocalizationOptions | None = None,
        *,
        references: Path | str | None = None,
        image_path: Path | str | None = None,
        absolute_pose: AbsolutePoseOptions | None = None,
        features: DenseFeaturesOptions | None = None,
        random_seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Read the map's references, or make them from the images of the model.

        Args:
            references: file that featuremetric_bundle_adjuster or an earlier localization wrote.
            image_path: folder of the model's images; the references are made from them if none are given.
            features: use_cache and cache_path keep references that are made.

        Raises:
            UserError: the references cannot be read or made, or are of another model.
        """
        raise NotImplementedError

    @property
    def map(self) -> LocalizationMap:
        """What queries are compared with."""
        raise NotImplementedError

    def localize(
        self,
        keypoints: npt.ArrayLike,
        point2D_idxs: npt.ArrayLike,
        point3D_ids: npt.ArrayLike,
        camera: pycolmap.Camera,
        *,
        image: Path | str | npt.NDArray[np.generic],
    ) -> LocalizationResult:
        """Pose of one query from its matches with points of the model. Never raises for a bad query.

        Args:
            keypoints: (k, 2 or more) all keypoints of the query, COLMAP pixels.
            point2D_idxs, point3D_ids: (m,) the matches: rows of keypoints, ids of points.
            image: its file, or grey (h, w) or RGB (h, w, 3) pixels from 0 to 255.
        """
        raise NotImplementedError
