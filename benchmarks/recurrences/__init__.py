"""Times cells that run in parallel, beside loops and scans of the same equations."""

OURS = "jaxrnn"

# What runs a cell; tables keep this order.
NAMES = (OURS, "scan", "associative", "recurrentgemma", "torch")
PEERS = NAMES[1:]

# Forms whose deviation is measured, and whose time and memory by the number of steps.
DEVIATING = NAMES[:2]
DTYPES = ("float32", "bfloat16")
FORMS = NAMES[:3]
