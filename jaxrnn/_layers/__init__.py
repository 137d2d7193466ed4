"""Layers behind the linen and nnx modules; they do not depend on Flax."""
