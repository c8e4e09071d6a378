"""Bundle adjustment of a COLMAP model with features: references, problems, solving."""
