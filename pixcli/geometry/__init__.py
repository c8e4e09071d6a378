"""Cameras, observations and matches as arrays."""
