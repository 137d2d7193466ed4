"""Writes an example of each cell whose docstring has none."""

import dataclasses
import inspect

import jaxrnn

GRID = "16, feature_size=4, frequency_skip=4, num_frequency_blocks=[4]"
ATTENDING = "jaxrnn.GRUCell(16), attn_length=5"
MACHINE = """
    jaxrnn.LSTMCell(32), memory_size=16, memory_vector_dim=8,
    read_head_num=1, write_head_num=1, output_dim=5"""
# The keys are class names or tuples of the required fields.
ARGUMENTS = {
    ("num_units",): "16",
    ("units",): "16",
    ("num_units", "num_heads"): "16, num_heads=4",
    ("cell",): "jaxrnn.GRUCell(16)",
    ("cells",): "[jaxrnn.GRUCell(16), jax.nn.relu, jaxrnn.GRUCell(16)]",
    ("cell", "depth"): "jaxrnn.GRUCell(16), depth=16",
    ("cell", "num_proj"): "jaxrnn.GRUCell(16), num_proj=8",
    ("cell", "output_fn"): "jaxrnn.GRUCell(16), jax.nn.relu",
    ("cell", "device"): "jaxrnn.GRUCell(16), jax.devices()[0]",
    "AttentionCellWrapper": ATTENDING,
    "BidirectionalGridLSTMCell": GRID,
    "GridLSTMCell": GRID,
    "GRUBlockCellV2": "16",
    "NTMCell": MACHINE,
    "OutputProjectionWrapper": "jaxrnn.GRUCell(16), output_size=8",
    # Their inputs are nests; guides have examples.
    "PhasedLSTMCell": None,
    "DeltaMemoryCell": None,
    "DPLRMemoryCell": None,
    "LinearAttentionMemoryCell": None,
    "MLSTMMemoryCell": None,
    "RWKV6MemoryCell": None,
    "S6MemoryCell": None,
    "TimeFreqLSTMCell": "16, feature_size=4, frequency_skip=4, num_windows=4",
}


def example_of(module: str, cell: object) -> str:
    """A program that runs a cell; empty if the docstring or the guide has an example.

    The input size equals the number of units, which all cells accept.
    """
    if not is_concrete_cell(cell) or ">>>" in cell.__doc__:
        return ""
    fields = [f for f in dataclasses.fields(cell) if f.init and not f.kw_only]
    needed = tuple(f.name for f in fields if f.default is f.default_factory)
    arguments = ARGUMENTS.get(cell.__name__, ARGUMENTS.get(needed))
    if arguments is None:
        return ""
    return f"""\
import jax, jax.numpy as jnp, {module}

x = jnp.ones((3, 5, 16))  # [batch, time, depth]
cell = {module}.{cell.__name__}({arguments})
params = cell.init(jax.random.key(0), x[:, 0])
outputs, state = jaxrnn.dynamic_rnn(
    cell.bind(params), x, sequence_length=[5, 2, 0], dtype=x.dtype)"""


def is_concrete_cell(value: object) -> bool:
    """Whether the value is the class of a cell that has no abstract methods."""
    is_cell = isinstance(value, type) and issubclass(value, jaxrnn.RNNCell)
    return is_cell and not inspect.isabstract(value)
