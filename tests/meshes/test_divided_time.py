"""Time divided over devices: results and gradients are those of one device."""

import functools
import itertools

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
from jaxrnn._run.loops import loops_of
from jaxrnn.testing._oracle import make_setup

STEPS = 16
ROWS, TIME, BOTH = P("data"), P(None, "time"), P("data", "time")
HAVE = [
    name
    for name, case in CASES.items()
    if (loops := loops_of(type(case.cell)))
    and loops.divided_time
    and loops.divided_time.can_run(case.cell)
]
# Lengths end in the first and in a later part, and at its end; a row is empty.
LENGTHS = np.array([16, 0, 3, 12], np.int32)
# Resets at the first and the last step of a part, and in a gap over several parts.
RESETS = np.zeros((BATCH, STEPS), bool)
RESETS[[0, 0, 1, 2, 3, 3], [3, 8, 0, 2, 4, 15]] = True
MASK = np.random.default_rng(2).random((BATCH, STEPS)) > 0.3
MASK[0, 2:12] = MASK[1] = MASK[3, 14:] = False


def explicit(parts, kind=AxisType.Explicit):
    sizes = 8 // parts, parts
    return jax.make_mesh(sizes, ("data", "time"), axis_types=(kind, kind))


automatic = functools.partial(explicit, kind=AxisType.Auto)


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
    options = {"dtype": F64, "return_states": True, **options}
    return jaxrnn.dynamic_rnn(cell.bind(params), inputs, **options)


def in_shard_map(cell, marks, arrays):
    """The results in `shard_map` over 8 devices, with an axis name."""
    of_marks = {name: P() if name == "sequence_length" else TIME for name in marks}
    specs = {name: TIME if name == "inputs" else P() for name in arrays}
    return jax.shard_map(
        lambda marks, arrays: run(cell, axis_name="time", **marks, **arrays),
        mesh=automatic(8),
        in_specs=(of_marks, specs),
        out_specs=(TIME, P(), TIME),
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
# The numbers of parts and the marks: all for one cell of each kind of map, one for each
# other cell.
SETTINGS = [*itertools.product([4, 8], MARKS)]
ONE_OF_EACH_MAP = ["min_gru", "delta_memory", "mlstm"]
DIVIDED = {(name, *SETTINGS[i % 4]) for i, name in enumerate(HAVE)}
DIVIDED |= {(name, *each) for name in ONE_OF_EACH_MAP for each in SETTINGS}


@pytest.mark.fast("min_gru-8-mask", "min_gru-4-*length")
@pytest.mark.parametrize(("name", "parts", "mark"), sorted(DIVIDED))
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


def test_a_convolution_over_parts_shorter_than_its_kernel():
    x, kernel = draw(BATCH, STEPS, 3), draw(4, 3)
    conv = functools.partial(jaxrnn.short_conv, axis_name="time")
    parts = jax.shard_map(
        lambda x, kernel, resets: conv(x, kernel, resets=resets),
        mesh=automatic(8),
        in_specs=(TIME, P(), TIME),
        out_specs=(TIME, P()),
    )
    got = differentiated(lambda *given: parts(*given, RESETS), x, kernel)
    whole = functools.partial(jaxrnn.short_conv, resets=RESETS)
    assert_near(got, differentiated(whole, x, kernel), tolerance=1e-12)


@pytest.mark.parametrize(("parts", "strategy"), [(4, True), (1, memory.Recompute(3))])
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


@pytest.mark.slow
def test_gradients_of_each_row_and_jacobians():
    """What the page names in place of `vmap` of a gradient and of `jacrev`."""
    cell, arrays = arrays_of("min_gru")
    params, rows = arrays["params"], arrays["inputs"]
    outputs = lambda params, x: jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=F64)[0]
    of_row = lambda params, x: jnp.sum(outputs(params, x[None]) ** 2)
    in_turn = lambda params, x: jax.lax.map(lambda x: jax.grad(of_row)(params, x), x)
    want = jax.jit(jax.vmap(jax.grad(of_row), (None, 0)))(params, rows)
    sums = jax.jit(jax.jacfwd(lambda params, x: outputs(params, x).sum((0, 1))))
    mesh = jax.make_mesh((4,), ("time",))
    put = lambda tree, spec: jax.device_put(tree, NamedSharding(mesh, spec))
    given = put(params, P()), put(rows, TIME)
    assert_near(jax.jit(in_turn)(*given), want, tolerance=1e-10)
    assert_near(sums(*given), sums(params, rows), tolerance=1e-10)


@pytest.mark.fast("min_gru")
@pytest.mark.parametrize("name", ONE_OF_EACH_MAP)
def test_nan_reaches_later_steps_up_to_a_reset(name):
    """Row 0 has NaN at step 5, which the reset at step 8 ends two parts later.

    Row 1 is reset before its first step, so its NaN in the initial state has no effect.
    """
    cell, arrays = arrays_of(name)
    lengths, inputs = np.array([16, 16, 3, 12], np.int32), arrays["inputs"]
    rows, steps = [0, 3], [5, 12]
    inputs = jax.tree.map(lambda x: jnp.asarray(x).at[rows, steps].set(np.nan), inputs)
    state = jax.tree.map(lambda x: x.at[1].set(np.nan), arrays["initial_state"])
    marks = {"sequence_length": lengths, "resets": RESETS}
    clean = np.ones((BATCH, STEPS), bool)
    clean[0, 5:8] = False

    def total(results):
        outputs, last, states = results
        kept = lambda x: jnp.where(expand_rows(clean, x), x, 0)
        kept = jax.tree.map(kept, (outputs, states))
        return sum(jnp.sum(x) for x in jax.tree.leaves((kept, last)))

    run_all = lambda given: run(cell, arrays["params"], **marks, **given)
    given = {"inputs": inputs, "initial_state": state}
    want = differentiated(run_all, given, total=total)
    got = divided(run_all, given, 8, total=total)
    assert not np.isfinite(want[0][0][0, 5:8]).any()
    assert np.isfinite(want[0][0][0, 8:]).all()
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-9)
    for leaf in jax.tree.leaves(got[1][0]["initial_state"]):
        assert not np.asarray(leaf)[1].any()


@pytest.mark.slow
def test_first_inputs_of_zeros_over_several_parts():
    """The document of RecurrentGemma begins in the third part."""
    cell = jaxrnn.RGLRUCell(4, scale_first_step=False)
    x = draw(BATCH, STEPS, 4)
    x[:, :9] = 0
    run = lambda given: jaxrnn.dynamic_rnn(bound(cell, 4), **given, dtype=F64)
    want = differentiated(run, {"inputs": x})
    assert_near(divided(run, {"inputs": x}), want, tolerance=1e-12)


def test_every_kind_of_cell_has_a_map():
    kinds = "MinGRU MinLSTM QRNN SRU LRU RGLRU MLSTM".split()
    kinds += [
        "ShortConv",
        "S6Memory",
        "MLSTMMemory",
        "LinearAttentionMemory",
        "DeltaMemory",
        "DPLRMemory",
        "RWKV6Memory",
    ]
    found = {type(CASES[name].cell).__name__ for name in HAVE}
    assert found == {f"{kind}Cell" for kind in kinds}


@pytest.mark.fast("min_gru-*")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*itertools.product(ONE_OF_EACH_MAP, ["bfloat16"]), ("mlstm", "float32")],
)
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


@pytest.mark.parametrize("shape", [(BATCH, 0), (0, STEPS)])
def test_no_steps_and_no_rows(shape):
    for cell in (jaxrnn.MLSTMCell(4), jaxrnn.MinGRUCell(4)):
        x = jax.device_put(draw(*shape, 3), NamedSharding(explicit(4), BOTH))
        outputs, _ = jaxrnn.dynamic_rnn(bound(cell), x, dtype=F64)
        assert outputs.shape == (*shape, 4)


def test_no_steps_in_shard_map():
    x, none = np.zeros((BATCH, 0, 3)), np.zeros((BATCH, 0), bool)
    x, none = jax.device_put((x, none), NamedSharding(automatic(8), TIME))
    cell = jaxrnn.MinGRUCell(4)
    run = jax.jit(functools.partial(in_shard_map, cell))
    arrays = {"params": bound(cell).params, "inputs": x}
    outputs, *_ = run({"resets": none, "mask": none}, arrays)
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
    options |= {"dtype": F64, "axis_name": name}
    run = lambda x: jaxrnn.dynamic_rnn(cell, x, **options)[0]
    run = jax.shard_map(run, mesh=automatic(4), in_specs=inputs_spec, out_specs=BOTH)
    return run(X)


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


@pytest.mark.slow
def test_modules_by_name():
    """`init` of linen needs no `shard_map`."""
    params = {"rnn": jaxrnn.linen.RNN(GRU.cell).variables_of(GRU)["params"]}
    types = jax.eval_shape(Wrapped().init, jax.random.key(0), X)["params"]
    assert jax.tree.structure(types) == jax.tree.structure(params)
    options = {"param_dtype": F64, "return_carry": True, "rngs": nnx.Rngs(0)}
    in_nnx = jaxrnn.nnx.RNN(GRU.cell, 3, **options)
    in_nnx.set_cells(GRU)
    outputs, state = jaxrnn.dynamic_rnn(GRU, X, LENGTHS, dtype=F64)
    for run in (
        lambda x: Wrapped().apply({"params": params}, x),
        lambda x: in_nnx(x, LENGTHS, axis_name="time"),
    ):
        specs = {"in_specs": TIME, "out_specs": (P(), TIME)}
        run = jax.shard_map(run, mesh=automatic(8), **specs)
        assert_near(jax.jit(run)(X), (state, outputs), tolerance=1e-12)


LINEN, BIDIRECTIONAL = jaxrnn.linen.RNN, jaxrnn.linen.Bidirectional
OWN, ONE_LESS = Zoneout(GRU.params, GRU.cell), np.zeros((BATCH - 1, 2))
REVERSED, PAIR = LINEN(GRU.cell, reverse=True), BIDIRECTIONAL(GRU.cell, GRU.cell)
both_ways = functools.partial(jaxrnn.bidirectional_dynamic_rnn, GRU, GRU, dtype=F64)


def test_two_directions_with_a_mask():
    """A mask is reversed without an exchange that depends on lengths."""
    run = lambda x: jax.jit(both_ways)(x, mask=MASK, resets=RESETS)
    assert_near(run(divided_x()), run(X), tolerance=1e-12)


REFUSALS = [
    (
        "`cell` must be a linear recurrence, a matrix memory or",
        lambda: by_sharding(LSTM),
    ),
    ("^`cell` must .* got LSTM", lambda: by_name(LSTM, BOTH)),
    (
        "^`cell` must .* got LSTM",
        lambda: jaxrnn.explain(LSTM, X, dtype=F64, axis_name="time"),
    ),
    ("^`cell` must .* got Zoneout", lambda: by_sharding(OWN)),
    ("`inputs` must be divided", lambda: by_name(GRU, ROWS)),
    ("`axis_name` must .* 'tim'", lambda: by_name(GRU, BOTH, "tim")),
    ("`axis_name` must .* 1", lambda: by_name(GRU, BOTH, 1)),
    (
        "^`implementation` must not be 'scan' .* on one device",
        lambda: by_name(GRU, BOTH, implementation="scan"),
    ),
    ("^`implementation` must", lambda: by_sharding(GRU, implementation="scan")),
    (
        "^`implementation` must",
        lambda: jaxrnn.explain(
            GRU, X, dtype=F64, axis_name="time", implementation="scan"
        ),
    ),
    ("`initial_state`", lambda: by_sharding(GRU, initial_state=ONE_LESS)),
    ("`mask`", lambda: by_name(GRU, BOTH, mask=MASK)),
    ("`axis_name` is not", lambda: LINEN(GRU.cell, axis_name="time")),
    ("`axis_names` is not", lambda: LINEN(GRU.cell).apply({}, X, axis_names={})),
    ("`sequence_length`", lambda: both_ways(divided_x(), LENGTHS)),
    ("`axis_name` must be None .* `reverse`", lambda: in_linen(REVERSED, GRU)),
    ("`axis_name` must be None .* bidirec", lambda: in_linen(PAIR, GRU, GRU)),
]
test_refusals = refusals(REFUSALS, "message call")
