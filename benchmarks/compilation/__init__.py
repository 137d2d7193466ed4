"""Times the first call of a network: tracing, lowering and compiling it."""

# Only libraries that JAX compiles.
NAMES = ("jaxrnn", "jaxrnn_linen", "jaxrnn_nnx", "scan", "linen", "nnx", "haiku")
OURS = NAMES[0]
