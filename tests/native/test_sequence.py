"""The native loops against XLA's loop."""

import concurrent.futures
import functools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from native_cases import (
    CELLS,
    F32,
    LENGTHS,
    LENGTHS_OF_8,
    TIME,
    assert_near,
    calls,
    check_padding,
    data,
    everything,
    needs_library,
    over_devices,
    run,
    with_bad_padding,
)

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, contrib, memory
from jaxrnn.testing._oracle import weighted_sum

pytestmark = needs_library

# Values and gradients.


@pytest.mark.fast("True-joined")
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("time_major", [False, True])
def test_ragged_rows_with_bad_padding(name, time_major):
    check_padding(CELLS[name], "native", time_major)


RELU_CELLS = {
    "lstm": LSTMCell(8, activation="relu"),
    "peepholes": LSTMCell(8, use_peepholes=True, activation="relu"),
    "gru": GRUCell(8, activation="relu"),
    "cudnn_gru": jaxrnn.CudnnCompatibleGRUCell(8, activation="relu"),
    "normed": contrib.LayerNormBasicLSTMCell(8, activation="relu"),
}


@pytest.mark.fast("nan-lstm", "inf-cudnn_gru")
@pytest.mark.parametrize("name", RELU_CELLS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_gradients_passes_no_shut_relu(bad, name):
    params, x, state = data(RELU_CELLS[name])
    given = params, x.at[1, 2, 0].set(bad), state, None
    got, want = (everything(RELU_CELLS[name], way, *given) for way in ("native", "xla"))
    masks = [[np.isnan(leaf) for leaf in jax.tree.leaves(r)] for r in (got, want)]
    assert any(map(np.any, masks[1]))
    helpers.assert_same(*masks)


SHAPES = {"ones": (1, 1, 1, 1), "few": (3, 7, 40, 129), "many": (67, 9, 19, 70)}


@pytest.mark.fast("many-lstm")
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("shape", SHAPES)
def test_sizes(shape, name):
    batch, time, depth, units = SHAPES[shape]
    cell = type(CELLS[name])(units)
    params, x, state = data(cell, batch, time=time, depth=depth)
    params = jax.tree.map(lambda p: p / units**0.5, params)
    ragged = jnp.arange(batch, dtype=jnp.int32) % (time + 1)
    for lengths in (ragged, None):
        given = params, x, state, lengths
        assert_near(everything(cell, "native", *given), everything(cell, "xla", *given))


def test_values_alone_are_one_call_that_saves_nothing():
    cell = CELLS["lstm"]
    given = data(cell)
    of = lambda name: functools.partial(run, cell, name)
    assert_near(jax.jit(of("native"))(*given), of("xla")(*given))
    assert_near(of("native")(*given), of("xla")(*given))
    (call,) = calls(of("native"), *given)
    assert call.shape == (1, 5, TIME, 4)


def test_a_row_of_length_0_keeps_the_bits_of_its_state():
    cell = CELLS["lstm"]
    params, x, state = data(cell)
    odd = jnp.asarray([-0.0, jnp.inf, 1e-40, jnp.nan], F32)
    state = jax.tree.map(lambda s: s.at[0].set(odd), state)
    _, last = jax.jit(functools.partial(run, cell, "native"))(params, x, state)
    for leaf in last:
        np.testing.assert_array_equal(leaf[0], odd)
        np.testing.assert_array_equal(np.signbit(leaf[0]), np.signbit(odd))


@pytest.mark.fast("rnn")
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_saturated_gates_have_no_gradient(name):
    """Large inputs and states would amplify a small nonzero gradient."""
    cell = CELLS[name]
    params, x, state = data(cell)
    given = params, 1e6 * jnp.sign(x), jax.tree.map(lambda s: 1e6 * s, state), None
    assert_near(everything(cell, "native", *given), everything(cell, "xla", *given))


# Transformations.


def curved(name, cell):
    """A nonlinear loss, so that second derivatives contain first derivatives."""
    _, _, state = data(cell)
    sines = lambda results: weighted_sum(jax.tree.map(jnp.sin, results))
    return lambda params, x: sines(run(cell, name, params, x, state))


def forward_mode(loss, params, x):
    return jax.jvp(loss, (params, x), jax.tree.map(jnp.cos, (params, x)))


def grad_of_grad(loss, params, x):
    inner = jax.grad(loss, (0, 1))
    return jax.grad(lambda *given: weighted_sum(inner(*given)), (0, 1))(params, x)


def reverse_over_forward(loss, params, x):
    push = lambda p: jax.jvp(lambda p: loss(p, x), (p,), (p,))[1]
    return jax.grad(push)(params)


def grad_of_grad_in_a_scan(loss, params, x):
    """JAX partially evaluates the body of the scan twice."""

    def total(params):
        body = lambda carry, scale: (carry + loss(params, scale * x), None)
        scales = jnp.asarray([0.5, 1.0], F32)
        return jax.lax.scan(body, jnp.zeros((), F32), scales)[0]

    return jax.grad(lambda p: weighted_sum(jax.grad(total)(p)))(params)


def transpose_of_transpose(loss, params, x):
    """The transpose of the transpose, which is the tangent."""
    pull = jax.vjp(loss, params, x)[1]
    return jax.linear_transpose(pull, jnp.ones((), F32))((params, x))


KINDS = (
    forward_mode,
    grad_of_grad,
    reverse_over_forward,
    grad_of_grad_in_a_scan,
    transpose_of_transpose,
)


@pytest.mark.fast("gru-forward_mode")
@pytest.mark.parametrize("of", KINDS, ids=lambda of: of.__name__)
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_derivatives_of_all_kinds(name, of):
    cell = CELLS[name]
    params, x, _ = data(cell)
    made = lambda name: jax.jit(lambda: of(curved(name, cell), params, x))()
    assert_near(made("native"), made("xla"), tolerance=5e-5)


@pytest.mark.slow
def test_a_derivative_of_a_derivative_where_a_row_has_no_steps():
    """The native backward loop reads what XLA's loop saved for such a row."""
    cell = CELLS["lstm"]
    params, x, state = data(cell)
    bad_x, bad_state = with_bad_padding(x, state)

    def push(x, state, name):
        total = lambda p: weighted_sum(run(cell, name, p, x, state)[0])
        along_itself = lambda p: jax.jvp(total, (p,), (p,))[1]
        return jax.jit(jax.grad(along_itself))(params)

    assert_near(push(bad_x, bad_state, "native"), push(x, state, "xla"))


AXES = {"x": (None, 0, None, None), "params": (0, None, None, None), "all": (0,) * 4}


@pytest.mark.fast("False-all")
@pytest.mark.parametrize("mapped", AXES)
@pytest.mark.parametrize("time_major", [False, True])
def test_mapped_gradients_are_those_of_each(mapped, time_major):
    cell = CELLS["gru"]
    params, x, state = data(cell)
    given = params, jnp.swapaxes(x, 0, 1) if time_major else x, state, LENGTHS
    stack = lambda v: jnp.stack([v, -v, v // 2 if v.dtype == LENGTHS.dtype else 2 * v])
    wide = [
        jax.tree.map(stack, v) if axis == 0 else v
        for v, axis in zip(given, AXES[mapped], strict=True)
    ]

    def loss(name, *given):
        return weighted_sum(run(cell, name, *given, time_major=time_major))

    def of(name):
        both = jax.value_and_grad(functools.partial(loss, name), (0, 1, 2))
        return jax.vmap(both, AXES[mapped])

    assert_near(jax.jit(of("native"))(*wide), jax.jit(of("xla"))(*wide))
    entries, rows = (3, 5) if AXES[mapped][0] == 0 else (1, 15)
    shape = (entries, TIME, rows) if time_major else (entries, rows, TIME)
    assert [c.shape[:3] for c in calls(of("native"), *wide)] == [shape, shape]


TWICE = {
    "params-x": ((0, None), (None, 0)),
    "x-params": ((None, 0), (0, None)),
    "params-params": ((0, None), (0, None)),
}


@pytest.mark.fast("params-x")
@pytest.mark.parametrize("mapped", TWICE)
def test_nets_that_are_mapped_twice_are_of_one_call(mapped):
    cell, (outer, inner) = CELLS["lstm"], TWICE[mapped]
    params, x, state = data(cell)

    def wide(tree, axis, *scales):
        stack = lambda v: jnp.stack([jnp.float32(s) * v for s in scales])
        return jax.tree.map(stack, tree) if axis == 0 else tree

    given = [wide(v, axis, 1, -2) for v, axis in zip((params, x), inner, strict=True)]
    given = [wide(v, axis, 0.5, -1, 1) for v, axis in zip(given, outer, strict=True)]

    def of(name):
        loss = lambda params, x: weighted_sum(run(cell, name, params, x, state))
        return jax.vmap(jax.vmap(jax.value_and_grad(loss, (0, 1)), inner), outer)

    assert_near(jax.jit(of("native"))(*given), jax.jit(of("xla"))(*given))
    assert len(calls(of("native"), *given)) == 2


@pytest.mark.fast("forward_mode")
@pytest.mark.parametrize("of", [grad_of_grad, forward_mode], ids=lambda of: of.__name__)
def test_further_derivatives_of_mapped_nets(of):
    cell = CELLS["gru"]
    params, x, _ = data(cell)
    wide = jax.tree.map(lambda v: jnp.stack([v, -v]), params)
    made = lambda name: jax.vmap(lambda params: of(curved(name, cell), params, x))
    got, want = (jax.jit(made(name))(wide) for name in ("native", "xla"))
    assert_near(got, want, tolerance=5e-5)


def test_no_nets_and_no_batches():
    params, x, state = data(CELLS["rnn"])
    of = lambda p, x: run(CELLS["rnn"], "native", p, x, state)[0]
    none = lambda tree: jax.tree.map(lambda v: jnp.zeros((0, *v.shape), F32), tree)
    assert jax.vmap(of, (0, None))(none(params), x).shape == (0, 5, TIME, 3)
    outputs, pull = jax.vjp(jax.vmap(lambda x: of(params, x)), none(x))
    assert outputs.shape == (0, 5, TIME, 3)
    assert pull(outputs)[0].shape == (0, *x.shape)


@pytest.mark.fast("Offload*")
@pytest.mark.parametrize(
    ("strategy", "backward"),
    [
        (True, [False, False, True]),
        (memory.Recompute(4), [False, False, False, True, False, True]),
        (memory.Offload(memory.Keep(), 3), [False, True]),
    ],
    ids=lambda value: str(value).split("(")[0],
)
def test_strategies_of_memory_go_with_it(strategy, backward):
    cell = CELLS["gru"]
    given = data(cell)
    of = functools.partial(everything, cell, "native", swap_memory=strategy)
    assert_near(of(*given), everything(cell, "xla", *given))
    assert [call.backward for call in calls(of, *given)] == backward


def test_threads_that_call_at_once():
    cell = CELLS["lstm"]
    params, x, state = data(cell, 64)
    step = jax.jit(
        jax.value_and_grad(
            lambda x: weighted_sum(run(cell, "native", params, x, state, None))
        )
    )
    xs = [x * scale for scale in np.linspace(0, 1, 16, dtype=np.float32)]
    want = list(map(step, xs))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(step, xs * 4))
    assert_near(got, want * 4, tolerance=0)


# Devices.


SHARES = {
    "ragged": (None, LENGTHS_OF_8, "Auto"),
    "whole": (None, None, "Auto"),
    "explicit": (None, LENGTHS_OF_8, "Explicit"),
    "named": ("native", LENGTHS_OF_8, "Explicit"),
}


@pytest.mark.fast("ragged", "explicit")
@pytest.mark.parametrize(("name", "lengths", "kind"), SHARES.values(), ids=SHARES)
def test_a_share_of_the_rows_is_a_call_by_default(name, lengths, kind):
    step, params = over_devices(CELLS["lstm"], name, lengths, kind)
    of_xla, _ = over_devices(CELLS["lstm"], "xla", lengths, kind)
    assert_near(jax.jit(step)(params), jax.jit(of_xla)(params))
    assert [c.shape[:3] for c in calls(step, params)] == 2 * [(1, 2, TIME)]
    assert not calls(of_xla, params)


def test_rows_on_an_explicit_mesh_have_xlas_loop():
    cell = CELLS["gru"]
    params, x, state = data(cell, 8)
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    step = lambda name, *given: everything(cell, name, *given, lengths=None)
    want = step("xla", params, x, state)
    with jax.set_mesh(mesh):
        placed = params, jax.device_put(x, rows), jax.device_put(state, rows)
        assert_near(jax.device_get(step(None, *placed)), want)
        assert not calls(functools.partial(step, None), *placed)
        reason = "an explicit mesh requires `jax.shard_map`"
        with pytest.raises(ValueError, match=reason):
            step("native", *placed)


def for_a_tpu(step, given):
    return jax.jit(step).trace(*given).lower(lowering_platforms=("tpu",))


def exported(step, given):
    return jax.export.export(jax.jit(step))(*given)


@pytest.mark.parametrize("make", [for_a_tpu, exported], ids=lambda make: make.__name__)
def test_a_named_one_is_for_this_process_on_a_cpu(make):
    cell = CELLS["rnn"]
    message = "^`implementation` 'native' runs only on CPUs in this process"
    with pytest.raises(ValueError, match=message) as raised:
        make(functools.partial(run, cell, "native"), data(cell))
    assert raised.type is ValueError  # Not a private subclass.
