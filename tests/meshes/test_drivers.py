"""Every driver on explicit and automatic meshes equals one device.

The kind of mesh and the arguments are factors. Every two of their values that are
allowed together occur in a case.
"""

import dataclasses
import functools
import inspect
import itertools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import mesh
import numpy as np
import pytest
from helpers import bound, covering, draw
from mesh import BATCH, DEPTH, F64, UNITS, state_of

import jaxrnn
from jaxrnn import BasicRNNCell, LSTMCell, TensorShape, lite
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
    "lite_lstm": lite.TFLiteLSTMCell(UNITS),
    "lite_basic": lite.TfLiteRNNCell(UNITS),
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
GIVEN = {"inputs", "loop_fn", "max_time", "state_saver", "state_name"}
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


def in_lite(driver, cells, inputs, **options):
    return driver(cells[0], inputs.swapaxes(0, 1), dtype=F64, **options)


def saved(driver, cells, inputs, states, **options):
    saver = jaxrnn.StateSaver(states)
    inputs = list(inputs.swapaxes(0, 1))
    return driver(cells[0], inputs, saver, ("c", "h"), **options), saver.states


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
        left_out: Arguments without values.
        layouts: Where the arrays other than parameters and inputs are.
        told: How the driver knows the mesh.
    """

    function: Callable
    run: Callable
    cells: list
    times: tuple = (5,)
    arrays: tuple = ("inputs",)
    left_out: tuple = ()
    layouts: tuple = ("divided", "host")
    told: tuple = ("arrays", "context")

    @property
    def parameters(self):
        return {*inspect.signature(self.function).parameters}

    @property
    def arguments(self):
        return sorted((self.parameters & VALUES) - {*self.left_out})

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
        (5, 9),
        layouts=("divided", "whole", "host"),
        told=EVERY_WAY,
    ),
    "lite": Driver(
        lite.dynamic_rnn, in_lite, ["lite_lstm", "lite_basic"], left_out=("time_major",)
    ),
    "bidirectional": Driver(
        jaxrnn.bidirectional_dynamic_rnn, two_directions, TWO, (5, 9)
    ),
    "stack": Driver(jaxrnn.stack_bidirectional_dynamic_rnn, two_layers, TWO),
    "static": Driver(jaxrnn.static_rnn, over_list(one_direction), **LISTS),
    "static_bidirectional": Driver(
        jaxrnn.static_bidirectional_rnn, over_list(two_directions), **LISTS
    ),
    "static_stack": Driver(
        jaxrnn.stack_bidirectional_rnn, over_list(two_layers), **LISTS
    ),
    "state_saving": Driver(
        jaxrnn.static_state_saving_rnn,
        saved,
        **LISTS | {"cells": ["affine"], "arrays": ("inputs", "states")},
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
        "states": {n: draw(BATCH, UNITS) for n in "ch"},
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
def test_equals_one_device(name):
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
    """The program of a gradient, without addresses and without arrays' numbers."""
    run, arrays = first_case(name, cell=cell)
    run = functools.partial(run, **arguments)
    text = str(jax.make_jaxpr(mesh.with_gradients, static_argnums=0)(run, arrays))
    return re.sub(r"0x[0-9a-f]+|\b\d+:i64\[\]", "", text)


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
    run = functools.partial(run, scope="a_name")
    lowered = jax.jit(run).lower(**arrays)
    assert "a_name/" in lowered.as_text(debug_info=True)


@pytest.mark.parametrize("name", DRIVERS)
def test_every_two_values_that_are_allowed_together_are_in_a_case(name):
    cases = DRIVERS[name].cases
    assert all(map(is_allowed, cases))
    for a, b in itertools.combinations(cases[0], 2):
        found = {(case[a], case[b]) for case in cases}
        levels = [{case[name] for case in cases} for name in (a, b)]
        for pair in itertools.product(*levels):
            assert (pair in found) == is_allowed(dict(zip((a, b), pair, strict=True)))


def test_a_gradient_over_steps_that_do_not_fill_their_groups():
    """17 steps run in two groups of 9."""
    cell = bound(BasicRNNCell(UNITS))

    def run(params, inputs, lengths):
        return jaxrnn.dynamic_rnn(cell.cell.bind(params), inputs, lengths, dtype=F64)

    lengths = np.array([17, 0, 2, 1], np.int32)
    arrays = {"inputs": draw(BATCH, 17, DEPTH), "lengths": lengths}
    mesh.check(run, arrays | {"params": cell.params}, "explicit")
