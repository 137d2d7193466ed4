"""Patterns by hand, as users write them without jaxrnn: Flax, Equinox or plain JAX.

The loops around a layer are in `patterns.py`, which jaxrnn's peer shares.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp

import jaxrnn.convert

from ..built import LeftOutError, Variants
from ..cases import Case
from ..data import Data
from . import _jax, chunks, linen, nnx, patterns, recurrences, scan
from .jaxrnn import OWN, bound, make_cell, make_net

USES = ("equinox", "flax", "jax", "jaxlib")
HAS_RESETS = HAS_PATTERNS = True

PyTree = Any


def build(case: Case, data: Data) -> Variants:
    """A net for each class of Flax that implements the cell, or some in plain JAX."""
    if not case.pattern:
        raise LeftOutError("only for patterns")
    if case.pattern == "mapped":
        return _jax.build(case, data, _mapped(case, data))
    if case.cell in _PLAIN:  # With the parameters of jaxrnn's cell.
        run = functools.partial(_PLAIN[case.cell], make_cell(case))
        return _jax.build(case, data, {"": make_net(case, data, run)})
    apply = _bidirectional if case.pattern == "bidirectional" else _layer
    nets = {
        kind.__name__: _jax.make_net(
            data,
            apply(case, functools.partial(kind, case.units)),
            lambda layers: [linen.to_params(case, layer) for layer in layers],
            _jax.carry(*case.state_names),
        )
        for kind in linen.CELLS[case.cell]
    }
    return _jax.build(case, data, nets)


def _mapped(case: Case, data: Data) -> dict[str, _jax.Net]:
    """Scans of one sequence, mapped over the rows."""
    if case.cell in OWN:  # With the parameters and the step of jaxrnn's cell.
        cell = make_cell(case)

        def one_row(run, params, inputs, state, _):
            outputs, state = run(cell, params, jnp.swapaxes(inputs, 0, 1), state)
            return jnp.swapaxes(outputs, 0, 1), state

        return {
            name: make_net(
                case, data, patterns.around(case, functools.partial(one_row, run))
            )
            for name, (run, cells) in recurrences.RUNS.items()
            if case.cell in cells
        }
    nets = {"lax.scan": scan.make_net(case, data)}
    for kind in nnx.CELLS.get(case.cell, ()):
        nets[f"nnx.RNN({kind.__name__})"] = nnx.make_net(case, data, kind)
    if case.cell in _EQUINOX:
        nets["Equinox"] = _equinox(case, data)
    return {
        name: dataclasses.replace(net, apply=patterns.over_rows(net.apply))
        for name, net in nets.items()
    }


_EQUINOX = {"lstm": eqx.nn.LSTMCell, "gru_after": eqx.nn.GRUCell}


def _equinox(case: Case, data: Data) -> _jax.Net:
    """A scan of Equinox's cell, for one sequence."""
    empty = _EQUINOX[case.cell](case.depth, case.units, key=jax.random.key(0))

    def layer(_, params, inputs, state, __):
        of_cell = lambda cell: [getattr(cell, name) for name in params]
        cell = eqx.tree_at(of_cell, empty, list(params.values()))

        def step(state, x):
            state = cell(x, state)
            return state, jax.tree.leaves(state)[0]  # It is h, or (h, c).

        state, outputs = jax.lax.scan(step, state, inputs)
        return outputs, state

    to_params = lambda weights: jaxrnn.convert.to_equinox(bound(case, weights))
    carry = _jax.carry(*reversed(case.state_names))
    return _jax.layered_net(data, layer, to_params, carry)


class Scanned(nn.Module):
    """A cell over `[T, B, D]` that starts from zeros in the rows that are reset."""

    new_cell: Callable[..., nn.RNNCellBase]

    @functools.partial(
        nn.scan, variable_broadcast="params", split_rngs={"params": False}
    )
    @nn.compact
    def __call__(self, carry, now):
        """Carry the state; `now` is an input and the rows that are reset before it."""
        inputs, first = now
        select = lambda state: jnp.where(first[:, None], 0.0, state)
        return self.new_cell(name="cell")(jax.tree.map(select, carry), inputs)


def _layer(case: Case, new_cell: Callable[..., nn.RNNCellBase]) -> patterns.Run:
    """The pattern around a scan with resets, or around one step of the cell."""

    def run(params, inputs, state, resets):
        if resets is None:
            state, output = new_cell().apply({"params": params}, state, inputs[0])
            return output[None], state
        variables = {"params": {"cell": params}}
        state, outputs = Scanned(new_cell).apply(variables, state, (inputs, resets))
        return outputs, state

    whole = patterns.around(case, run)

    def apply(params, inputs, state, resets):
        outputs, final = whole(params[0], inputs, state[0], resets)
        return outputs, [final]

    return apply


def _bidirectional(case: Case, new_cell: Callable[..., nn.RNNCellBase]) -> patterns.Run:
    """Two scans, one of them over the valid steps of each row in reverse order."""
    del case
    options = {"time_major": True, "return_carry": True}
    layers = [
        nn.RNN(new_cell(), **options),
        nn.RNN(new_cell(), **options, reverse=True, keep_order=True),
    ]

    def apply(params, inputs, states, lengths):
        final, outputs = zip(
            *(
                layer.apply(
                    {"params": {"cell": cell}},
                    inputs,
                    initial_carry=state,
                    seq_lengths=lengths,
                )
                for layer, cell, state in zip(layers, params, states, strict=True)
            ),
            strict=True,
        )
        return jnp.concatenate(outputs, axis=-1), list(final)

    return apply


def _associative(
    cell: Any, params: PyTree, inputs: jax.Array, state: jax.Array, resets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A minGRU whose resets are factors of zero."""
    del cell
    z, c = jnp.split(inputs @ params["kernel"] + params["bias"], 2, axis=-1)
    gate = jax.nn.sigmoid(z)
    candidate = jnp.where(c >= 0, c + 0.5, jax.nn.sigmoid(c))
    a, b = jnp.where(resets[..., None], 0, 1 - gate), gate * candidate
    b = b.at[0].add(a[0] * state)
    combine = lambda old, new: (new[0] * old[0], new[0] * old[1] + new[1])
    _, states = jax.lax.associative_scan(combine, (a, b))
    return states, states[-1]


_PLAIN = {"mingru": _associative, "mlstm": lambda *args: chunks.run(*args[:4])}
