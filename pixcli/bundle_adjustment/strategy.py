"""What every strategy of bundle adjustment gets and hands back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pixcli.bundle_adjustment.guard import ImageCost
from pixcli.bundle_adjustment.model_covariance import FeatureResiduals
from pixcli.bundle_adjustment.problem import Constants
from pixcli.bundle_adjustment.solver import BundleSummary
from pixcli.calibration.calibrate import Ladders, LensChoice
from pixcli.geometry.observations import Observations
from pixcli.options.bundle_adjustment import FeaturemetricBundleAdjusterOptions
from pixcli.progress import Progress
from pixcli.sampling.streaming import ImageFile

import pycolmap


@dataclass(frozen=True)
class SurfaceRound:
    """What one round of the surface strategy measured, and what the adjustment made of it."""

    points: int
    surfaces: int
    """Points whose depth and normal were refined."""
    observations: int
    statuses: dict[str, int]
    """How many observations were measured (moved, root) or kept their old place, and why."""
    completed: int
    """Observations added for the adjustment in images where no detector found the point."""
    residual_before: float
    """Median reprojection error of the accepted observations before the adjustment, in pixels."""
    residual_after: float
    moved: float
    """Median change of the projections since the round before, in pixels."""


@dataclass(frozen=True)
class Task:
    """A model to adjust in place, and all that says how."""

    model: pycolmap.Reconstruction
    images: Sequence[ImageFile]
    """The registered images, by ascending id."""
    options: FeaturemetricBundleAdjusterOptions
    constants: Constants
    ladders: Ladders
    """Of the cameras to calibrate."""
    last: bool
    """No loop over the tracks follows."""
    with_residuals: bool
    """Keep what covariances are made of."""
    progress: Progress

    @property
    def missing(self) -> list[int]:
        """Ids of the registered images that are not on disk."""
        ids = sorted(self.model.reg_image_ids())
        return [image_id for image_id, file in zip(ids, self.images, strict=True) if file.missing]


@dataclass(frozen=True)
class Adjustment:
    """A model that was adjusted, as n observations of p points tell."""

    observations: Observations
    """Those that took part, completed ones aside; xy is where the model has them now."""
    accepted: NDArray[np.bool_]
    """(n,) those that had an effect; of surfaces, those that were measured, and references."""
    solves: list[BundleSummary]
    """What the solver did, in order; calibrations aside."""
    normals: NDArray[np.float64] | None = None
    """(p, 3) unit normals towards the camera; NaN where the surface was not refined. None: not measured."""
    covariance: NDArray[np.float64] | None = None
    """(n, 3) xx, xy, yy of measured places against their references, in pixels squared; NaN elsewhere."""
    reference: NDArray[np.int32] | None = None
    """(p,) row of the observation that each point was compared with."""
    rounds: list[SurfaceRound] = field(default_factory=list)
    lenses: list[LensChoice] = field(default_factory=list)
    """Of the cameras that were calibrated."""
    gated: dict[str, int] = field(default_factory=dict)
    """Observations without effect, and why; for surfaces see the rounds."""
    textureless_points: int = 0
    """No image measures them: features leave them in place, surfaces where their keypoints say."""
    costs: list[ImageCost] | None = None
    """Of images that the strategy judged and restored itself; None: reprojection errors judge them."""
    loss_scale: float | None = None
    """Of the robust loss on features, in their unit; None: residuals are reprojection errors."""
    residuals: FeatureResiduals | None = None
    """Of features in the adjusted model, if asked for."""


Strategy = Callable[[Task], Adjustment]
