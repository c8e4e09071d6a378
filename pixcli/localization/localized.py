"""What localizing one query gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import numpy.typing as npt

import pycolmap


@dataclass(frozen=True)
class Step:
    """One step of a localization: what it worked on, and what it did to its own cost."""

    name: str
    seconds: float
    measurements: int = 0
    """That the pose rests on after the step."""
    cost_before: float = float("nan")
    """Mean robust cost of a measurement, in units of its variance; NaN for steps that have none."""
    cost_after: float = float("nan")


@dataclass(frozen=True, repr=False)
class LocalizationResult:
    """Pose and camera of a query with m matches; `reason` says why there is none."""

    success: bool
    reason: str
    """Why it failed; empty where it succeeded."""
    camera: pycolmap.Camera
    """With what was refined of its intrinsics."""
    cam_from_world: pycolmap.Rigid3d | None = None
    covariance: npt.NDArray[np.float64] | None = None
    """(6, 6) of (w, v) in the camera's frame, radians and units of the model: the true pose takes a point of
    the world x to exp([w]) R x + t + v, if R, t is cam_from_world. Calibrated; intrinsics taken as known
    unless they were refined."""
    inliers: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    """(m,) matches that agree with the pose."""
    keypoints: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    """(m, 2) COLMAP pixels: where the query shows the points of the matches, as measured; the keypoints given
    where nothing could be measured."""
    undone: str = ""
    """Which refinement was taken back, and why; empty if none was."""
    steps: Sequence[Step] = ()

    @property
    def num_inliers(self) -> int:
        """Matches that agree with the pose."""
        return int(self.inliers.sum())

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(step.seconds for step in self.steps)

    def summary(self) -> dict[str, str]:
        """The figures that matter most, ready to be read."""
        if self.cam_from_world is None or self.covariance is None:
            return {"failed": self.reason}
        x, y, z = self.cam_from_world.inverse().translation
        turn, move = (
            np.sqrt(np.trace(block)) for block in (self.covariance[:3, :3], self.covariance[3:, 3:])
        )
        return {
            "camera centre": f"{x:.6g} {y:.6g} {z:.6g}",
            "standard deviation": f"{move:.2g}, turned by {np.degrees(turn):.2g} degrees",
            "inliers": f"{self.num_inliers} of {len(self.inliers)}",
            "refinement": f"undone: {self.undone}" if self.undone else "kept",
            "seconds": f"{self.seconds:.3f}",
        }

    def __repr__(self) -> str:
        rows = (f"  {name}: {value}" for name, value in self.summary().items())
        return "\n".join(["LocalizationResult", *rows])

    def _repr_html_(self) -> str:
        cells = ((escape(name), escape(value)) for name, value in self.summary().items())
        return f"<table>{''.join(f'<tr><td>{a}</td><td>{b}</td></tr>' for a, b in cells)}</table>"


def failed(
    reason: str, camera: pycolmap.Camera, num_matches: int, steps: Sequence[Step] = ()
) -> LocalizationResult:
    """The result of a query that has no pose."""
    return LocalizationResult(
        False,
        reason,
        camera,
        inliers=np.zeros(num_matches, bool),
        keypoints=np.full((num_matches, 2), np.nan),
        steps=steps,
    )
