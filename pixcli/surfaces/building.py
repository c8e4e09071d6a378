"""The observations of a model as views of small planes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixcli.geometry.linearisation import Views, linearise
from pixcli.geometry.observations import Observations
from pixcli.sampling.streaming import ImageFile
from pixcli.surfaces.planes import (
    Surfaces,
    choose_references,
)

import pycolmap

Float64 = NDArray[np.float64]


def surfaces_of(
    model: pycolmap.Reconstruction, observations: Observations, points: Float64, images: Sequence[ImageFile]
) -> Surfaces:
    """All observations as views of their points, which lie at `points` (p, 3).

    Args:
        images: the registered images, by ascending id.
    """
    index = {image_id: k for k, image_id in enumerate(sorted(model.reg_image_ids()))}
    by_image = sorted(observations.by_image.items())
    parts: list[Views] = []
    for image_id, members in by_image:
        image = model.images[image_id]
        pose = image.cam_from_world().matrix()
        of_members = points[observations.point_index[members]]
        parts.append(linearise(image.camera, pose[:, :3], pose[:, 3], of_members))
    ordered = np.concatenate(parts)
    views = np.empty_like(ordered)
    views[np.concatenate([members for _, members in by_image])] = ordered
    image_of = np.array([index[image_id] for image_id in observations.image_ids.tolist()], np.int32)
    return Surfaces(
        views,
        image_of,
        np.array([image.size for image in images], np.float64),
        choose_references(views, observations.ptr),
        observations.ptr,
        np.arange(len(views), dtype=np.int32),
    )
