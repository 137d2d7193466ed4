"""Time divided over devices: results and gradients are those of one device."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
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
CELLS_WITH_A_MAP = [
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
ONE_OF_EACH_MAP = ["min_gru", "delta_memory", "mlstm"]
# The numbers of parts and the marks: all for one cell, one for each other cell.
SETTINGS = [*itertools.product([4, 8], MARKS)]
DIVIDED = {(name, *SETTINGS[i % 4]) for i, name in enumerate(CELLS_WITH_A_MAP)}
DIVIDED |= {("min_gru", *setting) for setting in SETTINGS}


@pytest.mark.fast("min_gru-8-mask")
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


@pytest.mark.slow
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


def test_every_kind_of_cell_has_a_map():
    kinds = "MinGRU MinLSTM QRNN SRU LRU RGLRU MLSTM ShortConv S6Memory MLSTMMemory "
    kinds += "LinearAttentionMemory DeltaMemory DPLRMemory RWKV6Memory"
    found = {type(CASES[name].cell).__name__ for name in CELLS_WITH_A_MAP}
    assert found == {f"{kind}Cell" for kind in kinds.split()}


@pytest.mark.parametrize("shape", [(BATCH, 0), (0, STEPS)])
def test_no_steps_and_no_rows(shape):
    x = jax.device_put(draw(*shape, 3), NamedSharding(explicit(4), BOTH))
    outputs, _ = jaxrnn.dynamic_rnn(bound(jaxrnn.MinGRUCell(4)), x, dtype=F64)
    assert outputs.shape == (*shape, 4)


X = draw(BATCH, STEPS, 3)
LSTM = bound(jaxrnn.LSTMCell(2))
GRU = bound(jaxrnn.MinGRUCell(2))
LINEN = jaxrnn.linen.RNN


def by_name(cell, inputs_spec, name="time", **options):
    options |= {"dtype": F64, "axis_name": name}
    run = lambda x: jaxrnn.dynamic_rnn(cell, x, **options)[0]
    run = jax.shard_map(run, mesh=automatic(4), in_specs=inputs_spec, out_specs=BOTH)
    return run(X)


def divided_x():
    return jax.device_put(X, NamedSharding(explicit(4), BOTH))


def by_sharding(cell, **options):
    return jaxrnn.dynamic_rnn(cell, divided_x(), dtype=F64, **options)


@pytest.mark.slow
def test_a_module_by_name():
    """`init` of linen needs no `shard_map`; a module of nnx runs the same code."""
    in_linen = LINEN(GRU.cell, return_carry=True)
    variables = in_linen.variables_of(GRU)
    init = functools.partial(in_linen.init, axis_name="time")
    types = jax.eval_shape(init, jax.random.key(0), X)
    assert jax.tree.structure(types) == jax.tree.structure(variables)
    outputs, state = jaxrnn.dynamic_rnn(GRU, X, LENGTHS, dtype=F64)
    options = {"sequence_length": LENGTHS, "axis_name": "time"}
    by_name = functools.partial(in_linen.apply, variables, **options)
    specs = {"in_specs": TIME, "out_specs": (P(), TIME)}
    by_name = jax.shard_map(by_name, mesh=automatic(8), **specs)
    assert_near(jax.jit(by_name)(X), (state, outputs), tolerance=1e-12)


both_ways = functools.partial(jaxrnn.bidirectional_dynamic_rnn, GRU, GRU, dtype=F64)


@pytest.mark.slow
def test_two_directions_with_a_mask():
    """A mask is reversed without an exchange that depends on lengths."""
    run = lambda x: jax.jit(both_ways)(x, mask=MASK, resets=RESETS)
    assert_near(run(divided_x()), run(X), tolerance=1e-12)


OWN = Zoneout(GRU.params, GRU.cell)
ONE_LESS = np.zeros((BATCH - 1, 2))
REFUSALS = [
    ("^`cell` must .* got LSTM", lambda: by_name(LSTM, BOTH)),
    ("^`cell` must .* got Zoneout", lambda: by_sharding(OWN)),
    ("`inputs` must be divided", lambda: by_name(GRU, ROWS)),
    ("`axis_name` must .* 'tim'", lambda: by_name(GRU, BOTH, "tim")),
    ("^`implementation` must", lambda: by_sharding(GRU, implementation="scan")),
    ("`initial_state`", lambda: by_sharding(GRU, initial_state=ONE_LESS)),
    ("`mask`", lambda: by_name(GRU, BOTH, mask=MASK)),
    ("`axis_name` is not", lambda: LINEN(GRU.cell, axis_name="time")),
    ("`sequence_length`", lambda: both_ways(divided_x(), LENGTHS)),
]
test_refusals = refusals(REFUSALS, "message call")
