"""Batch-sharded inputs: values, layouts, and no collective in the loop."""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from jaxrnn import (
    AffineCell,
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Stage,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 3))
LENGTHS = np.array([6, 0, 3, 1, 2, 6, 5, 4], np.int32)
KEY = jax.random.key(3)


def count_rows(params, inputs, state, key=None):
    """A state with floats and a vector of integers."""
    count, total = state
    total = jnp.tanh(total + inputs * params["w"])
    return total, (count + 1, total)


def init_scale(key, inputs, dtype):
    return {"w": jnp.ones((), dtype)}


CELLS = {
    "lstm": LSTMCell(5, num_proj=3, use_peepholes=True),
    "stack": MultiRNNCell([LSTMCell(5), GRUCell(4)]),
    "dropout": DropoutWrapper(LSTMCell(5), 0.5, 0.5, 0.5),
    "variational": DropoutWrapper(GRUCell(5), 0.5, 0.5, 0.5, True, 3, jnp.float64),
    "function": FunctionCell(count_rows, (jaxrnn.TensorShape([]), 3), 3, init_scale),
}


def forward(cell, params, x, lengths, state=None, key=KEY):
    bound = cell.bind(params, key)
    fw, fw_state = jaxrnn.dynamic_rnn(bound, x, lengths, state, jnp.float64)
    (_, bw), _ = jaxrnn.bidirectional_dynamic_rnn(
        bound, bound, x, lengths, state, state, jnp.float64
    )
    return fw + bw, fw_state


def loss(params, x, lengths, cell):
    outputs, state = forward(cell, params, x, lengths)
    return (outputs**2).sum() + jax.tree.leaves(state)[-1].sum()


def params_of(cell):
    return drawn(cell, X[:, 0], jnp.float64)


close = functools.partial(chex.assert_trees_all_close, rtol=1e-9, atol=1e-11)
ON_A_MESH = [("lstm", "replicated"), ("lstm", "none"), *((c, "sharded") for c in CELLS)]


@pytest.mark.fast("*Auto-function-sharded", "*Explicit-lstm-sharded")
@pytest.mark.parametrize(("name", "lengths"), ON_A_MESH)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh(name, axis_type, lengths):
    cell = CELLS[name]
    params = params_of(cell)
    n = None if lengths == "none" else LENGTHS
    want, want_gradient = on_one_device(name, n is None)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    rows, copies = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    with jax.set_mesh(mesh):
        x = jax.device_put(X, rows)
        if n is not None:
            n = jax.device_put(n, rows if lengths == "sharded" else copies)
        run = jax.jit(forward, static_argnums=0)
        outputs, state = run(cell, params, x, n)
        close((outputs, state), want)
        gradient = jax.jit(jax.grad(loss, (0, 1)), static_argnums=3)
        close(gradient(params, x, n, cell), want_gradient)
        assert outputs.sharding.spec[0] == "data"


@functools.cache
def on_one_device(name, is_whole):
    """The expected results and gradients for every layout of the lengths."""
    cell, n = CELLS[name], None if is_whole else LENGTHS
    params = params_of(cell)
    both = lambda *args: (forward(cell, *args), jax.grad(loss, (0, 1))(*args, cell))
    return jax.jit(both)(params, X, n)


COLLECTIVE = r" (all-gather|all-to-all|all-reduce|collective-permute)[\w\-]*\("


@pytest.mark.fast("stack-*Auto")
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", ["stack", "dropout"])
def test_collectives_on_a_mesh(name, axis_type):
    cell = CELLS[name]
    params = params_of(cell)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    rows = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh):
        x, n = jax.device_put(X, rows), jax.device_put(LENGTHS, rows)
        run = jax.jit(forward, static_argnums=0)
        program = run.lower(cell, params, x, n).compile().as_text()
        # Loops of so few steps do not end early, so devices need not agree on an end.
        assert not re.findall(COLLECTIVE, program)
        gradient = jax.jit(jax.grad(loss), static_argnums=3)
        program = gradient.lower(params, x, n, cell).compile().as_text()
    # The devices exchange only the sum of the parameters' gradients. For cells that run
    # step by step, XLA's CPU compiler leaves this sum in the loop.
    assert set(re.findall(COLLECTIVE, program)) == {"all-reduce"}
    if name == "stack":
        assert not any(re.search(COLLECTIVE, body) for body in while_bodies(program))


@pytest.mark.slow
def test_collectives_inside_of_shard_map():
    cell = CELLS["stack"]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    gradient = jax.shard_map(
        lambda p, x, n: jax.grad(loss)(p, x, n, cell),
        mesh=mesh,
        in_specs=(P(), P("data"), P("data")),
        out_specs=P(),
    )
    params = params_of(cell)
    lowered = jax.jit(gradient).lower(params, X, LENGTHS)
    program = lowered.compile().as_text()
    assert set(re.findall(COLLECTIVE, program)) == {"all-reduce"}
    for body in while_bodies(program):
        assert not re.search(COLLECTIVE, body)
    close(
        jax.jit(gradient)(params, X, LENGTHS), jax.grad(loss)(params, X, LENGTHS, cell)
    )


def while_bodies(program):
    """The texts of computations that run in loops."""
    names = re.findall(r"body=%?([\w.\-]+)", program)
    assert names
    blocks = re.split(r"\n(?=%|ENTRY)", program)
    found = [
        b for b in blocks if any(re.match(rf"%?{re.escape(n)} ", b) for n in names)
    ]
    assert len(found) == len(set(names))
    return found


@pytest.mark.fast("lstm-True")
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_inside_of_shard_map(cell, check_vma):
    params = params_of(cell)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    run = jax.shard_map(
        lambda p, x, n: forward(cell, p, x, n)[0],
        mesh=mesh,
        in_specs=(P(), P("data"), P("data")),
        out_specs=P("data"),
        check_vma=check_vma,
    )
    got = jax.jit(run)(params, X, LENGTHS)
    # Types list the axes over which rows vary only with `check_vma`.
    keys = [jax.random.fold_in(KEY, i) if check_vma else KEY for i in range(4)]
    shards = [
        forward(cell, params, *(v[2 * i : 2 * i + 2] for v in (X, LENGTHS)), key=key)[0]
        for i, key in enumerate(keys)
    ]
    close(got, jnp.concatenate(shards))


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False])
def test_an_ensemble_over_devices(check_vma):
    cell = CELLS["stack"]
    members = [cell.init(jax.random.key(i), X[:, 0], jnp.float64) for i in range(4)]
    params = jax.tree.map(lambda *p: jnp.stack(p), *members)
    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))

    def one(params, x):
        params = jax.tree.map(lambda p: p[0], params)
        return forward(cell, params, x, LENGTHS)[0][None]

    run = jax.shard_map(
        one,
        mesh=mesh,
        in_specs=(P("model"), P()),
        out_specs=P("model"),
        check_vma=check_vma,
    )
    want = jnp.stack([forward(cell, p, X, LENGTHS)[0] for p in members])
    close(jax.jit(run)(params, X), want)


def test_a_replicated_initial_state_takes_over_the_rows():
    cell = CELLS["function"]
    state = (np.zeros(8, np.int32), np.zeros((8, 3)))
    want = forward(cell, params_of(cell), X, LENGTHS, state)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, P("data")))
        got = jax.jit(forward, static_argnums=0)(
            cell, params_of(cell), x, LENGTHS, state
        )
    close(got, want)


def add_both(params, inputs, state, key=None):
    """A step with two inputs, of which only the second may vary over devices."""
    state = state + inputs["a"] + inputs["b"]
    return state, state


@pytest.mark.parametrize("varying", ["a", "b", "lengths"])
def test_whichever_input_varies(varying):
    cell = FunctionCell(add_both, 3, 3)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    specs = {name: P() for name in ("a", "b", "lengths")} | {varying: P("data")}
    inputs = {name: X[:2] if specs[name] == P() else X for name in ("a", "b")}
    lengths = LENGTHS[:2] if varying != "lengths" else LENGTHS

    def one(a, b, lengths):
        inputs = {"a": a, "b": b}
        return jaxrnn.dynamic_rnn(cell.bind({}), inputs, lengths, dtype=jnp.float64)[0]

    run = jax.shard_map(
        one, mesh=mesh, in_specs=tuple(specs.values()), out_specs=P("data")
    )
    got = jax.jit(run)(inputs["a"], inputs["b"], lengths)
    pick = lambda x, i: x[2 * i : 2 * i + 2] if len(x) == 8 else x
    want = [
        one(pick(inputs["a"], i), pick(inputs["b"], i), pick(lengths, i))
        for i in range(4)
    ]
    close(got, jnp.concatenate(want))


def test_a_mesh_that_is_manual_in_part():
    cell = CELLS["stack"]
    params = params_of(cell)
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    run = jax.shard_map(
        lambda p, x, n: forward(cell, p, x, n)[0],
        mesh=mesh,
        in_specs=(P(), P("data"), P("data")),
        out_specs=P("data"),
        axis_names={"data"},
    )
    close(jax.jit(run)(params, X, LENGTHS), forward(cell, params, X, LENGTHS)[0])


def carry_keys(params, inputs, state, key=None):
    total, keys = state
    return total + inputs, (total + inputs, keys)


def test_keys_in_the_state_take_over_the_rows():
    cell = FunctionCell(carry_keys, (3, jaxrnn.TensorShape([])), 3).bind({})
    state = (np.zeros((8, 3)), jax.random.split(KEY, 8))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, P("data")))
        run = lambda x, s: jaxrnn.dynamic_rnn(cell, x, LENGTHS, s, jnp.float64)
        _, (_, keys) = jax.jit(run)(x, state)
    np.testing.assert_array_equal(
        jax.random.key_data(keys), jax.random.key_data(state[1])
    )


def collect(cell, params, x, lengths):
    """`raw_rnn` over time-major `x`, with a total over unfinished rows."""
    inputs_ta = jaxrnn.TensorArray(x.dtype, x.shape[0]).unstack(x)

    def loop_fn(time, output, state, total):
        if output is None:
            zero = cell.zero_state(x.shape[1], x.dtype)
            return time >= lengths, x[0], zero, None, jnp.zeros(())
        alive = jnp.where((time <= lengths)[:, None], output, 0.0)
        read = inputs_ta.read(time)
        return time >= lengths, read, state, output, total + alive.sum()

    emit_ta, state, total = jaxrnn.raw_rnn(cell.bind(params), loop_fn, max_time=7)
    return (emit_ta.stack() ** 2).sum() + jax.tree.leaves(state)[0].sum() + total


@pytest.mark.fast("auto")
@pytest.mark.parametrize("kind", ["auto", "explicit", "manual"])
def test_raw_rnn_with_rows_over_devices(kind):
    """In `shard_map`, each device ends its loop when its own rows are finished."""
    cell, x = CELLS["lstm"], jnp.swapaxes(X, 0, 1)
    params = params_of(cell)
    run = lambda *args: collect(cell, *args)
    want = jax.jit(jax.value_and_grad(run, (0, 1)))(params, x, LENGTHS)
    axis_type = AxisType.Explicit if kind == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((4,), ("d",), axis_types=(axis_type,))
    specs = P(), P(None, "d"), P("d")
    if kind == "manual":
        local = lambda *args: jax.lax.psum(collect(cell, *args), "d")
        run = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P())
    with jax.set_mesh(mesh) if kind == "explicit" else contextlib.nullcontext():
        args = [
            jax.device_put(value, NamedSharding(mesh, spec))
            for value, spec in zip((params, x, LENGTHS), specs, strict=True)
        ]
        close(jax.jit(jax.value_and_grad(run, (0, 1)))(*args), want)


@dataclasses.dataclass(frozen=True, eq=False)
class OneProduct(AffineCell):
    """A cell whose update may read other units or their number."""

    num_units: int
    after: Callable

    @property
    def stages(self):
        n, init = self.num_units, jax.nn.initializers.glorot_normal()
        return (Stage(self.update, n, n, init, jax.nn.initializers.ones, blocks=1),)

    state_size = output_size = property(lambda self: self.num_units)

    def enter(self, h):
        return h, None

    def update(self, params, z, carry):
        h = self.after(jnp.tanh(z))
        return h, h


def swapped_halves(h):
    first, second = jnp.split(h, 2, axis=-1)
    return jnp.concatenate([second, first], axis=-1)


def scaled_halves(h):
    factors = np.array([1.0, 0.5])[None, :, None]
    return (h.reshape(h.shape[0], 2, -1) * factors).reshape(h.shape)


UNDIVIDED = {
    "centered": OneProduct(8, lambda h: h - jnp.mean(h, axis=-1, keepdims=True)),
    "by_count": OneProduct(8, lambda h: h * np.array([[1 / h.shape[-1]]])),
    "by_place": OneProduct(8, lambda h: h * np.linspace(0.5, 1, h.shape[-1])[None]),
    "halves": OneProduct(4, swapped_halves),
    "reshaped": OneProduct(4, scaled_halves),
    "one_state": LSTMCell(6, state_is_tuple=False),
    "dropout": DropoutWrapper(GRUCell(8), 0.5),
}


SPECS = {"columns": P(None, "model"), "rows": P("model"), "fsdp": P("data")}


@pytest.mark.fast("columns-centered")
@pytest.mark.parametrize("cell", UNDIVIDED.values(), ids=UNDIVIDED)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_kernels_that_are_divided_on_an_explicit_mesh(spec, cell):
    """Cells whose units cannot be sharded gather whole kernels on each device."""
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    x = X[..., :2]  # Kernels need an even number of rows.
    params = drawn(cell, x[:, 0], jnp.float64)
    run = jax.jit(jax.value_and_grad(loss), static_argnums=3)
    want = run(params, x, LENGTHS, cell)
    put = lambda leaf: jax.device_put(
        leaf, NamedSharding(mesh, spec if leaf.ndim == 2 else P())
    )
    rows = NamedSharding(mesh, P("data"))
    got = run(jax.tree.map(put, params), *jax.device_put((x, LENGTHS), rows), cell)
    close(got, want)


def test_another_draw_on_each_device():
    cell = DropoutWrapper(LSTMCell(5), output_keep_prob=0.5)
    mesh = jax.make_mesh((4,), ("data",))
    params, ones = params_of(cell), np.ones((8, 6, 3))

    def dropped(key):
        run = lambda x: jaxrnn.dynamic_rnn(cell.bind(params, key), x, dtype=x.dtype)[0]
        x = jax.device_put(ones, NamedSharding(mesh, P("data")))
        y = jax.jit(jax.shard_map(run, mesh=mesh, out_specs=P("data")))(x)
        return np.asarray(y == 0).reshape(4, -1)

    masks = dropped(KEY)
    assert len({mask.tobytes() for mask in masks}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "function"])
@pytest.mark.parametrize("placed", ["params", "x"])
def test_arrays_that_are_not_on_the_explicit_mesh(placed, name):
    cell = CELLS[name]
    mesh = jax.make_mesh((4,), ("data",))
    params, x = params_of(cell), X
    if placed == "x":
        x = jax.device_put(x, NamedSharding(mesh, P("data")))
    else:
        params = jax.device_put(params, NamedSharding(mesh, P()))
    run = jax.jit(jax.grad(loss, (0, 1)), static_argnums=3)
    close(run(params, x, LENGTHS, cell), on_one_device(name, False)[1])


@pytest.mark.slow
def test_vmap_over_an_axis_that_is_divided():
    cell, mesh = GRUCell(5), jax.make_mesh((4,), ("data",))
    params, x = params_of(cell), np.stack([X, X + 1, X - 1, 2 * X])

    def total(params, x):
        each = jax.vmap(lambda params, x: loss(params, x, None, cell), (None, 0))
        return each(params, x).sum()

    want = jax.grad(total)(params, x)
    rows = jax.device_put(x, NamedSharding(mesh, P("data")))
    close(jax.jit(jax.grad(total))(params, rows), want)


@pytest.mark.parametrize("mask", [None, X[..., 0] > 0])
def test_inputs_that_are_divided_along_time_are_refused(mask):
    mesh = jax.make_mesh((2,), ("data",))
    x = jax.device_put(X, NamedSharding(mesh, P(None, "data")))
    cell = GRUCell(5)
    with pytest.raises(
        ValueError, match=r"`inputs` must not be divided along time.*'data'"
    ):
        jaxrnn.dynamic_rnn(cell.bind(params_of(cell)), x, dtype=x.dtype, mask=mask)


@pytest.mark.slow
@pytest.mark.parametrize("swap_memory", [False, True])
def test_states_of_tensor_parallel_runs_are_passed_on(swap_memory):
    """Run windows of time one after the other."""
    cell, mesh = (
        MultiRNNCell([LSTMCell(4), GRUCell(4)]),
        jax.make_mesh((2, 2), ("data", "model")),
    )
    params = params_of(cell)

    def windows(params, x, lengths):
        run = functools.partial(
            jaxrnn.dynamic_rnn, cell.bind(params), swap_memory=swap_memory
        )
        first, state = run(x[:, :3], jnp.minimum(lengths, 3), dtype=x.dtype)
        second, _ = run(x[:, 3:], jnp.maximum(lengths - 3, 0), state)
        return jnp.sum(first**2) + jnp.sum(second**3)

    want = jax.grad(windows)(params, X, LENGTHS)
    put = lambda leaf, *spec: jax.device_put(leaf, NamedSharding(mesh, P(*spec)))
    divided = jax.tree.map(lambda p: put(p, *[None] * (p.ndim - 1), "model"), params)
    close(jax.jit(jax.grad(windows))(divided, put(X, "data"), LENGTHS), want)


@pytest.mark.slow
def test_initial_states_of_packs_whose_rows_are_divided():
    cell, mesh = LSTMCell(4), jax.make_mesh((2,), ("data",))
    params, packed = params_of(cell), jaxrnn.pack_sequences(X, LENGTHS, rows=6)
    state = jax.tree.map(lambda s: s + 0.5, cell.zero_state(8, X.dtype))

    def total(state, packed):
        outputs, last = jaxrnn.packed_rnn(cell.bind(params), packed, state)
        return jnp.sum(outputs**2) + jnp.sum(last.h)

    want = jax.grad(total)(state, packed)
    rows = jax.device_put(packed.inputs, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        divided = dataclasses.replace(packed, inputs=rows)
        close(jax.jit(jax.grad(total))(state, divided), want)
