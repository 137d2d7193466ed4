"""Decoders, losses, modules of Flax and cells on meshes equal one device.

A row is a function, and its arrays by name; `mesh.WHOLE` has the names of arrays that
are not divided.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import mesh
import numpy as np
import pytest
from cases import CASES
from helpers import bound, drawn
from mesh import BATCH, DEPTH, F64, UNITS, draw, drawn_like, state_of

import jaxrnn
import jaxrnn.linen
from jaxrnn import BasicRNNCell, contrib, decode
from jaxrnn.testing._oracle import close

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


def model(params, table, kernel, initial_state):
    # A product, because a lookup on an explicit mesh must state how it is divided.
    embed = lambda ids: jax.nn.one_hot(ids, VOCABULARY, dtype=table.dtype) @ table
    return {
        "cell": CELL.bind(params),
        "embed": embed,
        "project": lambda output: output @ kernel,
        "initial_state": initial_state,
    }


def decoded(decoder, others=None, **options):
    def run(params, table, kernel, initial_state, **arrays):
        parts = model(params, table, kernel, initial_state)
        return decoder(**parts, **arrays, end_id=1, **options)

    return run, MODEL | {"start_ids": START} | (others or {})


def together(**arguments):
    names = "cell", "embed", "project", "initial_state"
    one = {name: arguments.pop(name) for name in names}
    other = one | {"project": lambda output: -one["project"](output)}
    return decode.greedy(**decode.ensemble([one, other]), **arguments)


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
    decoder = contrib.BeamSearchDecoder(
        CELL.bind(params),
        embedding=table,
        start_tokens=start_tokens,
        end_token=1,
        initial_state=tiled,
        beam_width=BEAMS,
        output_layer=lambda output: output @ kernel,
        length_penalty_weight=0.6,
    )
    return contrib.dynamic_decode(decoder, max_time=STEPS)


FED = {"inputs": SEQUENCES, "sequence_length": LENGTHS}
IMPUTED = {"impute_finished": True, "output_time_major": True, "swap_memory": True}
DECODERS = {
    "greedy": decoded(decode.greedy, max_time=STEPS),
    "sample": decoded(
        decode.sample,
        max_time=STEPS,
        key=KEY,
        temperature=0.7,
        top_k=3,
        top_p=0.8,
    ),
    "beam_search": decoded(
        decode.beam_search, max_time=STEPS, beam_width=BEAMS, length_penalty=0.6
    ),
    "score": decoded(decode.score, {"ids": IDS}),
    "ensemble": decoded(together, max_time=STEPS),
    "TrainingHelper": helped(contrib.TrainingHelper, FED),
    "TrainingHelper-imputed": helped(contrib.TrainingHelper, FED, IMPUTED),
    "ScheduledEmbeddingTrainingHelper": helped(
        lambda table, **given: contrib.ScheduledEmbeddingTrainingHelper(
            embedding=table, sampling_probability=0.5, key=KEY, **given
        ),
        FED | {"table": MODEL["table"]},
    ),
    "ScheduledOutputTrainingHelper": helped(
        contrib.ScheduledOutputTrainingHelper,
        FED,
        sampling_probability=0.5,
        key=KEY,
        next_inputs_fn=lambda outputs: outputs[:, :DEPTH],
    ),
    "GreedyEmbeddingHelper": helped(
        lambda table, start: contrib.GreedyEmbeddingHelper(table, start, 1),
        {"table": MODEL["table"], "start": START},
    ),
    "SampleEmbeddingHelper": helped(
        lambda table, start: contrib.SampleEmbeddingHelper(table, start, 1, key=KEY),
        {"table": MODEL["table"], "start": START},
    ),
    "BeamSearchDecoder": (beams, MODEL | {"start_tokens": START}),
}


# Modules of linen. Those of nnx run the same code.

DEEP = [[CELL, CELL], [CELL, CELL]]
DEEP_STATE = tuple([state_of(CELL, i), state_of(CELL, i + 1)] for i in (1, 3))
# The cells, an initial state, and further options.
LAYERS = {
    "RNN": ([CELL], state_of(CELL), {"reverse": True, "keep_order": True}),
    "Bidirectional": ([CELL, CELL], (state_of(CELL, 1), state_of(CELL, 2)), {}),
    "StackBidirectional": (DEEP, DEEP_STATE, {}),
}


def applied(module, inputs):
    """A function that applies a module, and parameters of the module."""
    variables = drawn_like(jax.eval_shape(lambda: module.init(KEY, inputs)))
    return lambda params, **arrays: module.apply(params, **arrays), variables


def with_lengths(name):
    cells, state, _ = LAYERS[name]
    module = getattr(jaxrnn.linen, name)(*cells, param_dtype=F64, return_carry=True)
    run, params = applied(module, SEQUENCES)
    arrays = {"inputs": SEQUENCES, "sequence_length": LENGTHS, "initial_state": state}
    return run, {"params": params} | arrays


def with_gaps(name):
    cells, _, options = LAYERS[name]
    options = options | {"param_dtype": F64, "time_major": True, "return_states": True}
    swapped = lambda x: jnp.swapaxes(x, 0, 1)
    module = getattr(jaxrnn.linen, name)(*cells, **options)
    apply, params = applied(module, swapped(SEQUENCES))
    run = lambda params, **arrays: apply(params, **jax.tree.map(swapped, arrays))
    arrays = {"inputs": SEQUENCES, "mask": MASK, "resets": RESETS}
    return run, {"params": params} | arrays


MODULES = {f"{name}-lengths": partial(with_lengths, name) for name in LAYERS}
MODULES |= {f"{name}-gaps": partial(with_gaps, name) for name in LAYERS}


# Functions of arrays, and cells that have their own loop.


def of_windows(params, inputs):
    """`truncated_bptt` over three windows of two steps, in a scan."""
    bptt = jaxrnn.truncated_bptt(loss_of_window, reach=2, has_aux=True)
    windows = jnp.stack(jnp.split(inputs, 3, axis=1)), jnp.array([[2, 2, 1, 0]] * 3)
    # The carry must be divided already. A sum is divided like its terms.
    zeros = 0.0 * inputs.sum((1, 2))[:, None]
    first = jax.tree.map(lambda window: window[0], windows)
    carry = bptt.init(CELL.zero_state(BATCH, F64) + zeros, first)

    def step(carry, window):
        *result, carry = bptt.value_and_grad(params, carry, window)
        return carry, result

    carry, results = jax.lax.scan(step, carry, windows)
    return results, carry.state


def loss_of_window(params, state, window):
    outputs, state = jaxrnn.dynamic_rnn(CELL.bind(params), *window, state)
    value = jnp.sum(outputs**2)
    return value, (state, 2 * value)


def sequence_loss(**options):
    weights = MASK.astype(F64)
    arrays = {"logits": draw(BATCH, STEPS, 5), "targets": IDS, "weights": weights}
    run = lambda **arrays: contrib.sequence_loss(**arrays, **options)
    return run, arrays


# Flags of `sequence_loss`.
SUMS = {"average_across_timesteps": False, "average_across_batch": False}
FUNCTIONS = {
    "truncated_bptt": (
        of_windows,
        {"params": MODEL["params"], "inputs": draw(BATCH, 6, DEPTH)},
    ),
    "reverse_sequence": (
        lambda x, lengths: jaxrnn.reverse_sequence(x, lengths, 1, 0),
        {"x": SEQUENCES, "lengths": LENGTHS},
    ),
    "tile_beams": (
        lambda tree: decode.tile_beams(tree, BEAMS),
        {"tree": state_of(CELL)},
    ),
    "tile_batch": (lambda t: contrib.tile_batch(t, BEAMS), {"t": state_of(CELL)}),
    "hardmax": (lambda x: (contrib.hardmax(x), x), {"x": draw(BATCH, 5)}),
    "sequence_loss": sequence_loss(),
    "sequence_loss-all": sequence_loss(**SUMS),
    "sequence_loss-sum": sequence_loss(
        **SUMS, sum_over_timesteps=True, sum_over_batch=True
    ),
}
ROWS = DECODERS | FUNCTIONS | MODULES


@pytest.mark.fast(
    "explicit-context-GreedyEmbeddingHelper",
    "explicit-context-RNN-gaps",
    "explicit-context-BeamSearchDecoder",
)
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    ("kind", "told"),
    [("explicit", "context"), ("explicit", "arrays"), ("auto", "arrays")],
)
def test_equals_one_device(kind, told, name):
    row = ROWS[name]  # A pair, or a function that makes it.
    run, arrays = row() if callable(row) else row
    close(mesh.on_mesh(run, arrays, kind, told), mesh.on_one_device(run, arrays), F64)


# One row of each class of cells, except for those that run a loop which cells share. A
# lookup in the user's step must say how it is divided.
SHARED = jaxrnn.AffineCell | jaxrnn.LinearRecurrenceCell
ONE_OF_EACH = {
    type(case.cell): name
    for name, case in reversed(CASES.items())
    if name != "function_integers" and not isinstance(case.cell, SHARED)
}.values()


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_cells(name):
    case = CASES[name]
    positive = lambda x: 0.5 + np.abs(draw(BATCH, STEPS, *x.shape[1:]))
    inputs = jax.tree.map(lambda x: positive(x).astype(x.dtype), case.inputs)
    if case.state is None:
        zeros = jax.eval_shape(lambda: case.cell.zero_state(BATCH, np.float32))
        state = jax.tree.map(lambda x: draw(*x.shape).astype(x.dtype), zeros)
    else:
        is_wide = lambda x: np.asarray(x).dtype == F64
        cast = lambda x: np.float32(x) if is_wide(x) else np.asarray(x)
        state = jax.tree.map(cast, case.state)

    def run(params, inputs, state, lengths):
        cell = case.cell.bind(params, case.key)
        return jaxrnn.dynamic_rnn(cell, inputs, lengths, state, np.float32)

    arrays = {
        "params": drawn(case.cell, case.inputs, np.float32),
        "inputs": inputs,
        "state": state,
        "lengths": LENGTHS,
    }
    want = mesh.on_one_device(run, arrays)
    close(mesh.on_mesh(run, arrays, "explicit"), want, "float32")


ON_HOST = {"concat_packed", "pack_sequences", "packed_batches", "stack_packed"}
WITHOUT_ARRAYS = {
    "explain",
    "init_stack_bidirectional",
    "memory_plan",
    "native_status",
    "windows",
}
IN_OTHER_ROWS = {"dynamic_decode", "gather_tree"}
PLAIN = {"monotonic_attention"}  # Element-wise operations.
WITHOUT_ROW = ON_HOST | WITHOUT_ARRAYS | IN_OTHER_ROWS | PLAIN


@pytest.mark.parametrize("module", [jaxrnn, contrib, decode])
def test_every_public_function_has_a_row(module):
    """The drivers, `*_rnn`, have their own page."""
    functions = {n for n in module.__all__ if inspect.isfunction(getattr(module, n))}
    others = {name for name in functions if not name.endswith("_rnn")}
    assert others - ROWS.keys() - WITHOUT_ROW == set()
