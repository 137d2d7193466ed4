"""The native loops against XLA's loop."""

import concurrent.futures
import functools

import helpers
import jax
import jax.numpy as jnp
import native_cases
import numpy as np
import pytest
from helpers import MODES, stacked
from native_cases import CELLS, LENGTHS, TIME, assert_near, calls, data, everything, run

from jaxrnn import GRUCell, LSTMCell, contrib, memory
from jaxrnn.testing._oracle import weighted_sum

pytestmark = native_cases.needs_library


def check(cell, *given, **options):
    """Values and gradients are those of XLA's loop."""
    of = lambda name: everything(cell, name, *given, **options)
    assert_near(of("native"), of("xla"))


def check_programs(of, *given, tolerance=2e-5):
    """The program `of(name)` gives the same results natively as by XLA's loop."""
    made = (jax.jit(of(name))(*given) for name in ("native", "xla"))
    assert_near(*made, tolerance=tolerance)


# Values and gradients.


# Cells and an input that is not finite.
WITH_RELU = {
    "lstm": (LSTMCell(8, activation="relu"), np.nan),
    "gru": (GRUCell(8, activation="relu"), np.inf),
    "normed": (contrib.LayerNormBasicLSTMCell(8, activation="relu"), np.nan),
}


@pytest.mark.fast("lstm")
@pytest.mark.parametrize(("cell", "bad"), WITH_RELU.values(), ids=WITH_RELU)
def test_nan_in_gradients_passes_no_shut_relu(cell, bad):
    params, x, state = data(cell)
    given = params, x.at[1, 2, 0].set(bad), state, None
    got, want = (everything(cell, way, *given) for way in ("native", "xla"))
    masks = [[np.isnan(leaf) for leaf in jax.tree.leaves(r)] for r in (got, want)]
    assert any(map(np.any, masks[1]))
    helpers.assert_same(*masks)


# Rows, steps, inputs and units.
SHAPES = {
    "ones": (1, 1, 1, 1),
    "few": (3, 7, 40, 129),
    "many": (67, 9, 19, 70),
    "unpacked": (2, 9, 300, 96),
}
SIZES = [("ones", "gru"), ("few", "lstm"), ("many", "gru")]
SIZES += [("unpacked", name) for name in ("lstm", "gru", "rnn")]


@pytest.mark.fast("many-gru")
@pytest.mark.parametrize(("shape", "name"), SIZES)
def test_sizes(shape, name):
    batch, time, depth, units = SHAPES[shape]
    cell = type(CELLS[name])(units)
    params, x, state = data(cell, batch, time=time, depth=depth)
    params = jax.tree.map(lambda p: p / units**0.5, params)
    lengths = jnp.arange(batch, dtype=jnp.int32) % (time + 1)
    check(cell, params, x, state, lengths if shape in ("ones", "many") else None)


def test_a_row_of_length_0_keeps_the_bits_of_its_state():
    cell = CELLS["lstm"]
    params, x, state = data(cell)
    odd = jnp.asarray([-0.0, jnp.inf, 1e-40, jnp.nan], jnp.float32)
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
    check(cell, params, 1e6 * jnp.sign(x), jax.tree.map(lambda s: 1e6 * s, state), None)


RESETS = np.zeros((5, TIME), bool)
RESETS[1] = RESETS[2, 2] = RESETS[3, [0, 1, 4, 5]] = RESETS[4, 3] = True
WITHIN = np.arange(TIME) < np.asarray(LENGTHS)[:, None]
MASK = np.asarray([[False] * 6, [True] * 6, *3 * [[True, False] * 3]])
OPTIONS = {
    "padding": {},
    "resets": {"resets": RESETS},
    "mask": {"mask": MASK, "lengths": None, "return_states": True},
    "states": {"return_states": True},
}
# Resets and one other option for each cell, with either order of the axes.
WITH_OPTIONS = [
    (name, what, (i + shift) % 2 == 1)
    for i, name in enumerate(CELLS)
    for shift, what in enumerate(["resets", ["padding", "mask", "states"][i % 3]])
]


@pytest.mark.fast("gru-resets-*", "joined-mask-*")
@pytest.mark.parametrize(("name", "what", "time_major"), WITH_OPTIONS)
def test_padding_resets_masks_and_states_of_all_steps(name, what, time_major):
    """Row 0 has no steps and NaN in its state; row 1 has one step; padding is NaN."""
    params, x, state = data(CELLS[name])
    turn = lambda x: jnp.swapaxes(x, 0, 1) if time_major else x
    options = {"time_major": time_major} | OPTIONS[what]
    kept = options.get("mask", WITHIN)
    options |= {k: turn(options[k]) for k in ("resets", "mask") if k in options}
    if what == "resets":
        options["reset_state"] = native_cases.draw(state, 3)
    bad_state = jax.tree.map(lambda s: s.at[0].set(jnp.nan), state)
    bad_x = jnp.where(kept[..., None], x, jnp.nan)
    native = functools.partial(everything, CELLS[name], "native", **options)
    given = params, turn(bad_x), bad_state
    got = native(*given)
    want = everything(CELLS[name], "xla", params, turn(x), state, **options)

    def without_row_0(results, gradients):
        (outputs, last, *states), (c_params, c_x, *c_states) = results, gradients
        rest = last, c_states, jax.tree.map(turn, states)
        return outputs, c_params, c_x, jax.tree.map(lambda s: s[1:], rest)

    assert_near(without_row_0(*got), without_row_0(*want))
    assert all(np.isnan(leaf[0]).all() for leaf in jax.tree.leaves(got[0][1]))
    assert len(calls(native, *given)) == 2


# Transformations.


def curved(name, cell, **options):
    """A nonlinear loss, so that second derivatives contain first derivatives."""
    _, _, state = data(cell)
    sines = lambda results: weighted_sum(jax.tree.map(jnp.sin, results))
    return lambda params, x: sines(run(cell, name, params, x, state, **options))


@pytest.mark.fast("forward")
@pytest.mark.parametrize("kind", ["forward", "backward of backward"])
def test_derivatives_of_all_kinds(kind):
    """XLA's loop saves the state before a reset; the native loop, the one after."""
    cell, resets = CELLS["gru"], None if kind == "forward" else RESETS
    params, x, _ = data(cell)
    of = lambda way: MODES[kind](curved(way, cell, resets=resets))
    check_programs(of, params, x, tolerance=5e-5)


TWICE = {
    "params-x": ((0, None), (None, 0)),
    "params-params": ((0, None), (0, None)),
}


@pytest.mark.slow
@pytest.mark.parametrize("mapped", TWICE)
def test_nets_that_are_mapped_twice_are_of_one_call(mapped):
    cell, (outer, inner) = CELLS["lstm"], TWICE[mapped]
    *given, state = data(cell)
    for axes, scales in ((inner, (1, -2)), (outer, (0.5, -1, 1))):
        pairs = zip(given, axes, strict=True)
        given = [v if axis is None else stacked(v, *scales) for v, axis in pairs]

    def of(name):
        loss = lambda params, x: weighted_sum(run(cell, name, params, x, state))
        return jax.vmap(jax.vmap(jax.value_and_grad(loss, (0, 1)), inner), outer)

    check_programs(of, *given)
    assert len(calls(of("native"), *given)) == 2


# Whether the calls of each strategy are those of the backward pass.
STRATEGIES = {
    "True": (True, [False, False, True]),
    "Offload": (memory.Offload(memory.Keep(), 3), [False, True]),
}


@pytest.mark.fast("Offload")
@pytest.mark.parametrize(("strategy", "backward"), STRATEGIES.values(), ids=STRATEGIES)
def test_strategies_of_memory_go_with_it(strategy, backward):
    given = data(CELLS["gru"])
    of = functools.partial(everything, CELLS["gru"], "native", swap_memory=strategy)
    assert_near(of(*given), everything(CELLS["gru"], "xla", *given))
    assert [call.backward for call in calls(of, *given)] == backward


def test_threads_that_call_at_once():
    cell = CELLS["lstm"]
    params, x, state = data(cell, 64)
    loss = lambda x: weighted_sum(run(cell, "native", params, x, state, None))
    step = jax.jit(jax.value_and_grad(loss))
    xs = [x * scale for scale in np.linspace(0, 1, 16, dtype=np.float32)]
    want = list(map(step, xs))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(step, xs * 4))
    assert_near(got, want * 4, tolerance=0)


# Devices.


@pytest.mark.usefixtures("few_steps_too")
def test_a_share_of_the_rows_is_a_call_by_default():
    cell = CELLS["lstm"]
    params, *rows = data(cell, 8)
    rows += [np.asarray([0, 1, 2, 3, 4, 5, 6, 9], np.int32)]
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
    given = jax.device_put(rows, jax.NamedSharding(mesh, jax.P("rows")))

    def step(name):
        def total(params, *rows):
            return jax.lax.psum(weighted_sum(run(cell, name, params, *rows)), "rows")

        specs = jax.P(), *[jax.P("rows")] * 3
        summed = jax.shard_map(total, mesh=mesh, in_specs=specs, out_specs=jax.P())
        return jax.value_and_grad(lambda params: summed(params, *given))

    assert_near(*[jax.jit(step(name))(params) for name in (None, "xla")])
    assert [c.shape[:3] for c in calls(step(None), params)] == 2 * [(1, 2, TIME)]


def test_a_named_one_is_for_this_process_on_a_cpu():
    step = jax.jit(functools.partial(run, CELLS["rnn"], "native"))
    message = "^`implementation` 'native' runs only on CPUs in this process"
    with pytest.raises(ValueError, match=message) as raised:
        jax.export.export(step)(*data(CELLS["rnn"]))
    assert raised.type is ValueError  # Not a private subclass.
