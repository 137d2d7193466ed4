"""What the sweep over meshes leaves out: collectives, `shard_map`, divided parameters.

`tests/meshes` runs every driver on explicit and automatic meshes.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import covering, drawn, refusals
from jax.sharding import NamedSharding, PartitionSpec as P
from mesh import TYPES

import jaxrnn
from benchmarks import collectives as programs
from benchmarks.compilers.hlo import collectives
from jaxrnn import DropoutWrapper, FunctionCell, GRUCell, LSTMCell, MultiRNNCell
from jaxrnn.testing import _oracle

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 3))
LENGTHS = np.array([6, 0, 3, 1, 2, 6, 5, 4], np.int32)
KEY = jax.random.key(3)
F64 = np.dtype("float64")
close = functools.partial(_oracle.close, dtype=F64)
SCALAR = jaxrnn.TensorShape([])


def count_rows(params, inputs, state, key=None):
    """A state with floats and a vector of integers."""
    count, total = state
    total = jnp.tanh(total + inputs * params["w"])
    return total, (count + 1, total)


CELLS = {
    "lstm": LSTMCell(5, num_proj=3, use_peepholes=True),
    "stack": MultiRNNCell([LSTMCell(5), GRUCell(4)]),
    "dropout": DropoutWrapper(LSTMCell(5), 0.5, 0.5, 0.5),
    "variational": DropoutWrapper(GRUCell(5), 0.5, 0.5, 0.5, True, 3, jnp.float64),
    "function": FunctionCell(
        count_rows, (SCALAR, 3), 3, lambda key, x, dtype: {"w": jnp.ones((), dtype)}
    ),
}


def forward(cell, params, x, lengths, key=KEY):
    bound = cell.bind(params, key)
    fw, state = jaxrnn.dynamic_rnn(bound, x, lengths, dtype=F64)
    run_on = jaxrnn.bidirectional_dynamic_rnn
    (_, bw), _ = run_on(bound, bound, x, lengths, state, state, dtype=F64)
    return fw + bw, state


def loss(params, x, lengths, cell):
    outputs, state = forward(cell, params, x, lengths)
    return (outputs**2).sum() + jax.tree.leaves(state)[-1].sum()


def params_of(cell):
    return drawn(cell, X[:, 0], F64)


def make_mesh(kind="auto", **sizes):
    sizes = sizes or {"data": 4}
    types = (TYPES[kind],) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types)


def put(tree, mesh, *spec):
    return jax.device_put(tree, NamedSharding(mesh, P(*spec)))


@pytest.mark.fast("stack-*")
@pytest.mark.parametrize(("name", "kind"), [("stack", "explicit"), ("dropout", "auto")])
def test_runs_without_gradients_exchange_nothing(name, kind):
    """Loops of so few steps do not end early, so devices need not agree on an end."""
    cell, mesh = CELLS[name], make_mesh(kind)
    with jax.set_mesh(mesh):
        x, n = put((X, LENGTHS), mesh, "data")
        run = jax.jit(forward, static_argnums=0)
        program = run.lower(cell, params_of(cell), x, n).compile().as_text()
    assert collectives(program) == ([], [])


# The collectives of larger programs, in loops and outside of them.

DEVICES = jax.devices()[:4]
FACTORS = {
    # The layouts of parameters: whole, divided by rows, divided by columns.
    "layout": ["data", "FSDP", "tensor"],
    "axes": ["auto", "explicit", "shard_map"],
    "driver": [*programs.DRIVERS],
    "cell": [*programs.CELLS],
}


def is_compiled(case):
    """All drivers lay out parameters alike, and call any cell alike."""
    if case["layout"] != "data" and case["axes"] == "shard_map":
        return False
    is_plain = case["layout"] == "data" and case["cell"] == "LSTM"
    return is_plain or case["driver"] == "dynamic_rnn"


@pytest.mark.loops
@pytest.mark.fast("data-shard_map-raw_rnn-*", "FSDP-auto-*GRU", "tensor-*projection")
@pytest.mark.parametrize(
    ("layout", "axes", "driver", "cell"),
    sorted(tuple(case.values()) for case in covering(FACTORS, is_compiled)),
)
def test_collectives(layout, axes, driver, cell):
    program = programs.compiled(DEVICES, layout, axes, driver, cell)
    inside, outside = collectives(program)
    if driver in ("dynamic_rnn", "bidirectional", "static_rnn") or axes == "shard_map":
        assert inside == []
    mesh = programs.make_mesh(DEVICES, layout, axes)
    params, *_ = programs.types_of(programs.CELLS[cell], mesh, layout)
    params = jax.tree.leaves(params)
    if layout == "FSDP":
        kernels = [leaf for leaf in params if leaf.ndim == 2]
        assert outside.count("all-gather") == len(kernels)
    elif layout == "tensor":
        assert "all-gather" in outside
    elif driver == "beam_search" and axes != "shard_map":
        # On CPUs, `top_k` is compiled to read the scores of all rows.
        assert set(inside) == {"all-reduce", "all-gather"}
    else:
        assert set(inside + outside) == {"all-reduce"}
    if layout == "data" and driver == "dynamic_rnn":
        # The compiler may combine sums: the loss, and at most one for each leaf.
        assert len(outside) <= 1 + len(params)


@pytest.mark.loops
@pytest.mark.parametrize("told", ["context", "inputs"])
def test_fsdp_of_parameters_whose_types_tell_no_mesh(told):
    """`in_shardings` shards the parameters. The mesh is set, or the inputs have it."""
    cell, mesh = programs.CELLS["LSTM"], programs.make_mesh(DEVICES, "FSDP", "auto")
    types = programs.types_of(cell, mesh, "FSDP")
    shardings = jax.tree.map(lambda x: x.sharding, types)
    bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), types)
    if told == "inputs":
        bare = bare[0], *types[1:]
    gradient = programs.gradient_of(programs.DRIVERS["dynamic_rnn"], cell, mesh, "auto")
    gradient = jax.jit(gradient, in_shardings=shardings)
    with jax.set_mesh(mesh) if told == "context" else contextlib.nullcontext():
        inside, outside = collectives(gradient.lower(*bare).compile().as_text())
    assert inside == []
    assert outside.count("all-gather") == 1


# Inside of `shard_map`.


def by_device(run, specs, mesh=None, **options):
    """`run` on the shards of its arguments, compiled."""
    options = {"in_specs": specs, "out_specs": P("data"), **options}
    return jax.jit(jax.shard_map(run, mesh=mesh or make_mesh(), **options))


def parts(x):
    return np.split(np.asarray(x), 4)


HELD = {"name": [*CELLS], "check_vma": [False, True], "varying": ["rows", "params"]}


@pytest.mark.fast("dropout-True-rows")
@pytest.mark.parametrize(
    ("name", "check_vma", "varying"), [tuple(case.values()) for case in covering(HELD)]
)
def test_inside_of_shard_map(name, check_vma, varying):
    """Devices have other rows and the same parameters, or the other way round."""
    cell = CELLS[name]
    members = [drawn(cell, X[:, 0], F64, seed=i) for i in range(4)]
    specs, each = (P("data"), P(), P()), [(p, X, LENGTHS, KEY) for p in members]
    if varying == "rows":
        # Types list the axes over which rows vary only with `check_vma`.
        keys = [jax.random.fold_in(KEY, i) if check_vma else KEY for i in range(4)]
        members = members[:1] * 4
        specs = P(), P("data"), P("data")
        each = zip(members, parts(X), parts(LENGTHS), keys, strict=True)
    run = lambda p, x, n, key=KEY: forward(cell, p, x, n, key)[0]
    first = lambda stack: jax.tree.map(lambda leaf: leaf[0], stack)
    on_each = lambda stack, *rows: run(first(stack), *rows)
    mapped = by_device(on_each, specs, check_vma=check_vma)
    got = mapped(jax.tree.map(lambda *p: np.stack(p), *members), X, LENGTHS)
    close(got, np.concatenate([jax.jit(run)(*shard) for shard in each]))


def test_a_mesh_that_is_manual_in_part():
    cell = CELLS["lstm"]
    run = lambda p, x, n: forward(cell, p, x, n)[0]
    specs, mesh = (P(), P("data"), P("data")), make_mesh(data=2, model=2)
    manual = by_device(run, specs, mesh, axis_names={"data"})
    given = params_of(cell), X, LENGTHS
    close(manual(*given), jax.jit(run)(*given))


@pytest.mark.parametrize("shared", ["inputs", "state"])
def test_the_gradient_of_what_all_devices_share(shared):
    """One operand of the product of a step varies over devices, the other does not."""
    cell = jaxrnn.BasicRNNCell(3)
    params, of_rows, one = params_of(cell), X[:, 0], RNG.normal(size=3)

    def loss(params, rows, one):
        given = rows, jnp.broadcast_to(one, rows.shape)
        inputs, state = given if shared == "state" else given[::-1]
        return jnp.sum(cell.apply(params, inputs, state)[0] ** 2)

    def on_devices(*args):
        return jax.lax.psum(loss(*args), "data")

    specs = P(), P("data"), P()
    mapped = by_device(on_devices, specs, out_specs=P())
    gradients = lambda f: jax.jit(jax.grad(f, (0, 2)))(params, of_rows, one)
    close(gradients(mapped), gradients(loss))


def add_both(params, inputs, state, key=None):
    """A step with two inputs, of which only the second may vary over devices."""
    state = state + inputs["a"] + inputs["b"]
    return state, state


@pytest.mark.parametrize("varying", ["a", "b", "lengths"])
def test_whichever_input_varies(varying):
    cell = FunctionCell(add_both, 3, 3).bind({})
    given = {"a": X[:2], "b": X[:2], "lengths": LENGTHS[:2]}
    whole = {"a": X, "b": X, "lengths": LENGTHS}[varying]

    @jax.jit
    def one(given):
        inputs = {name: given[name] for name in "ab"}
        return jaxrnn.dynamic_rnn(cell, inputs, given["lengths"], dtype=F64)[0]

    specs = dict.fromkeys(given, P()) | {varying: P("data")}
    run = by_device(one, (specs,))
    want = [one(given | {varying: part}) for part in parts(whole)]
    close(run(given | {varying: whole}), jnp.concatenate(want))


# Explicit meshes.


def test_keys_in_the_state_take_over_the_rows():
    step = lambda params, x, state, key=None: (x, (state[0] + x, state[1]))
    cell = FunctionCell(step, (3, SCALAR), 3).bind({})
    state, mesh = (np.zeros((8, 3)), jax.random.split(KEY, 8)), make_mesh("explicit")
    with jax.set_mesh(mesh):
        run = lambda x, s: jaxrnn.dynamic_rnn(cell, x, LENGTHS, s, F64)
        _, (_, keys) = jax.jit(run)(put(X, mesh, "data"), state)
    assert (keys == state[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [None, np.array([[6, 1], [0, 3], [2, 2], [5, 4]])])
def test_vmap_over_an_axis_that_is_divided(lengths):
    cell, mesh = CELLS["stack"], make_mesh("explicit")
    params, x = params_of(cell), X.reshape(4, 2, 6, 3)

    each = jax.vmap(functools.partial(loss, cell=cell), (None, 0, 0))
    gradient = jax.jit(jax.value_and_grad(lambda *given: each(*given).sum(), (0, 1)))
    want = gradient(params, x, lengths)
    close(gradient(params, *put((x, lengths), mesh, "data")), want)


def along_time(run):
    """A call with inputs whose time is divided."""
    cell, mesh = GRUCell(5), make_mesh("explicit", data=2)

    def call():
        with jax.set_mesh(mesh):
            run(cell.bind(params_of(cell)), put(X, mesh, None, "data"))

    return call


explain = functools.partial(jaxrnn.explain, dtype=F64)
masked = functools.partial(explain, mask=X[..., 0] > 0)
reverse = lambda cell, x: jaxrnn.reverse_sequence(x, LENGTHS, 1)
DIVIDED = [
    (ValueError, "`inputs` must not be sharded", along_time(explain)),
    (ValueError, "`inputs` .* along time", along_time(masked)),
    (ValueError, "`input` must not be sharded", along_time(reverse)),
]
test_inputs_that_are_divided_along_time = refusals(DIVIDED)


# Parameters that are divided.


@dataclasses.dataclass(frozen=True, eq=False)
class OneProduct(jaxrnn.AffineCell):
    """A cell whose update may read other units or their number."""

    num_units: int
    after: Callable

    @property
    def stages(self):
        n, init = self.num_units, jax.nn.initializers.glorot_normal()
        ones = jax.nn.initializers.ones
        return (jaxrnn.Stage(self.update, n, n, init, ones, blocks=1),)

    state_size = output_size = property(lambda self: self.num_units)

    def enter(self, h):
        return h, None

    def update(self, params, z, carry):
        h = self.after(jnp.tanh(z))
        return h, h


def scaled_halves(h):
    factors = np.array([1.0, 0.5])[None, :, None]
    return (h.reshape(h.shape[0], 2, -1) * factors).reshape(h.shape)


KERNELS = {
    "divided": MultiRNNCell([LSTMCell(6, True, num_proj=4), GRUCell(4)]),
    "centered": OneProduct(8, lambda h: h - jnp.mean(h, axis=-1, keepdims=True)),
    "by_count": OneProduct(8, lambda h: h * np.array([[1 / h.shape[-1]]])),
    "by_place": OneProduct(8, lambda h: h * np.linspace(0.5, 1, h.shape[-1])[None]),
    "halves": OneProduct(4, lambda h: jnp.roll(h, 2, axis=-1)),
    "reshaped": OneProduct(4, scaled_halves),
    "one_state": LSTMCell(6, state_is_tuple=False),
    "dropout": DropoutWrapper(GRUCell(8), 0.5),
}
# How kernels and inputs are divided; None if they are not on the mesh.
SPECS = {
    "columns": (P(None, "model"), P("data")),
    "rows": (P("model"), P("data")),
    "fsdp": (P("data"), P("data")),
    "inputs": (None, P("data")),
    "params": (P(), None),
}


# Kernels are divided by columns for each cell, and in the other ways for two.
PLACED = [*itertools.product(["columns"], KERNELS)]
PLACED += itertools.product([*SPECS][1:], ["divided", "dropout"])
PLACED = [(*row, [*TYPES][i % 2]) for i, row in enumerate(PLACED)]


@pytest.mark.fast("columns-by_count-*")
@pytest.mark.parametrize(("how", "name", "kind"), PLACED)
def test_parameters_on_a_mesh(how, name, kind):
    """Cells whose units cannot be sharded gather whole kernels on each device."""
    (of_kernels, of_inputs), cell = SPECS[how], KERNELS[name]
    mesh = make_mesh(kind, data=2, model=2)
    # Kernels need an even number of rows; the backward loop, several chunks of steps.
    x, lengths = np.tile(X[..., :2], (1, 10, 1)), LENGTHS * 10
    params = drawn(cell, x[:, 0], F64)
    run = jax.jit(jax.value_and_grad(loss), static_argnums=3)
    place = lambda tree, spec: tree if spec is None else put(tree, mesh, *spec)
    divide = lambda p: place(p, of_kernels and (of_kernels if p.ndim == 2 else P()))
    rows = place((x, lengths), of_inputs)
    got = run(jax.tree.map(divide, params), *rows, cell)
    close(got, run(params, x, lengths, cell))


# The rows of a pack, divided. With these sizes, the backward pass runs several chunks.


@functools.cache
def pack_of_many():
    records = [RNG.normal(size=(n, 3)) for n in RNG.integers(0, 64, 2400)]
    return next(jaxrnn.packed_batches(records, 600, 64))


def loss_of_pack(cell, params, packed):
    outputs, _ = jaxrnn.dynamic_rnn(
        cell.bind(params),
        packed.inputs,
        packed.lengths,
        dtype=F64,
        resets=packed.resets,
    )
    return jnp.sum(outputs**3, where=packed.segment_ids[..., None] % 3 == 1)


PACKED = [("lstm", "shard_map"), ("stack", "explicit"), ("function", "auto")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), PACKED)
def test_rows_of_a_pack_are_divided(name, kind):
    cell = LSTMCell(5, num_proj=3) if name == "lstm" else CELLS[name]
    params, loss = params_of(cell), functools.partial(loss_of_pack, cell)
    mesh = make_mesh("auto" if kind == "shard_map" else kind)
    gradient = jax.value_and_grad(loss)
    if kind == "shard_map":
        local = lambda params, packed: jax.lax.psum(loss(params, packed), "data")
        specs = {"in_specs": (P(), P("data")), "out_specs": P()}
        gradient = jax.shard_map(jax.value_and_grad(local), mesh=mesh, **specs)
    with jax.set_mesh(mesh):
        given = put(params, mesh), put(pack_of_many(), mesh, "data")
        compiled = jax.jit(gradient).lower(*given).compile()
        got = compiled(*given)
    close(got, jax.jit(jax.value_and_grad(loss))(params, pack_of_many()))
    # Devices exchange only sums; with the fast path, none in a loop.
    inside, outside = collectives(compiled.as_text())
    assert set(inside + outside) == {"all-reduce"}
    assert name == "function" or inside == []


def test_the_parts_of_processes_are_put_together():
    rows = NamedSharding(make_mesh(), P("data"))
    from_local = functools.partial(jax.make_array_from_process_local_data, rows)
    packed = jax.tree.map(from_local, pack_of_many())
    jax.tree.map(np.testing.assert_array_equal, packed, pack_of_many())
    assert all(leaf.sharding == rows for leaf in jax.tree.leaves(packed))
