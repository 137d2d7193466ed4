"""Flax nnx: `nnx.RNN`, time-major, with `seq_lengths`, split for `jax.jit`."""

from typing import Any

from flax import nnx

from ..built import Built, LeftOutError
from ..cases import Case
from ..data import Data
from ..layouts import Gates, side_by_side, to_gates
from . import _jax

USES = ("flax", "jax", "jaxlib")

# The classes and the order of the gates for each cell.
CELLS = {
    "lstm": ((nnx.OptimizedLSTMCell, nnx.LSTMCell), "ifgo"),
    "gru_after": ((nnx.GRUCell,), "ruc"),
}

# Keep the parameters out of the loop's carry. Flax's default was never faster.
BROADCAST = nnx.StateAxes({nnx.Param: None, ...: nnx.Carry})


def build(case: Case, data: Data) -> Built:
    """One net for each class that implements the cell."""
    if case.layer_cell not in CELLS:
        raise LeftOutError("Flax nnx has no such cell")
    classes, _ = CELLS[case.layer_cell]
    nets = {cell.__name__: _net(case, data, cell) for cell in classes}
    return _jax.build(case, data, nets)


def _net(case: Case, data: Data, cell: type[nnx.Module]) -> _jax.Net:
    _, order = CELLS[case.layer_cell]
    splits = [_split(cell(d, case.units, rngs=nnx.Rngs(0))) for d in case.layer_depths]

    def layer(number, params, inputs, state, lengths):
        graph, _, rest = splits[number]
        rnn = nnx.merge(graph, params, rest)
        state, outputs = rnn(inputs, initial_carry=state, seq_lengths=lengths)
        return outputs, state

    def to_params(layers):
        gates = [to_gates(case.layer_cell, weights, 1) for weights in layers]
        pure = [nnx.to_pure_dict(params)["cell"] for _, params, _ in splits]
        return [_to_params(*each, order) for each in zip(pure, gates, strict=True)]

    def wrap(layers):
        for (_, params, _), cell in zip(splits, layers, strict=True):
            nnx.replace_by_pure_dict(params, {"cell": cell})
        return [params for _, params, _ in splits]

    return _jax.make_net(
        data,
        _jax.by_layers(layer),
        to_params,
        _jax.carry(*case.state_names),
        wrap=wrap,
        unwrap=lambda layers: [nnx.to_pure_dict(params)["cell"] for params in layers],
    )


def _split(cell: nnx.Module) -> tuple[Any, nnx.State, nnx.State]:
    rnn = nnx.RNN(
        cell, time_major=True, return_carry=True, state_axes=BROADCAST, rngs=False
    )
    return nnx.split(rnn, nnx.Param, ...)


def _to_params(cell: Any, gates: Gates, order: str) -> Any:
    """A layer's parameters, for a cell with two products or with two per gate.

    The bias goes to the product, of the inputs or of the state, that has one.
    """
    if "dense_i" in cell:
        x, h, b = side_by_side(gates, order)
        biased = "dense_i" if "bias" in cell["dense_i"] else "dense_h"
        params = {"dense_i": {"kernel": x}, "dense_h": {"kernel": h}}
        params[biased]["bias"] = b
        return params
    params = {}
    for gate in order:
        params["if_" if gate == "f" else f"i{gate}"] = {"kernel": gates.x[gate]}
        params[f"h{gate}"] = {"kernel": gates.h[gate], "bias": gates.b[gate]}
    return params
