"""The special properties of meshes: collectives, FSDP, `shard_map`, divided kernels."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import mesh
import numpy as np
import pytest
import sharded_programs as programs
from compilers.hlo import collectives
from helpers import drawn
from jax.sharding import NamedSharding, PartitionSpec as P

import jaxrnn
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
    "mlstm": jaxrnn.MLSTMCell(4, 2, chunk_size=2),
    "min_gru": jaxrnn.MinGRUCell(4),
    "dropout": DropoutWrapper(LSTMCell(5), 0.5, 0.5, 0.5),
    "function": FunctionCell(
        count_rows, (SCALAR, 3), 3, lambda key, x, dtype: {"w": jnp.ones((), dtype)}
    ),
}


def forward(cell, params, x, lengths):
    """The sum of the outputs of both directions, and the last state of the first."""
    bound = cell.bind(params, KEY)
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
    """A mesh of four devices; by default, all of the axis `data`."""
    sizes = sizes or {"data": 4}
    types = (mesh.TYPES[kind],) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types)


def put(tree, devices, *spec):
    return jax.device_put(tree, NamedSharding(devices, P(*spec)))


# Collectives.


@pytest.mark.fast("stack-*")
@pytest.mark.parametrize(
    ("name", "kind"),
    [("stack", "explicit"), ("mlstm", "explicit"), ("dropout", "auto")],
)
def test_runs_without_gradients_exchange_nothing(name, kind):
    """Loops of so few steps do not end early, so devices need not agree on an end."""
    cell, devices = CELLS[name], make_mesh(kind)
    with jax.set_mesh(devices):
        x, n = put((X, LENGTHS), devices, "data")
        run = jax.jit(forward, static_argnums=0)
        program = run.lower(cell, params_of(cell), x, n).compile().as_text()
    assert collectives(program) == ([], [])


# The layout of parameters (whole, divided by rows, divided by columns), the axes, the
# driver and the cell. All drivers lay out parameters alike, and call any cell alike.
PROGRAMS = [
    ("data", "auto", "mask", "LSTM"),
    ("data", "explicit", "dynamic_rnn", "LSTM, GRU"),
    ("data", "shard_map", "bidirectional", "LSTM"),
    ("data", "shard_map", "raw_rnn", "LSTM"),
    ("FSDP", "auto", "dynamic_rnn", "GRU"),
    ("FSDP", "explicit", "dynamic_rnn", "LSTM, GRU"),
    ("tensor", "auto", "dynamic_rnn", "LSTM, peepholes, projection"),
    ("tensor", "explicit", "dynamic_rnn", "GRU"),
]
DEVICES = jax.devices()[:4]


@pytest.mark.fast("FSDP-auto-*GRU")
@pytest.mark.parametrize(("layout", "axes", "driver", "cell"), PROGRAMS)
def test_collectives(layout, axes, driver, cell):
    program = programs.compiled(DEVICES, layout, axes, driver, cell)
    inside, outside = collectives(program)
    if driver in ("dynamic_rnn", "bidirectional") or axes == "shard_map":
        assert inside == []
    devices = programs.make_mesh(DEVICES, layout, axes)
    params, *_ = programs.types_of(programs.CELLS[cell], devices, layout)
    params = jax.tree.leaves(params)
    if layout == "FSDP":
        kernels = [leaf for leaf in params if leaf.ndim == 2]
        assert outside.count("all-gather") == len(kernels)
    elif layout == "tensor":
        assert "all-gather" in outside
    else:
        assert set(inside + outside) == {"all-reduce"}
    if layout == "data" and driver == "dynamic_rnn":
        # The compiler may combine sums: the loss, and at most one for each leaf.
        assert len(outside) <= 1 + len(params)


@pytest.mark.slow
@pytest.mark.parametrize("told", ["context", "inputs"])
def test_fsdp_of_parameters_whose_types_tell_no_mesh(told):
    """`in_shardings` shards the parameters. The mesh is set, or the inputs have it."""
    cell, devices = programs.CELLS["LSTM"], programs.make_mesh(DEVICES, "FSDP", "auto")
    types = programs.types_of(cell, devices, "FSDP")
    shardings = jax.tree.map(lambda x: x.sharding, types)
    bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), types)
    if told == "inputs":
        bare = bare[0], *types[1:]
    driver = programs.DRIVERS["dynamic_rnn"]
    gradient = programs.gradient_of(driver, cell, devices, "auto")
    gradient = jax.jit(gradient, in_shardings=shardings)
    with jax.set_mesh(devices) if told == "context" else contextlib.nullcontext():
        inside, outside = collectives(gradient.lower(*bare).compile().as_text())
    assert inside == []
    assert outside.count("all-gather") == 1


# Inside of `shard_map`.


def by_device(run, specs, devices=None, **options):
    """`run` on the shards of its arguments, compiled."""
    options = {"in_specs": specs, "out_specs": P("data"), **options}
    return jax.jit(jax.shard_map(run, mesh=devices or make_mesh(), **options))


# Which of the arguments of `forward` vary over devices.
VARYING = {"rows": (0, 1, 1), "params": (1, 0, 0), "lengths": (0, 0, 1)}
IN_SHARD_MAP = [("dropout", True, "rows"), ("stack", False, "rows")]
IN_SHARD_MAP += [("lstm", False, "params"), ("function", True, "lengths")]


@pytest.mark.fast("dropout-True-rows")
@pytest.mark.parametrize(("name", "check_vma", "varying"), IN_SHARD_MAP)
def test_inside_of_shard_map(name, check_vma, varying):
    cell, is_varying = CELLS[name], VARYING[varying]
    members = [drawn(cell, X[:, 0], F64, seed=i) for i in range(4)]
    members = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    # For each device, the parameters, two rows, and their lengths.
    of_devices = members, X.reshape(4, 2, 6, 3), LENGTHS.reshape(4, 2)
    # Types list the axes over which rows vary only with `check_vma`.
    has_keys = check_vma and varying == "rows"
    keys = [jax.random.fold_in(KEY, i) if has_keys else KEY for i in range(4)]

    def run(params, x, lengths, key=KEY):
        given = cell.bind(params, key), x, lengths
        return jaxrnn.dynamic_rnn(*given, dtype=F64)[0]

    def at(part):
        """The arguments of one device, or of several."""
        first = slice(0, 1) if isinstance(part, slice) else 0
        parts = [part if varies else first for varies in is_varying]
        take = lambda tree, part: jax.tree.map(lambda leaf: leaf[part], tree)
        return [*map(take, of_devices, parts)]

    specs = tuple(P("data") if varies else P() for varies in is_varying)
    first = lambda shard: jax.tree.map(lambda leaf: leaf[0], shard)
    on_each = lambda *shards: run(*map(first, shards))
    got = by_device(on_each, specs, check_vma=check_vma)(*at(slice(None)))
    close(got, np.concatenate([jax.jit(run)(*at(i), keys[i]) for i in range(4)]))


def test_a_mesh_that_is_manual_in_part():
    cell = CELLS["lstm"]
    run = lambda p, x, n: jaxrnn.dynamic_rnn(cell.bind(p), x, n, dtype=F64)[0]
    specs, devices = (P(), P("data"), P("data")), make_mesh(data=2, model=2)
    manual = by_device(run, specs, devices, axis_names={"data"})
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

    mapped = by_device(on_devices, (P(), P("data"), P()), out_specs=P())
    gradients = lambda f: jax.jit(jax.grad(f, (0, 2)))(params, of_rows, one)
    close(gradients(mapped), gradients(loss))


# Explicit meshes.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stack", "min_gru"])
def test_vmap_over_an_axis_that_is_divided(name):
    cell, devices = CELLS[name], make_mesh("explicit")
    given = X.reshape(4, 2, 6, 3), np.array([[6, 1], [0, 3], [2, 2], [5, 4]])
    each = jax.vmap(functools.partial(loss, cell=cell), (None, 0, 0))
    gradient = jax.jit(jax.value_and_grad(lambda *given: each(*given).sum(), (0, 1)))
    params = params_of(cell)
    want = gradient(params, *given)
    close(gradient(params, *put(given, devices, "data")), want)


def test_inputs_that_are_divided_along_time():
    devices = make_mesh("explicit", data=2)
    with jax.set_mesh(devices), pytest.raises(ValueError, match="`input` must not be"):
        jaxrnn.reverse_sequence(put(X, devices, None, "data"), LENGTHS, 1)


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


KERNELS = {
    "divided": MultiRNNCell([LSTMCell(6, True, num_proj=4), GRUCell(4)]),
    "by_count": OneProduct(8, lambda h: h * np.array([[1 / h.shape[-1]]])),
    "by_place": OneProduct(8, lambda h: h * np.linspace(0.5, 1, h.shape[-1])[None]),
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
PLACED = [("columns", name, "explicit") for name in KERNELS]
PLACED += [(how, "divided", "explicit") for how in [*SPECS][1:]]
PLACED += [(how, "dropout", "auto") for how in SPECS]


@pytest.mark.fast("columns-by_count-*")
@pytest.mark.parametrize(("how", "name", "kind"), PLACED)
def test_parameters_on_a_mesh(how, name, kind):
    """Cells whose units cannot be sharded gather whole kernels on each device."""
    (of_kernels, of_inputs), cell = SPECS[how], KERNELS[name]
    devices = make_mesh(kind, data=2, model=2)
    # Kernels need an even number of rows; the backward loop, several chunks of steps.
    x, lengths = np.tile(X[..., :2], (1, 10, 1)), LENGTHS * 10
    params = drawn(cell, x[:, 0], F64)

    def loss(params, x, lengths):
        given = cell.bind(params, KEY), x, lengths
        outputs, _ = jaxrnn.dynamic_rnn(*given, dtype=F64)
        return (outputs**2).sum()

    run = jax.jit(jax.value_and_grad(loss))
    place = lambda tree, spec: tree if spec is None else put(tree, devices, *spec)
    divide = lambda p: place(p, of_kernels and (of_kernels if p.ndim == 2 else P()))
    rows = place((x, lengths), of_inputs)
    got = run(jax.tree.map(divide, params), *rows)
    close(got, run(params, x, lengths))
