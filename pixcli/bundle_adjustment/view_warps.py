"""Local warps between the views of a point, from its geometry."""

import numpy as np
from numpy.typing import NDArray

from pixcli.geometry.observations import Observations
from pixcli.geometry.projection import facing_warps, projection_derivatives
from pixcli.io.references import References

import pycolmap

Array = NDArray[np.float64]


def reference_rows(observations: Observations, references: References) -> NDArray[np.int64]:
    """(n,) for each observation that of its point's reference, -1 where there is none."""
    row = references.rows_of(observations.point_ids)[observations.point_index]
    referenced = np.flatnonzero(row >= 0)
    row = row[referenced]
    is_reference = (observations.image_ids[referenced] == references.image_ids[row]) & (
        observations.keypoints[referenced] == references.keypoints[row]
    )
    of_point = np.full(len(observations.point_ids), -1, np.int64)
    of_point[observations.point_index[referenced[is_reference]]] = referenced[is_reference]
    return of_point[observations.point_index]


def frontal_warps(
    reconstruction: pycolmap.Reconstruction, observations: Observations, reference: NDArray[np.int64]
) -> Array:
    """(n, 2, 2) pixels of each observation for a pixel of its reference, if the surface faces the reference.

    The plane through the point stands across its ray in the reference view. So near to the point, both
    projections are linear: their derivatives are those of COLMAP's own projection, whatever the camera. NaN
    where the point does not project.

    Args:
        reference: (n,) the observation that is the reference of each, -1 for none: the warp is then NaN.
    """
    points3D = reconstruction.points3D
    xyz = np.array([points3D[point_id].xyz for point_id in observations.point_ids.tolist()]).reshape(-1, 3)
    derivatives, rays = projection_derivatives(reconstruction, observations, xyz)
    warps = np.full((len(reference), 2, 2), np.nan)
    known = reference >= 0
    origin = reference[known]
    warps[known] = facing_warps(derivatives[known], derivatives[origin], rays[origin])
    return warps
