"""A model and the database that it was mapped from: whether they belong together, and making them agree."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.geometry.match_graph import MatchGraph
from pixcli.io.appended_keypoints import AppendedKeypoints
from pixcli.io.files import same_file
from pixcli.io.refined_database import check_output_path, write_refined_database
from pixcli.options.bundle_adjustment import FeaturemetricBundleAdjustmentOptions, PosePriorOptions

import pycolmap

_FAR = 10.0  # pixels; what refinements move keypoints by stays well below


@dataclass(frozen=True)
class DatabaseChange:
    """What was written into a database: numbers of keypoints."""

    moved: int
    appended: int


def check_database_options(
    options: FeaturemetricBundleAdjustmentOptions,
    pose_priors: PosePriorOptions,
    database_path: Path | None,
    output_database_path: Path | None,
) -> None:
    """Raises UserError if options ask for databases that are not given, or one that may not be written."""
    group = "--FeaturemetricBundleAdjustment"
    reasons = {
        f"{group}.num_loops": options.num_loops > 0,
        "--PosePrior.use_prior_position": pose_priors.use_prior_position,
        "--output_database_path": output_database_path is not None,
    }
    if database_path is None:
        for reason in (name for name, given in reasons.items() if given):
            raise UserError(f"--database_path is missing: {reason} needs the database of the model")
        if options.write_completed != "database":
            return
    if output_database_path is None:
        if options.write_completed == "database":
            raise UserError(
                f"--output_database_path is missing: {group}.write_completed database needs to know where"
            )
        return
    assert database_path is not None
    in_place = same_file(database_path, output_database_path)
    if in_place and not options.overwrite:
        raise UserError(
            f"--output_database_path {output_database_path} is the input: name another file, or set "
            f"{group}.overwrite 1 to update it in place"
        )
    check_output_path(database_path, None if in_place else output_database_path)


def check_database(model: pycolmap.Reconstruction, graph: MatchGraph, path: Path) -> None:
    """Raises UserError unless the images and 2D points of a model are those of the database at `path`."""
    index = {image.name: k for k, image in enumerate(graph.images)}
    for image_id in sorted(model.reg_image_ids()):
        image = model.images[image_id]
        if image.name not in index:
            raise UserError(f"{path} does not belong to the model: it has no image {image.name}")
        rows, points2D = graph.keypoints[index[image.name]], image.points2D
        if len(rows) != len(points2D):
            raise UserError(
                f"{path} does not belong to the model: image {image.name} has {len(rows)} keypoints, but "
                f"{len(points2D)} 2D points in the model (observations that were completed are in the "
                "database of --output_database_path)"
            )
        observed = np.array([k for k, point in enumerate(points2D) if point.has_point3D()], np.int64)
        if observed.size:
            xy = np.array([points2D[k].xy for k in observed.tolist()])
            distance = float(np.median(np.linalg.norm(rows[observed, :2] - xy, axis=1)))
            if not distance < _FAR:
                raise UserError(
                    f"{path} does not belong to the model: keypoints of image {image.name} are "
                    f"{distance:.3g} pixels (in the median) from where the model has them"
                )


def write_database(
    model: pycolmap.Reconstruction, graph: MatchGraph, path: Path, output_path: Path
) -> DatabaseChange:
    """Write the keypoints of a model into a copy of its database, or into itself if that is the output."""
    xy, appended = refined_keypoints(model, graph)
    target = None if same_file(path, output_path) else output_path
    with write_refined_database(path, target, graph, xy, appended) as refined:
        moved = refined.num_moved
    return DatabaseChange(moved, sum(len(keypoints.xy) for keypoints in appended.values()))


def refined_keypoints(
    model: pycolmap.Reconstruction, graph: MatchGraph
) -> tuple[NDArray[np.float64], dict[int, AppendedKeypoints]]:
    """Where a database that belongs to the model is to have its keypoints, to agree with it.

    Returns:
        (n, 2) pixels of the keypoints of the graph, NaN in images that the model does not have; and by image
        id of the database, the 2D points of the model's images beyond those, all of them observations.
    """
    index = {image.name: k for k, image in enumerate(graph.images)}
    images = {
        image_id: index[image.name] for image_id, image in sorted(model.images.items()) if image.has_pose
    }
    xy = np.full((int(graph.offsets[-1]), 2), np.nan)
    appended = {}
    for image_id, k in images.items():
        points2D = model.images[image_id].points2D
        count = len(graph.keypoints[k])
        xy[graph.offsets[k] : graph.offsets[k + 1]] = [point.xy for point in points2D[:count]]
        if added := list(points2D)[count:]:
            donors = []
            for point in added:
                track = model.points3D[point.point3D_id].track.elements
                elements = sorted((element.image_id, element.point2D_idx) for element in track)
                donor, row = next(e for e in elements if e[1] < len(graph.keypoints[images[e[0]]]))
                donors.append((graph.images[images[donor]].image_id, row))
            positions = np.array([point.xy for point in added])
            appended[graph.images[k].image_id] = AppendedKeypoints(positions, donors)
    return xy, appended
