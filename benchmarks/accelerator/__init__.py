"""Recurrent kernels on a GPU or a TPU: `python -m benchmarks.accelerator`."""

# What `dynamic_rnn` takes as `implementation`. Times are compared with the first one's,
# jaxrnn with the loop that XLA compiles; the others are kernels.
OURS, *KERNELS = IMPLEMENTATIONS = (
    "xla",
    "pallas_mosaic_tpu",
    "pallas_triton",
    "cudnn",
)

# The peers, in the order of tables.
NAMES = (*IMPLEMENTATIONS, "scan", "linen", "nnx", "torch")

# These multiply the inputs before the loop and read the matrices once; the others are
# loops of XLA.
AHEAD = (*KERNELS, "torch")
