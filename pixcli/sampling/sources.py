"""What keypoints are aligned on: the scale space of the grey image, or the maps of a feature model."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixcli import _core
from pixcli.io.patch_store import PatchStore
from pixcli.options import DenseFeaturesOptions, KeypointAdjustmentOptions
from pixcli.progress import Update
from pixcli.sampling import scale_space
from pixcli.sampling.feature_boxes import LEVELS_PER_OCTAVE, BoxExtractor
from pixcli.sampling.scale_space import Boxes
from pixcli.sampling.streaming import ImageFile, ImageItems

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

# The perspective part of a warp is about the sine of the angle between two views over the focal length; this
# is its standard deviation times the longer side of the image.
PERSPECTIVE = 0.35


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
    """Where the templates of jobs are, and which jobs each serves; see TemplateArrays in _core."""

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

    def support(self, radius: int, step: float) -> Support:
        """A grid for surfaces, on the finest map; features are smoother than intensities: twice as wide."""
        ...

    def arrays(self, store: PatchStore, boxes: Boxes, output: int) -> dict[str, Any]:
        """The boxes of an output as native loops take them."""
        ...

    def of_images(self, images: Sequence[ImageFile]) -> "Source":
        """The same maps of other images."""
        ...

    @property
    def color(self) -> bool:
        """Whether maps are made of RGB."""
        ...

    @property
    def comparison(self) -> str | None:
        """How features are compared; None: maps are grey."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the maps, ready for JSON."""
        ...

    def align(
        self,
        arrays: dict[str, Any],
        support: Support,
        templates: Templates,
        starts: Float64,
        **limits: Any,
    ) -> NDArray[Any]:
        """alignment_dtype of each job, from the best of its starts (jobs, candidates, 8)."""
        ...


class GreySource:
    """The scale space of the grey image, as pixcli.sampling.scale_space makes it."""

    name = "image"
    color = False
    comparison = None

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": self.name}

    def __init__(
        self,
        images: Sequence[ImageFile],
        features: DenseFeaturesOptions,
        supports: Sequence[tuple[int, float]] = (),
        window: float = 0.0,
    ) -> None:
        self._images, self._features, self._window = images, features, window
        self.supports = [self.support(radius, step) for radius, step in supports]

    def level_of(self, support: Support, spacing: ArrayLike, image: Int32) -> Int32:
        return scale_space.level_of(spacing)

    def spacing_of(self, support: Support, level: Int32) -> Float64:
        return scale_space.step_of(level)

    def pitch_of(self, level: Int32) -> Float64:
        return scale_space.pitch_of(level)

    def items(self, boxes: Boxes, image: Int32) -> ImageItems:
        return scale_space.box_items(boxes, image, self._images, self._features)

    def support(self, radius: int, step: float) -> Support:
        return Support(radius, step)

    def of_images(self, images: Sequence[ImageFile]) -> "GreySource":
        other = copy(self)
        other._images = images
        return other

    def arrays(self, store: PatchStore, boxes: Boxes, output: int) -> dict[str, Any]:
        samples, starts = store.flat(0)
        size = np.ascontiguousarray(boxes.shape[:, ::-1])
        return {"buffer": samples, "offset": starts[:-1], "size": size, "origin": boxes.geometry}

    def align(
        self,
        arrays: dict[str, Any],
        support: Support,
        templates: Templates,
        starts: Float64,
        **limits: Any,
    ) -> NDArray[Any]:
        deviation = PERSPECTIVE / templates.image_edge
        return _align(arrays, support.radius, self._window, templates, starts, deviation, **limits)


class FeatureSource:
    """The maps of a feature model, made of the image at scales half an octave apart."""

    def __init__(
        self,
        name: str,
        images: Sequence[ImageFile],
        features: DenseFeaturesOptions,
        supports: Sequence[tuple[int, float]] = (),
        window: float = 0.0,
    ) -> None:
        self.name = name
        self._extractor = BoxExtractor(images, features)
        self._window = window
        self._pitches = [self._extractor.pitch_at(output) for output in range(self._extractor.num_outputs)]
        self.supports = [
            Support(radius, max(step, pitch), output)
            for output, pitch in enumerate(self._pitches)
            for radius, step in supports
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

    def support(self, radius: int, step: float) -> Support:
        return Support(radius, max(2 * step, self._pitches[-1]), len(self._pitches) - 1)

    def of_images(self, images: Sequence[ImageFile]) -> "FeatureSource":
        other = copy(self)
        other._extractor = self._extractor.of_images(images)
        return other

    @property
    def color(self) -> bool:
        return self._extractor.color

    @property
    def comparison(self) -> str:
        return self._extractor.comparison

    @property
    def identity(self) -> dict[str, Any]:
        return self._extractor.identity

    def arrays(self, store: PatchStore, boxes: Boxes, output: int) -> dict[str, Any]:
        patches = store.boxes(output)
        return {
            "buffer": patches.samples,
            "offset": patches.starts[:-1],
            "size": np.ascontiguousarray(patches.shapes[:, ::-1]),
            "origin": boxes.geometry,
            "gains": patches.gains,
            "comparison": self.comparison,
        }

    def align(
        self,
        arrays: dict[str, Any],
        support: Support,
        templates: Templates,
        starts: Float64,
        **limits: Any,
    ) -> NDArray[Any]:
        return _align(arrays, support.radius, self._window, templates, starts, None, **limits)


def _align(
    arrays: dict[str, Any],
    radius: int,
    window: float,
    templates: Templates,
    starts: Float64,
    perspective_deviation: Float64 | None,
    *,
    num_threads: int,
    progress: Update | None = None,
    **limits: Any,
) -> NDArray[Any]:
    native = _core.TemplateArrays(
        patch=templates.patch,
        xy=templates.xy,
        spacing=templates.spacing,
        job_ptr=templates.job_ptr,
        job_patch=templates.job_patch,
        starts=starts,
        perspective_deviation=perspective_deviation,
    )
    return _core.align(
        _core.PatchArrays(**arrays),
        _core.Support(radius, window),
        native,
        _core.AlignmentLimits(**limits),
        num_threads=num_threads,
        progress=progress,
    )


def source_of(
    model: str,
    images: Sequence[ImageFile],
    features: DenseFeaturesOptions,
    options: KeypointAdjustmentOptions | None = None,
) -> Source:
    """The source for one model of a chain; with the supports of keypoint adjustment if given."""
    features = features.of_model(model)
    if model == "image" and not features.color and not features.model_path:
        if options is None:
            return GreySource(images, features)
        return GreySource(images, features, options.support_list, options.window)
    if options is None:
        return FeatureSource(model, images, features)
    return FeatureSource(model, images, features, options.feature_support_list, options.feature_window)
