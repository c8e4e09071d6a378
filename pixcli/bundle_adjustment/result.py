"""What the refinement of a model did, for people and for reports."""

from dataclasses import dataclass
from typing import Any

from pixcli.bundle_adjustment.changes import Changes
from pixcli.bundle_adjustment.guard import ImageCost
from pixcli.bundle_adjustment.model_database import DatabaseChange
from pixcli.bundle_adjustment.residual_field import ResidualField
from pixcli.bundle_adjustment.surface_rounds import SurfaceRound
from pixcli.bundle_adjustment.track_revision import TrackRevision
from pixcli.calibration.report import Calibration
from pixcli.progress import PhaseStats


@dataclass(frozen=True)
class Adjustment:
    """What a refinement of a model did."""

    num_images: int
    num_missing_images: int
    """Of these, not on disk."""
    num_points: int
    num_observations: int
    residual_before: float
    """Median reprojection error of the model, in pixels."""
    residual_after: float
    rounds: list[SurfaceRound]
    """Of the surface strategy, in all loops."""
    gated: dict[str, int]
    """Observations without effect, and why; for surfaces see the rounds."""
    textureless_points: int
    """No image measures them: features leave them in place, surfaces where their keypoints say."""
    restored_points: int
    """Their observations contradict each other: back where they were."""
    loops: list[TrackRevision]
    database: DatabaseChange | None
    prior_distance: float | None
    """Median distance of images from where the database has them, in its units."""
    images: list[ImageCost]
    changes: Changes
    calibrations: list[Calibration]
    """Of cameras whose lens was found."""
    residual_fields: list[ResidualField]
    phases: list[PhaseStats]

    @property
    def residual(self) -> tuple[float, float]:
        """residual_before and residual_after."""
        return self.residual_before, self.residual_after

    @property
    def cost(self) -> tuple[float, float]:
        """Of all images, before and after."""
        return sum(image.before for image in self.images), sum(image.after for image in self.images)

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them, see pixcli.io.report."""
        return {
            "model": {
                "images": self.num_images,
                "missing_images": self.num_missing_images,
                "points": self.num_points,
                "observations": self.num_observations,
            },
            "residual": dict(zip(("before", "after"), self.residual, strict=True)),
            "cost": dict(zip(("before", "after"), self.cost, strict=True)),
            "rounds": self.rounds,
            "gated": self.gated,
            "textureless_points": self.textureless_points,
            "restored_points": self.restored_points,
            "loops": self.loops,
            "database": self.database,
            "prior_distance": self.prior_distance,
            "images": self.images,
            "image_residuals": self.changes.residuals,
            "poses": self.changes.poses,
            "focal_lengths": self.changes.focal_lengths,
            "calibrations": self.calibrations,
            "residual_fields": self.residual_fields,
            "phases": self.phases,
        }
