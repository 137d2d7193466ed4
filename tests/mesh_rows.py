"""The rows of the sweep over meshes: drivers, and functions on batches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from mesh_sweep import Row
from mesh_values import BATCH, DEPTH, SECOND, SURROUNDINGS, UNITS, Arrays, copies, steps

import jaxrnn
from jaxrnn import lite, memory

INPUTS = steps(lambda c: c.draw(BATCH, c.time, DEPTH))
LIST = Arrays(lambda c: list(c.draw(c.time, BATCH, DEPTH)))
PARAMS = copies(lambda c: c.params(c.cell))
BOTH = copies(lambda c: (c.params(c.cell), c.params(SECOND)))
STACK = copies(
    lambda c: [(c.params(x), c.params(SECOND, 2 * UNITS)) for x in (c.cell, c.cell)]
)
KINDS = {"cell": ["affine", "scanned", "linear"]}
LOOPS = KINDS | {"time": [5, 9]}
CELL = dict.fromkeys(
    ["cell", "cell_fw", "cell_bw", "cells_fw", "cells_bw"],
    "the factor `cell` has its values, and `params` its arrays",
)
ONE_CELL = {"cell": ["basic"]}
SOME = {
    "cell": ["basic", "scanned"],
    "mesh": ["of_arrays", "of_context"],
    "beside": ["divided", "host"],
}
SHORT = SOME | ONE_CELL | {"mesh": ["of_context"], "time": [3]}
PLAIN = {
    "cell": ["basic"],
    "mesh": ["of_context", "of_arrays"],
    "beside": ["divided"],
}


def one_direction(driver, inputs=INPUTS, factors=LOOPS, **options):
    def run(context, params, **arguments):
        return driver(context.cell.bind(params), dtype=jnp.float64, **arguments)

    given = {"params": PARAMS, "inputs": inputs}
    return Row(
        run, (driver,), given, **{"left_out": CELL, "factors": factors, **options}
    )


def two_directions(driver, inputs=INPUTS, **options):
    def run(context, params, **arguments):
        cells = context.cell.bind(params[0]), SECOND.bind(params[1])
        return driver(*cells, dtype=jnp.float64, **arguments)

    given = {"params": BOTH, "inputs": inputs}
    return Row(run, (driver,), given, left_out=CELL, **options)


def layers(driver, inputs=INPUTS, **options):
    def run(context, params, **arguments):
        cells = context.cell, SECOND
        bind = lambda params: [c.bind(p) for c, p in zip(cells, params, strict=True)]
        return driver(*map(bind, params), dtype=jnp.float64, **arguments)

    given = {"params": STACK, "inputs": inputs}
    return Row(run, (driver,), given, left_out=CELL, **options)


def saved(context, params, states, **arguments):
    saver = jaxrnn.StateSaver(states)
    cell = context.cell.bind(params)
    results = jaxrnn.static_state_saving_rnn(cell, state_saver=saver, **arguments)
    return results, saver.states


def over_array(context, x, lengths, raw_rnn):
    """A loop of `raw_rnn` over an array, with a total over unfinished rows."""
    time = context.time
    steps = jaxrnn.TensorArray(x.dtype, time).unstack(x)

    def loop_fn(t, output, state, total):
        if output is None:
            zeros = context.cell.zero_state(BATCH, x.dtype)
            return t >= lengths, steps.read(t), zeros, None, jnp.zeros((), x.dtype)
        total += jnp.sum(jnp.where((t <= lengths)[:, None], output, 0.0))
        read = steps.read(jnp.minimum(t, time - 1))
        return t >= lengths, read, state, output, total

    emit_ta, state, total = raw_rnn(loop_fn)
    return emit_ta.stack(), state, total


def looped(context, params, x, lengths, **arguments):
    cell = context.cell.bind(params)
    raw_rnn = functools.partial(
        jaxrnn.raw_rnn, cell, max_time=context.time, **arguments
    )
    return over_array(context, x, lengths, raw_rnn)


# Functions on batches.

SEQUENCES, PACKED_LENGTHS = 6, np.array([5, 1, 3, 2, 0, 4])
ROWS_OF_PACK = "inputs", "starts", "lengths"
PLACES = "row", "offset", "sequence_length"


def pack(time_major):
    x = np.random.default_rng(0).normal(size=(SEQUENCES, 5, DEPTH))
    x = np.swapaxes(x, 0, 1) if time_major else x
    return jaxrnn.pack_sequences(x, PACKED_LENGTHS, rows=BATCH, time_major=time_major)


def run_packed(context, params, time_major=False, initial_state=None, **arguments):
    arrays = {name: arguments.pop(name) for name in ROWS_OF_PACK}
    arrays |= arguments.pop("places", {})
    packed = dataclasses.replace(pack(time_major), **arrays)
    cell = context.cell.bind(params)
    state = initial_state
    run = jaxrnn.packed_rnn
    outputs, *rest = run(cell, packed, state, jnp.float64, **arguments)
    return packed.unpack(outputs), outputs, rest


def of_pack(name):
    """An array of the pack, in the layout that it has already."""
    make = lambda c: getattr(pack(c.time_major), name)
    swap = lambda c: np.swapaxes(make(c), 0, 1) if c.time_major else make(c)
    return Arrays(make) if name == "lengths" else steps(swap)


def places_of_pack(context):
    return {name: getattr(pack(context.time_major), name) for name in PLACES}


def window_loss(context, params, state, window):
    x, lengths = window
    cell = context.cell.bind(params)
    run = functools.partial(jaxrnn.dynamic_rnn, time_major=context.time_major)
    outputs, state = run(cell, x, lengths, state)
    return jnp.sum(outputs**2), state


def truncated(context, params, inputs, in_scan, initial_state=None, **arguments):
    """Three windows of two steps, in a Python loop or in a scan."""
    arguments.pop("time_major", None)
    xs = jnp.stack(jnp.split(inputs, 3, 0 if context.time_major else 1))
    windows = xs, jnp.asarray(np.array([[2, 2, 1, 0]] * 3))
    state = initial_state
    if state is None:
        state = context.cell.zero_state(BATCH, xs.dtype)
    if in_scan:  # The carry must be divided already. A sum is divided like its terms.
        zeros = 0.0 * xs[0].sum((0 if context.time_major else 1, 2))[:, None]
        state = jax.tree.map(lambda s: s + zeros, state)

    def loss(params, state, window):
        value, state = window_loss(context, params, state, window)
        return value, ((state, 2 * value) if arguments.get("has_aux") else state)

    bptt = jaxrnn.truncated_bptt(loss, **arguments)
    at = lambda i: jax.tree.map(lambda x: x[i], windows)

    def step(carry, window):
        *result, carry = bptt.value_and_grad(params, carry, window)
        return carry, result

    carry, results = bptt.init(state, at(0)), []
    if in_scan:
        carry, results = jax.lax.scan(step, carry, windows)
        return results, carry.state
    for i in range(3):
        carry, result = step(carry, at(i))
        results.append(result)
    return results, carry.state


LOOP = dict.fromkeys(["cell", "loop_fn", "max_time"], "the row's loop function")
IN_PACK = "`inputs`, `starts` and `lengths` are its arrays with rows"
FIXED = dict.fromkeys(["rows", "row_length", "sequence_length"], "one pack")

ROWS = {
    "dynamic_rnn": one_direction(
        jaxrnn.dynamic_rnn, values={"swap_memory": [True, memory.Nested(2)]}
    ),
    "lite.dynamic_rnn": one_direction(
        lite.dynamic_rnn,
        factors=SOME | {"cell": ["lite_lstm", "lite_basic"]},
        left_out=CELL | {"time_major": "must be True"},
    ),
    "bidirectional_dynamic_rnn": two_directions(
        jaxrnn.bidirectional_dynamic_rnn, factors=SOME | {"time": [5, 9]}
    ),
    "stack_bidirectional_dynamic_rnn": layers(
        jaxrnn.stack_bidirectional_dynamic_rnn, factors=SOME
    ),
    "static_rnn": one_direction(jaxrnn.static_rnn, LIST, SHORT),
    "static_bidirectional_rnn": two_directions(
        jaxrnn.static_bidirectional_rnn, LIST, factors=SHORT
    ),
    "stack_bidirectional_rnn": layers(
        jaxrnn.stack_bidirectional_rnn, LIST, factors=SHORT
    ),
    "static_state_saving_rnn": Row(
        saved,
        (jaxrnn.static_state_saving_rnn,),
        given={
            "params": PARAMS,
            "inputs": LIST,
            "states": Arrays(lambda c: {n: c.draw(BATCH, UNITS) for n in "ch"}),
            "state_name": ("c", "h"),
        },
        left_out=CELL | {"state_saver": "`states` are its arrays"},
        factors=SHORT | {"cell": ["affine"]},
    ),
    "raw_rnn": Row(
        looped,
        (jaxrnn.raw_rnn,),
        given={
            "params": PARAMS,
            "x": Arrays(lambda c: c.draw(c.time, BATCH, DEPTH), "time"),
            "lengths": Arrays(lambda c: np.array([c.time, 0, 2, 1], np.int32)),
        },
        left_out=LOOP,
        factors=SOME | {"beside": ["divided"]},
    ),
    "packed_rnn": Row(
        run_packed,
        (jaxrnn.packed_rnn, jaxrnn.pack_sequences),
        given={"params": PARAMS, **{n: of_pack(n) for n in ROWS_OF_PACK}},
        values={
            "initial_state": [Arrays(lambda c: c.state(c.cell, 1, SEQUENCES))],
            "places": [Arrays(places_of_pack)],
        },
        names=frozenset({"places"}),
        left_out=CELL | FIXED | {"packed": IN_PACK},
        factors=SOME | {"mesh": SURROUNDINGS["mesh"]},
    ),
    "truncated_bptt": Row(
        truncated,
        (jaxrnn.truncated_bptt,),
        given={"params": PARAMS, "inputs": steps(lambda c: c.draw(BATCH, 6, DEPTH))},
        values={"reach": [2, 3], "has_aux": [True]},
        left_out={"loss": "the row's loss"},
        factors=SOME | ONE_CELL | {"in_scan": [False, True]},
        names=frozenset({"initial_state", "time_major"}),
        is_differentiated=False,
    ),
}
ROWS = {name: dataclasses.replace(row, on_auto="pairs") for name, row in ROWS.items()}
