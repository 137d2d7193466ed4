"""XLA's loop over whole sequences, against a loop over `apply`."""

import dataclasses
import functools
import logging
import math
import re

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import differentiated, drawn

import jaxrnn
from jaxrnn import AffineCell, GRUCell, LSTMCell, MultiRNNCell, Stage, TensorShape
from jaxrnn._cells.affine import xla_loop
from jaxrnn._loops.scans import chunk_size
from jaxrnn.testing._oracle import Setup, StepByStep, close, unrolled, weighted_sum

DTYPE = np.dtype("float64")


def data(cell, rows, time, depth=cases.DEPTH, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape) * 0.7, DTYPE)
    x = draw((rows, time, depth))
    state = jax.tree.map(lambda s: draw(s.shape), cell.zero_state(rows, DTYPE))
    return drawn(cell, x[:, 0], scale=0.7), x, state


def padded(x, lengths, value=np.nan):
    dead = jnp.arange(x.shape[1])[None, :] >= jnp.asarray(lengths)[:, None]
    return jnp.where(dead[..., None], value, x)


def results(cell, lengths, as_it_is=True):
    """A function of `(params, x, state)`: outputs, final state, and gradients."""
    bind = cell.bind if as_it_is else lambda params: StepByStep(cell.bind(params))
    run = lambda params, x, state: jaxrnn.dynamic_rnn(bind(params), x, lengths, state)
    return jax.jit(functools.partial(differentiated, run))


# Up to 8 rows, the inputs' products of all steps are computed before the loop.
AHEAD, IN_THE_LOOP, ONE_CHUNK, PARTIAL_CHUNK = 5, 17, 7, 23


@pytest.mark.fast("basic_rnn-17-23-True", "lstm_projection-5-23-True", "gru-5-23-True")
@pytest.mark.parametrize("is_ragged", [False, True])
@pytest.mark.parametrize("time", [ONE_CHUNK, PARTIAL_CHUNK])
@pytest.mark.parametrize("rows", [AHEAD, IN_THE_LOOP])
@pytest.mark.parametrize(
    "name", ["basic_rnn", "lstm_projection", "lstm_joined", "gru", "multi_joined"]
)
def test_sequences_give_what_steps_give(name, rows, time, is_ragged):
    """Sequences of a single chunk, and of several with an incomplete last one."""
    assert 0 < -PARTIAL_CHUNK % chunk_size(PARTIAL_CHUNK)
    cell, lengths = cases.CASES[name].cell, None
    params, x, state = data(cell, rows, time)
    if is_ragged:
        lengths = np.random.default_rng(1).integers(-1, time + 3, rows)
        x = padded(x, lengths)
    args = params, x, state
    want = results(cell, lengths, as_it_is=False)(*args)
    close(results(cell, lengths)(*args), want, DTYPE)


@pytest.mark.parametrize("time", [31, 37], ids=["short rows", "the last chunk lacks"])
def test_chunks_that_tpus_and_gpus_run_change_nothing(time, monkeypatch):
    """CPUs skip such chunks, so the test replaces the choice by platform."""
    choose = lambda *args, cpu, default: jnp.asarray(default(*args))
    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    cell, longest = GRUCell(5), {31: 7, 37: 37}[time]
    params, x, state = data(cell, 6, time)
    lengths = np.array([3, 0, longest, 2, longest, 1])
    args = params, padded(x, lengths), state
    want = results(cell, lengths, as_it_is=False)(*args)
    got = results(cell, lengths)(*args)
    close(got, want, DTYPE)
    forward = jaxrnn.dynamic_rnn(cell.bind(params), args[1], lengths, state)
    close(forward, want[0], DTYPE)


def along(fn, params):
    """The derivative along a constant direction."""
    direction = jax.lax.stop_gradient(jax.tree.map(jnp.cos, params))
    return jax.jvp(fn, (params,), (direction,))[1]


def tangent_of_gradient(loss, params, lengths):
    return along(lambda p: jax.grad(loss)(p, lengths), params)


def gradient_of_tangent(loss, params, lengths):
    return jax.grad(lambda p: along(lambda p: loss(p, lengths), p))(params)


def gradients_of_rows(loss, params, lengths):
    several = jnp.stack([lengths, lengths[::-1], lengths * 0])
    return jax.vmap(jax.grad(loss), (None, 0))(params, several)


@pytest.mark.fast("gradients_of_rows")
@pytest.mark.parametrize(
    "of",
    [tangent_of_gradient, gradient_of_tangent, gradients_of_rows],
    ids=lambda of: of.__name__,
)
def test_derivatives_of_every_order_and_mode(of):
    """Derivatives of several chunks, the last of which are skipped."""
    cell, rows, time = LSTMCell(2, use_peepholes=True), 16, 33
    params, x, state = data(cell, rows, time, depth=2)
    lengths = jnp.asarray(np.random.default_rng(3).integers(0, 12, rows))

    @jax.jit
    def everything(lengths):
        def loss(bind, params, lengths):
            made = jaxrnn.dynamic_rnn(bind(params), x, lengths, state)
            return weighted_sum(made)

        binds = cell.bind, lambda params: StepByStep(cell.bind(params))
        return [of(functools.partial(loss, bind), params, lengths) for bind in binds]

    close(*everything(lengths), DTYPE)


@pytest.mark.fast("True")
@pytest.mark.parametrize("mapped", [False, True])
def test_steps_taken_follow_the_longest_row(mapped):
    steps = []

    def counted(x):
        jax.debug.callback(lambda _: steps.append(1), x[0, 0])
        return jnp.tanh(x)

    cell = jaxrnn.BasicRNNCell(2, activation=counted)
    params, x, state = data(cell, 4, 50)

    def loss(params, lengths):
        outputs, _ = jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, state)
        return outputs.sum()

    def taken(run, *lengths):
        steps.clear()
        run = jax.vmap(run, (None, 0)) if mapped else run
        lengths = jnp.asarray(lengths) if mapped else jnp.asarray(lengths[0])
        jax.block_until_ready(jax.jit(run)(params, lengths))
        jax.effects_barrier()
        return len(steps) // (2 if mapped else 1)  # One call for each mapped entry.

    short, shorter = [3, 0, 7, 1], [2, 2, 1, 0]
    chunk = chunk_size(50)
    assert 7 <= taken(loss, short, shorter) == chunk < 50
    # The backward pass runs the updates again. It may run one more step, to get the
    # values that skipped steps save.
    assert 2 * chunk <= taken(jax.grad(loss), short, shorter) <= 3 * chunk + 1


def temporaries(cell, args, as_it_is=True):
    optimized = {"xla_backend_optimization_level": 3}  # The level of users' programs.
    lowered = results(cell, None, as_it_is).lower(*args)
    compiled = lowered.compile(compiler_options=optimized)
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("cell", [LSTMCell(64), GRUCell(64)], ids=str)
def test_less_is_kept_for_the_backward_pass(cell):
    args = data(cell, 32, 64, depth=32)
    assert temporaries(cell, args) < 0.95 * temporaries(cell, args, as_it_is=False)


def test_kernels_gradients_are_not_made_at_every_step():
    """A single product over all steps computes the gradient of the kernel."""
    cell, rows, time, depth = LSTMCell(8), 40, 30, 6
    args = data(cell, rows, time, depth)
    text = str(results(cell, None).trace(*args).jaxpr)
    of_kernels = re.findall(r"f64\[(?:8,32|32,8)\] = dot_general", text)
    assert len(of_kernels) == 1


@dataclasses.dataclass(frozen=True, eq=False)
class Normalized(AffineCell):
    """A cell whose derivative is not finite if the product is 0."""

    num_units: int
    products: int = 1
    takes_inputs: bool = True

    state_size = output_size = property(lambda self: self.num_units)

    @property
    def stages(self):
        n, ones = self.num_units, jax.nn.initializers.ones
        stage = lambda update, path: Stage(
            update, n, n, glorot, ones, path, takes_inputs=self.takes_inputs
        )
        first = stage(lambda params, z, carry: (unit(z),) * 2, "first")
        last = stage(lambda params, z, carry: (jnp.tanh(z),) * 2, "last")
        return (first, last)[: self.products]

    def enter(self, state):
        return state, state


def unit(z):
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


@pytest.mark.fast("skipped-1")
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("cell", "time", "lengths"),
    [
        (Normalized(3), 17, [17, 17]),  # The last chunk is incomplete.
        (Normalized(3, products=2), 20, [5, 3]),  # Some chunks are skipped.
        (Normalized(3, takes_inputs=False), 5, [5, 2]),
    ],
    ids=["lacks", "skipped", "no_inputs"],
)
def test_steps_that_do_not_exist_are_not_read(cell, time, lengths, order, caplog):
    caplog.set_level(logging.DEBUG, "jaxrnn")
    params, x, state = data(cell, 2, time)
    setup = Setup(cell, params, x, jnp.asarray(lengths), state, DTYPE)

    def derivative(run, params):
        def loss(params):
            outputs, _ = run(setup, params, x, state, setup.lengths)
            return jnp.sum(jnp.sin(outputs))

        if order == 1:
            return jax.grad(loss)(params)
        return jax.grad(lambda params: weighted_sum(jax.grad(loss)(params)))(params)

    both = lambda params: [derivative(run, params) for run in (Setup.run, unrolled)]
    close(*jax.jit(both)(params), DTYPE)
    assert "step by step" not in caplog.text  # The cell has not declined.


def test_an_update_sees_its_own_parameters_alone():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Peeping(Normalized):
        @property
        def stages(self):
            update = lambda params, z, state: (state * params["first"]["bias"],) * 2
            return (dataclasses.replace(super().stages[0], update=update),)

    params, x, state = data(Peeping(5), 2, 3)
    with pytest.raises(KeyError, match="first"):
        Peeping(5).apply(params, x[:, 0], state)


def glorot(key, shape, dtype):
    """An initializer for kernels."""
    return jax.nn.initializers.glorot_uniform()(key, shape, dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled:
    """An activation that holds an array."""

    scale: jax.Array

    def __call__(self, x):
        return jnp.tanh(x) * self.scale


def jitted(scale):
    return jax.jit(Scaled(scale))


@pytest.mark.fast("jitted")
@pytest.mark.parametrize("hide", [Scaled, jitted], ids=lambda hide: hide.__name__)
def test_derivatives_by_arrays_that_functions_hide(hide, caplog):
    caplog.set_level(logging.DEBUG, "jaxrnn")
    x = jnp.ones((2, 3, 2), DTYPE)
    params = drawn(jaxrnn.BasicRNNCell(2), x[:, 0])

    def loss(scale):
        cell = jaxrnn.BasicRNNCell(2, activation=hide(scale))
        return jaxrnn.dynamic_rnn(cell.bind(params), x, [3, 1], dtype=DTYPE)[0].sum()

    got = jax.jit(jax.grad(loss))(1.3)
    step = 1e-6
    want = (loss(jnp.float64(1.3 + step)) - loss(jnp.float64(1.3 - step))) / (2 * step)
    np.testing.assert_allclose(got, want, rtol=1e-7)
    assert [m for m in caplog.messages if "traced arrays" in m]


def test_a_cell_that_declines_says_why_and_is_scanned(caplog):
    caplog.set_level(logging.DEBUG, "jaxrnn")

    class Doubled(GRUCell):  # pyright: ignore[reportGeneralTypeIssues]
        def apply(self, params, inputs, state, key=None):
            output, state = super().apply(params, inputs, state, key)
            return 2 * output, state

    params, x, state = data(Doubled(3), 2, 4)
    jaxrnn.dynamic_rnn(Doubled(3).bind(params), x, None, state)
    assert [m for m in caplog.messages if "Doubled has no `apply_sequence`" in m]


@dataclasses.dataclass(frozen=True, eq=False)
class AnyRank(AffineCell):
    """A cell with a state leaf, or only an output, of a given shape."""

    shape: tuple[int, ...] = ()
    has_leaf: bool = True

    output_size = property(lambda self: TensorShape(self.shape))

    @property
    def state_size(self):
        return (3, self.output_size) if self.has_leaf else (3,)

    @property
    def stages(self):
        return (Stage(self.update, 3, 3 + math.prod(self.shape), path="only"),)

    def enter(self, state):
        return state[0], state

    def update(self, params, z, state):
        h, *leaf = state
        h = jnp.tanh(z[:, :3] + h)
        output = z[:, 3:].reshape(-1, *self.shape)
        output = sum(leaf, jnp.sin(output))
        return output, (h, output) if leaf else (h,)


OPTIONS = {
    "lengths": {"sequence_length": np.array([4, 0, 2])},
    "mask": {"mask": np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]], bool)},
    "resets": {
        "sequence_length": np.array([4, 0, 2]),
        "resets": np.array([[0, 0, 1, 0], [1, 0, 0, 0], [1, 1, 0, 1]], bool),
    },
    "segments": {
        "sequence_length": np.array([4, 0, 2]),
        "swap_memory": jaxrnn.memory.Recompute(3),
        "return_states": True,
    },
}
PACKED = jaxrnn.pack_sequences(np.zeros((3, 4, 3)), [4, 1, 5], rows=2, row_length=6)


@pytest.mark.fast("shape*-True-lengths", "shape2-False-lengths", "shape2-True-packed")
@pytest.mark.parametrize("options", [*OPTIONS, "packed"])
@pytest.mark.parametrize("has_leaf", [True, False])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_leaves_and_outputs_of_any_rank_on_tpus(shape, has_leaf, options, monkeypatch):
    """On TPUs, lengths are as wide as the state if all leaves have rank 2."""
    monkeypatch.setattr(xla_loop, "platform_of", lambda arrays: "tpu")
    cell = AnyRank(shape, has_leaf)
    params, x, state = data(cell, 3, 4)

    def run(bind, params, x, state):
        if options == "packed":
            packed = dataclasses.replace(PACKED, inputs=x.reshape(2, 6, -1))
            return jaxrnn.packed_rnn(bind(params), packed, state)
        bound = bind(params)
        return jaxrnn.dynamic_rnn(bound, x, initial_state=state, **OPTIONS[options])

    @jax.jit
    def both(*args):
        binds = cell.bind, lambda params: StepByStep(cell.bind(params))
        runs = [functools.partial(run, bind) for bind in binds]
        return [(run(*args), differentiated(run, *args)) for run in runs]

    close(*both(params, x, state), DTYPE)


@dataclasses.dataclass(frozen=True, eq=False)
class Own(jaxrnn.RNNCell):
    """A cell with its own `apply_sequence`, which draws or is scanned."""

    most: int = 9
    state_size, output_size = 2, 2

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        noise = 0 if key is None else jax.random.normal(key, state.shape, DTYPE)
        return state + noise, state + 1

    def choose_loop(self, params, run):
        if run.steps.time > self.most:
            return jaxrnn.Choice.scan("too long")
        return jaxrnn.Choice("own", self.apply_sequence)

    def apply_sequence(self, params, run):
        if run.keys is None:
            return jnp.full((*run.inputs.shape[:2], 2), 7, DTYPE), run.state
        step = lambda t: self.apply(params, run.inputs, run.state, run.keys(t))[0]
        return run.steps.stack(step), run.state


@pytest.mark.parametrize(("most", "want"), [(4, [7, 7, 7, 7]), (3, [0, 1, 2, 3])])
def test_a_cells_own_way_is_taken_unless_it_chooses_a_scan(most, want):
    x = jnp.ones((3, 4, 2), DTYPE)
    outputs, _ = jaxrnn.dynamic_rnn(Own(most).bind({}), x, dtype=DTYPE)
    np.testing.assert_array_equal(outputs[0, :, 0], want)


@pytest.mark.parametrize(
    "cell", [Own(), MultiRNNCell([Own()]), jaxrnn.ResidualWrapper(Own())], ids=str
)
def test_own_ways_get_plain_keys(cell):
    x = jnp.ones((3, 4, 2), DTYPE)
    empty = {"cell_0": {}} if isinstance(cell, MultiRNNCell) else {}
    bound = cell.bind(empty, jax.random.key(0))
    state = cell.zero_state(3, DTYPE)
    outputs, _ = jaxrnn.dynamic_rnn(bound, x, None, state)
    for t in range(4):
        output, _ = bound.at_step(jnp.int32(t))(x[:, t], state)
        np.testing.assert_allclose(outputs[:, t], output, atol=1e-12)
