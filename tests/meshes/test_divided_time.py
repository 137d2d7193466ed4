"""Time divided over devices: results and gradients are those of one device."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from flax import linen as nn, nnx
from helpers import (
    Zoneout,
    assert_near,
    bound,
    differentiated,
    draw,
    drawn_like,
    refusals,
)
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from mesh import BATCH, F64

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import memory
from jaxrnn._base.math import expand_rows
from jaxrnn.testing._oracle import make_setup

STEPS = 16
ROWS, BOTH = P("data"), P("data", "time")
HAVE = [name for name, case in CASES.items() if case.cell.transition()]
# Lengths end in the first and in a later part, and at its end; a row is empty.
LENGTHS = np.array([16, 0, 3, 12], np.int32)
# Resets at the first and the last step of a part, and in a gap over several parts.
RESETS = np.zeros((BATCH, STEPS), bool)
RESETS[[0, 0, 1, 2, 3, 3], [3, 8, 0, 2, 4, 15]] = True
MASK = np.random.default_rng(2).random((BATCH, STEPS)) > 0.3
MASK[0, 2:12] = MASK[1] = MASK[3, 14:] = False


def explicit(parts):
    return jax.make_mesh(
        (8 // parts, parts), ("data", "time"), axis_types=(AxisType.Explicit,) * 2
    )


def on_mesh(mesh, arrays):
    """The arrays with their rows, and the inputs' time, divided over the devices."""

    def put(name, tree):
        spec = {"params": P(), "inputs": BOTH}.get(name, ROWS)
        return jax.device_put(tree, NamedSharding(mesh, spec))

    return {name: put(name, tree) for name, tree in arrays.items()}


def divided(run, arrays, parts=4, **options):
    """Results and gradients of `run`, the time of whose inputs is divided."""
    mesh = explicit(parts)
    with jax.set_mesh(mesh):
        return differentiated(run, on_mesh(mesh, arrays), **options)


def run(cell, params, inputs, **options):
    bound_cell = cell.bind(params)
    return jaxrnn.dynamic_rnn(
        bound_cell, inputs, dtype=F64, return_states=True, **options
    )


def in_shard_map(cell, marks, arrays):
    """The results in `shard_map` over 8 devices, with an axis name."""
    mesh = jax.make_mesh((8,), ("time",), axis_types=(AxisType.Auto,))
    time = P(None, "time")
    of_marks = {name: P() if name == "sequence_length" else time for name in marks}
    specs = {name: time if name == "inputs" else P() for name in arrays}
    return jax.shard_map(
        lambda marks, arrays: run(cell, axis_name="time", **marks, **arrays),
        mesh=mesh,
        in_specs=(of_marks, specs),
        out_specs=(time, P(), time),
    )(marks, arrays)


def arrays_of(name):
    case = CASES[name]
    setup = make_setup(case.cell, case.inputs, F64, case.key, case.state)
    steps = jax.tree.map(lambda x: draw(BATCH, STEPS, *x.shape[1:]) / 2, case.inputs)
    return case.cell, {
        "params": setup.params,
        "inputs": steps,
        "initial_state": setup.state,
        "reset_state": drawn_like(setup.state, seed=3),
    }


MARKS = {"sequence_length": LENGTHS, "mask": MASK}


@pytest.mark.in_thirds
@pytest.mark.fast("min_gru-*-mask", "gated_delta_net-4-*", "mlstm-8-mask")
@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("parts", [4, 8])
@pytest.mark.parametrize("name", HAVE)
def test_equals_one_device(name, parts, mark):
    """On 4 parts by the sharding of the inputs, on 8 by an axis name."""
    cell, arrays = arrays_of(name)
    marks = {mark: MARKS[mark], "resets": RESETS}
    one = lambda arrays: run(cell, **marks, **arrays)
    want = differentiated(one, arrays)
    if parts == 8:
        got = differentiated(functools.partial(in_shard_map, cell, marks), arrays)
    else:
        got = divided(one, arrays, parts)
    assert_near(got, want, tolerance=1e-10)


@pytest.mark.parametrize(("parts", "strategy"), [(4, True), (1, memory.Nested())])
def test_with_swap_memory_and_time_major(parts, strategy):
    cell = bound(jaxrnn.MinGRUCell(4))
    x = draw(STEPS, BATCH, 3)
    options = {"dtype": F64, "time_major": True}
    run = lambda x, **others: jaxrnn.dynamic_rnn(cell, x, **options, **others)
    want = differentiated(run, x)
    mesh = jax.make_mesh((2, parts), ("data", "time"))
    with jax.set_mesh(mesh):
        x = jax.device_put(x, NamedSharding(mesh, P("time", "data")))
        got = differentiated(functools.partial(run, swap_memory=strategy), x)
    assert_near(got, want, tolerance=1e-12)


@pytest.mark.parametrize("name", ["min_gru", "gated_delta_net", "mlstm"])
def test_nan_reaches_later_steps_up_to_a_reset(name):
    """Row 0 has NaN at step 5, which the reset at step 8 ends two parts later."""
    cell, arrays = arrays_of(name)
    inputs = arrays["inputs"].copy()
    inputs[0, 5] = inputs[3, 12] = np.nan
    marks = {"sequence_length": LENGTHS, "resets": RESETS}
    clean = np.ones((BATCH, STEPS), bool)
    clean[0, 5:8] = False

    def total(results):
        outputs, _, states = results
        kept = lambda x: jnp.where(expand_rows(clean, x), x, 0)
        return sum(jnp.sum(kept(x)) for x in jax.tree.leaves((outputs, states)))

    run_all = lambda given: run(cell, **marks, **(arrays | given))
    want = differentiated(run_all, {"inputs": inputs}, total=total)
    got = divided(run_all, {"inputs": inputs}, 8, total=total)
    assert not np.isfinite(want[0][0][0, 5:8]).any()
    assert np.isfinite(want[0][0][0, 8:]).all()
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-9)


def test_first_inputs_of_zeros_over_several_parts():
    """The document of RecurrentGemma begins in the third part."""
    cell = jaxrnn.RGLRUCell(4, scale_first_step=False)
    x = draw(BATCH, STEPS, 4)
    x[:, :9] = 0
    run = lambda given: jaxrnn.dynamic_rnn(bound(cell, 4), **given, dtype=F64)
    want = differentiated(run, {"inputs": x})
    assert_near(divided(run, {"inputs": x}), want, tolerance=1e-12)


def test_every_kind_of_cell_has_a_map():
    kinds = "MinGRU MinLSTM QRNN SRU LRU RGLRU MLSTM DeltaNet GatedDeltaNet".split()
    kinds += ["MLSTMMemory", "LinearAttentionMemory", "DeltaMemory", "DPLRMemory"]
    found = {type(CASES[name].cell).__name__ for name in HAVE}
    assert found == {f"{kind}Cell" for kind in kinds}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", ["min_gru", "gated_delta_net", "mlstm"])
def test_narrow_inputs_resets_to_zeros_and_plain_tuples(name, dtype):
    """The state is of the dtype of the inputs; the error is that of one device."""
    cell, arrays = arrays_of(name)
    arrays.pop("reset_state")
    state = arrays["initial_state"]
    arrays["initial_state"] = tuple(state) if isinstance(state, tuple) else state
    wide = run(cell, resets=RESETS, **arrays)[0]
    narrow = jax.tree.map(lambda x: jnp.asarray(x, dtype), arrays)
    options = {"resets": RESETS, "dtype": jnp.dtype(dtype)}
    own = lambda params, inputs, initial_state: jaxrnn.dynamic_rnn(
        cell.bind(params), inputs, initial_state=initial_state, **options
    )
    want = own(**narrow)
    mesh = explicit(4)
    with jax.set_mesh(mesh):
        got = own(**on_mesh(mesh, narrow))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    error = lambda x: np.abs(np.asarray(x[0], F64) - np.asarray(wide)).max()
    assert error(got) <= 2 * error(want) + 1e-6


@pytest.mark.parametrize("name", ["min_gru", "gated_delta_net", "mlstm"])
def test_nan_in_the_initial_state_ends_at_a_reset(name):
    """Row 1 is reset before its first step, and its gradient of the state is 0."""
    cell, arrays = arrays_of(name)
    state = jax.tree.map(lambda x: x.at[1].set(np.nan), arrays["initial_state"])
    arrays |= {"initial_state": state, "reset_state": None}
    one = lambda arrays: run(cell, resets=RESETS, **arrays)
    assert_near(divided(one, arrays), differentiated(one, arrays), tolerance=1e-10)


@pytest.mark.parametrize("shape", [(BATCH, 0), (0, STEPS)])
def test_no_steps_and_no_rows(shape):
    for cell in (jaxrnn.MLSTMCell(4), jaxrnn.MinGRUCell(4)):
        x = jax.device_put(draw(*shape, 3), NamedSharding(explicit(4), BOTH))
        outputs, _ = jaxrnn.dynamic_rnn(bound(cell), x, dtype=F64)
        assert outputs.shape == (*shape, 4)


def test_no_steps_in_shard_map():
    mesh = jax.make_mesh((8,), ("time",), axis_types=(AxisType.Auto,))
    x, none = np.zeros((BATCH, 0, 3)), np.zeros((BATCH, 0), bool)
    x, none = jax.device_put((x, none), NamedSharding(mesh, P(None, "time")))
    cell = jaxrnn.MinGRUCell(4)
    marks = {"resets": none, "mask": none}
    arrays = {"params": bound(cell).params, "inputs": x}
    outputs, *_ = in_shard_map(cell, marks, arrays)
    assert outputs.shape == (BATCH, 0, 4)


def test_a_cell_that_changed_runs_its_new_function():
    scale = [1.0]
    cell = bound(jaxrnn.MinGRUCell(4, activation=lambda x: scale[0] * x))
    x = jax.device_put(draw(BATCH, STEPS, 3), NamedSharding(explicit(4), BOTH))
    first, _ = jaxrnn.dynamic_rnn(cell, x, dtype=F64)
    scale[0] = 2.0
    second, _ = jaxrnn.dynamic_rnn(cell, x, dtype=F64)
    np.testing.assert_allclose(second, 2 * first, rtol=1e-9)
    activation = lambda x: x * 1.0
    cell = bound(jaxrnn.MinGRUCell(4, activation=activation))
    np.testing.assert_array_equal(jaxrnn.dynamic_rnn(cell, x, dtype=F64)[0], first)
    activation.__code__ = (lambda x: x * 2.0).__code__
    third, _ = jaxrnn.dynamic_rnn(cell, x, dtype=F64)
    np.testing.assert_array_equal(third, second)


X = draw(BATCH, STEPS, 3)
LSTM = bound(jaxrnn.LSTMCell(2))
GRU = bound(jaxrnn.MinGRUCell(2))


def by_name(cell, inputs_spec, name="time", **options):
    mesh = jax.make_mesh((2, 4), ("data", "time"), axis_types=(AxisType.Auto,) * 2)
    options |= {"dtype": F64, "axis_name": name}
    run = lambda x: jaxrnn.dynamic_rnn(cell, x, **options)[0]
    return jax.shard_map(run, mesh=mesh, in_specs=inputs_spec, out_specs=BOTH)(X)


def divided_x():
    return jax.device_put(X, NamedSharding(explicit(4), BOTH))


def by_sharding(cell, **options):
    return jaxrnn.dynamic_rnn(cell, divided_x(), dtype=F64, **options)


def in_linen(module, *cells):
    return module.apply(module.variables_of(*cells), X, axis_name="time")


class Wrapped(nn.Module):
    """A linen module that always passes the name of the axis."""

    @nn.compact
    def __call__(self, x):
        rnn = jaxrnn.linen.RNN(GRU.cell, return_carry=True, name="rnn")
        return rnn(x, LENGTHS, axis_name="time")


def test_modules_by_name():
    """`init` of linen needs no `shard_map`."""
    params = {"rnn": jaxrnn.linen.RNN(GRU.cell).variables_of(GRU)["params"]}
    types = jax.eval_shape(Wrapped().init, jax.random.key(0), X)["params"]
    assert jax.tree.structure(types) == jax.tree.structure(params)
    options = {"param_dtype": F64, "return_carry": True, "rngs": nnx.Rngs(0)}
    in_nnx = jaxrnn.nnx.RNN(GRU.cell, 3, **options)
    in_nnx.set_cells(GRU)
    outputs, state = jaxrnn.dynamic_rnn(GRU, X, LENGTHS, dtype=F64)
    mesh = jax.make_mesh((8,), ("time",), axis_types=(AxisType.Auto,))
    for run in (
        lambda x: Wrapped().apply({"params": params}, x),
        lambda x: in_nnx(x, LENGTHS, axis_name="time"),
    ):
        time = P(None, "time")
        got = jax.shard_map(run, mesh=mesh, in_specs=time, out_specs=(P(), time))(X)
        assert_near(got, (state, outputs), tolerance=1e-12)


def test_two_directions_with_a_mask():
    """A mask is reversed without an exchange that depends on lengths."""
    run = lambda x, mask: jaxrnn.bidirectional_dynamic_rnn(
        GRU, GRU, x, mask=mask, resets=RESETS, dtype=F64
    )
    assert_near(run(divided_x(), MASK), run(X, MASK), tolerance=1e-12)


REFUSALS = [
    (lambda: by_sharding(LSTM), "`cell` must be a linear recurrence or"),
    (lambda: by_name(LSTM, BOTH), "Each step of other cells needs the state after"),
    (
        lambda: by_sharding(Zoneout(GRU.params, GRU.cell)),
        "where time is divided, got Zoneout.",
    ),
    (lambda: by_name(GRU, ROWS), "`inputs` must be divided over the mesh axis"),
    (lambda: by_name(GRU, BOTH, "tim"), "`axis_name` must be the name of a mesh"),
    (lambda: by_name(GRU, BOTH, 1), "`axis_name` must be the name of a mesh"),
    (
        lambda: by_sharding(GRU, initial_state=np.zeros((3, 2))),
        "`initial_state` must have 4 rows",
    ),
    (
        lambda: by_name(GRU, BOTH, mask=np.ones((BATCH, STEPS), bool)),
        "With `axis_name`, a device passes its part of inputs, masks and resets",
    ),
    (
        lambda: jaxrnn.linen.RNN(GRU.cell, axis_name="time"),
        "is not an argument of `RNN`. Pass it to `dynamic_rnn`, or to a call",
    ),
    (
        lambda: jaxrnn.linen.RNN(GRU.cell).apply({}, X, axis_names={}),
        "is not an argument of `RNN`. Pass it to the constructor of a module.",
    ),
    (
        lambda: jaxrnn.bidirectional_dynamic_rnn(
            GRU, GRU, divided_x(), LENGTHS, dtype=F64
        ),
        "Pass `mask`: true at the steps before each row's length.",
    ),
    (
        lambda: in_linen(jaxrnn.linen.RNN(GRU.cell, reverse=True), GRU),
        "`axis_name` must be None for a module with `reverse`",
    ),
    (
        lambda: in_linen(jaxrnn.linen.Bidirectional(GRU.cell, GRU.cell), GRU, GRU),
        "`axis_name` must be None for a bidirectional module",
    ),
]


test_errors = refusals(REFUSALS, "call message", re.escape)
