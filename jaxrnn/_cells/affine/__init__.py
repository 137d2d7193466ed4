"""Affine cells, and the loops that run them over whole sequences."""
