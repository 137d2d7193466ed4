"""Flax nnx: `nnx.RNN`, time-major, with `seq_lengths`, split for `jax.jit`."""

from typing import Any

import jax
from flax import nnx

import jaxrnn.convert

from ..built import LeftOutError, Variants
from ..cases import Case
from ..data import Data
from . import _jax
from .jaxrnn import bound

USES = ("flax", "jax", "jaxlib")

CELLS = {
    "lstm": (nnx.OptimizedLSTMCell, nnx.LSTMCell),
    "gru_after": (nnx.GRUCell,),
}

# Keep the parameters out of the loop's carry. Flax's default was never faster.
BROADCAST = nnx.StateAxes({nnx.Param: None, ...: nnx.Carry})


def build(case: Case, data: Data) -> Variants:
    """One net for each class that implements the cell."""
    if case.layer_cell not in CELLS:
        raise LeftOutError("Flax nnx has no such cell")
    cells = CELLS[case.layer_cell]
    nets = {cell.__name__: make_net(case, data, cell) for cell in cells}
    return _jax.build(case, data, nets)


def make_net(case: Case, data: Data, cell: type[nnx.Module]) -> _jax.Net:
    """A net of this class of cell, which also runs one sequence `[T, D]`."""
    splits = [_split(cell(d, case.units, rngs=nnx.Rngs(0))) for d in case.layer_depths]

    def layer(number, params, inputs, state, lengths):
        graph, _, rest = splits[number]
        rnn = nnx.merge(graph, params, rest)
        state, outputs = rnn(inputs, initial_carry=state, seq_lengths=lengths)
        return outputs, state

    _, own, _ = splits[0]
    optimized = cell is nnx.OptimizedLSTMCell

    def to_params(weights):
        saved = jaxrnn.convert.to_nnx(bound(case, weights), optimized=optimized)
        return jax.tree.unflatten(jax.tree.structure(own), jax.tree.leaves(saved))

    return _jax.layered_net(data, layer, to_params, _jax.carry(*case.state_names))


def _split(cell: nnx.Module) -> tuple[Any, nnx.State, nnx.State]:
    rnn = nnx.RNN(
        cell, time_major=True, return_carry=True, state_axes=BROADCAST, rngs=False
    )
    return nnx.split(rnn, nnx.Param, ...)
