"""The peers, one file each: `USES`, its packages, and `build(case, data) -> Built`."""

OURS = "jaxrnn"

# Each file `peers/<name>.py`; tables keep this order.
NAMES = (
    OURS,
    "jaxrnn_xla",
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

# Other forms of jaxrnn: when it becomes faster, so do they.
OTHER_FORMS = ("jaxrnn_xla", "jaxrnn_linen", "jaxrnn_nnx", "packed")

# These do the matrix products alone: not networks, but a lower limit of their time.
LIMITS = ("gemm_xla", "gemm_torch")
