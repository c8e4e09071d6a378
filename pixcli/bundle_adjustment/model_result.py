"""What the refinement of a model gives."""

from dataclasses import dataclass, field
from typing import Any

from pixcli.bundle_adjustment.changes import Changes
from pixcli.bundle_adjustment.guard import ImageCost
from pixcli.bundle_adjustment.model_covariance import ModelCovariance
from pixcli.bundle_adjustment.model_database import DatabaseChange
from pixcli.bundle_adjustment.residual_field import ResidualField
from pixcli.bundle_adjustment.solver import BundleSummary
from pixcli.bundle_adjustment.strategy import Adjustment, SurfaceRound
from pixcli.bundle_adjustment.track_revision import TrackRevision
from pixcli.calibration.lens_report import Calibration
from pixcli.progress import PhaseStats

import pycolmap


@dataclass(frozen=True, repr=False)
class ModelResult:
    """A refined model, and what its refinement did."""

    reconstruction: pycolmap.Reconstruction
    """With refined cameras, poses, points and 2D observations."""
    adjustment: Adjustment
    """What the last adjustment measured."""
    covariance: ModelCovariance | None
    """If asked for."""
    num_missing_images: int
    """Of the registered images, not on disk."""
    residual_before: float
    """Median over the points of their mean reprojection error, in pixels."""
    residual_after: float
    rounds: list[SurfaceRound]
    """Of the surface strategy, in all loops."""
    solves: list[BundleSummary]
    """Of all loops."""
    restored_points: int
    """Their observations contradict each other: back where they were."""
    loops: list[TrackRevision]
    prior_distance: float | None
    """Median distance of images from their prior positions, in their units."""
    images: list[ImageCost]
    changes: Changes
    calibrations: list[Calibration]
    """Of cameras whose lens was found."""
    residual_fields: list[ResidualField]
    phases: list[PhaseStats] = field(default_factory=list)
    database: DatabaseChange | None = None
    """What was written into a database."""

    @property
    def residual(self) -> tuple[float, float]:
        """residual_before and residual_after."""
        return self.residual_before, self.residual_after

    @property
    def cost(self) -> tuple[float, float]:
        """Of all images, before and after."""
        return sum(image.before for image in self.images), sum(image.after for image in self.images)

    def summary(self) -> dict[str, str]:
        """The figures that matter most, ready to be read."""
        model, moved = self.reconstruction, sorted(pose.baselines for pose in self.changes.poses)
        return {
            "images": str(model.num_reg_images()),
            "points": str(model.num_points3D()),
            "observations": str(model.compute_num_observations()),
            "reprojection error (pixels)": f"{self.residual_before:.3f} -> {self.residual_after:.3f}",
            "cost": "{:.4g} -> {:.4g}".format(*self.cost),
            "median move of a camera (baselines)": f"{moved[len(moved) // 2]:.2g}" if moved else "",
            "images back at their pose": str(sum(image.restored for image in self.images)),
        }

    def __repr__(self) -> str:
        return "\n".join(["ModelResult", *(f"  {name}: {value}" for name, value in self.summary().items())])

    def _repr_html_(self) -> str:
        rows = (f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in self.summary().items())
        return f"<table>{''.join(rows)}</table>".replace("->", "&rarr;")

    def contents(self) -> dict[str, Any]:
        """The figures as a report holds them, see pixcli.io.report."""
        model = self.reconstruction
        return {
            "model": {
                "images": model.num_reg_images(),
                "missing_images": self.num_missing_images,
                "points": model.num_points3D(),
                "observations": int(model.compute_num_observations()),
            },
            "residual": dict(zip(("before", "after"), self.residual, strict=True)),
            "cost": dict(zip(("before", "after"), self.cost, strict=True)),
            "rounds": self.rounds,
            "solves": self.solves,
            "gated": self.adjustment.gated,
            "textureless_points": self.adjustment.textureless_points,
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
