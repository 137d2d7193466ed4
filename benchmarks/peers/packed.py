"""jaxrnn on the same sequences, packed end to end in rows before the clock starts."""

import dataclasses

import numpy as np

import jaxrnn

from ..core.built import Built, LeftOutError
from ..core.cases import Case
from ..core.data import Data
from . import _jax, _ours

USES = _ours.PACKAGES


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

    def run(params, inputs, state, packed):
        packed = dataclasses.replace(packed, inputs=inputs)
        return jaxrnn.packed_rnn(cell.bind(params), packed, state)

    padded = _ours.make_net(case, data, run)
    return dataclasses.replace(
        padded,
        inputs=packed.inputs,
        lengths=dataclasses.replace(packed, inputs=()),
        cotangents=(cotangents.inputs, padded.cotangents[1]),
        read_sequences=lambda tree: np.asarray(packed.unpack(tree)),
    )
