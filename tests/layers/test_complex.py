"""Complex inputs, states and parameters, in drivers, modules and cells of Flax."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax_modules import (
    ROWS,
    TIME,
    UNITS,
    both,
    cells_in,
    in_nnx,
    run_driver,
    same,
)
from helpers import differentiated, usual_promotion

import jaxrnn
from jaxrnn import FunctionCell, GRUCell, dynamic_rnn

F32, C64 = jnp.float32, jnp.complex64
LENGTHS = np.array([4, 0, 3], np.int32)
RESETS = np.arange(TIME) == np.arange(ROWS)[:, None] + 1
ARRAYS = ("u", "inputs", "initial_state", "reset_state")


@pytest.fixture(autouse=True)
def usual_jax():
    with usual_promotion():
        yield


def rotate(u, inputs, state):
    """A unitary step, which also accepts the two outputs of a bidirectional layer."""
    return u * (state + inputs[..., :UNITS] + 0.5 * inputs[..., -UNITS:])


def step(params, inputs, state, key=None):
    """A step whose real output depends on all imaginary parts."""
    new = rotate(params["u"], inputs, state)
    return new.real + 2 * new.imag, new if jnp.iscomplexobj(state) else new.real


def complex_step(params, inputs, state, key=None):
    new = rotate(params["u"], inputs, state)
    return new, new


def init(key, inputs, dtype):
    return {"u": arrays("u")[0]}


REAL = FunctionCell(step, UNITS, UNITS, init, is_random=False)
COMPLEX = FunctionCell(complex_step, UNITS, UNITS, init, is_random=False)


def drawn(seed, is_complex, *shape):
    real, imag = helpers.draw(2, *shape, seed=seed, dtype=np.float32)
    return real + 1j * imag if is_complex else real


def arrays(*complex_ones):
    """`(u, inputs, initial_state, reset_state)`, of which some are complex."""
    shapes = {"u": (UNITS,), "inputs": (ROWS, TIME, UNITS)}
    u, *others = (
        drawn(seed, name in complex_ones, *shapes.get(name, (ROWS, UNITS)))
        for seed, name in enumerate(ARRAYS)
    )
    return jax.device_put([u / abs(u), *others])


def in_numpy(u, inputs, state, reset_state):
    """The outputs and the final state of `REAL`."""
    outputs = np.zeros((ROWS, TIME, UNITS), np.float32)
    state = np.array(state)
    for row, t in np.argwhere(np.arange(TIME) < LENGTHS[:, None]):
        old = reset_state[row] if RESETS[row, t] else state[row]
        new = rotate(np.asarray(u), inputs[row, t], np.asarray(old))
        outputs[row, t] = new.real + 2 * new.imag
        state[row] = new if np.iscomplexobj(state) else new.real
    return outputs, state


@pytest.mark.parametrize("names", [("inputs",), ARRAYS[2:], ARRAYS], ids=str)
def test_dynamic_rnn_keeps_complex_arrays(names):
    u, inputs, state, start = given = arrays(*names)
    options = {"resets": RESETS, "reset_state": start, "dtype": F32}
    got = dynamic_rnn(REAL.bind({"u": u}), inputs, LENGTHS, state, **options)
    same(got, in_numpy(*map(np.asarray, given)))


SETTINGS = {"all": (REAL, F32, ARRAYS), "outputs": (COMPLEX, None, ARRAYS)}


@pytest.mark.fast("all-InLinen-Stack*", "outputs-InNnx-RNN")
@pytest.mark.parametrize("kind", ["RNN", "StackBidirectional"])
@both
@pytest.mark.parametrize("setting", SETTINGS)
def test_modules_keep_complex_arrays(setting, make, kind):
    """A stack reads `reset_state` as the initial state of its backward direction."""
    cell, dtype, names = SETTINGS[setting]
    nest, is_stack, given = {"function_cell": cell}, kind != "RNN", arrays(*names)
    if is_stack:
        nest = {f"cell_{i}": {"fw": nest, "bw": nest} for i in range(2)}
    module = make(kind, *cells_in(kind, nest), inputs=given[1], dtype=dtype)
    assert {x.dtype for x in jax.tree.leaves(module.params)} == {np.dtype(C64)}

    def runs(u, x, state, start):
        params = jax.tree.map(lambda cell: {"u": u}, nest)
        states = ((state,) * 2, (start,) * 2) if is_stack else state
        options = {} if is_stack else {"resets": RESETS, "reset_state": start}
        of_module = {"initial_state": states, "params": params, "return_carry": True}
        of_driver = {"sequence_length": LENGTHS, "dtype": dtype}
        return (
            module(x, LENGTHS, **of_module, **options)[::-1],
            run_driver(kind, nest, params, x, states, **of_driver, **options),
        )

    got, want = (lambda *given, i=i: runs(*given)[i] for i in (0, 1))
    same(differentiated(got, *given), differentiated(want, *given))


def in_raw_rnn(u, inputs, state):
    def loop_fn(time, output, cell_state, loop_state):
        next_input = inputs[:, jnp.minimum(time, TIME - 1)]
        if output is None:
            cell_state, output = state, jax.ShapeDtypeStruct((UNITS,), F32)
        return time >= TIME, next_input, cell_state, output, None

    emit_ta, state, _ = jaxrnn.raw_rnn(REAL.bind({"u": u}), loop_fn, max_time=TIME)
    return jnp.swapaxes(emit_ta.stack(), 0, 1), state


def test_raw_rnn_keeps_complex_arrays():
    def of_driver(u, inputs, state):
        return dynamic_rnn(REAL.bind({"u": u}), inputs, None, state, F32)

    given = arrays("initial_state")[:3]
    same(differentiated(in_raw_rnn, *given), differentiated(of_driver, *given))


NORMAL = jax.nn.initializers.normal()
STEP = jax.ShapeDtypeStruct((1, UNITS), F32)


def test_complex_parameters_need_a_complex_module():
    """Initializers draw them, if they can."""
    cell = GRUCell(UNITS, kernel_initializer=NORMAL)
    bound = GRUCell(UNITS).bind(helpers.drawn(cell, STEP, C64))
    make = lambda cell, dtype: in_nnx("RNN", cell, UNITS, param_dtype=dtype)
    with pytest.raises(TypeError, match="`param_dtype="):
        make(GRUCell(UNITS), F32).set_cells(bound)
    with pytest.raises(ValueError, match="complex64"):
        make(GRUCell(UNITS), C64)
    module = make(cell, C64)
    module.set_cells(bound)
    assert module.get_cells().params["gates"]["kernel"].dtype == C64
