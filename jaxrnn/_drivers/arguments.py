"""Checks of the cells and inputs that the public calls take."""

from collections.abc import Sequence
from typing import Any

from .._base.arguments import check_instance, check_rank, check_time_major
from .._base.errors import counted, expect
from .._base.inputs import as_array, check_same_size, named_inputs
from .._base.trees import is_tensor_array, map_named
from .._base.typing import PyTree, UnboundCellLike

OF_A_LIST = (
    "Each element of a list or tuple is a separate input. To make one array, call "
    "`jnp.asarray`; for sequences of different lengths, use `pack_sequences`."
)


def check_is_cell(name: str, cell: Any) -> None:
    """Raises TypeError unless `cell` is a bound cell or has the attributes of one."""

    def has(*names: str) -> bool:
        # Look at the class first, because an AttributeError that a property raises
        # would look like a missing attribute.
        return any(hasattr(type(cell), n) or hasattr(cell, n) for n in names)

    has_sizes = has("output_size") and has("state_size")
    is_like = has_sizes and callable(cell) and has("zero_state", "get_initial_state")
    # A bound cell may have `init` and `bind`, but no `apply`.
    is_unbound = isinstance(cell, type) or (has("init") and has("apply"))
    fix = _fix_of_cell(name, cell)
    is_bound = is_like and not is_unbound
    expect(is_bound, name, "be a bound cell", cell, fix, TypeError)


def _fix_of_cell(name: str, cell: object) -> str:
    """What to do with an object that is not a bound cell."""
    if hasattr(cell, "get_cells"):
        return f"Pass the bound cells of the module: `{name}.get_cells()`."
    if hasattr(cell, "cells_of"):
        return f"Pass the bound cells of the module: `{name}.cells_of(variables)`."
    if hasattr(cell, "initialize_carry"):
        return "Convert a Flax cell with `as_cell` of `jaxrnn.linen` or `jaxrnn.nnx`."
    if isinstance(cell, list | tuple):
        return (
            f"For one layer, pass `{name}[0]`; for several, pass a bound "
            "`MultiRNNCell`. If each layer has two directions, pass the cells to "
            "`stack_bidirectional_dynamic_rnn`."
        )
    return (
        f"Pass `{name}.bind(params)`, or an object that implements "
        "`jaxrnn.RNNCellLike`."
    )


def check_is_unbound_cell(name: str, cell: object) -> None:
    """Raises TypeError unless `cell` can create its parameters."""
    kinds = () if isinstance(cell, type) else UnboundCellLike
    what = "an unbound cell, such as `jaxrnn.LSTMCell(64)`"
    fix = _fix_of_cell(name, cell) if hasattr(cell, "get_cells") else ""
    check_instance(name, cell, kinds, what, fix)


def check_both_lists(cells_fw: Any, cells_bw: Any) -> None:
    """Raises ValueError unless both lists have the same number of cells, 1 or more."""
    for name, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        is_list = isinstance(cells, Sequence) and len(cells) > 0
        expect(is_list, name, "be a list of at least one cell", cells)
    depth = len(cells_fw)
    must = f"have the depth of `cells_fw` ({counted(depth, 'cell')})"
    expect(len(cells_bw) == depth, "cells_bw", must, cells_bw)


def as_sequences(inputs: PyTree, time_major: bool) -> PyTree:
    """The inputs as a nest of arrays of rank 3 or more with equal time and batch sizes.

    Raises:
        ValueError: If there is no array, a leaf is None, a rank is below 3, or sizes
            disagree.
        TypeError: If a leaf is not an array, or `time_major` is not a bool.
    """
    check_time_major(time_major)
    inputs = map_named("inputs", as_array, inputs, is_tensor_array)
    named = named_inputs(inputs)
    axes = "[time, batch, ...]" if time_major else "[batch, time, ...]"
    of_a_list = OF_A_LIST if type(inputs) in (list, tuple) else ""
    # A nest with whole sequences is meant as a nest.
    has_sequences = any(leaf.ndim > 2 for _, leaf in named)
    of_a_list = "" if has_sequences else of_a_list
    rows, steps = (":, None", "None") if time_major else ("None", ":, None")
    for name, leaf in named:
        of_rank = f"For one number per step, pass `{name}[..., None]`."
        if not has_sequences:
            one = f"For one sequence [time, depth], pass `{name}[{rows}]`."
            of_step = f"For one step [batch, depth], pass `{name}[{steps}]`."
            of_rank = f"{one} {of_step} {of_rank} Embed integer ids."
        check_rank(name, leaf, 3, axes, of_a_list or of_rank)
    check_same_size(named, slice(2), f"first two sizes, {axes},", of_a_list)
    return inputs


def as_steps(inputs: Any) -> list[PyTree]:
    """A nest of arrays for each step, all of rank 2 or more with equal batch sizes.

    If the first leaf has rank 1 (for example, integer ids), all leaves may have rank 1.

    Raises:
        TypeError: If `inputs` is not a sequence, or a leaf is not an array.
        ValueError: If `inputs` is empty or a dict, if a rank is too low, or if batch
            sizes differ.
    """
    is_list = isinstance(inputs, list | tuple)
    must = "be a list or tuple with one entry per step"
    fix = (
        "Use `dynamic_rnn`, or split an array x [batch, time, ...] with "
        "`list(jnp.swapaxes(x, 0, 1))`."
    )
    error = ValueError if isinstance(inputs, dict) else TypeError
    expect(is_list, "inputs", must, inputs, fix, error)
    steps = map_named("inputs", as_array, list(inputs))
    named = named_inputs(steps)
    least = 1 if named[0][1].ndim == 1 else 2
    for name, leaf in named:
        fix = f"For one number per row, pass `{name}[:, None]`." if leaf.ndim else ""
        check_rank(name, leaf, least, "[batch, ...]", fix)
    check_same_size(named, fix="Each entry of `inputs` is one step of all rows.")
    return steps
