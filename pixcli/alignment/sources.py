"""What keypoints are aligned on: the scale space of the grey image, or the maps of a feature model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixcli import _core
from pixcli.alignment import scale_space
from pixcli.alignment.scale_space import Boxes
from pixcli.features.boxes import LEVELS_PER_OCTAVE, BoxExtractor
from pixcli.features.streaming import ImageFile, ImageItems
from pixcli.io.patch_store import PatchStore
from pixcli.options import DenseFeaturesOptions, KeypointAdjustmentOptions

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

# The perspective part of a warp is about the sine of the angle between two views over the focal length; this
# is its standard deviation times the longer side of the image.
_PERSPECTIVE = 0.35


@dataclass(frozen=True)
class Support:
    """A grid of nodes; those that lie on wider basins come first."""

    radius: int
    """Nodes."""
    step: float
    """Pixels of the coarser view."""
    output: int = 0
    """Which map of the model it lies on."""


@dataclass(frozen=True)
class Templates:
    """Where the templates of jobs are, and which jobs each serves; see align_patches in _core."""

    patch: Int32
    xy: Float64
    spacing: Float64
    image_edge: Float64
    """The longer side of each one's image, in pixels."""
    job_ptr: NDArray[np.int64]
    job_patch: Int32


class Source(Protocol):
    """Maps that supports are sampled from. A level is the number of a map at one scale."""

    @property
    def name(self) -> str: ...

    @property
    def supports(self) -> Sequence[Support]: ...

    def level_of(self, support: Support, spacing: Float64, image: Int32) -> Int32:
        """The level on which nodes that far apart, in pixels, are neither aliased nor blurred."""
        ...

    def spacing_of(self, support: Support, level: Int32) -> Float64:
        """The distance of nodes that a level is made for."""
        ...

    def pitch_of(self, level: Int32) -> Float64:
        """The distance of its samples in pixels."""
        ...

    def items(self, boxes: Boxes, image: Int32) -> ImageItems:
        """The patches of all boxes, which are ordered by image."""
        ...

    def align(
        self,
        store: PatchStore,
        boxes: Boxes,
        support: Support,
        templates: Templates,
        starts: Float64,
        **limits: Any,
    ) -> NDArray[Any]:
        """alignment_dtype of each job, from the best of its starts (jobs, candidates, 8)."""
        ...


class GreySource:
    """The scale space of the grey image, as pixcli.alignment.scale_space makes it."""

    name = "image"

    def __init__(
        self,
        images: Sequence[ImageFile],
        features: DenseFeaturesOptions,
        options: KeypointAdjustmentOptions,
    ) -> None:
        self._images, self._features, self._window = images, features, options.window
        self.supports = [Support(radius, step) for radius, step in options.support_list]

    def level_of(self, support: Support, spacing: ArrayLike, image: Int32) -> Int32:
        return scale_space.level_of(spacing)

    def spacing_of(self, support: Support, level: Int32) -> Float64:
        return scale_space.step_of(level)

    def pitch_of(self, level: Int32) -> Float64:
        return scale_space.pitch_of(level)

    def items(self, boxes: Boxes, image: Int32) -> ImageItems:
        return scale_space.box_items(boxes, image, self._images, self._features)

    def align(
        self,
        store: PatchStore,
        boxes: Boxes,
        support: Support,
        templates: Templates,
        starts: Float64,
        **limits: Any,
    ) -> NDArray[Any]:
        samples, offsets = store.flat(0)
        return _core.align_patches(
            samples,
            offsets[:-1],
            np.ascontiguousarray(boxes.shape[:, ::-1]),
            boxes.geometry,
            support.radius,
            self._window,
            templates.patch,
            templates.xy,
            templates.spacing,
            _PERSPECTIVE / templates.image_edge,
            templates.job_ptr,
            templates.job_patch,
            starts,
            **limits,
        )


class FeatureSource:
    """The maps of a feature model, made of the image at scales half an octave apart."""

    def __init__(
        self,
        name: str,
        images: Sequence[ImageFile],
        features: DenseFeaturesOptions,
        options: KeypointAdjustmentOptions,
    ) -> None:
        self.name = name
        self._extractor = BoxExtractor(images, features)
        self._window = options.feature_window
        pitches = [self._extractor.pitch_at(output, 0) for output in range(self._extractor.num_outputs)]
        self.supports = [
            Support(radius, max(step, pitch), output)
            for output, pitch in enumerate(pitches)
            for radius, step in options.feature_support_list
        ]

    def level_of(self, support: Support, spacing: Float64, image: Int32) -> Int32:
        octaves = np.log2(np.maximum(spacing / support.step, 1e-6))
        return self._extractor.level_of(support.output, np.rint(LEVELS_PER_OCTAVE * octaves), image)

    def spacing_of(self, support: Support, level: Int32) -> Float64:
        return support.step * self._extractor.reduction_of(level)

    def pitch_of(self, level: Int32) -> Float64:
        return self._extractor.pitch_of(level)

    def items(self, boxes: Boxes, image: Int32) -> ImageItems:
        return self._extractor.items(boxes.level, boxes.corner, boxes.shape, image)

    def align(
        self,
        store: PatchStore,
        boxes: Boxes,
        support: Support,
        templates: Templates,
        starts: Float64,
        **limits: Any,
    ) -> NDArray[Any]:
        patches = store.boxes(support.output)
        return _core.align_features(
            patches.samples,
            patches.gains,
            self._extractor.comparison,
            patches.starts[:-1],
            np.ascontiguousarray(patches.shapes[:, ::-1]),
            boxes.geometry,
            support.radius,
            self._window,
            templates.patch,
            templates.xy,
            templates.spacing,
            templates.job_ptr,
            templates.job_patch,
            starts,
            **limits,
        )


def source_of(
    model: str,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    options: KeypointAdjustmentOptions,
) -> Source:
    """The source for one model of a chain."""
    features = features.of_model(model)
    if model == "image" and not features.color and not features.model_path:
        return GreySource(images, features, options)
    return FeatureSource(model, images, features, options)
