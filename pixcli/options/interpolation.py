"""Options of sampling feature maps between their samples."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pixcli.options.fields import OptionGroup, UsedWith, option, parse_numbers


def _parse_nodes(text: str) -> tuple[tuple[float, float], ...]:
    nodes = []
    for part in text.split():
        numbers = parse_numbers(part)
        if len(numbers) != 2:
            raise ValueError("expected offsets x,y separated by spaces, such as '0,0 1,0'")
        nodes.append((numbers[0], numbers[1]))
    if not nodes:
        raise ValueError("expected at least one offset x,y")
    return tuple(nodes)


@dataclass(frozen=True)
class InterpolationOptions(OptionGroup):
    """How a feature map is sampled around a keypoint, and how the samples are normalized."""

    group = "Interpolation"
    used_with: ClassVar[UsedWith] = {
        "KeypointAdjustment.strategy": ("featuremetric", "topological_reference"),
        "FeaturemetricBundleAdjustment.strategy": ("feature_reference", "costmaps", "patch_warp"),
        "Localization.strategy": ("featuremetric",),
    }

    mode: Literal["bicubic", "bilinear"] = option(
        "bicubic", "Bicubic (Catmull-Rom) or bilinear interpolation.", advanced=True
    )
    nodes: str = option(
        "0,0",
        "Offsets x,y from the keypoint at which the map is sampled, in samples of the map, separated by "
        "spaces. patch_warp needs several and uses 4x4 nodes if only one is given.",
        parse=_parse_nodes,
        advanced=True,
    )
    l2_normalize: bool = option(True, "Scale each interpolated vector to unit length.", advanced=True)
    ncc_normalize: bool = option(
        False,
        "Per channel, subtract the mean over the nodes and divide by the standard deviation.",
        advanced=True,
    )

    @property
    def offsets(self) -> tuple[tuple[float, float], ...]:
        """nodes as pairs (x, y)."""
        return _parse_nodes(self.nodes)
