"""Empty arrays of every argument, through every cell and driver, also natively."""

import functools
import itertools

import cases
import jax
import jax.numpy as jnp
import native_cases
import numpy as np
import pytest
from helpers import assert_same, differentiated, drawn

import jaxrnn
from jaxrnn import LSTMCell, memory
from jaxrnn._base.errors import error_note
from jaxrnn._base.trees import has_read_only, types_of_size
from jaxrnn._loops.masking import is_of_rows
from jaxrnn.testing._oracle import at_steps, make_setup

F32, F64 = np.dtype("float32"), np.dtype("float64")
ROWS, STEPS = cases.BATCH, 3
SHAPES = [(0, STEPS), (ROWS, 0), (0, 0)]


def sizes(xs):
    return jax.tree.leaves(xs)[0].shape[:2]


def plain(cell, xs, state, dtype=F64, **options):
    return jaxrnn.dynamic_rnn(cell, xs, None, state, dtype, **options)


def with_lengths(cell, xs, state, dtype=F64):
    options = {"swap_memory": memory.Recompute(2)}
    return jaxrnn.dynamic_rnn(
        cell, xs, np.arange(sizes(xs)[0]), state, dtype, **options
    )


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


def in_a_pack(cell, xs, state, dtype=F64):
    """Of sequences without steps, or of no sequences."""
    pack = jaxrnn.pack_sequences(xs, [0] * sizes(xs)[0])
    outputs, last = jaxrnn.packed_rnn(cell, pack, state, dtype)
    return jax.tree.map(lambda y: y[:, : sizes(xs)[1]], pack.unpack(outputs)), last


def step_by_step(cell, xs, state, dtype=F64):
    if sizes(xs)[1]:  # `static_rnn` refuses a list of no steps.
        steps = [at_steps(xs, t) for t in range(STEPS)]
        outputs, last = jaxrnn.static_rnn(cell, steps, state)
        return jax.tree.map(lambda *ys: jnp.stack(ys, 1), *outputs), last
    first = jax.tree.map(lambda x: np.zeros((x.shape[0], *x.shape[2:]), x.dtype), xs)
    step = lambda time, y, new, _: (True, first, state if y is None else new, y, None)
    emit_ta, last, _ = jaxrnn.raw_rnn(cell, step, max_time=0)
    is_array = lambda x: isinstance(x, jaxrnn.TensorArray)
    swap = lambda ta: jnp.swapaxes(ta.stack(), 0, 1)
    return jax.tree.map(swap, emit_ta, is_leaf=is_array), last


DRIVERS = [plain, with_lengths, with_resets, in_two_directions, step_by_step]
OF_ROWS = [with_a_mask, in_a_pack]  # No scalars or memories in the state.


def cut(setup, rows, steps):
    """The sequences and the state of the first rows and steps of a setup."""
    xs = jax.tree.map(lambda x: x[:rows, :steps], setup.xs)
    return xs, jax.tree.map(lambda x: x[:rows] if np.ndim(x) else x, setup.state)


@pytest.mark.fast("lstm_projection", "mlstm", "delta_memory", "function_nested")
@pytest.mark.parametrize("name", cases.CASES)
def test_every_cell(name):
    """The types of the results, with gradients, which nothing computes."""
    case = cases.CASES[name]
    setup = make_setup(case.cell, case.inputs, F64, case.key, case.state)
    are_rows = is_of_rows(setup.state) and not has_read_only(setup.state)
    for (rows, steps), driver in itertools.product(
        SHAPES, DRIVERS + OF_ROWS * are_rows
    ):
        xs, state = cut(setup, rows, steps)

        def run(params, driver=driver, xs=xs, state=state):
            return driver(setup.bind(params), xs, state)

        make = functools.partial(differentiated, run)
        with error_note(f"{driver.__name__}: {rows} rows, {steps} steps"):
            (outputs, last), _ = jax.eval_shape(make, setup.params)
        sizes = types_of_size(case.cell.output_size, rows, F64)
        want = [(rows, steps, *y.shape[1:]) for y in jax.tree.leaves(sizes)]
        assert [y.shape for y in jax.tree.leaves(outputs)] == want, driver
        shapes = [[x.shape for x in jax.tree.leaves(s)] for s in (last, state)]
        assert shapes[0] == shapes[1], driver


@native_cases.needs_library
@pytest.mark.parametrize("driver", [plain, with_resets, with_a_mask, in_a_pack])
def test_natively(driver, alone):
    """No step changes the state."""
    for cell in (LSTMCell(4), jaxrnn.GRUCell(4)):
        setup = make_setup(cell, jax.ShapeDtypeStruct((ROWS, 3), F32), F32)
        for shape in SHAPES:
            xs, state = cut(setup, *shape)
            outputs, last = driver(setup.bind(), xs, state, F32)
            assert outputs.shape == (*shape, 4)
            assert_same(last, state)


# No units, no inputs, and heads of no units.
NONE = [
    (LSTMCell(0, num_proj=2), 3),
    (jaxrnn.LayerNormGRUCell(0), 3),
    (jaxrnn.MLSTMCell(0, 2), 3),
    (jaxrnn.MLSTMCell(4, 2), 0),
    (jaxrnn.GatedDeltaNetCell(0, 2), 3),
    (jaxrnn.DeltaNetCell(4, 2), 0),
    (jaxrnn.SLSTMCell(0, 2), 3),
    (jaxrnn.LRUCell(3, num_states=0), 3),
    (jaxrnn.RGLRUCell(0, 2), 0),
    (jaxrnn.QRNNCell(0), 0),
]


@pytest.mark.parametrize(("cell", "depth"), NONE, ids=repr)
def test_no_units_or_inputs(cell, depth):
    def run(params, x):
        return plain(cell.bind(params), x, None, F32)

    for rows in (ROWS, 0):
        x = np.zeros((rows, STEPS, depth), np.float32)
        found = differentiated(
            run, drawn(cell, jax.ShapeDtypeStruct((1, depth), F32)), x
        )
        outputs = found[0][0]
        assert outputs.shape == (rows, STEPS, cell.output_size)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
