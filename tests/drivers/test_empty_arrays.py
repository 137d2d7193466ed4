"""Empty arrays of every argument, through every cell and driver, also natively."""

import functools
import itertools

import cases
import jax
import numpy as np
import pytest
from helpers import assert_same, differentiated

import jaxrnn
from jaxrnn import LSTMCell, memory
from jaxrnn._base.errors import error_note
from jaxrnn._base.trees import has_read_only, types_of_size
from jaxrnn._run.masking import is_of_rows
from jaxrnn.testing._oracle import make_setup

F32, F64 = np.dtype("float32"), np.dtype("float64")
ROWS, STEPS = cases.BATCH, 3
SHAPES = [(0, STEPS), (ROWS, 0)]


def sizes(xs):
    return jax.tree.leaves(xs)[0].shape[:2]


def plain(cell, xs, state, dtype=F64, **options):
    return jaxrnn.dynamic_rnn(cell, xs, None, state, dtype, **options)


def with_lengths(cell, xs, state, dtype=F64):
    lengths, swap_memory = np.arange(sizes(xs)[0]), memory.Recompute(2)
    return jaxrnn.dynamic_rnn(cell, xs, lengths, state, dtype, swap_memory=swap_memory)


def with_resets(cell, xs, state, dtype=F64):
    return plain(
        cell, xs, state, dtype, resets=np.ones(sizes(xs), bool), reset_state=state
    )


def with_a_mask(cell, xs, state, dtype=F64):
    options = {"mask": np.ones(sizes(xs), bool), "return_states": True}
    return plain(cell, xs, state, dtype, **options)[:2]


def in_two_directions(cell, xs, state, dtype=F64):
    run = functools.partial(jaxrnn.bidirectional_dynamic_rnn, cell, cell, xs)
    (_, outputs), (_, last) = run(None, state, state, dtype)
    return outputs, last


# A mask allows no scalars or memories in the state.
DRIVERS = [plain, with_lengths, with_resets, in_two_directions]


def cut(setup, rows, steps):
    """The sequences and the state of the first rows and steps of a setup."""
    xs = jax.tree.map(lambda x: x[:rows, :steps], setup.xs)
    return xs, jax.tree.map(lambda x: x[:rows] if np.ndim(x) else x, setup.state)


# One cell of each kind, and the cells whose steps or loops are their own.
OWN = """basic_rnn mlstm delta_memory delta_memory_key_decay
    linear_attention_key_decay dplr_memory rwkv6_memory slstm rg_lru qrnn short_conv
    glstm conv2d phased attention embedding""".split()
CELLS = [*cases.KINDS.values(), *OWN]


@pytest.mark.fast("function_nested")
@pytest.mark.parametrize("name", CELLS)
def test_every_cell(name):
    """The types of the results, with gradients, which nothing computes."""
    case = cases.CASES[name]
    setup = make_setup(case.cell, case.inputs, F64, case.key, case.state)
    are_rows = is_of_rows(setup.state) and not has_read_only(setup.state)
    drivers = DRIVERS + [with_a_mask] * are_rows
    for shape, driver in [*itertools.product(SHAPES, drivers), ((0, 0), plain)]:
        xs, state = cut(setup, *shape)

        def run(params, driver=driver, xs=xs, state=state):
            return driver(setup.bind(params), xs, state)

        make = functools.partial(differentiated, run)
        with error_note(f"{driver.__name__}: rows and steps {shape}"):
            (outputs, last), _ = jax.eval_shape(make, setup.params)
        sizes = types_of_size(case.cell.output_size, shape[0], F64)
        want = [(*shape, *y.shape[1:]) for y in jax.tree.leaves(sizes)]
        assert [y.shape for y in jax.tree.leaves(outputs)] == want, driver
        shapes = [[x.shape for x in jax.tree.leaves(s)] for s in (last, state)]
        assert shapes[0] == shapes[1], driver


def natively(cell, xs, state, dtype):
    """Nothing runs, so the native loops need not support the cell."""
    return plain(cell, xs, state, dtype, implementation="native")


@pytest.mark.loops
@pytest.mark.fast("natively")
@pytest.mark.parametrize("driver", [natively, with_a_mask], ids=lambda f: f.__name__)
def test_no_step_changes_the_state(driver, alone):
    """Nor reads a parameter; the default would be a native loop."""
    for cell in (LSTMCell(4), jaxrnn.MinGRUCell(4)):
        setup = make_setup(cell, jax.ShapeDtypeStruct((ROWS, 3), F32), F32)
        bind = setup.bind
        for shape in SHAPES:
            xs, state = cut(setup, *shape)
            run = lambda *given, bind=bind, xs=xs: driver(
                bind(given[0]), xs, given[1], F32
            )
            (outputs, last), slopes = differentiated(run, setup.params, state)
            assert outputs.shape == (*shape, 4)
            assert_same(last, state)
            assert not any(g.any() for g in jax.tree.leaves(slopes[0]))
            assert all(np.all(g != 0) for g in jax.tree.leaves(slopes[1]))


# No units, no inputs, and heads of no units.
