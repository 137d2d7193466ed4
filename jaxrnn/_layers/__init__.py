"""Cells and directions as the linen and nnx modules hold them; needs no Flax."""
