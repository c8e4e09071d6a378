"""Options of sampling feature maps between their samples."""

from dataclasses import dataclass
from typing import Literal

from pixcli.options.fields import OptionGroup, option, parse_numbers


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

    mode: Literal["bicubic", "bilinear"] = option("bicubic", "Bicubic is Catmull-Rom.")
    nodes: str = option(
        "0,0",
        "Offsets x,y from the keypoint at which the map is sampled, in its samples, separated by spaces. "
        "patch_warp, which needs several, takes a grid of its own if there is only one.",
        parse=_parse_nodes,
    )
    l2_normalize: bool = option(True, "Scale every interpolated vector to unit length.")
    ncc_normalize: bool = option(
        False, "Per channel, subtract the mean over the nodes and divide by the deviation."
    )

    @property
    def offsets(self) -> tuple[tuple[float, float], ...]:
        """nodes as pairs (x, y)."""
        return _parse_nodes(self.nodes)
