"""What the sweep over meshes leaves out: `shard_map`, divided parameters, keys, packs.

`tests/meshes` runs every driver on explicit and automatic meshes.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from benchmarks.compilers.hlo import collectives
from jaxrnn import DropoutWrapper, FunctionCell, GRUCell, LSTMCell, MultiRNNCell
from jaxrnn.testing import _oracle

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 3))
LENGTHS = np.array([6, 0, 3, 1, 2, 6, 5, 4], np.int32)
KEY = jax.random.key(3)
F64 = np.dtype("float64")
close = functools.partial(_oracle.close, dtype=F64)
AXIS_TYPES = [AxisType.Auto, AxisType.Explicit]


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


def forward(cell, params, x, lengths, key=KEY):
    bound = cell.bind(params, key)
    fw, state = jaxrnn.dynamic_rnn(bound, x, lengths, dtype=F64)
    (_, bw), _ = jaxrnn.bidirectional_dynamic_rnn(bound, bound, x, lengths, dtype=F64)
    return fw + bw, state


def loss(params, x, lengths, cell):
    outputs, state = forward(cell, params, x, lengths)
    return (outputs**2).sum() + jax.tree.leaves(state)[-1].sum()


def params_of(cell):
    return drawn(cell, X[:, 0], F64)


def make_mesh(axis_type=AxisType.Explicit):
    return jax.make_mesh((4,), ("data",), axis_types=(axis_type,))


def put(tree, mesh, *spec):
    return jax.device_put(tree, NamedSharding(mesh, P(*spec)))


@pytest.mark.parametrize("axis_type", AXIS_TYPES)
@pytest.mark.parametrize("name", ["stack", "dropout"])
def test_runs_without_gradients_exchange_nothing(name, axis_type):
    """Loops of so few steps do not end early, so devices need not agree on an end."""
    cell, mesh = CELLS[name], make_mesh(axis_type)
    with jax.set_mesh(mesh):
        x, n = put((X, LENGTHS), mesh, "data")
        run = jax.jit(forward, static_argnums=0)
        program = run.lower(cell, params_of(cell), x, n).compile().as_text()
    assert collectives(program) == ([], [])


# Inside of `shard_map`.


def by_device(run, mesh, specs, **options):
    """`run` on the shards of its arguments, compiled."""
    options = {"in_specs": specs, "out_specs": P("data"), **options}
    return jax.jit(jax.shard_map(run, mesh=mesh, **options))


def parts(x):
    return np.split(np.asarray(x), 4)


@pytest.mark.fast("lstm-True")
@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_inside_of_shard_map(cell, check_vma):
    params, mesh = params_of(cell), make_mesh(AxisType.Auto)
    run = lambda p, x, n, key=KEY: forward(cell, p, x, n, key)[0]
    specs = P(), P("data"), P("data")
    got = by_device(run, mesh, specs, check_vma=check_vma)(params, X, LENGTHS)
    # Types list the axes over which rows vary only with `check_vma`.
    keys = [jax.random.fold_in(KEY, i) if check_vma else KEY for i in range(4)]
    each = zip(parts(X), parts(LENGTHS), keys, strict=True)
    close(got, jnp.concatenate([run(params, *shard) for shard in each]))


def test_a_mesh_that_is_manual_in_part():
    cell = CELLS["stack"]
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    run = lambda p, x, n: forward(cell, p, x, n)[0]
    manual = by_device(run, mesh, (P(), P("data"), P("data")), axis_names={"data"})
    given = params_of(cell), X, LENGTHS
    close(manual(*given), run(*given))


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False])
def test_an_ensemble_over_devices(check_vma):
    """Only the parameters vary over the devices."""
    cell = CELLS["stack"]
    members = [drawn(cell, X[:, 0], F64, seed=seed) for seed in range(4)]
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *members)

    def one(params, x):
        params = jax.tree.map(lambda p: p[0], params)
        return forward(cell, params, x, LENGTHS)[0][None]

    mesh, specs = make_mesh(AxisType.Auto), (P("data"), P())
    want = jnp.stack([forward(cell, p, X, LENGTHS)[0] for p in members])
    close(by_device(one, mesh, specs, check_vma=check_vma)(stacked, X), want)


def add_both(params, inputs, state, key=None):
    """A step with two inputs, of which only the second may vary over devices."""
    state = state + inputs["a"] + inputs["b"]
    return state, state


@pytest.mark.parametrize("varying", ["a", "b", "lengths"])
def test_whichever_input_varies(varying):
    cell = FunctionCell(add_both, 3, 3).bind({})
    given = {"a": X[:2], "b": X[:2], "lengths": LENGTHS[:2]}
    whole = {"a": X, "b": X, "lengths": LENGTHS}[varying]

    def one(given):
        inputs = {"a": given["a"], "b": given["b"]}
        return jaxrnn.dynamic_rnn(cell, inputs, given["lengths"], dtype=F64)[0]

    specs = dict.fromkeys(given, P()) | {varying: P("data")}
    run = by_device(one, make_mesh(AxisType.Auto), (specs,))
    want = [one(given | {varying: part}) for part in parts(whole)]
    close(run(given | {varying: whole}), jnp.concatenate(want))


def test_another_draw_on_each_device():
    cell, mesh = DropoutWrapper(LSTMCell(5), output_keep_prob=0.5), make_mesh()
    bound = cell.bind(params_of(cell), KEY)
    run = lambda x: jaxrnn.dynamic_rnn(bound, x, dtype=F64)[0]
    ones = put(np.ones((8, 6, 3)), mesh, "data")
    outputs = jax.jit(jax.shard_map(run, mesh=mesh, out_specs=P("data")))(ones)
    assert len({(part == 0).tobytes() for part in parts(outputs)}) == 4


# Explicit meshes.


def carry_keys(params, inputs, state, key=None):
    total, keys = state
    return total + inputs, (total + inputs, keys)


def test_keys_in_the_state_take_over_the_rows():
    cell = FunctionCell(carry_keys, (3, jaxrnn.TensorShape([])), 3).bind({})
    state, mesh = (np.zeros((8, 3)), jax.random.split(KEY, 8)), make_mesh()
    with jax.set_mesh(mesh):
        run = lambda x, s: jaxrnn.dynamic_rnn(cell, x, LENGTHS, s, F64)
        _, (_, keys) = jax.jit(run)(put(X, mesh, "data"), state)
    data = map(jax.random.key_data, (keys, state[1]))
    np.testing.assert_array_equal(*data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "function"])
@pytest.mark.parametrize("placed", ["params", "x"])
def test_arrays_that_are_not_on_the_explicit_mesh(placed, name):
    cell, mesh = CELLS[name], make_mesh()
    given = {"params": params_of(cell), "x": X}
    run = jax.jit(jax.grad(lambda given: loss(**given, lengths=LENGTHS, cell=cell)))
    spec = ["data"] if placed == "x" else []
    close(run(given | {placed: put(given[placed], mesh, *spec)}), run(given))


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [None, np.array([[6, 1], [0, 3], [2, 2], [5, 4]])])
def test_vmap_over_an_axis_that_is_divided(lengths):
    cell, mesh = CELLS["stack"], make_mesh()
    params, x = params_of(cell), X.reshape(4, 2, 6, 3)

    def total(params, x, lengths):
        each = jax.vmap(lambda x, n: loss(params, x, n, cell))
        return each(x, lengths).sum()

    gradient = jax.jit(jax.value_and_grad(total, (0, 1)))
    want = gradient(params, x, lengths)
    close(gradient(params, *put((x, lengths), mesh, "data")), want)


@pytest.mark.parametrize("mask", [None, X[..., 0] > 0])
def test_inputs_that_are_divided_along_time_are_refused(mask):
    x, cell = put(X, jax.make_mesh((2,), ("data",)), None, "data"), GRUCell(5)
    message = r"`inputs` must not be sharded along time.*'data'"
    with pytest.raises(ValueError, match=message):
        jaxrnn.dynamic_rnn(cell.bind(params_of(cell)), x, dtype=x.dtype, mask=mask)


# Parameters that are divided.


@dataclasses.dataclass(frozen=True, eq=False)
class OneProduct(jaxrnn.AffineCell):
    """A cell whose update may read other units or their number."""

    num_units: int
    after: Callable

    @property
    def stages(self):
        n, init = self.num_units, jax.nn.initializers.glorot_normal()
        return (
            jaxrnn.Stage(self.update, n, n, init, jax.nn.initializers.ones, blocks=1),
        )

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
    params = drawn(cell, x[:, 0], F64)
    run = jax.jit(jax.value_and_grad(loss), static_argnums=3)
    want = run(params, x, LENGTHS, cell)
    divide = lambda p: put(p, mesh, *(spec if p.ndim == 2 else P()))
    got = run(jax.tree.map(divide, params), *put((x, LENGTHS), mesh, "data"), cell)
    close(got, want)


@pytest.mark.slow
@pytest.mark.parametrize("swap_memory", [False, True])
def test_states_of_tensor_parallel_runs_are_passed_on(swap_memory):
    """Run windows of time one after the other."""
    cell = MultiRNNCell([LSTMCell(4), GRUCell(4)])
    mesh, params = jax.make_mesh((2, 2), ("data", "model")), params_of(cell)

    def windows(params, x):
        run = jaxrnn.dynamic_rnn
        run = functools.partial(run, cell.bind(params), swap_memory=swap_memory)
        first, state = run(x[:, :3], np.minimum(LENGTHS, 3), dtype=F64)
        second, _ = run(x[:, 3:], np.maximum(LENGTHS - 3, 0), state)
        return jnp.sum(first**2) + jnp.sum(second**3)

    divide = lambda p: put(p, mesh, *[None] * (p.ndim - 1), "model")
    divided = jax.tree.map(divide, params), put(X, mesh, "data")
    close(jax.jit(jax.grad(windows))(*divided), jax.grad(windows)(params, X))


# A pack on each device. With these sizes, the backward pass runs several chunks.


PACKED_CELLS = CELLS | {"lstm": LSTMCell(5, num_proj=3)}


@functools.cache
def stacked():
    records = [RNG.normal(size=(n, 3)) for n in RNG.integers(0, 64, 2400)]
    batches = jaxrnn.packed_batches(records, 150, 64)
    return jaxrnn.stack_packed([next(batches) for _ in range(4)])


def loss_of_pack(cell, params, packed):
    outputs, state = jaxrnn.packed_rnn(cell.bind(params), packed, dtype=F64)
    is_used = jnp.asarray(packed.sequence_length) > 0
    last = jax.tree.leaves(state)[-1]
    of_sequences = jnp.sum(last**2, where=is_used[:, None])
    return jnp.sum(packed.unpack(outputs) ** 3) + of_sequences


@pytest.mark.fast("lstm-shard_map")
@pytest.mark.parametrize("kind", [*AXIS_TYPES, "shard_map"])
@pytest.mark.parametrize("name", ["lstm", "stack", "function"])
def test_a_pack_for_each_device(name, kind):
    cell = PACKED_CELLS[name]
    params, of_one = params_of(cell), functools.partial(loss_of_pack, cell)
    mesh = make_mesh(AxisType.Auto if kind == "shard_map" else kind)
    total = lambda params, stack: jnp.sum(jax.vmap(of_one, (None, 0))(params, stack))
    gradient = jax.value_and_grad(total)
    if kind == "shard_map":
        first = lambda stack: jax.tree.map(lambda leaf: leaf[0], stack)
        local = lambda params, stack: jax.lax.psum(of_one(params, first(stack)), "data")
        specs = {"in_specs": (P(), P("data")), "out_specs": P()}
        gradient = jax.shard_map(jax.value_and_grad(local), mesh=mesh, **specs)
    with jax.set_mesh(mesh):
        given = put(params, mesh), put(stacked(), mesh, "data")
        compiled = jax.jit(gradient).lower(*given).compile()
        got = compiled(*given)
    # The sum over packs, run one after the other.
    one_by_one = jax.jit(jax.value_and_grad(of_one))
    packs = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked()) for i in range(4)]
    results = [one_by_one(params, packed) for packed in packs]
    close(got, jax.tree.map(lambda *leaves: sum(leaves), *results))
    # Devices exchange only sums; with the fast path, none in a loop.
    inside, outside = collectives(compiled.as_text())
    assert set(inside + outside) == {"all-reduce"}
    assert name == "function" or inside == []


def test_the_parts_of_processes_are_put_together():
    rows = NamedSharding(make_mesh(AxisType.Auto), P("data"))
    from_local = functools.partial(jax.make_array_from_process_local_data, rows)
    stack = jax.tree.map(from_local, stacked())
    assert repr(stack) == repr(stacked())
    assert all(leaf.sharding == rows for leaf in jax.tree.leaves(stack))
