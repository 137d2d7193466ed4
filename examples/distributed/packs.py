"""Packed batches for `--packed`: whole records end to end in rows, not windows.

A batch is a stack of packs, and each device has one or more of them. Each pack has its
own stream of records, so the packs are the same on all layouts.
"""

import dataclasses
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

import jaxrnn

PACKS = 4
"""The number of packs in a batch, over all processes: a multiple of the devices."""


class Batch(NamedTuple):
    """Packs of the same shape."""

    packed: Any  # PackedSequences, each leaf [packs, ...]
    rows: Any  # [packs], int32: the packs' numbers in the batch of all processes


class Record(NamedTuple):
    """A record to be packed; `label` is stored at each step."""

    frames: Any  # [length, features]
    reversed: Any  # [length, features], for the backward direction
    label: Any


def to_record(padded):
    """A record without its padding."""
    frames = padded.frames[: padded.lengths]
    return Record(frames, frames[::-1], padded.labels)


class Packs:
    """An endless iterator over this process's packs of each batch."""

    def __init__(self, records, rows, row_length, process, processes):
        local = PACKS // processes
        self.numbers = np.arange(process * local, (process + 1) * local, dtype=np.int32)
        records = records.map(to_record)
        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)
        streams = [records[i::PACKS].to_iter_dataset(ahead) for i in self.numbers]
        pack = lambda stream: jaxrnn.packed_batches(stream, rows, row_length)
        self.streams = [pack(stream) for stream in streams]

    def __next__(self):
        return Batch(jaxrnn.stack_packed(map(next, self.streams)), self.numbers)

    def get_state(self):
        """The number of records that each stream has read. Call it in all processes."""
        states = [stream.get_state() for stream in self.streams]
        read = np.array([state["number"] for state in states])
        return multihost_utils.process_allgather(read, tiled=True).tolist()

    def set_state(self, state):
        """Continues from a state of `get_state`, in any number of processes."""
        for i, stream in zip(self.numbers, self.streams, strict=True):
            position = {"next_index": state[i]}
            stream.set_state({"records": position, "number": state[i]})


def compute_logits(params, packed, drop):
    """Logits `[packs, sequences, classes]`."""
    frames = (packed.inputs.frames, packed.inputs.reversed)
    outputs = (
        jax.vmap(lambda packed, cell=cell: run(cell, packed))(
            dataclasses.replace(packed, inputs=x)
        )
        for cell, x in zip((params["fw"], params["bw"]), frames, strict=True)
    )
    x = drop(jnp.concatenate(tuple(outputs), axis=-1))
    total = jax.vmap(lambda packed, x: jnp.sum(packed.unpack(x), axis=1))(packed, x)
    lengths = jnp.maximum(packed.sequence_length, 1)[..., None].astype(x.dtype)
    return total / lengths @ params["kernel"] + params["bias"]


def run(params, packed):
    """Runs an LSTM over one pack; returns its outputs."""
    cell = jaxrnn.LSTMCell(params["bias"].size // 4).bind(params)
    return jaxrnn.packed_rnn(cell, packed, dtype=packed.inputs.dtype)[0]


def labels(packed):
    """Labels `[packs, sequences]`, and whether each sequence exists."""
    of_sequences = jax.vmap(lambda packed: packed.at_ends(packed.inputs.label))(packed)
    return of_sequences, packed.sequence_length > 0
