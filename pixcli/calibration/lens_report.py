"""What calibration found, for people and for reports."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixcli.calibration.calibrate import LensChoice, agreeing, inflation
from pixcli.calibration.lens_priors import FocalPriors, lens_prior
from pixcli.calibration.search import Candidate

import pycolmap

log = logging.getLogger(__name__)

Float64 = NDArray[np.float64]

_UNDETERMINED = 0.7  # of the prior's deviation: what is known no better was not measured


@dataclass(frozen=True)
class Parameter:
    """One parameter of a lens."""

    name: str
    value: float
    deviation: float | None
    """Standard deviation; None if it is not known."""
    determined: bool
    """Measurements say more than what is usual of lenses."""


@dataclass(frozen=True)
class Lens:
    """A camera as it was calibrated."""

    camera: int
    model: str
    parameters: list[Parameter]


@dataclass(frozen=True)
class Calibration:
    """Cameras that were alike, and what became of them."""

    before: str
    """Their camera model."""
    model: str
    centred: bool
    """Their principal points were held where they were: free ones explain nothing better."""
    candidates: list[Candidate]
    """Simple ones first."""
    merged: list[list[int]]
    """Cameras that became one, under the first id of each group."""
    agreeing: list[list[int]]
    """Cameras that are still apart, but agree within their errors."""
    lenses: list[Lens]


def calibrations(
    model: pycolmap.Reconstruction,
    choices: Sequence[LensChoice],
    covariances: Mapping[int, Float64],
    lenses: FocalPriors,
) -> list[Calibration]:
    """The report of a refined model; the log says it in a line for each group of cameras.

    Args:
        covariances: (k, k) of the parameters of each camera as the residuals tell; they are enlarged where
            the lenses of two halves of the points differ by more than that.
        lenses: what was known of the focal lengths.
    """
    reports = []
    for choice in choices:
        factor = inflation(choice, covariances)
        found = [
            _lens(model.cameras[k], None if k not in covariances else factor**2 * covariances[k], lenses, k)
            for k in choice.cameras
        ]
        alike = agreeing(model, choice, covariances)
        report = Calibration(
            before=choice.before,
            model=choice.model,
            centred=choice.centred,
            candidates=choice.candidates,
            merged=choice.merged,
            agreeing=alike,
            lenses=found,
        )
        _announce(report)
        reports.append(report)
    return reports


def _lens(camera: pycolmap.Camera, covariance: Float64 | None, lenses: FocalPriors, camera_id: int) -> Lens:
    _, prior = lens_prior(camera, lenses[camera_id])
    usual = np.sqrt(np.diag(prior))
    names = [name.strip() for name in camera.params_info.split(",")]
    known = covariance is not None and len(covariance) == len(names)
    deviation = (
        np.sqrt(np.diag(covariance)) if covariance is not None and known else np.full(len(names), np.nan)
    )
    return Lens(
        camera=camera_id,
        model=camera.model.name,
        parameters=[
            Parameter(
                name=name,
                value=float(value),
                deviation=float(own) if known else None,
                determined=bool(own < _UNDETERMINED * before),
            )
            for name, value, own, before in zip(names, camera.params, deviation, usual, strict=True)
        ],
    )


def _announce(report: Calibration) -> None:
    count = len(report.lenses) + sum(len(group) - 1 for group in report.merged)
    cameras = "1 camera" if count == 1 else f"{count} cameras"
    residuals = {c.model: c.held_out for c in report.candidates if not c.centred}
    residuals |= {c.model: c.held_out for c in report.candidates if c.centred}
    line = f"{cameras}: {report.model}"
    if report.model != report.before:
        line += f" instead of {report.before}"
        if report.before in residuals and report.model in residuals:
            before, after = residuals[report.before], residuals[report.model]
            line += f" (held-out residual {before:.3f} -> {after:.3f} pixels)"
    if report.centred:
        line += ", principal point held: a free one explains nothing better"
    if report.merged:
        line += f", of which {sum(map(len, report.merged))} became {len(report.merged)}"
    log.info(line)
    if report.agreeing:
        log.info(
            "%d cameras agree within their errors and could be %d: see --Calibration.share",
            sum(map(len, report.agreeing)),
            len(report.agreeing),
        )
    vague = sorted({p.name for lens in report.lenses for p in lens.parameters if not p.determined})
    if vague:
        log.info("not determined by the images, held near what is usual: %s", ", ".join(vague))
