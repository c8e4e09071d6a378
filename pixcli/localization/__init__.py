"""Localization of query images against a COLMAP model."""
