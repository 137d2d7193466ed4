"""A stack on the devices of a mesh equals the same stack on one device."""

import functools
import operator
import re

import chex
import helpers
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from jaxrnn import (
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    ResidualWrapper,
    TensorShape,
    memory,
)

RNG = np.random.default_rng(0)
ROWS, TIME, SIZE = 6, 11, 4
X = RNG.normal(size=(ROWS, TIME, SIZE))
LENGTHS = np.array([11, 0, 3, 1, 7, 5], np.int32)
KEY = jax.random.key(3)
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
close = functools.partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-11)


def count_steps(params, inputs, state, key=None):
    """A step with a counter for each row, a scalar counter and a logarithm."""
    count, total, all_steps = state
    total = jnp.tanh(total + inputs["x"] * params["w"])
    log = inputs["log"] + jnp.log(inputs["x"] * params["w"])
    output = {"x": 1.5 + total, "log": log}
    return output, (count + 1, total, all_steps + 1.0)


COUNTS = FunctionCell(
    count_steps,
    state_size=(TensorShape([]), SIZE, TensorShape([])),
    output_size={"x": SIZE, "log": SIZE},
)
CELLS = {
    "lstm": LSTMCell(SIZE, use_peepholes=True),
    "gru": GRUCell(SIZE),
    "residual": ResidualWrapper(GRUCell(SIZE)),
    "pair": MultiRNNCell([LSTMCell(SIZE), GRUCell(SIZE)]),
    "dropout": DropoutWrapper(GRUCell(SIZE), 0.5, 0.5, 0.5),
    "variational": DropoutWrapper(
        MultiRNNCell([GRUCell(SIZE)]), 0.5, 0.5, 0.5, True, SIZE, jnp.float64
    ),
}


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstacked(tree, count):
    return [jax.tree.map(operator.itemgetter(i), tree) for i in range(count)]


def params_of(cell, layers, dtype=jnp.float64):
    bound = lambda seed: helpers.bound(cell, SIZE, dtype, seed, scale=0.5)
    each = [bound(seed).params for seed in range(layers)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def states_of(cell, layers, dtype=jnp.float64):
    draw = lambda s: RNG.normal(size=(layers, *s.shape)).astype(s.dtype)
    return jax.tree.map(draw, cell.zero_state(ROWS, dtype))


def on_one_device(cell, key, params, x, lengths, state):
    """Run the stack by `dynamic_rnn`, with the layouts of `pipelined_rnn`."""
    layers = jax.tree.leaves(params)[0].shape[0]
    # Create distinct objects, so that layers do not share parameters.
    stack = MultiRNNCell([ResidualWrapper(cell, add_nothing) for _ in range(layers)])
    params = {f"cell_{i}": p for i, p in enumerate(unstacked(params, layers))}
    state = tuple(unstacked(state, layers))
    bound, dtype = stack.bind(params, key), jax.tree.leaves(x)[0].dtype
    outputs, state = jaxrnn.dynamic_rnn(bound, x, lengths, state, dtype)
    return outputs, stacked(state)


def add_nothing(inputs, outputs):
    return outputs


def pipelined(cell, key, params, x, lengths, state, **options):
    dtype = jax.tree.leaves(x)[0].dtype
    return jaxrnn.pipelined_rnn(
        cell.bind(params, key), x, lengths, state, dtype, axis_name="stage", **options
    )


def mapped(run, mesh, rows=None, **options):
    """Map `run(params, x, lengths, state)` over the stages, and rows over `rows`."""
    state = P("stage", rows) if rows else P("stage")
    return jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(P("stage"), P(rows), P(rows), state),
        out_specs=(P(rows), state),
        **options,
    )


def placed(mesh, rows, *args):
    specs = P("stage"), P(rows), P(rows), P("stage", rows)
    place = lambda tree, spec: jax.device_put(tree, NamedSharding(mesh, spec))
    return tuple(map(place, args, specs))


def mesh_of(stages=4, axis_type=AUTO):
    return jax.make_mesh((stages,), ("stage",), axis_types=(axis_type,))


@functools.partial(jax.jit, static_argnums=0)
def differentiated(run, params, x, lengths, state):
    """Results, and gradients by parameters, inputs and initial state."""

    def loss(params, x, state):
        results = run(params, x, lengths, state)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(results)), results

    return jax.grad(loss, (0, 1, 2), has_aux=True)(params, x, state)


def with_nan_padding(x, lengths):
    if lengths is None:
        return x
    return np.where(np.arange(TIME)[:, None] < lengths[:, None, None], x, np.nan)


# Cell, layers, devices, steps per chunk, lengths.
RUNS = {
    "ragged": ("lstm", 4, 4, 3, LENGTHS),
    "whole": ("gru", 4, 4, 4, None),
    "two-layers-each": ("gru", 4, 2, 5, LENGTHS),
    "dropout": ("dropout", 4, 2, 4, LENGTHS),
    "divided": ("lstm", 2, 2, 1, None),
    "one-chunk": ("gru", 4, 4, 20, LENGTHS),
    "one-stage": ("lstm", 2, 1, 4, LENGTHS),
    "short": ("gru", 4, 4, 2, LENGTHS // 3),
    "empty": ("gru", 4, 4, 2, LENGTHS * 0),
    "residual": ("residual", 8, 4, 4, LENGTHS),
    "pair": ("pair", 4, 4, 4, LENGTHS),
    "variational": ("variational", 4, 2, 4, None),
}


@pytest.mark.fast("ragged")
@pytest.mark.parametrize("name", RUNS)
def test_values_and_gradients(name):
    cell, layers, stages, chunk, lengths = RUNS[name]
    cell = CELLS[cell]
    args = (
        params_of(cell, layers),
        with_nan_padding(X, lengths),
        lengths,
        states_of(cell, layers),
    )
    run = functools.partial(pipelined, cell, KEY, chunk=chunk)
    got = differentiated(mapped(run, mesh_of(stages)), *args)
    want = differentiated(functools.partial(on_one_device, cell, KEY), *args)
    close(got, want)


BOTH = [("lstm", "both"), ("lstm", "stage"), ("dropout", "stage")]


@pytest.mark.slow
@pytest.mark.parametrize("axis_type", [AUTO, EXPLICIT], ids=["Auto", "Explicit"])
@pytest.mark.parametrize(("name", "which"), BOTH)
def test_rows_over_devices_too(name, which, axis_type):
    """Rows are sharded over a second axis, mapped or left to the compiler."""
    cell = CELLS[name]
    mesh = jax.make_mesh((2, 2), ("stage", "data"), axis_types=(axis_type,) * 2)
    args = params_of(cell, 2), with_nan_padding(X, LENGTHS), LENGTHS, states_of(cell, 2)
    run = functools.partial(pipelined, cell, KEY, chunk=4)
    rows, options = ("data", {}) if which == "both" else (None, {"axis_names": {which}})
    got = differentiated(
        mapped(run, mesh, rows, **options), *placed(mesh, "data", *args)
    )
    close(got, differentiated(functools.partial(on_one_device, cell, KEY), *args))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes(dtype):
    cell = CELLS["lstm"]
    x = jnp.asarray(X, dtype)
    args = params_of(cell, 2, dtype), x, LENGTHS, states_of(cell, 2, dtype)
    run = mapped(functools.partial(pipelined, cell, None, chunk=4), mesh_of(2))
    got = differentiated(run, *args)
    want = differentiated(functools.partial(on_one_device, cell, None), *args)
    chex.assert_trees_all_equal_dtypes(got, want)
    tolerance = 1e-5 if dtype == jnp.float32 else 0.1
    chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)


@functools.cache
def compiled_run(chunk):
    cell = CELLS["gru"]
    run = mapped(functools.partial(pipelined, cell, None, chunk=chunk), mesh_of())
    return functools.partial(differentiated, run)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 2, 4, 7, 11, 12])
@hypothesis.settings(max_examples=25)
@hypothesis.given(st.lists(st.integers(0, TIME + 1), min_size=ROWS, max_size=ROWS))
def test_lengths(chunk, lengths):
    cell, lengths = CELLS["gru"], np.array(lengths, np.int32)
    args = params_of(cell, 4), with_nan_padding(X, lengths), lengths
    state = jnp.ones((4, ROWS, SIZE))
    got = compiled_run(chunk)(*args, state)
    close(got, differentiated(one_device_gru, *args, state))


one_device_gru = functools.partial(on_one_device, CELLS["gru"], None)


@pytest.mark.fast("9")
@pytest.mark.parametrize("length", [TIME, 9])
def test_idle_ticks_run_nothing(length):
    """Idle ticks keep scalar leaves and do not run the cell on zero inputs."""
    chunk, lengths = (11, None) if length == TIME else (3, np.full(ROWS, length))
    x = {"x": np.abs(X) + 0.5, "log": X}
    params = {"w": np.linspace(0.5, 1, 4 * SIZE).reshape(4, 1, SIZE)}
    state = np.zeros((4, ROWS)), np.zeros((4, ROWS, SIZE)), np.zeros(4)
    run = functools.partial(pipelined, COUNTS, None, chunk=chunk)
    got = differentiated(mapped(run, mesh_of()), params, x, lengths, state)
    want = functools.partial(on_one_device, COUNTS, None)
    close(got, differentiated(want, params, x, lengths, state))
    assert got[1][1][2].tolist() == [length] * 4


@pytest.mark.slow
@pytest.mark.parametrize("swap_memory", [True, memory.Recompute(4)], ids=str)
def test_memory(swap_memory):
    cell = CELLS["lstm"]
    args = params_of(cell, 4), X, LENGTHS, states_of(cell, 4)
    run = functools.partial(pipelined, cell, None, chunk=4, swap_memory=swap_memory)
    got = differentiated(mapped(run, mesh_of()), *args)
    close(got, differentiated(functools.partial(on_one_device, cell, None), *args))


def test_time_major_and_a_zero_state():
    cell, x = CELLS["gru"], jnp.swapaxes(X, 0, 1)
    params = params_of(cell, 2)

    def run(params, x):
        return jaxrnn.pipelined_rnn(
            cell.bind(params),
            x,
            dtype=jnp.float64,
            axis_name="stage",
            chunk=4,
            time_major=True,
        )

    specs = {"in_specs": (P("stage"), P()), "out_specs": (P(), P("stage"))}
    got = jax.jit(jax.shard_map(run, mesh=mesh_of(2), **specs))(params, x)
    want = on_one_device(cell, None, params, X, None, jnp.zeros((2, ROWS, SIZE)))
    close(got, (jnp.swapaxes(want[0], 0, 1), want[1]))


def test_no_steps():
    cell = CELLS["gru"]
    args = params_of(cell, 2), X[:, :0], None, states_of(cell, 2)
    run = mapped(functools.partial(pipelined, cell, None, chunk=4), mesh_of(2))
    outputs, state = jax.jit(run)(*args)
    assert outputs.shape == (ROWS, 0, SIZE)
    close(state, args[-1])


@pytest.mark.slow
def test_a_gradient_inside_of_shard_map():
    cell = CELLS["gru"]
    args = params_of(cell, 2), X, LENGTHS, states_of(cell, 2)

    def gradient(run):
        loss = lambda *args: jnp.sum(jnp.sin(run(*args)[0]))
        return jax.grad(loss)

    of_stages = gradient(functools.partial(pipelined, cell, None, chunk=4))
    specs = {"in_specs": (P("stage"), P(), P(), P("stage")), "out_specs": P("stage")}
    got = jax.jit(jax.shard_map(of_stages, mesh=mesh_of(2), **specs))(*args)
    want = gradient(functools.partial(on_one_device, cell, None))
    close(got, jax.jit(want)(*args))


def add_to_all(extra):
    """A cell that captures an array."""

    def add(params, inputs, state, key=None):
        state = jnp.tanh(inputs * params["w"] + state + extra)
        return state, state

    return FunctionCell(add, SIZE, SIZE)


@pytest.mark.parametrize("is_varying", [True, False])
def test_an_array_that_the_cell_captures(is_varying):
    """If it did not vary, stages that skip a tick would have to sum its gradient."""
    params, extra = {"w": RNG.normal(size=(2, 1, SIZE))}, RNG.normal(size=(ROWS, SIZE))

    def of_stages(params, extra):
        if is_varying:
            extra = jax.lax.pcast(extra, "stage", to="varying")
        cell = add_to_all(extra)
        return pipelined(cell, None, params, X, LENGTHS, None, chunk=4)[0]

    def of_one(params, extra):
        state = jnp.zeros((2, ROWS, SIZE))
        return on_one_device(add_to_all(extra), None, params, X, LENGTHS, state)[0]

    specs = {"in_specs": (P("stage"), P()), "out_specs": P()}
    run = jax.shard_map(of_stages, mesh=mesh_of(2), **specs)
    gradient = lambda run: jax.jit(jax.grad(lambda *a: jnp.sum(run(*a) ** 2), (0, 1)))
    if is_varying:
        close(gradient(run)(params, extra), gradient(of_one)(params, extra))
    else:
        with pytest.raises(
            ValueError, match=r"close over a traced array that is the same on all"
        ):
            gradient(run)(params, extra)


@pytest.mark.slow
def test_under_vmap():
    """A batch of batches with different lengths; all run up to the longest."""
    cell = CELLS["gru"]
    params, x = params_of(cell, 2), np.stack([X, 2 * X])
    lengths = np.stack([LENGTHS, LENGTHS // 2])
    state = jax.tree.map(lambda s: np.stack([s, s], 1), states_of(cell, 2))
    run = functools.partial(pipelined, cell, None, chunk=4)
    over = lambda run: jax.vmap(run, (None, 0, 0, 1), (0, 1))
    got = differentiated(mapped(over(run), mesh_of(2)), params, x, lengths, state)
    run = functools.partial(on_one_device, cell, None)
    close(got, differentiated(over(run), params, x, lengths, state))


COLLECTIVE = r" = (.*?) (all-gather|all-to-all|all-reduce|collective-permute)[\w\-]*\("


def collectives(program):
    """The kinds of collectives in loops, and outside of them."""
    names = set(re.findall(r"body=%?([\w.\-]+)", program))
    inside, outside = [], []
    for block in re.split(r"\n(?=%|ENTRY)", program):
        is_body = re.match(r"%?([\w.\-]+)", block)[1] in names
        kinds = [kind for _, kind in re.findall(COLLECTIVE, block)]
        if is_body and kinds:
            inside.append(kinds)
        elif not is_body:
            outside += kinds
    return inside, outside


@pytest.mark.slow
@pytest.mark.parametrize("axis_type", [AUTO, EXPLICIT], ids=["Auto", "Explicit"])
@pytest.mark.parametrize("rows", [None, "data"], ids=["stages", "rows"])
def test_collectives(rows, axis_type):
    """Each tick sends one message per pass; gradients are summed once, at the end."""
    cell, size = CELLS["lstm"], 2 if rows else 4
    names = ("stage", "data")[: 4 // size]
    mesh = jax.make_mesh(
        (size,) * len(names), names, axis_types=(axis_type,) * len(names)
    )
    args = placed(mesh, rows, params_of(cell, 4), X, LENGTHS, states_of(cell, 4))
    run = mapped(functools.partial(pipelined, cell, None, chunk=2), mesh, rows)
    program = jax.jit(run).lower(*args).compile().as_text()
    assert collectives(program) == ([["collective-permute"]], ["all-reduce"])
    program = differentiated.lower(run, *args).compile().as_text()
    inside, outside = collectives(program)
    assert inside == [["collective-permute"]] * 2
    assert set(outside) == {"all-reduce"}


def call(cell=CELLS["gru"], params=None, x=X, state=None, mapped=None, **options):
    """A call with valid defaults for the arguments that are not given."""
    params = params_of(cell, 4) if params is None else params
    options = {"dtype": jnp.float64, "axis_name": "stage", "chunk": 4} | options
    specs = {"in_specs": (P("stage"), P(), P("stage")), "out_specs": P("stage")}
    bind = options.pop("bind", cell.bind)

    def run(params, x, state):
        return jaxrnn.pipelined_rnn(bind(params), x, None, state, **options)[1]

    run = jax.shard_map(run, mesh=mesh_of(), **(specs | (mapped or {})))
    return jax.eval_shape(run, params, x, state)


LAYERS_DIFFER = {f"cell_{i}": params_of(CELLS["gru"], 4) for i in range(4)}
LAYERS_DIFFER["cell_0"]["gates"] = np.ones((8, 8))
REFUSED = {
    "unbound": (
        {"bind": lambda params: CELLS["gru"]},
        TypeError,
        "`cell` must be a bound cell, got the unbound GRUCell",
    ),
    "not separate": (
        {"bind": lambda params: ProtocolCell()},
        TypeError,
        "`cell` must be the cell of one layer, bound to stacked parameters, got "
        "ProtocolCell. Call `cell.bind",
    ),
    "not stacked": (
        {"params": LAYERS_DIFFER},
        ValueError,
        r"the first axis of all `params` must be the layer axis, got 1 in .*, 2 in "
        r"`params\['cell_0'\]\['gates'\]`. Stack the parameters of equal cells: `jax",
    ),
    "no parameters": ({"params": {}}, ValueError, "the layer axis, got no array"),
    "not sharded": (
        {"mapped": {"in_specs": (P(), P(), P("stage"))}},
        ValueError,
        r"`params\['candidate'\]\['bias'\]` must be sharded over the stages, got the "
        r"same float64\[4, 4\] on all of them. Its spec .* must be `P\('stage'\)`",
    ),
    "layers": (
        {"params": params_of(CELLS["gru"], 6)},
        ValueError,
        "mesh axis 'stage' .of size 4., but 4 does not evenly divide 6",  # JAX's error.
    ),
    "depth": (
        {"x": X[..., :3]},
        ValueError,
        r"`inputs` must have the sizes of the layers' outputs, \(4,\) after batch and "
        r"time, got float64\[6, 11, 3\]. Project the inputs, `x @ w`",
    ),
    "nest": ({"x": {"x": X}}, ValueError, r"`inputs` must have the structure \*, got"),
    "dtype": (
        {"x": X.astype(np.float32)},
        TypeError,
        "`inputs` must have the dtype of the outputs, float64, got float32.* Cast it",
    ),
    "inputs that differ": (
        {"x": np.ones((8, 3, SIZE)), "mapped": {"in_specs": (P("stage"),) * 3}},
        ValueError,
        "`inputs` must be the same on all stages.* Leave 'stage' out of its spec",
    ),
    "axis": (
        {"axis_name": "model"},
        ValueError,
        r"`axis_name` must be a mesh axis that `jax.shard_map` maps around this "
        r"call, got 'model'. The mapped axes are \('stage',\)",
    ),
    "check_vma": (
        {"mapped": {"check_vma": False}},
        ValueError,
        "`jax.shard_map` must have `check_vma=True`, its default",
    ),
    "chunk": ({"chunk": 0}, ValueError, "`chunk` must be at least 1, got 0"),
    "a float": ({"chunk": 1.5}, TypeError, "`chunk` must be an integer, got 1.5"),
    "state": (
        {"state": np.ones((8, ROWS, SIZE))},
        ValueError,
        r"`initial_state` must have an entry for each layer of this stage, \[1, batch, "
        r"...\], got float64\[2, 6, 4\]. Stack .* their spec .* begin with 'stage'",
    ),
    "kind of state": (
        {"cell": CELLS["lstm"], "state": (np.ones((4, ROWS, SIZE)),) * 2},
        TypeError,
        "`initial_state` must have the structure LSTMStateTuple",
    ),
    "shape of state": (
        {"state": np.ones((4, ROWS, 3))},
        ValueError,
        r"`state` must have shape \(6, 4\), got float64\[6, 3\]",
    ),
    "no dtype": ({"dtype": None}, ValueError, "dtype must be specified"),
}


class ProtocolCell:
    """A cell that captures its parameters."""

    state_size = output_size = SIZE

    def zero_state(self, batch_size, dtype):
        return jnp.zeros((batch_size, SIZE), dtype)

    def __call__(self, inputs, state):
        return inputs, state


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    changes, error, message = REFUSED[name]
    with pytest.raises(error, match=f"(?s){message}"):
        call(**changes)


def test_the_call_that_is_not_refused():
    assert call().shape == (4, ROWS, SIZE)
