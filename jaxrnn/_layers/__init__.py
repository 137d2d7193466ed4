"""The cells and directions of linen and nnx modules, without a dependency on Flax."""
