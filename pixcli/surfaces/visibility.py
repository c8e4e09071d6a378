"""Which points an image should see: the limits that completion and localization share."""

import numpy as np

BORDER_MARGIN = 10.0
"""Pixels from the border of an image."""
MIN_FACING_COSINE = 0.25
"""Between a point's normal and the ray to a camera."""
MAX_VIEW_ANGLE = float(np.radians(40))
"""At the point, to a view in which it was measured."""
MAX_SCALE_RATIO = 2.0
"""Between the magnifications of the two views."""
