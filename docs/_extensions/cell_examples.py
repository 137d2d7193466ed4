"""Adds an example and a link to the guide to the page of each cell.

A cell's page lists only the members that users call. The pages of the abstract cells
list the members that drivers call.
"""

import dataclasses
import importlib

import jaxrnn

MODULES = ["jaxrnn", "jaxrnn.contrib", "jaxrnn.lite"]
ABSTRACT = ["RNNCell", "AffineCell", "LinearRecurrenceCell"]
MEMBERS = ["init", "bind", "apply", "zero_state", "state_size", "output_size"]

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
    ("cells",): "[jaxrnn.GRUCell(16), jaxrnn.GRUCell(16)]",
    ("cell", "depth"): "jaxrnn.GRUCell(16), depth=16",
    ("cell", "num_proj"): "jaxrnn.GRUCell(16), num_proj=8",
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
    "TimeFreqLSTMCell": "16, feature_size=4, frequency_skip=4, num_windows=4",
}


def guide_of(module: str, cell: type) -> str:
    """The document name of the guide's page about a cell."""
    if cell.__name__ == "AttentionWrapper":
        return "/guide/seq2seq"
    if module == "jaxrnn.contrib":
        return "/coming_from/tensorflow1"
    past_inputs = jaxrnn.PastInputsWrapper, jaxrnn.TemporalConvWrapper
    complete = jaxrnn.MLSTMCell, jaxrnn.DeltaNetCell, jaxrnn.GatedDeltaNetCell
    bare = jaxrnn.LinearAttentionMemoryCell, jaxrnn.DeltaMemoryCell
    memories = (*complete, *bare, jaxrnn.DPLRMemoryCell, jaxrnn.MLSTMMemoryCell)
    parallel = (jaxrnn.LinearRecurrenceCell, *memories, *past_inputs)
    return "/guide/recurrences" if issubclass(cell, parallel) else "/guide/cells"


def example_of(module: str, cell: type) -> str:
    """A program that runs a cell; empty if the docstring or the guide has an example.

    The input size equals the number of units, which all cells accept.
    """
    fields = [f for f in dataclasses.fields(cell) if f.init and not f.kw_only]
    needed = tuple(f.name for f in fields if f.default is f.default_factory)
    arguments = ARGUMENTS.get(cell.__name__, ARGUMENTS.get(needed))
    if arguments is None or ">>>" in cell.__doc__:
        return ""
    return f"""\
import jax, jax.numpy as jnp, {module}

x = jnp.ones((3, 5, 16))  # [batch, time, depth]
cell = {module}.{cell.__name__}({arguments})
params = cell.init(jax.random.key(0), x[:, 0])
outputs, state = jaxrnn.dynamic_rnn(
    cell.bind(params), x, sequence_length=[5, 2, 0], dtype=x.dtype)"""


def describe_cells() -> dict[str, dict[str, str]]:
    """The values for the template `class.rst`, by public name of the concrete cell."""
    cells = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for public in set(module.__all__) - set(ABSTRACT):
            cell = getattr(module, public)
            if isinstance(cell, type) and issubclass(cell, jaxrnn.RNNCell):
                cells[f"{name}.{public}"] = {
                    "members": ", ".join(m for m in MEMBERS if hasattr(cell, m)),
                    "example": example_of(name, cell),
                    "guide": guide_of(name, cell),
                }
    return cells
