"""Which images and points of a model can take part in its refinement."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np

from pixcli.errors import UserError
from pixcli.geometry.observations import project, read_observations

import pycolmap


def check_observations(model: pycolmap.Reconstruction, min_track_length: int) -> None:
    """Raises UserError unless there are points with enough observations, and cameras that project them."""
    observations = read_observations(model, min_track_length)
    if not len(observations.point_ids):
        raise UserError(
            f"no point of the model has {max(min_track_length, 2)} observations, which a refinement needs: "
            "triangulate it again, with colmap point_triangulator"
        )
    seen = np.asarray(np.isfinite(project(model, observations)).all(1))
    total: Counter[int] = Counter()
    projected: Counter[int] = Counter()
    for image_id, members in observations.by_image.items():
        camera_id = model.images[image_id].camera_id
        total[camera_id] += len(members)
        projected[camera_id] += int(seen[members].sum())
    for camera_id in sorted(total):
        if not projected[camera_id]:
            raise UserError(
                f"camera {camera_id} ({model.cameras[camera_id].model.name}) projects none of its "
                f"{total[camera_id]} points: its parameters are no lens, or all lie behind it; map again"
            )


@contextmanager
def set_aside(model: pycolmap.Reconstruction, image_ids: Collection[int]) -> Iterator[None]:
    """Take the observations of images away while the block runs: they take no part, and stay.

    So do observations that are, or would be, the only ones of their points; COLMAP's adjuster refuses these.
    The block must not change which observations points have, except for those it takes back.
    """
    of_images = set(image_ids)
    tracks = {}
    for point_id, point in model.points3D.items():
        elements = point.track.elements
        kept = [element for element in elements if element.image_id not in of_images]
        if len(kept) < max(len(elements), 2):
            tracks[point_id] = pycolmap.Track(elements)
            kept = kept if len(kept) >= 2 else []
            remaining = {(element.image_id, element.point2D_idx) for element in kept}
            for element in tracks[point_id].elements:
                if (element.image_id, element.point2D_idx) not in remaining:
                    model.images[element.image_id].reset_point3D_for_point2D(element.point2D_idx)
            point.track = pycolmap.Track(kept)
    try:
        yield
    finally:
        for point_id, track in tracks.items():
            for element in track.elements:
                image = model.images[element.image_id]
                if not image.points2D[element.point2D_idx].has_point3D():
                    image.set_point3D_for_point2D(element.point2D_idx, point_id)
            model.points3D[point_id].track = track
