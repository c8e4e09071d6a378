"""What a refinement starts from: the model, its images on disk, its database, and what is to stay."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap

from pixcli.bundle_adjustment.model_database import check_database
from pixcli.bundle_adjustment.priors import align_to_priors, read_priors
from pixcli.bundle_adjustment.problem import Constants
from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.geometry.observations import project, read_observations
from pixcli.io.database import read_match_graph
from pixcli.io.image_list import read_id_list, read_image_list
from pixcli.io.models import check_model_type, read_model
from pixcli.options.bundle_adjustment import (
    BundleAdjustmentOptions,
    FeaturemetricBundleAdjustmentOptions,
    PosePriorOptions,
)
from pixcli.sampling.model_images import image_files
from pixcli.sampling.streaming import ImageFile


@dataclass(frozen=True)
class Inputs:
    """What a refinement of a model starts from."""

    model: pycolmap.Reconstruction
    """Aligned to position priors, where there are any."""
    images: list[ImageFile]
    """The registered images, by ascending id."""
    missing: list[int]
    """Ids of those that are not on disk."""
    constants: Constants
    graph: MatchGraph | None
    """Of the database, if one is given; it belongs to the model."""


def read_inputs(
    input_path: Path,
    image_path: Path,
    database_path: Path | None,
    options: FeaturemetricBundleAdjustmentOptions,
    adjustment: BundleAdjustmentOptions,
    pose_priors: PosePriorOptions,
    *,
    constant_image_list_path: Path | None,
    constant_camera_list_path: Path | None,
    constant_rig_list_path: Path | None,
    constant_point_list_path: Path | None,
) -> Inputs:
    """Read and check all of it, see refine_model() of pixcli.bundle_adjustment.adjust.

    Raises:
        UserError: something cannot be used.
    """
    model = read_model(input_path)
    check_model_type(model, options.output_type)
    check_observations(model, adjustment.min_track_length)
    lists = (constant_camera_list_path, constant_rig_list_path, constant_point_list_path)
    constants = read_constants(model, constant_image_list_path, *lists)
    images = image_files(model, image_path, options.allow_missing_images)
    image_ids = sorted(model.reg_image_ids())
    missing = [image_id for image_id, file in zip(image_ids, images, strict=True) if file.missing]
    graph = None
    if database_path is not None:
        graph = read_match_graph(database_path, "inlier")
        check_database(model, graph, database_path)
        if pose_priors.use_prior_position:
            priors = read_priors(database_path, model, pose_priors)
            constants = replace(constants, priors=priors)
            if not constants.images:  # which say where the world is
                align_to_priors(model, priors)
    return Inputs(model, images, missing, constants, graph)


def read_constants(
    model: pycolmap.Reconstruction,
    image_list_path: Path | None,
    camera_list_path: Path | None,
    rig_list_path: Path | None,
    point_list_path: Path | None,
) -> Constants:
    """What lists name: registered images by their names, cameras, rigs and points by their ids."""
    by_name = {image.name: image_id for image_id, image in model.images.items() if image.has_pose}
    names = read_image_list(image_list_path, sorted(by_name)) if image_list_path else []
    cameras = read_id_list(camera_list_path, model.cameras, "camera") if camera_list_path else []
    rigs = read_id_list(rig_list_path, model.rigs, "rig") if rig_list_path else []
    points = read_id_list(point_list_path, model.points3D, "point") if point_list_path else []
    return Constants(
        frozenset(by_name[name] for name in names), frozenset(cameras), frozenset(rigs), frozenset(points)
    )


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
