"""Decoders, losses, modules of Flax and cells on meshes equal one device.

A row is a function, and its arrays by name; `mesh.WHOLE` has the names of arrays that
are not divided.
"""

import dataclasses
import inspect
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import mesh
import numpy as np
import pytest
from cases import CASES, KINDS
from helpers import bound, draw, drawn_like
from mesh import BATCH, DEPTH, F64, UNITS, state_of

import jaxrnn
import jaxrnn.linen
from jaxrnn import BasicRNNCell, contrib, decode
from jaxrnn.testing import make_setup

CELL = BasicRNNCell(UNITS)
VOCABULARY, STEPS, BEAMS = 5, 4, 3
SEQUENCES = draw(BATCH, STEPS, DEPTH)
LENGTHS = np.array([4, 0, 3, 2], np.int32)
START = np.array([2, 0, 3, 4], np.int32)
IDS = np.arange(BATCH * STEPS).reshape(BATCH, STEPS) % VOCABULARY
MASK, RESETS = draw(BATCH, STEPS) < 0.3, draw(BATCH, STEPS, seed=1) > 0.5
KEY = jax.random.key(0)


# Decoders of a language model.

MODEL = {
    "params": bound(CELL, DEPTH).params,
    "table": 2 * draw(VOCABULARY, DEPTH),
    "kernel": 2 * draw(UNITS, VOCABULARY),
    "initial_state": state_of(CELL),
}


def model(params, table, kernel, initial_state, start_ids):
    # A product, because a lookup on an explicit mesh must state how it is divided.
    embed = lambda ids: jax.nn.one_hot(ids, VOCABULARY, dtype=table.dtype) @ table
    project = lambda output: output @ kernel
    return decode.Model(CELL.bind(params), embed, project, initial_state, start_ids, 1)


def decoded(decoder, others=None, **options):
    def run(params, table, kernel, initial_state, start_ids, **arrays):
        given = model(params, table, kernel, initial_state, start_ids)
        return decoder(given, **arrays, **options)

    return run, MODEL | {"start_ids": START} | (others or {})


def together(one, max_length):
    other = dataclasses.replace(one, project=lambda output: -one.project(output))
    return decode.greedy(decode.ensemble([one, other]), max_length)


def helped(helper, others, options=None, **static):
    """`dynamic_decode` of a `BasicDecoder` with a helper."""

    def run(params, kernel, initial_state, **arrays):
        made = helper(**arrays, **static)
        project = lambda outputs: outputs @ kernel
        cell = CELL.bind(params)
        decoder = contrib.BasicDecoder(cell, made, initial_state, project)
        return contrib.dynamic_decode(decoder, max_time=STEPS, **(options or {}))

    names = "params", "kernel", "initial_state"
    return run, {name: MODEL[name] for name in names} | others


def beams(params, table, kernel, initial_state, start_tokens):
    tiled = contrib.tile_batch(initial_state, BEAMS)
    project = lambda output: output @ kernel
    given = CELL.bind(params), table, start_tokens, 1, tiled, BEAMS, project, 0.6
    return contrib.dynamic_decode(contrib.BeamSearchDecoder(*given), max_time=STEPS)


FED = {"inputs": SEQUENCES, "sequence_length": LENGTHS}
STARTS = {"start_ids", "start", "start_tokens"}
STARTED = {"table": MODEL["table"], "start": START}
SAMPLED = {"sampling_probability": 0.5, "key": KEY}
IMPUTED = {"impute_finished": True, "output_time_major": True, "swap_memory": True}
DECODERS = {
    "greedy": decoded(decode.greedy, max_length=STEPS),
    "sample": decoded(
        decode.sample, max_length=STEPS, key=KEY, temperature=0.7, top_k=3, top_p=0.8
    ),
    "beam_search": decoded(
        decode.beam_search, max_length=STEPS, num_beams=BEAMS, length_penalty=0.6
    ),
    "score": decoded(decode.score, {"ids": IDS}),
    "ensemble": decoded(together, max_length=STEPS),
    "TrainingHelper": helped(contrib.TrainingHelper, FED),
    "TrainingHelper-imputed": helped(contrib.TrainingHelper, FED, IMPUTED),
    "ScheduledEmbeddingTrainingHelper": helped(
        lambda table, **given: contrib.ScheduledEmbeddingTrainingHelper(
            embedding=table, **given, **SAMPLED
        ),
        FED | {"table": MODEL["table"]},
    ),
    "ScheduledOutputTrainingHelper": helped(
        contrib.ScheduledOutputTrainingHelper,
        FED,
        next_inputs_fn=lambda outputs: outputs[:, :DEPTH],
        **SAMPLED,
    ),
    "GreedyEmbeddingHelper": helped(
        lambda table, start: contrib.GreedyEmbeddingHelper(table, start, 1), STARTED
    ),
    "SampleEmbeddingHelper": helped(
        lambda table, start: contrib.SampleEmbeddingHelper(table, start, 1, key=KEY),
        STARTED,
    ),
    "BeamSearchDecoder": (beams, MODEL | {"start_tokens": START}),
}


# Modules of linen. Those of nnx run the same code.

PAIR, DEEP = [CELL, CELL], [[CELL, CELL], [CELL, CELL]]
LAST, EVERY = {"return_carry": True}, {"time_major": True, "return_states": True}
REVERSED = EVERY | {"reverse": True, "keep_order": True}
GAPS = {"mask": MASK, "resets": RESETS}


def ragged(*states):
    state = states if len(states) > 1 else states[0]
    return {"sequence_length": LENGTHS, "initial_state": state}


# The cells, options of the constructor, and arrays beside the inputs.
STATES = [state_of(CELL, i) for i in range(1, 5)]
MODULES = {
    "RNN": ([CELL], LAST, ragged(STATES[0])),
    "RNN-gaps": ([CELL], REVERSED, GAPS),
    "Bidirectional": (PAIR, LAST, ragged(*STATES[:2])),
    "Bidirectional-gaps": (PAIR, EVERY, GAPS),
    "StackBidirectional": (DEEP, LAST, ragged(STATES[:2], STATES[2:])),
}


def of_module(name):
    cells, options, arrays = MODULES[name]
    make = getattr(jaxrnn.linen, name.split("-")[0])
    module = make(*cells, param_dtype=F64, **options)
    turn = lambda x: jnp.swapaxes(x, 0, 1) if "time_major" in options else x
    params = jax.eval_shape(lambda: module.init(KEY, turn(SEQUENCES)))
    run = lambda params, **arrays: module.apply(params, **jax.tree.map(turn, arrays))
    return run, arrays | {"inputs": SEQUENCES, "params": drawn_like(params)}


# Functions of arrays, and cells that have their own loop.


# Two sequences of two steps in each row.
COUNTED = np.arange(BATCH * STEPS, dtype=np.int32).reshape(BATCH, STEPS)
PACKED = jaxrnn.Packed(SEQUENCES, COUNTED // 2 + 1, COUNTED % 2)


def of_pack(params, packed):
    """The outputs and the final states of the sequences in a pack."""
    outputs, _, states = jaxrnn.dynamic_rnn(
        CELL.bind(params),
        packed.inputs,
        packed.lengths,
        dtype=F64,
        resets=packed.resets,
        return_states=True,
    )
    count = BATCH * STEPS
    return packed.unpack(outputs, count, 3), packed.at_ends(states, count)


def sequence_loss(**options):
    arrays = {"logits": draw(BATCH, STEPS, 5), "targets": IDS, "weights": 1.0 * MASK}
    return partial(contrib.sequence_loss, **options), arrays


def step_of_a_memory():
    cell = jaxrnn.DeltaMemoryCell(4, 3, 2, num_key_heads=2)
    inputs = jax.tree.map(lambda size: draw(BATCH, *size), cell.input_sizes)
    arrays = {"inputs": inputs, "state": state_of(cell)}
    return partial(cell.apply, {}), arrays


# Flags of `sequence_loss`.
SUMS = {"average_across_timesteps": False, "average_across_batch": False}
SUMMED = SUMS | {"sum_over_timesteps": True, "sum_over_batch": True}
FUNCTIONS = {
    "packed": (of_pack, {"params": MODEL["params"], "packed": PACKED}),
    "reverse_sequence": (
        partial(jaxrnn.reverse_sequence, seq_axis=1),
        {"input": SEQUENCES, "seq_lengths": LENGTHS},
    ),
    "short_conv": (
        lambda params, inputs: jaxrnn.short_conv(inputs, params, None, LENGTHS),
        {"params": draw(3, SEQUENCES.shape[-1]), "inputs": SEQUENCES},
    ),
    "resets_of_segments": (
        lambda ids, x: (jaxrnn.resets_of_segments(ids), x),
        {"ids": IDS, "x": SEQUENCES},
    ),
    "resets_of_done": (
        lambda done, last, x: (jaxrnn.resets_of_done(done, last), x),
        {"done": MASK, "last": MASK[:, 0], "x": SEQUENCES},
    ),
    "tile_beams": (lambda t: decode.tile_beams(t, BEAMS), {"t": state_of(CELL)}),
    "tile_batch": (lambda t: contrib.tile_batch(t, BEAMS), {"t": state_of(CELL)}),
    "hardmax": (lambda x: (contrib.hardmax(x), x), {"x": draw(BATCH, 5)}),
    "step_of_a_memory": step_of_a_memory,
    "sequence_loss": sequence_loss(),
    "sequence_loss-all": sequence_loss(**SUMS),
    "sequence_loss-sum": sequence_loss(**SUMMED),
}


def of_cell(name):
    """A function that runs a cell over a sequence, and its arrays."""
    case = CASES[name]
    setup = make_setup(case.cell, case.inputs, F64, case.key, case.state)
    names = "params", "xs", "state", "lengths"
    return setup.run, {name: getattr(setup, name) for name in names}


# One row of each class of cells, except for those that run a loop which cells share. A
# lookup in the user's step must say how it is divided.
SHARED = jaxrnn.AffineCell | jaxrnn.LinearRecurrenceCell
NAMES = {
    type(case.cell): name
    for name, case in reversed(CASES.items())
    if name != "function_integers" and not isinstance(case.cell, SHARED)
}.values()
OF_CELLS = {name: partial(of_cell, name) for name in {*KINDS.values(), *NAMES}}
ROWS = DECODERS | FUNCTIONS | {name: partial(of_module, name) for name in MODULES}
# Without a context, JAX 0.12 cannot transpose a read of one step of divided rows.
NEED_CONTEXT = {"TrainingHelper-imputed", "ScheduledOutputTrainingHelper"}
ON_MESHES = [*itertools.product(mesh.TYPES, [*ROWS, *sorted(KINDS.values())])]
ON_MESHES += [("explicit", name) for name in sorted(OF_CELLS.keys() - KINDS.values())]


@pytest.mark.fast(
    "explicit-GreedyEmbeddingHelper", "auto-RNN-gaps", "explicit-function_nested"
)
@pytest.mark.parametrize(("kind", "name"), ON_MESHES)
def test_equals_one_device(kind, name):
    """Every second row is told of its explicit mesh by the context.

    There the first ids of decoders are on the host; their states are divided.
    """
    row = (ROWS | OF_CELLS)[name]  # A pair, or a function that makes it.
    run, arrays = row() if callable(row) else row
    is_second = ON_MESHES.index((kind, name)) % 2
    if kind == "explicit" and (is_second or name in NEED_CONTEXT):
        layouts = dict.fromkeys(STARTS & arrays.keys(), "host")
        mesh.check(run, arrays, kind, "context", layouts)
    else:
        mesh.check(run, arrays, kind, "arrays")


# Functions on the host, without arrays, in other rows, or of element-wise operations.
WITHOUT_ROW = {"pack_sequences", "packed_batches"}
WITHOUT_ROW |= {"explain", "init_stack_bidirectional", "memory_plan", "native_status"}
WITHOUT_ROW |= {"windows", "dynamic_decode", "gather_tree", "monotonic_attention"}


@pytest.mark.parametrize("module", [jaxrnn, contrib, decode])
def test_every_public_function_has_a_row(module):
    """The drivers, `*_rnn`, have their own page."""
    functions = {n for n in module.__all__ if inspect.isfunction(getattr(module, n))}
    others = functions - ROWS.keys() - WITHOUT_ROW
    assert all(name.endswith("_rnn") for name in others)
