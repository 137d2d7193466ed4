"""Affine cells, and the loops that run whole sequences of them."""
