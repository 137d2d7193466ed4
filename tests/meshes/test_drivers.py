"""Drivers, decoders, modules of Flax and functions on meshes equal one device.

Of a driver, the kind of mesh and the arguments are factors. Every two of their values
that are allowed together occur in a case. All others are rows of one table: a function,
and its arrays by name; `mesh.WHOLE` has the names of arrays that are not divided.
"""

import dataclasses
import functools
import inspect
import itertools
import re
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import mesh
import numpy as np
import pytest
from helpers import bound, covering, draw, drawn_like
from jax.experimental import checkify
from mesh import BATCH, DEPTH, F64, UNITS, state_of

import jaxrnn
import jaxrnn.linen
from jaxrnn import BasicRNNCell, LSTMCell, TensorShape, contrib, decode
from jaxrnn._run import reorder
from jaxrnn.memory import Keep, Offload, Recompute, Strategy


def count(params, inputs, state, key=None):
    """A step with a counter for each row, which runs step by step."""
    counts, total = state
    total = jnp.tanh(total + inputs @ params["w"])
    return total, (counts + 1.0, total)


CELLS = {
    "affine": LSTMCell(UNITS),
    "scanned": jaxrnn.FunctionCell(
        count,
        (TensorShape([]), UNITS),
        UNITS,
        lambda key, x, dtype: {"w": jnp.ones((x.shape[-1], UNITS), dtype)},
    ),
    "linear": jaxrnn.MinGRUCell(UNITS),
    "basic": BasicRNNCell(UNITS),
}
SECOND = BasicRNNCell(UNITS)


def values(cell, time):
    """The values of arguments, one of each, except for the default."""
    pair = lambda seed: [state_of(cell, seed), state_of(SECOND, seed)]
    random = lambda seed: np.random.default_rng(seed).random(size=(BATCH, time))
    return {
        "initial_state": state_of(cell),
        "initial_state_bw": state_of(SECOND, 2),
        "initial_state_fw": state_of(cell),
        "initial_states_bw": pair(3),
        "initial_states_fw": pair(1),
        "implementation": "xla",
        "mask": random(1) < 0.6,
        "parallel_iterations": 2,
        "reset_state": state_of(cell, 4),
        "resets": random(2) < 0.3,
        "return_states": True,
        "sequence_length": np.array([time, 0, 2, 1], np.int32),
        "swap_memory": Recompute(2) if time > 5 else Offload(Keep(), 2),
        "time_major": True,
    }


VALUES = values(CELLS["basic"], 3).keys()
# What every case passes, beside the cells.
GIVEN = {"inputs", "loop_fn", "max_time"}
# The dtype of the inputs, without which every case fails; a name in profiles; and the
# axis in `test_divided_time.py`.
LEFT_OUT = {"dtype", "scope", "axis_name"}


def one_direction(driver, cells, inputs, **options):
    return driver(cells[0], inputs, dtype=F64, **options)


def two_directions(driver, cells, inputs, **options):
    return driver(cells[0], cells[1], inputs, dtype=F64, **options)


def two_layers(driver, cells, inputs, **options):
    layers = [cells[0], cells[2]]
    return driver(layers, layers, inputs, dtype=F64, **options)


def over_list(run):
    """A runner with a list of steps as inputs."""
    return lambda driver, cells, inputs, **options: run(
        driver, cells, list(inputs.swapaxes(0, 1)), **options
    )


def over_array(driver, cells, inputs, lengths, **options):
    """A loop over an array, with a total over unfinished rows."""
    time = inputs.shape[1]
    steps = jaxrnn.TensorArray(F64, time).unstack(inputs.swapaxes(0, 1))

    def loop_fn(t, output, state, total):
        if output is None:
            zeros = cells[0].zero_state(BATCH, F64)
            return t >= lengths, steps.read(t), zeros, None, jnp.zeros((), F64)
        total += jnp.sum(jnp.where((t <= lengths)[:, None], output, 0.0))
        read = steps.read(jnp.minimum(t, time - 1))
        return t >= lengths, read, state, output, total

    emit_ta, state, total = driver(cells[0], loop_fn, max_time=time, **options)
    return emit_ta.stack(), state, total


@dataclasses.dataclass(frozen=True)
class Driver:
    """A driver, and the factors of its cases.

    Attributes:
        function: The driver.
        run: `run(function, cells, **arrays, **arguments)` returns the results.
        cells: Names of cells.
        times: Numbers of steps.
        arrays: The names of the arrays that every case passes.
        layouts: Where the arrays other than parameters and inputs are.
        told: How the driver knows the mesh.
    """

    function: Callable
    run: Callable
    cells: list
    times: tuple = (5,)
    arrays: tuple = ("inputs",)
    layouts: tuple = ("divided", "host")
    told: tuple = ("arrays", "context")

    @property
    def parameters(self):
        return {*inspect.signature(self.function).parameters}

    @property
    def arguments(self):
        return sorted(self.parameters & VALUES)

    @functools.cached_property
    def cases(self):
        factors = {name: [False, True] for name in self.arguments}
        factors |= {"cell": self.cells, "time": self.times}
        factors |= {"layout": self.layouts, "told": self.told}
        factors |= {"kind": list(mesh.TYPES)}
        return covering(factors, is_allowed)


def is_allowed(case):
    if case.get("mask") and case.get("sequence_length"):
        return False
    return case.get("resets", True) or not case.get("reset_state")


EVERY_WAY = ("arrays", "context", "eagerly")
LISTS = {"cells": ["basic"], "times": (3,), "told": ("context",)}
TWO = ["basic", "scanned"]
DRIVERS = {
    "dynamic": Driver(
        jaxrnn.dynamic_rnn,
        one_direction,
        ["affine", "scanned", "linear"],
        (5, 17),  # 17 steps run in two groups of 9.
        layouts=("divided", "whole", "host"),
        told=EVERY_WAY,
    ),
    "bidirectional": Driver(jaxrnn.bidirectional_dynamic_rnn, two_directions, TWO),
    "stack": Driver(jaxrnn.stack_bidirectional_dynamic_rnn, two_layers, TWO),
    "static": Driver(jaxrnn.static_rnn, over_list(one_direction), **LISTS),
    "static_bidirectional": Driver(
        jaxrnn.static_bidirectional_rnn, over_list(two_directions), **LISTS
    ),
    "static_stack": Driver(
        jaxrnn.stack_bidirectional_rnn, over_list(two_layers), **LISTS
    ),
    # Without a context, JAX 0.12 cannot transpose a read of one step of divided rows.
    "raw": Driver(
        jaxrnn.raw_rnn,
        over_array,
        TWO,
        arrays=("inputs", "lengths"),
        told=("context",),
    ),
}
CASES = {
    f"{name}-{i}": (driver, case)
    for name, driver in DRIVERS.items()
    for i, case in enumerate(driver.cases)
}


def prepared(driver, case):
    """The function of a case, and its arrays."""
    cell, time = CELLS[case["cell"]], case["time"]
    given = {
        "inputs": draw(BATCH, time, DEPTH),
        "lengths": np.array([time, 0, 2, 1], np.int32),
    }
    arrays = {n: v for n, v in values(cell, time).items() if case.get(n)}
    is_static = lambda v: isinstance(v, bool | int | float | str | Strategy)
    static = {n: arrays.pop(n) for n in [*arrays] if is_static(arrays[n])}
    arrays |= {n: given[n] for n in driver.arrays}
    bounds = bound(cell), bound(SECOND), bound(SECOND, 2 * UNITS)

    def run(params, **arrays):
        cells = [b.cell.bind(p) for b, p in zip(bounds, params, strict=True)]
        if case.get("time_major"):
            steps = arrays.keys() & {"inputs", "mask", "resets"}
            arrays |= {n: arrays[n].swapaxes(0, 1) for n in steps}
        return driver.run(driver.function, cells, **arrays, **static)

    return run, arrays | {"params": [b.params for b in bounds]}


@pytest.mark.fast("dynamic-3")
@pytest.mark.parametrize("name", CASES)
def test_a_driver_equals_one_device(name):
    driver, case = CASES[name]
    run, arrays = prepared(driver, case)
    beside = arrays.keys() - {"params", "inputs"}
    layouts = dict.fromkeys(beside, case["layout"])
    try:
        _, (outputs, *_) = mesh.check(run, arrays, case["kind"], case["told"], layouts)
    except Exception as error:
        error.add_note(str(case))
        raise
    if name.startswith("dynamic") and case["told"] != "eagerly":
        assert outputs.sharding.spec[int(case["time_major"])] == "data"


@pytest.mark.parametrize("name", DRIVERS)
def test_every_argument_has_a_value(name):
    others = DRIVERS[name].parameters - VALUES - GIVEN - LEFT_OUT
    assert {other for other in others if not other.startswith("cell")} == set()


# A cell whose program depends on the argument, and a value.
OF_PROGRAMS = {
    "implementation": ("affine", "scan"),
    "parallel_iterations": ("scanned", 2),
    "swap_memory": ("scanned", True),
}
# TensorFlow's `raw_rnn` has the argument. The steps run one after another.
IGNORED = {"raw": ["parallel_iterations"]}


def first_case(name, *arguments, cell=None):
    """A function that runs a cell with arguments, and its arrays."""
    driver = DRIVERS[name]
    case = {"cell": cell or driver.cells[0], "time": driver.times[0]}
    return prepared(driver, case | dict.fromkeys(arguments, True))


def differ(one, other):
    leaves, tree = jax.tree.flatten(one)
    others, other_tree = jax.tree.flatten(other)
    return tree != other_tree or not all(map(np.array_equal, leaves, others))


@pytest.mark.fast("bidirectional", "static", "raw")
@pytest.mark.parametrize("name", DRIVERS)
def test_every_argument_changes_a_result(name):
    arguments = {*DRIVERS[name].arguments} - OF_PROGRAMS.keys()
    # A reset state needs resets, with which it is compared.
    cases = [(), ("resets",), *((a, "resets") for a in {"reset_state"} & arguments)]
    cases = [case for case in cases if arguments >= {*case}]
    cases += [(argument,) for argument in arguments - {"resets", "reset_state"}]
    runs, arrays = zip(*[first_case(name, *case) for case in cases], strict=True)

    @jax.jit  # All in one program.
    def run_all(arrays):
        return [run(**given) for run, given in zip(runs, arrays, strict=True)]

    results = dict(zip(cases, jax.device_get(run_all([*arrays])), strict=True))
    same = [case for case in cases[1:] if not differ(results[case], results[case[1:]])]
    assert same == []


def program_of(name, cell, **arguments):
    """The program of a forward pass, without addresses and without arrays' numbers."""
    run, arrays = first_case(name, cell=cell)
    run = partial(run, **arguments)
    params = arrays.pop("params")  # Without the backward pass, to save time.
    forward = lambda params: jax.vjp(lambda params: run(params, **arrays), params)[0]
    text = str(jax.make_jaxpr(forward)(params))
    return re.sub(r"0x[0-9a-f]+|\b\d+:i64\[\]", "", text)


@pytest.mark.fast("bidirectional", "static", "raw")
@pytest.mark.parametrize("name", DRIVERS)
def test_every_argument_of_programs_changes_the_program(name):
    given = {n: v for n, v in OF_PROGRAMS.items() if n in DRIVERS[name].parameters}
    without = {cell: program_of(name, cell) for cell, _ in given.values()}
    assert {cell: program_of(name, cell) for cell in without} == without
    programs = {n: program_of(name, cell, **{n: v}) for n, (cell, v) in given.items()}
    same = [n for n, text in programs.items() if text == without[given[n][0]]]
    assert same == IGNORED.get(name, [])


@pytest.mark.parametrize("name", DRIVERS)
def test_a_scope_is_a_name_in_the_program(name):
    run, arrays = first_case(name)
    run = partial(run, scope="a_name")
    lowered = jax.jit(run).lower(**arrays)
    assert "a_name/" in lowered.as_text(debug_info=True)


# Decoders, modules and functions.

CELL = SECOND
VOCABULARY, STEPS, BEAMS = 5, 4, 3
SEQUENCES = draw(BATCH, STEPS, DEPTH)
LENGTHS = np.array([4, 0, 3, 2], np.int32)
START = np.array([2, 0, 3, 4], np.int32)
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


def helped(params, kernel, initial_state, **arrays):
    """`dynamic_decode` of a `BasicDecoder` with a helper."""
    helper, project = contrib.TrainingHelper(**arrays), lambda outputs: outputs @ kernel
    decoder = contrib.BasicDecoder(CELL.bind(params), helper, initial_state, project)
    return contrib.dynamic_decode(decoder, max_time=STEPS, impute_finished=True)


def beams(params, table, kernel, initial_state, start_tokens):
    tiled = contrib.tile_batch(initial_state, BEAMS)
    project = lambda output: output @ kernel
    given = CELL.bind(params), table, start_tokens, 1, tiled, BEAMS, project, 0.6
    return contrib.dynamic_decode(contrib.BeamSearchDecoder(*given), max_time=STEPS)


FED = {"inputs": SEQUENCES, "sequence_length": LENGTHS}
ARRAYS_OF_A_HELPER = "params", "kernel", "initial_state"
STARTS = {"start_ids", "start_tokens"}
# Ids after the end id, which is 1, have no effect.
PADDED = np.array([[2, 1, -1, 99], [1, 99, 99, -1], [0, 0, 0, 1], [0, 2, 3, 1]])
DECODERS = {
    "greedy": decoded(decode.greedy, max_length=STEPS),
    "beam_search": decoded(
        decode.beam_search, max_length=STEPS, num_beams=BEAMS, length_penalty=0.6
    ),
    "score": decoded(decode.score, {"ids": PADDED}),
    "TrainingHelper": (helped, {n: MODEL[n] for n in ARRAYS_OF_A_HELPER} | FED),
    "BeamSearchDecoder": (beams, MODEL | {"start_tokens": START}),
}


# Modules of linen. Those of nnx run the same code.

PAIR, LAST = [CELL, CELL], {"return_carry": True}
REVERSED = {"time_major": True, "return_states": True, "reverse": True}
FIRST, SECOND_STATE = state_of(CELL, 1), state_of(CELL, 2)
RAGGED = {"sequence_length": LENGTHS, "initial_state": (FIRST, SECOND_STATE)}
# The cells, options of the constructor, and arrays beside the inputs.
MODULES = {
    "RNN-gaps": ([CELL], REVERSED, {"mask": MASK, "resets": RESETS}),
    "Bidirectional": (PAIR, LAST, RAGGED),
}


def of_module(name):
    cells, options, arrays = MODULES[name]
    make = getattr(jaxrnn.linen, name.split("-")[0])
    module = make(*cells, param_dtype=F64, **options)
    turn = lambda x: jnp.swapaxes(x, 0, 1) if "time_major" in options else x
    params = jax.eval_shape(lambda: module.init(KEY, turn(SEQUENCES)))
    run = lambda params, **arrays: module.apply(params, **jax.tree.map(turn, arrays))
    return run, arrays | {"inputs": SEQUENCES, "params": drawn_like(params)}


# Functions of arrays.

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
}


ROWS = DECODERS | FUNCTIONS | {name: of_module(name) for name in MODULES}
# Without a context, JAX 0.12 cannot transpose a read of one step of divided rows.
NEED_CONTEXT = {"TrainingHelper"}
ON_MESHES = [*itertools.product(mesh.TYPES, ROWS)]


@pytest.mark.fast("auto-RNN-gaps")
@pytest.mark.parametrize(("kind", "name"), ON_MESHES)
def test_equals_one_device(kind, name):
    """Every second row is told of its explicit mesh by the context.

    There the first ids of decoders are on the host; their states are divided.
    """
    run, arrays = ROWS[name]
    is_second = ON_MESHES.index((kind, name)) % 2
    if kind == "explicit" and (is_second or name in NEED_CONTEXT):
        layouts = dict.fromkeys(STARTS & arrays.keys(), "host")
        mesh.check(run, arrays, kind, "context", layouts)
    else:
        mesh.check(run, arrays, kind, "arrays")


# JAX's debug flags, for some of the programs above.


WITH_DEBUG_FLAGS = ["dynamic-0", "raw-0", "beam_search", "RNN-gaps", "packed"]


def program(name):
    """The function of a program, and its arrays by name."""
    return prepared(*CASES[name]) if name in CASES else ROWS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_DEBUG_FLAGS)
def test_finite_inputs_raise_nothing(name):
    """Outside of jit, where JAX checks the results of each operation."""
    no_infs = jax.debug_infs(name != "beam_search")  # Without a sequence, it is -inf.
    with jax.debug_nans(True), no_infs, jax.checking_leaks():
        mesh.with_gradients(*program(name))


def reads_of_a_mask(steps, x):
    moved = steps.to_front(x, 1), steps.to_places(x, 1)
    return moved, reorder.resets_of_valid_steps(MASK, MASK), steps.states(x, x[:, 0], 1)


def of_a_mask():
    steps = jax.jit(reorder.ValidSteps.of)(MASK)
    return reads_of_a_mask, {"steps": steps, "x": SEQUENCES}


# JAX's check itself fails for two kinds of programs: a batched scatter, by which a mask
# finds its steps, and an index in `jax.checkpoint`.
CHECKED = [name for name in ROWS if not name.endswith("-gaps")]
CHECKED += [
    name
    for name, (_, case) in [*CASES.items()][::2]
    if not (case.get("mask") or case.get("swap_memory"))
]


@pytest.mark.fast("mask", "TrainingHelper")
@pytest.mark.parametrize("name", [*CHECKED, "mask"])
def test_every_index_is_in_bounds(name):
    run, arrays = of_a_mask() if name == "mask" else program(name)
    checked = checkify.checkify(lambda given: run(**given), checkify.index_checks)
    with jax.numpy_dtype_promotion("standard"):  # The check compares int32 with int64.
        error, _ = jax.jit(checked)(arrays)
    error.throw()
