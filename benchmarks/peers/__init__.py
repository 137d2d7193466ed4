"""The peers, one file each: `USES`, its packages, and `build(case, data) -> Built`."""

OURS = "jaxrnn"

# Each file `peers/<name>.py`; tables keep this order.
NAMES = (
    OURS,
    "jaxrnn_linen",
    "jaxrnn_nnx",
    "packed",
    "scan",
    "linen",
    "nnx",
    "haiku",
    "keras",
    "torch",
    "tensorflow",
    "gemm_xla",
    "gemm_torch",
)

# Ours in other clothes: when it becomes faster, so do they.
KIN = ("jaxrnn_linen", "jaxrnn_nnx", "packed")

# These do the matrix products alone: no networks, but what a network cannot beat.
LIMITS = ("gemm_xla", "gemm_torch")
