"""Tracks of a model against the verified matches of its database, by COLMAP's own rules."""

from dataclasses import dataclass

import numpy as np

from pixcli.geometry.match_graph import MatchGraph
from pixcli.options.bundle_adjustment import TrackOptions

import pycolmap


@dataclass(frozen=True)
class TrackRevision:
    """What one loop did to the tracks of a model: numbers of observations."""

    completed: int
    """Added to points: matches of their observations that project near enough."""
    merged: int
    """Of points that were joined with another."""
    filtered: int
    """Removed, since they reproject badly or their points are seen under too small angles."""


def revise_tracks(model: pycolmap.Reconstruction, graph: MatchGraph, options: TrackOptions) -> TrackRevision:
    """Complete, merge and filter the tracks of a model in place, by its own (refined) 2D points."""
    correspondences = _correspondences(model, graph)
    observations = pycolmap.ObservationManager(model, correspondences)
    triangulator = pycolmap.IncrementalTriangulator(correspondences, model, observations)
    triangulation = pycolmap.IncrementalTriangulatorOptions()
    triangulation.complete_max_reproj_error = options.complete_max_reproj_error
    triangulation.merge_max_reproj_error = options.merge_max_reproj_error
    triangulation.random_seed = 0
    completed = triangulator.complete_all_tracks(triangulation)
    merged = triangulator.merge_all_tracks(triangulation)
    filtered = observations.filter_all_points3D(options.filter_max_reproj_error, options.filter_min_tri_angle)
    return TrackRevision(int(completed), int(merged), int(filtered))


def _correspondences(model: pycolmap.Reconstruction, graph: MatchGraph) -> pycolmap.CorrespondenceGraph:
    """The matches of the database between the images of the model, under the ids that these have there."""
    ids = {image.name: image_id for image_id, image in model.images.items() if image.has_pose}
    image_ids = [ids.get(image.name) for image in graph.images]
    result = pycolmap.CorrespondenceGraph()
    for image_id, image in sorted(model.images.items()):
        result.add_image(image_id, image.num_points2D())
    for k, (i, j) in enumerate(graph.pairs.tolist()):
        if image_ids[i] is None or image_ids[j] is None:
            continue
        edges = graph.edges[graph.pair_ptr[k] : graph.pair_ptr[k + 1]]
        geometry = pycolmap.TwoViewGeometry()
        geometry.inlier_matches = (edges - graph.offsets[[i, j]]).astype(np.uint32)
        result.add_two_view_geometry(image_ids[i], image_ids[j], geometry)
    result.finalize()
    return result
