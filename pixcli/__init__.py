"""Sub-pixel refinement of COLMAP keypoints, models and localizations by aligning features across views."""

__version__ = "0.1.0"
