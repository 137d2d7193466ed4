"""Flax nnx layers of published models: projections, a convolution and a memory."""
