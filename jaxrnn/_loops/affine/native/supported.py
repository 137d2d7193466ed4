"""The cells and arrays that the native loops support."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from ...._base.errors import describe, name_of
from ...._base.mesh import explicit_mesh_of
from ...._base.typing import Params
from ...._cells.equations import Equations
from ...._run.run import Run
from . import calls

if TYPE_CHECKING:
    from ...._cells.affine import AffineCell


class NativeCell(NamedTuple):
    """A cell that the native loops support.

    Attributes:
        number: The cell's number in C++.
        has_c: Whether the cell is an LSTM.
        operands: For each matrix product of a step, the array that its state matrix
            multiplies: "h", "computed" for an array that the step computes from h, such
            as r * h in a GRU, or None if there is no state matrix.
    """

    number: int
    has_c: bool
    operands: tuple[str | None, ...]


NATIVE_CELLS = {
    "lstm": NativeCell(0, True, ("h",)),
    "gru": NativeCell(1, False, ("h", "computed")),
    "rnn": NativeCell(2, False, ("h",)),
    "cudnn_gru": NativeCell(3, False, ("h", None, "h")),
    "peephole_lstm": NativeCell(4, True, ("h",)),
    "projected_lstm": NativeCell(5, True, ("h", "computed")),
    "normed_lstm": NativeCell(6, True, ("h",)),
}

# The supported activations of the candidate or, in an LSTM, of j and c. The index of an
# activation is its number in C++.
ACTIVATIONS = jnp.tanh, jax.nn.relu, jax.nn.sigmoid


def equations_of(cell: "AffineCell") -> Equations | None:
    """The equations that the cell's own class declares, or None."""
    declared: Any = vars(type(cell)).get("equations")
    return declared and declared.__get__(cell)


def native_cell(equations: Equations) -> NativeCell:
    """Returns the native cell that computes these equations."""
    kind = equations.kind
    if equations.has_norms:
        kind = "normed_lstm"
    elif equations.has_projection:
        kind = "projected_lstm"
    elif equations.has_peepholes or equations.cell_clip is not None:
        kind = "peephole_lstm"
    return NATIVE_CELLS[kind]


def why_not_native(cell: "AffineCell", params: Params, run: Run) -> str | None:
    """The reason why the native loops cannot run the cell on these arrays, or None."""
    # The cell.
    known = "the native loops support only LSTMs, GRUs and basic RNNs"
    equations = equations_of(cell)
    if equations is None:
        return f"{known}, not {type(cell).__name__}"
    if equations.activation not in ACTIVATIONS:
        name = name_of(equations.activation)
        return f"{known} with tanh, relu or sigmoid, not {name}"
    others = equations.has_peepholes, equations.has_projection, equations.cell_clip
    if equations.has_norms and others != (False, False, None):
        return (
            f"{known}, not layer normalization with peepholes, a projection or "
            "`cell_clip`"
        )

    if not cell.project_inputs:
        return "the native loops do not support `project_inputs=False`"

    # The arrays.
    if explicit_mesh_of((run.inputs, run.state)) is not None:
        return "the native loops need `jax.shard_map` on an explicit mesh"
    if not isinstance(run.inputs.shape[1 - run.steps.axis], int):
        return "the number of rows is symbolic"
    if not isinstance(run.inputs.shape[-1], int):
        return "the size of the inputs is symbolic"
    states = run.state, run.reset_state
    arrays = [run.inputs, *jax.tree.leaves(states)]
    empty = [describe(x) for x in arrays if 0 in x.shape]
    if empty:
        return f"the native loops do not support empty arrays, got {empty[0]}"
    dtypes = {x.dtype for x in [*arrays, *jax.tree.leaves(params)]}
    if dtypes != {jnp.dtype(jnp.float32)}:
        names = ", ".join(sorted(map(str, dtypes)))
        return f"the native loops support only float32, got {names}"
    return calls.why_unusable()
