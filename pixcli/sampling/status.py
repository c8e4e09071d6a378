"""What happened to a keypoint that was measured."""

from enum import IntEnum


class Status(IntEnum):
    """What happened to a keypoint; everything but MOVED leaves it where it was."""

    UNMATCHED = 0
    """In no track: nothing to align it with."""
    MOVED = 1
    ROOT = 2
    """The root of its track, which defines where the others go."""
    CONSTANT = 3
    """Held fixed on request."""
    OUT_OF_BOUND = 4
    """The optimum is further away than the bound allows."""
    OUT_OF_IMAGE = 5
    """Its support leaves the image."""
    WEAK_TEXTURE = 6
    """Flat, or the predicted standard deviation is over its threshold."""
    LOW_CORRELATION = 7
    """It does not look like its track's template, even after alignment."""
    WORSE_SCORE = 8
    """Moving it would not have improved its cost or correlation."""
    DISTORTED = 9
    """The local warp drifted too far from its start."""
    INVALID = 10
    """Not finite, or outside the image."""
    UNDONE = 11
    """Moved, but so that matches fitted the geometry of their image pairs worse: all such were undone."""

    @property
    def label(self) -> str:
        """What a table calls it."""
        return self.name.lower().replace("_", " ")
