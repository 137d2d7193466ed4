"""XLA's loop over whole sequences, against a loop over `apply`."""

import dataclasses
import functools
import logging
import re

import cases
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

import jaxrnn
from jaxrnn import AffineCell, DropoutWrapper, GRUCell, LSTMCell, MultiRNNCell, Stage
from jaxrnn._loops import xla_loop
from jaxrnn._loops.scans import chunk_size
from jaxrnn.testing._oracle import StepByStep, close, weighted_sum

DTYPE = np.dtype("float64")
FAST = ["basic_rnn", "lstm_projection", "lstm_joined", "gru", "multi_joined"]


def data(cell, rows, time, depth=cases.DEPTH, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape) * 0.7, DTYPE)
    x = draw((rows, time, depth))
    params = drawn(cell, x[:, 0])
    params = jax.tree.map(lambda p: draw(p.shape), params)
    state = jax.tree.map(lambda s: draw(s.shape), cell.zero_state(rows, DTYPE))
    return params, x, state


def padded(x, lengths, value=np.nan):
    dead = jnp.arange(x.shape[1])[None, :] >= jnp.asarray(lengths)[:, None]
    return jnp.where(dead[..., None], value, x)


def results(cell, lengths, as_it_is=True, **kwargs):
    """The outputs, the state, and the gradients of their weighted sum."""

    def run(params, x, state):
        bound = cell.bind(params)
        bound = bound if as_it_is else StepByStep(bound)
        return jaxrnn.dynamic_rnn(bound, x, lengths, state, **kwargs)

    def loss(args):
        made = run(*args)
        return weighted_sum(made), made

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.fast("lstm_projection-*")
@pytest.mark.parametrize(
    ("name", "time_major"), [("residual", True), *((name, False) for name in FAST)]
)
def test_ragged_rows_give_what_steps_give(name, time_major):
    cell, rows, time = cases.CASES[name].cell, 17, 21
    params, x, state = data(cell, rows, time)
    lengths = np.random.default_rng(1).integers(-1, time + 3, rows)
    x = padded(x, lengths)
    x = jnp.swapaxes(x, 0, 1) if time_major else x
    args, kwargs = (params, x, state), {"time_major": time_major}
    want = results(cell, lengths, as_it_is=False, **kwargs)(args)
    close(results(cell, lengths, **kwargs)(args), want, DTYPE)


@pytest.mark.fast("5-23-True")
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize(("rows", "time"), [(5, 12), (5, 23), (40, 7)])
def test_chunks_whole_and_in_part_give_what_steps_give(rows, time, with_lengths):
    """A single chunk, and several chunks with an incomplete last one."""
    assert 0 < -23 % chunk_size(23)
    cell = LSTMCell(4, use_peepholes=True, num_proj=3)
    args = data(cell, rows, time)
    lengths = None
    if with_lengths:
        lengths = np.random.default_rng(2).integers(0, time, rows)
    want = results(cell, lengths, as_it_is=False)(args)
    close(results(cell, lengths)(args), want, DTYPE)


@pytest.mark.parametrize("time", [31, 37], ids=["short rows", "the last chunk lacks"])
def test_chunks_that_tpus_and_gpus_run_change_nothing(time, monkeypatch):
    """CPUs skip such chunks, so the test replaces the choice by platform."""
    choose = lambda *args, cpu, default: jnp.asarray(default(*args))
    monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    cell, longest = GRUCell(5), {31: 7, 37: 37}[time]
    params, x, state = data(cell, 6, time)
    lengths = np.array([3, 0, longest, 2, longest, 1])
    args = params, padded(x, lengths), state
    want = results(cell, lengths, as_it_is=False)(args)
    got = results(cell, lengths)(args)
    close(got, want, DTYPE)
    forward = jaxrnn.dynamic_rnn(cell.bind(params), args[1], lengths, state)
    close(forward, want[1], DTYPE)


@pytest.mark.fast("gru-100")
@pytest.mark.parametrize("few", [0, 100])
@pytest.mark.parametrize("name", ["lstm_projection", "gru"])
def test_inputs_products_made_before_the_loop_change_nothing(name, few, monkeypatch):
    monkeypatch.setattr(xla_loop, "FEW_ROWS", few)
    cell, lengths = cases.CASES[name].cell, np.array([6, 0, 3])
    params, x, state = data(cell, 3, 6)
    args = params, padded(x, lengths), state
    want = results(cell, lengths, as_it_is=False)(args)
    close(results(cell, lengths)(args), want, DTYPE)


@hypothesis.given(st.lists(st.integers(-2, 12), min_size=16, max_size=16))
@hypothesis.settings(max_examples=40)
def test_any_lengths_give_what_the_rows_give_cut_to_length(lengths):
    params, x, state = args = data_of_any_lengths()
    outputs, last = jax.tree.map(np.asarray, any_lengths(*args, np.asarray(lengths)))
    for row, length in enumerate(np.clip(lengths, 0, 9).tolist()):
        h = state[row]
        for t in range(length):
            h = gru_step(params, x[row, t], h)
            np.testing.assert_allclose(outputs[row, t], h, atol=1e-12)
        assert not outputs[row, length:].any()
        np.testing.assert_allclose(last[row], h, atol=1e-12)


@functools.cache
def data_of_any_lengths():
    return jax.tree.map(np.asarray, data(GRUCell(3), 16, 9))


@jax.jit
def any_lengths(params, x, state, lengths):
    """A run that compiles once for all lengths."""
    cell = GRUCell(3).bind(params)
    return jaxrnn.dynamic_rnn(cell, padded(x, lengths), lengths, state)


def gru_step(params, x, h):
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    gates, candidate = params["gates"], params["candidate"]
    z = np.concatenate([x, h]) @ gates["kernel"] + gates["bias"]
    r, u = np.split(sigmoid(z), 2)
    z = np.concatenate([x, r * h]) @ candidate["kernel"] + candidate["bias"]
    return u * h + (1 - u) * np.tanh(z)


def along(fn, params):
    """The derivative along a constant direction."""
    direction = jax.lax.stop_gradient(jax.tree.map(jnp.cos, params))
    return jax.jvp(fn, (params,), (direction,))[1]


KINDS = {
    "tangent": lambda loss, params, lengths: along(lambda p: loss(p, lengths), params),
    "tangent of gradient": lambda loss, params, lengths: along(
        lambda p: jax.grad(loss)(p, lengths), params
    ),
    "gradient of tangent": lambda loss, params, lengths: jax.grad(
        lambda p: along(lambda p: loss(p, lengths), p)
    )(params),
    "gradients of rows": lambda loss, params, lengths: jax.vmap(
        jax.grad(loss), (None, 0)
    )(params, jnp.stack([lengths, lengths[::-1], lengths * 0])),
}


@pytest.mark.fast("gradients of rows")
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_every_order_and_mode(kind):
    """Derivatives of several chunks, the last of which are skipped."""
    cell, rows, time = LSTMCell(2, use_peepholes=True), 16, 33
    params, x, state = data(cell, rows, time, depth=2)
    lengths = jnp.asarray(np.random.default_rng(3).integers(0, 12, rows))

    def everything(as_it_is):
        def loss(params, lengths):
            bound = cell.bind(params)
            bound = bound if as_it_is else StepByStep(bound)
            made = jaxrnn.dynamic_rnn(bound, x, lengths, state)
            return weighted_sum(made)

        return jax.jit(lambda lengths: KINDS[kind](loss, params, lengths))

    close(everything(True)(lengths), everything(False)(lengths), DTYPE)


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


def temporaries(cell, args, lengths=None, as_it_is=True):
    optimized = {"xla_backend_optimization_level": 3}  # The level of users' programs.
    lowered = results(cell, lengths, as_it_is).lower(args)
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
    text = str(results(cell, None).trace(args).jaxpr)
    of_kernels = re.findall(r"f64\[(?:8,32|32,8)\] = dot_general", text)
    assert len(of_kernels) == 1


class TestUserCells:
    """An affine cell runs whole sequences at once; other cells are scanned."""

    @dataclasses.dataclass(frozen=True, eq=False)
    class MinimalGatedUnit(AffineCell):
        """arXiv:1603.09420."""

        num_units: int

        state_size = property(lambda self: self.num_units)
        output_size = property(lambda self: self.num_units)

        @property
        def stages(self):
            n, kernel, zeros = self.num_units, glorot, jax.nn.initializers.zeros
            return (
                Stage(self.forget, n, n, kernel, zeros, "forget"),
                Stage(self.candidate, n, n, kernel, zeros, "candidate"),
            )

        def enter(self, state):
            return state, state

        def elementwise_specs(self):
            return {}

        def forget(self, params, z, state):
            f = jax.nn.sigmoid(z)
            return f * state, (f, state)

        def candidate(self, params, z, carry):
            f, state = carry
            state = (1 - f) * state + f * jnp.tanh(z)
            return state, state

    def test_declared_parts_are_run_fast(self, caplog):
        caplog.set_level(logging.DEBUG, "jaxrnn")
        cell, rows = self.MinimalGatedUnit(5), 18
        lengths = np.random.default_rng(4).integers(0, 8, rows)
        args = data(cell, rows, 7)
        got = results(cell, lengths)(args)
        assert not caplog.records
        close(got, results(cell, lengths, as_it_is=False)(args), DTYPE)

    def test_an_update_sees_its_own_parameters_alone(self):
        @dataclasses.dataclass(frozen=True, eq=False)
        class Peeping(self.MinimalGatedUnit):
            def forget(self, params, z, state):
                return state * params["forget"]["bias"], (z, state)

        cell = Peeping(5)
        params, x, state = data(cell, 2, 3)
        with pytest.raises(KeyError, match="forget"):
            cell.apply(params, x[:, 0], state)


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
def test_steps_that_do_not_exist_are_not_read(cell, time, lengths, order):
    params, x, state = data(cell, 2, time)

    def by_hand(params):
        """The same loss, row by row over the valid steps."""
        total = 0.0
        for row, length in enumerate(lengths):
            h = state[row : row + 1]
            for t in range(length):
                output, h = cell.apply(params, x[row : row + 1, t], h)
                total += jnp.sum(jnp.sin(output))
        return total

    def by_driver(params):
        run = jaxrnn.dynamic_rnn(cell.bind(params), x, lengths, state)
        return jnp.sum(jnp.sin(run[0]))

    def derivative(loss):
        if order == 1:
            return jax.grad(loss)
        return jax.grad(lambda params: weighted_sum(jax.grad(loss)(params)))

    both = lambda params: (derivative(by_driver)(params), derivative(by_hand)(params))
    close(*jax.jit(both)(params), DTYPE)


def glorot(key, shape, dtype):
    """An initializer for kernels."""
    return jax.nn.initializers.glorot_uniform()(key, shape, dtype)


class Doubled(GRUCell):  # pyright: ignore[reportGeneralTypeIssues]
    """A cell whose `apply` does more than its stages."""

    def apply(self, params, inputs, state, key=None):
        output, state = super().apply(params, inputs, state, key)
        return 2 * output, state


def test_what_apply_adds_to_the_stages_is_kept():
    params, x, state = data(Doubled(3), 2, 4)
    run = lambda cell: jaxrnn.dynamic_rnn(cell.bind(params), x, None, state)[0]
    np.testing.assert_allclose(run(Doubled(3)), 2 * run(GRUCell(3)), atol=1e-12)


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled:
    """An activation that holds an array."""

    scale: jax.Array

    def __call__(self, x):
        return jnp.tanh(x) * self.scale


@pytest.mark.fast("jit")
@pytest.mark.parametrize("hide", [Scaled, lambda a: lambda x: Scaled(a)(x), jax.jit])
def test_derivatives_by_arrays_that_functions_hide(hide, caplog):
    caplog.set_level(logging.DEBUG, "jaxrnn")
    x = jnp.ones((2, 3, 2), DTYPE)
    params = drawn(jaxrnn.BasicRNNCell(2), x[:, 0])

    def loss(scale):
        activation = Scaled(scale) if hide is jax.jit else hide(scale)
        activation = jax.jit(activation) if hide is jax.jit else activation
        cell = jaxrnn.BasicRNNCell(2, activation=activation)
        return jaxrnn.dynamic_rnn(cell.bind(params), x, [3, 1], dtype=DTYPE)[0].sum()

    got = jax.jit(jax.grad(loss))(1.3)
    step = 1e-6
    want = (loss(jnp.float64(1.3 + step)) - loss(jnp.float64(1.3 - step))) / (2 * step)
    np.testing.assert_allclose(got, want, rtol=1e-7)
    assert [m for m in caplog.messages if "traced arrays" in m]


def test_a_state_keeps_its_kind():
    cell = MultiRNNCell([GRUCell(2), GRUCell(2)])
    params, x, state = data(cell, 2, 3)
    _, last = jaxrnn.dynamic_rnn(cell.bind(params), x, None, list(state))
    assert isinstance(last, list)


def test_own_ways_get_plain_keys():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Noise(jaxrnn.RNNCell):
        state_size, output_size = 2, 2

        def init(self, key, inputs, dtype=None):
            return {}

        def apply(self, params, inputs, state, key=None):
            return jax.random.normal(key, state.shape, state.dtype), state

        def apply_sequence(self, params, run):
            step = lambda t: self.apply(params, run.inputs, run.state, run.keys(t))[0]
            return run.steps.stack(step), run.state

    x = jnp.ones((3, 4, 2), DTYPE)
    for cell in (Noise(), MultiRNNCell([Noise()]), jaxrnn.ResidualWrapper(Noise())):
        empty = {"cell_0": {}} if isinstance(cell, MultiRNNCell) else {}
        bound = cell.bind(empty, jax.random.key(0))
        state = cell.zero_state(3, DTYPE)
        outputs, _ = jaxrnn.dynamic_rnn(bound, x, None, state)
        for t in range(4):
            output, _ = bound.at_step(jnp.int32(t))(x[:, t], state)
            np.testing.assert_allclose(outputs[:, t], output, atol=1e-12)


@pytest.mark.parametrize(
    ("cell", "key", "reason"),
    [
        (
            cases.CASES["function_nested"].cell,
            None,
            "FunctionCell has no `apply_sequence`",
        ),
        (Doubled(3), None, "Doubled has a custom `apply`"),
        (DropoutWrapper(LSTMCell(3), 1.0, 1.0, 0.5), 0, "drops the state"),
        (
            jaxrnn.ResidualWrapper(GRUCell(3), lambda x, y: x * y),
            None,
            "function of one step",
        ),
        (
            MultiRNNCell([GRUCell(3), DropoutWrapper(GRUCell(3), 1.0, 1.0, 0.5)]),
            0,
            "drops the state",
        ),
    ],
)
def test_declining_cells_say_why_and_are_scanned(cell, key, reason, caplog):
    caplog.set_level(logging.DEBUG, "jaxrnn")
    if reason.startswith("FunctionCell"):
        case = cases.CASES["function_nested"]
        step = jax.tree.map(
            lambda x: jnp.ones((4, 2, *x.shape[1:]), x.dtype), case.inputs
        )
        params = drawn(cell, case.inputs, jnp.float32)
        state = jax.tree.map(jnp.asarray, case.state)
        state = jax.tree.map(lambda s: s.astype(jnp.float32) if s.ndim else s, state)
        jaxrnn.dynamic_rnn(cell.bind(params), step, None, state, jnp.float32)
    else:
        params, x, state = data(cell, 2, 4, depth=3)
        bound = cell.bind(params, None if key is None else jax.random.key(key))
        jaxrnn.dynamic_rnn(bound, x, [4, 1], state)
    assert [r for r in caplog.messages if reason in r]


def test_a_cells_own_way_is_taken_unless_it_declines():
    """The driver returns the results of a custom `apply_sequence`."""

    @dataclasses.dataclass(frozen=True, eq=False)
    class Own(jaxrnn.RNNCell):
        most: int
        state_size, output_size = 2, 2

        def init(self, key, inputs, dtype=None):
            return {}

        def apply(self, params, inputs, state, key=None):
            return state, state + 1

        def apply_sequence(self, params, run):
            if run.steps.time > self.most:
                raise jaxrnn.DeclinedError("too long")
            return jnp.full((*run.inputs.shape[:2], 2), 7, DTYPE), run.state

    x = jnp.ones((3, 4, 2), DTYPE)
    for most, want in ((4, [7, 7, 7, 7]), (3, [0, 1, 2, 3])):
        outputs, _ = jaxrnn.dynamic_rnn(Own(most).bind({}), x, dtype=DTYPE)
        np.testing.assert_array_equal(outputs[0, :, 0], want)


@pytest.mark.slow
def test_noise_is_that_of_the_steps():
    """Dropout around an affine cell draws the same numbers as step by step."""
    cell = MultiRNNCell(
        [DropoutWrapper(LSTMCell(3), 0.6, 0.5, seed=1), DropoutWrapper(GRUCell(4), 0.7)]
    )
    params, x, state = data(cell, 5, 6)
    bound = cell.bind(params, jax.random.key(3))
    outputs, last = jaxrnn.dynamic_rnn(bound, x, None, state)
    for t in range(6):
        output, state = bound.at_step(jnp.int32(t))(x[:, t], state)
        np.testing.assert_allclose(outputs[:, t], output, atol=1e-12)
    close(last, state, DTYPE)
