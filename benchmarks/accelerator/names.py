"""The peers by name, in the order of tables, and what bounds each of them."""

from jaxrnn._kernels.api import KERNELS, NAMES as IMPLEMENTATIONS

# Times are compared with this one's; it is jaxrnn with the loop that XLA compiles.
OURS, *_ = IMPLEMENTATIONS

NAMES = (*IMPLEMENTATIONS, "scan", "linen", "nnx", "torch")

# These make the products of the inputs ahead, and read the matrices once; the others
# are loops of XLA.
AHEAD = (*KERNELS, "torch")
