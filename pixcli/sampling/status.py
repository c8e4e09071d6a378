"""What happened to a keypoint that was measured; native code decides much of it and says what each means."""

from pixcli._core import Status

__all__ = ["Status"]
