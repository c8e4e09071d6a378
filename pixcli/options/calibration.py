"""Options of calibration."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

from pixcli.options.fields import OptionGroup, option
from pixcli.options.synthetic import CameraModel

CAMERA_MODELS: tuple[str, ...] = get_args(CameraModel)
"""COLMAP's camera models of a single image plane."""


def _model(name: str) -> str:
    if name in CAMERA_MODELS:
        return name
    near = get_close_matches(name.upper(), CAMERA_MODELS, 1, 0.0)
    raise ValueError(
        f"{name or 'an empty name'} is no camera model of COLMAP that can be calibrated; nearest: {near[0]}"
    )


def _parse_model(text: str) -> str:
    return text if text in ("auto", "keep") else _model(text)


def _parse_candidates(text: str) -> tuple[str, ...] | None:
    if text == "all":
        return None
    return tuple(_model(name.strip()) for name in text.split(","))


@dataclass(frozen=True)
class CalibrationOptions(OptionGroup):
    """How the lenses of a model are found; only where its focal lengths and distortion are refined."""

    group = "Calibration"

    model: str = option(
        "auto",
        "auto: find the simplest of COLMAP's camera models that explains held-out measurements as well as "
        "any, principal point included. keep: the model's own, as the other options refine it. Or the name "
        "of the camera model to use.",
        parse=_parse_model,
    )
    candidates: str = option(
        "all",
        "Camera models that auto may choose besides a camera's own, separated by commas: name those that "
        "programs downstream can read. all: COLMAP's radial, OpenCV and fisheye models.",
        parse=_parse_candidates,
        advanced=True,
    )
    share: Literal["keep", "auto"] = option(
        "keep",
        "auto: merge cameras of one size whose intrinsics agree within their errors. keep: only say which.",
    )

    @property
    def candidate_models(self) -> tuple[str, ...] | None:
        """candidates as names; None: all."""
        return _parse_candidates(self.candidates)
