"""References: what each point of a model should look like."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixcli import _core
from pixcli.errors import UserError
from pixcli.geometry.observations import Observations, project, read_observations
from pixcli.io.patch_store import Patches, mapped_file, release
from pixcli.io.references import ObservedFeatures, References, read_references
from pixcli.options import DenseFeaturesOptions, InterpolationOptions
from pixcli.progress import Progress
from pixcli.sampling.extraction import Extraction
from pixcli.sampling.streaming import ImageFile

import pycolmap

_PART_BYTES = 2e8
"""Of patches in a file that are in memory at a time, while references are found."""


def sampling_arguments(interpolation: InterpolationOptions) -> dict[str, Any]:
    """InterpolationOptions as native code takes them."""
    return {
        "nodes": list(interpolation.offsets),
        "mode": interpolation.mode,
        "l2_normalize": interpolation.l2_normalize,
        "ncc_normalize": interpolation.ncc_normalize,
    }


def compute_references(
    observations: Observations,
    projected: NDArray[np.float64],
    patches: Patches,
    interpolation: InterpolationOptions,
    *,
    rows: NDArray[np.int64] | None = None,
    loss_scale: float = 0.25,
    max_iterations: int = 100,
    keep_observations: bool = False,
    num_threads: int = -1,
    poll: Callable[[int], object] | None = None,
) -> References:
    """The observation of each point that is nearest to the robust mean of all of them.

    The mean minimises Cauchy's loss of the feature distances, found by averaging with the weights of the loss
    again and again, until it rests. A point has no reference if none of its observations counts: an
    observation counts if the point projects into its patch.

    Args:
        projected: (n, 2) where the points project to, see observations.project().
        rows: (n,) the patch of each observation, -1 for none (None: patch k belongs to observation k).
        keep_observations: also return the features of all observations that count.
        poll: called now and then with the number of points done; may raise to stop.
    """
    if rows is None:
        rows = np.arange(len(patches.data), dtype=np.int64)
    parts = []
    for first, last in point_parts(observations, patches):
        begin, end = observations.ptr[[first, last]].tolist()
        part = _core.compute_references(
            np.ascontiguousarray(projected[begin:end], np.float64),
            observations.ptr[first : last + 1] - begin,
            patches.data,
            patches.corners,
            patches.scales,
            np.ascontiguousarray(rows[begin:end], np.int64),
            **sampling_arguments(interpolation),
            loss_scale=loss_scale,
            max_iterations=max_iterations,
            keep_observations=keep_observations,
            num_threads=num_threads,
            poll=partial(poll_from, poll, first) if poll else None,
        )
        part["nearest"][part["nearest"] >= 0] += begin
        parts.append(part)
        release(patches)
    found = {
        name: np.concatenate([part[name] for part in parts])
        for name in ("nearest", "features", "counts", *(["observations"] if keep_observations else []))
    }
    has_one = found["nearest"] >= 0
    nearest = found["nearest"][has_one]
    kept = None
    if keep_observations:
        counts = found["counts"]
        per_point = np.bincount(observations.point_index[counts], minlength=len(has_one))[has_one]
        kept = ObservedFeatures(
            np.concatenate([[0], np.cumsum(per_point)]).astype(np.int64),
            observations.image_ids[counts],
            observations.keypoints[counts],
            found["observations"][counts],
        )
    return References(
        observations.point_ids[has_one],
        np.ascontiguousarray(found["features"][has_one]),
        observations.image_ids[nearest],
        observations.keypoints[nearest],
        kept,
    )


def point_parts(observations: Observations, patches: Patches) -> list[tuple[int, int]]:
    """Ranges of points, so small that the patches of one fit into memory if these lie in a file."""
    count = len(observations.point_ids)
    if mapped_file(patches.data) is None:
        return [(0, count)]
    size = max(int(_PART_BYTES // max(patches.data[:1].nbytes, 1)), 1)
    ends = np.searchsorted(observations.ptr, np.arange(size, observations.ptr[-1] + size, size), "right") - 1
    bounds = np.unique(np.concatenate([[0], ends, [count]])).tolist()
    return list(pairwise(bounds)) or [(0, 0)]


def poll_from(poll: Callable[[int], object], first: int, done: int) -> None:
    """Polls in a part whose first item is this one."""
    poll(first + done)


def references_options(features: DenseFeaturesOptions, interpolation: InterpolationOptions) -> dict[str, Any]:
    """What decides the values of references, by option: the fingerprint that their file carries."""
    identity = Extraction([], [], features).identity
    made_with = {f"DenseFeatures.{key}": value for key, value in identity.items()}
    return made_with | {f"Interpolation.{key}": value for key, value in asdict(interpolation).items()}


def model_references(
    model: pycolmap.Reconstruction,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
    *,
    min_track_length: int = 2,
    keep_observations: bool = False,
    num_threads: int = -1,
    progress: Progress | None = None,
) -> list[References]:
    """The references of a model's points as the model is, on all levels of the feature map.

    Args:
        images: the registered images, by ascending id.
        keep_observations: also return the features of all observations.
    """
    progress = progress or Progress()
    observations = read_observations(model, min_track_length)
    projected = project(model, observations)
    # A sparse cache holds other patches: those of the keypoints, or of the model as it was.
    if features.sparse:
        features = replace(features, use_cache=False)
    extraction, rows = extraction_around(model, images, observations, projected, features)
    references = []
    for patches, _ in extraction.patches(progress):
        with progress.phase("references", len(observations.point_ids)) as update:
            found = compute_references(
                observations,
                projected,
                patches,
                interpolation,
                rows=rows,
                keep_observations=keep_observations,
                num_threads=num_threads,
                poll=update,
            )
        references.append(found)
    return references


def extraction_around(
    model: pycolmap.Reconstruction,
    images: Sequence[ImageFile],
    observations: Observations,
    xy: NDArray[np.float64],
    features: DenseFeaturesOptions,
    chosen: NDArray[np.bool_] | None = None,
) -> tuple[Extraction, NDArray[np.int64]]:
    """An extraction of patches around xy (n, 2), and (n,) the patch of each observation, -1 for none.

    Args:
        images: the registered images, by ascending id.
        chosen: (n,) the observations that get a patch; all if None.
    """
    rows = np.full(len(xy), -1, np.int64)
    keypoints = []
    first = 0
    # By name, as commands that read databases have them: they share caches of whole maps.
    ordered = sorted(zip(images, sorted(model.reg_image_ids()), strict=True))
    for _, image_id in ordered:
        members = observations.by_image.get(image_id, np.empty(0, np.int64))
        if chosen is not None:
            members = members[chosen[members]]
        rows[members] = first + np.arange(len(members))
        keypoints.append(xy[members])
        first += len(members)
    return Extraction([image for image, _ in ordered], keypoints, features), rows


def read_model_references(
    path: Path,
    model: pycolmap.Reconstruction,
    features: DenseFeaturesOptions,
    interpolation: InterpolationOptions,
) -> list[References]:
    """The references that a file holds for this model, on all levels of the feature map.

    Raises:
        UserError: there is no such file, it is damaged, made with other features, or for another model.
    """
    levels = read_references(path, references_options(features, interpolation))
    for references in levels:
        origins = zip(
            references.point_ids.tolist(),
            references.image_ids.tolist(),
            references.keypoints.tolist(),
            strict=True,
        )
        for point_id, image_id, keypoint in origins:
            known = image_id in model.images and keypoint < model.images[image_id].num_points2D()
            if not known or model.images[image_id].points2D[keypoint].point3D_id != point_id:
                raise UserError(
                    f"{path}: the references are of another model: they have point {point_id} in image "
                    f"{image_id} at keypoint {keypoint}, and this model does not; make them again"
                )
    return levels


_STEP = 2.0


def strategy_interpolation(strategy: str, interpolation: InterpolationOptions) -> InterpolationOptions:
    """How a strategy samples features: patch_warp takes 4x4 nodes and NCC if it is given a single node.

    Intensities agree between views up to gain and offset only, which NCC takes out; a single node leaves
    nothing to compare then.
    """
    if strategy != "patch_warp" or len(interpolation.offsets) > 1:
        return interpolation
    places = _STEP * (np.arange(4) - 1.5)
    nodes = " ".join(f"{x:g},{y:g}" for y in places for x in places)
    return replace(interpolation, nodes=nodes, ncc_normalize=True, l2_normalize=False)
