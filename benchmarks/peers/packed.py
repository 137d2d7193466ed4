"""jaxrnn on the same sequences, packed end to end in rows before the clock starts."""

import dataclasses
from typing import Any

import numpy as np

import jaxrnn

from ..built import Built, LeftOutError
from ..cases import Case
from ..data import Data
from . import _jax, _ours

USES = ("jaxrnn", "jax", "jaxlib", "optax")

PyTree = Any


def build(case: Case, data: Data) -> Built:
    """`packed_rnn` as a user calls it."""
    if data.lengths is None:
        raise LeftOutError("dense rows hold nothing to pack")
    if len(data.weights) > 1:
        raise LeftOutError("written for one layer")
    return _jax.build(case, data, {"": _net(case, data)})


def _net(case: Case, data: Data) -> _jax.Net:
    cell, lengths = _ours.make_cell(case), data.lengths
    packed = jaxrnn.pack_sequences(data.inputs, lengths, time_major=False)
    cotangents = jaxrnn.pack_sequences(data.output_cotangents, lengths)

    def apply(
        params: PyTree, inputs: PyTree, state: PyTree, packed: PyTree
    ) -> tuple[PyTree, PyTree]:
        packed = dataclasses.replace(packed, inputs=inputs)
        outputs, final = jaxrnn.packed_rnn(cell.bind(params), packed, state[0])
        return outputs, [final]

    make_state, read_state = _ours.state_layout(case)
    states = lambda state: [make_state(layer) for layer in state]
    return _jax.Net(
        apply=apply,
        params=_ours.to_params(case, data.weights),
        inputs=packed.inputs,
        state=states(data.state),
        lengths=dataclasses.replace(packed, inputs=()),
        cotangents=(cotangents.inputs, states(data.state_cotangents)),
        read_params=lambda params: _ours.from_params(case, params),
        read_sequences=lambda tree: np.asarray(packed.unpack(tree)),
        read_state=lambda state: [read_state(layer) for layer in state],
    )
