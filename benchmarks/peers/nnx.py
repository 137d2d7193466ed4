"""Flax nnx: `nnx.RNN`, time-major, with `seq_lengths`, split for `jax.jit`."""

from typing import Any

from flax import nnx

from ..built import RESET_AFTER, Built, LeftOutError
from ..cases import Case
from ..data import Data
from ..layouts import Gates, apart, from_gates, side_by_side, to_gates
from . import _jax

USES = ("flax", "jax", "jaxlib", "optax")

PyTree = Any

# Classes, and the order of their blocks.
CELLS = {
    "lstm": ((nnx.OptimizedLSTMCell, nnx.LSTMCell), "ifgo"),
    "gru": ((nnx.GRUCell,), "ruc"),
    "gru_after": ((nnx.GRUCell,), "ruc"),
    "rnn": ((nnx.SimpleCell,), "a"),
}

# By default the loop carries the parameters along, which was never faster.
BROADCAST = nnx.StateAxes({nnx.Param: None, ...: nnx.Carry})


def build(case: Case, data: Data) -> Built:
    """One net for each cell class that computes the case."""
    if case.layer_cell not in CELLS:
        raise LeftOutError("Flax nnx has no such cell")
    classes, _ = CELLS[case.layer_cell]
    nets = {cell.__name__: _net(case, data, cell) for cell in classes}
    return _jax.build(case, data, nets, RESET_AFTER if case.cell == "gru" else "")


def _net(case: Case, data: Data, cell: type[nnx.Module]) -> _jax.Net:
    _, order = CELLS[case.layer_cell]
    splits = []
    for depth, weights in zip(case.layer_depths, data.weights, strict=True):
        module = cell(depth, case.units, rngs=nnx.Rngs(0))
        _load(module, to_gates(case.layer_cell, weights, 1), order)
        rnn = nnx.RNN(
            module,
            time_major=True,
            return_carry=True,
            state_axes=BROADCAST,
            rngs=False,
        )
        splits.append(nnx.split(rnn, nnx.Param, ...))

    def layer(
        number: int, params: PyTree, inputs: PyTree, state: PyTree, lengths: PyTree
    ) -> tuple[PyTree, PyTree]:
        graph, _, rest = splits[number]
        rnn = nnx.merge(graph, params, rest)
        state, outputs = rnn(inputs, initial_carry=state, seq_lengths=lengths)
        return outputs, state

    return _jax.make_net(
        data,
        _jax.by_layers(layer),
        [params for _, params, _ in splits],
        lambda params: [from_gates(case.layer_cell, _read(p, order)) for p in params],
        *_jax.carry(*case.state_names),
    )


def _load(cell: nnx.Module, gates: Gates, order: str) -> None:
    """Puts a layer's numbers into its cell: two products, or one for each gate."""
    if hasattr(cell, "dense_i"):
        x, h, b = side_by_side(gates, order)
        biased = cell.dense_i if cell.dense_h.bias is None else cell.dense_h
        cell.dense_i.kernel[...], cell.dense_h.kernel[...], biased.bias[...] = x, h, b
        return
    for gate in order:
        i, h = (getattr(cell, name) for name in _separate(gate))
        i.kernel[...], h.kernel[...] = gates.x[gate], gates.h[gate]
        h.bias[...] = gates.b[gate]


def _read(params: nnx.State, order: str) -> Gates:
    """The way back of `_load`."""
    cell = nnx.to_pure_dict(params)["cell"]
    if "dense_i" in cell:
        i, h = cell["dense_i"], cell["dense_h"]
        return apart(order, i["kernel"], h["kernel"], {**i, **h}["bias"])
    gates = Gates({}, {}, {})
    for gate in order:
        i, h = (cell[name] for name in _separate(gate))
        gates.x[gate], gates.h[gate], gates.b[gate] = (
            i["kernel"],
            h["kernel"],
            h["bias"],
        )
    return gates


def _separate(gate: str) -> tuple[str, str]:
    return ("if_" if gate == "f" else f"i{gate}"), f"h{gate}"
