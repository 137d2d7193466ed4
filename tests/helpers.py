"""Shared test code: contexts, comparisons, derivatives and cells."""

import contextlib
import dataclasses
import itertools
import random

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

import jaxrnn
from jaxrnn.testing._oracle import weighted_sum

MIB = 2**20


@contextlib.contextmanager
def usual_promotion():
    """Use JAX's default dtype promotion, which other libraries rely on."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def differentiated(run, *given, total=weighted_sum):
    """`(results, gradients)`: of `run(*given)`, and of the weighted sum of its results.

    The gradients are a tuple, with a tree like each of `given`. `total` may be another
    scalar function of the results.
    """

    def loss(*given):
        results = run(*given)
        return total(results), results

    gradient = jax.grad(loss, tuple(range(len(given))), has_aux=True)
    gradients, results = jax.jit(gradient)(*given)
    return results, gradients


def assert_near(got, want, *, tolerance):
    """Assert that the trees are equal up to rounding.

    The error is relative to the largest number of each leaf, or to 1 if that is larger.
    """
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (g.dtype, g.shape) == (w.dtype, w.shape)
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        assert np.all(np.isfinite(w))
        scale = max(1.0, np.abs(w).max(initial=0))
        np.testing.assert_allclose(g / scale, w / scale, rtol=0, atol=tolerance)


def largest_error(pairs):
    """A float, the largest error of pairs of arrays `(got, want)`; NaN if one is NaN.

    An error is relative to the largest number of `want`, or to 1 if that is larger.
    """
    errors = [
        np.abs(np.asarray(got) - want).max() / max(1, np.abs(want).max())
        for got, want in pairs
    ]
    return float(np.max(errors))


def assert_same(got, want):
    """Assert equal structures, dtypes, shapes and numbers; -0 counts as 0."""
    chex.assert_trees_all_equal_structs(got, want)  # Leaves may be strings.
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(np.asarray(g), np.asarray(w), strict=True)


def refusals(rows, columns="error message call", prepare=lambda message: message):
    """A test of the rows of a table: each `call` raises an error with the message.

    Without the column `error`, the error may be a `TypeError` or a `ValueError`.
    `prepare` makes the regular expression from a message.
    """
    rows = [dict(zip(columns.split(), row, strict=True)) for row in rows]

    @pytest.mark.parametrize("row", rows, ids=lambda row: row["message"])
    def test(row):
        error = row.get("error", (TypeError, ValueError))
        with pytest.raises(error, match=prepare(row["message"])):
            row["call"]()

    return test


def covering(factors, is_allowed=lambda case: True):
    """A list of few cases in which every two levels that are allowed together occur.

    `factors` are the levels by the names of the factors. A case is a dict of one level
    by name. Each has the most new pairs of many random cases, until these have none.
    """
    rng, cases, seen = random.Random(0), [], set()
    pairs = lambda case: {*itertools.combinations(case.items(), 2)}
    draw = lambda: {name: rng.choice(levels) for name, levels in factors.items()}
    while True:
        drawn = filter(is_allowed, [draw() for _ in range(200)])
        best = max(drawn, key=lambda case: len(pairs(case) - seen))
        if pairs(best) <= seen:
            return cases
        cases.append(best)
        seen |= pairs(best)


def draw(*shape, seed=0, dtype=np.float64):
    """A NumPy array of the shape, of normal random numbers; it compiles nothing."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def drawn_like(tree, seed=0, scale=0.5):
    """The tree with random numbers on the device in place of its arrays or types."""
    rng = np.random.default_rng(seed)
    numbers = lambda x: np.asarray(scale * rng.normal(size=x.shape)).astype(x.dtype)
    return jax.tree.map(lambda x: jax.device_put(numbers(x)), tree)


def drawn(cell, inputs, dtype=None, seed=0, scale=0.5):
    """Random nonzero parameters of a cell, for one step of inputs, `[batch, depth]`.

    They have the structure, shapes and dtypes of what `cell.init` returns.
    """
    init = lambda: cell.init(jax.random.key(0), inputs, dtype)
    return drawn_like(jax.eval_shape(init), seed, scale)


def bound(cell, depth=3, dtype="float64", seed=0, scale=1.0):
    """A cell bound to random parameters, for inputs `[batch, depth]`."""
    step = jax.ShapeDtypeStruct((1, depth), jnp.dtype(dtype))
    return cell.bind(drawn(cell, step, step.dtype, seed, scale))


def outputs_of(cells, x, **options):
    """Outputs `[batch, time, ...]` of a cell, or of layers `(cells_fw, cells_bw)`."""
    if isinstance(cells, tuple):
        run = jaxrnn.stack_bidirectional_dynamic_rnn
        return run(*cells, x, dtype=x.dtype, **options)[0]
    return jaxrnn.dynamic_rnn(cells, x, dtype=x.dtype, **options)[0]


def with_prefix(prefix, arrays):
    """The arrays whose names start with `prefix`, with the prefix removed."""
    return {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}


def normalized(params, inputs, state, key=None):
    """A step that is not finite for zero inputs."""
    direction = inputs / jnp.linalg.norm(inputs, axis=-1, keepdims=True)
    state = jnp.tanh(direction @ params["w"] + state)
    return state, state


def eqns(jaxpr):
    """All equations of a jaxpr in order, those of inner jaxprs after their own."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from eqns(inner)


def step_loss(
    strategy, time, units=256, rows=8, cell=None, time_major=True, implementation=None
):
    """`(loss, params, x)`: the sum of the last state, and the types of its arguments.

    `loss(params, x)` runs a cell over `x`, which is `[time, rows, units]`, or without
    `time_major` `[rows, time, units]`.
    """
    cell = cell or jaxrnn.LSTMCell(units, dtype=jnp.float32)
    axes = (time, rows) if time_major else (rows, time)
    x = jax.ShapeDtypeStruct((*axes, units), jnp.float32)
    step = jax.ShapeDtypeStruct((rows, units), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(lambda key: cell.init(key, step), key)

    def loss(params, x):
        _, state = jaxrnn.dynamic_rnn(
            cell.bind(params),
            x,
            dtype=jnp.float32,
            time_major=time_major,
            swap_memory=strategy,
            implementation=implementation,
        )
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(state))

    return loss, params, x


def plan_of(cell, shape, strategies, **options):
    """The `memory_plan` of a cell, for inputs of the shape `[time, batch, depth]`.

    No array is made: parameters and inputs are types.
    """
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    step = jax.ShapeDtypeStruct(shape[1:], jnp.float32)
    params = jax.eval_shape(cell.init, jax.random.key(0), step)
    options = {"dtype": x.dtype, "time_major": True, "strategies": strategies} | options
    return jaxrnn.memory_plan(cell.bind(params), x, **options)


def temporary_mib(strategy, time, **kwargs):
    """A float: the temporary memory of the compiled gradient of `step_loss`, in MiB."""
    loss, *types = step_loss(strategy, time, **kwargs)
    compiled = jax.jit(jax.grad(loss)).lower(*types).compile()
    return compiled.memory_analysis().temp_size_in_bytes / MIB


def lstm_ref(x, h, c, packed, lengths, sizes):
    """JAX's reference of cuDNN's LSTM: outputs and last states `(y, h, c)`.

    `x` and `y` are `[batch, time, features]`, with the features of both directions in
    `y`; `h` and `c` are `[layers * directions, batch, hidden]`.
    `sizes` are `input_size`, `hidden_size`, `num_layers` and `bidirectional`.
    """
    with usual_promotion():
        weights = rnn.unpack_lstm_weights(packed, **sizes)
        return rnn.lstm_ref(x, h, c, *weights, lengths, dropout=0.0, **sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class Around(jaxrnn.RNNCell):
    """A wrapper that runs the loop of its cell under a name of its own."""

    cell: jaxrnn.RNNCell
    state_size = property(lambda self: self.cell.state_size)
    output_size = property(lambda self: self.cell.output_size)

    def init(self, key, inputs, dtype=None):
        return self.cell.init(key, inputs, dtype)

    def apply(self, params, inputs, state, key=None):
        return self.cell.apply(params, inputs, state, key)

    def choose_loop(self, params, run):
        choice = self.cell.choose_loop(params, run.replace(implementation=None))
        return jaxrnn.extend.Choice("own", choice.loop) if choice.loop else choice


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Zoneout:
    """A user's cell that has all attributes of the bound cell of which it keeps half.

    Its steps are not those of that cell, and it begins with ones.
    """

    params: dict
    cell: jaxrnn.RNNCell = dataclasses.field(metadata={"static": True})
    key: str = dataclasses.field(default="any", metadata={"static": True})

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.cell.bind(self.params), name)

    def zero_state(self, batch_size, dtype):
        return self.get_initial_state(None, batch_size, dtype)

    def get_initial_state(self, inputs, batch_size, dtype):
        return jnp.ones((batch_size, self.output_size), dtype)

    def __call__(self, inputs, state):
        state = (state + self.cell.apply(self.params, inputs, state)[1]) / 2
        return state, state


class StepByStep:
    """A bound cell that has only the RNNCell protocol, so that it runs step by step."""

    def __init__(self, bound):
        self.bound = bound
        self.start = bound.start
        self.zero_state = bound.zero_state
        self.state_size = bound.state_size
        self.output_size = bound.output_size
        self.rows_interact = bound.rows_interact

    def __call__(self, inputs, state):
        return self.bound(inputs, state)

    def at_step(self, t):
        return StepByStep(self.bound.at_step(t))


def gradient(loss):
    """The gradient with respect to all arguments."""
    return lambda *given: jax.grad(loss, tuple(range(len(given))))(*given)


def of_two(fn):
    """A function with results `[2, ...]`: of its arguments, and of their double."""
    twice = lambda x: jnp.stack([x, 2 * x])
    return lambda *given: jax.vmap(fn)(*jax.tree.map(twice, given))


# The modes of differentiation of a scalar loss, as functions of its arguments.
MODES = {
    "backward": gradient,
    "vmap": lambda loss: of_two(gradient(loss)),
    "checkpoint": lambda loss: gradient(jax.checkpoint(loss)),
    "forward": lambda loss: lambda *given: jax.jvp(loss, given, given),
    "forward of backward": lambda loss: MODES["forward"](gradient(loss)),
    "backward of backward": lambda loss: gradient(
        lambda *given: weighted_sum(gradient(loss)(*given))
    ),
}


def stacked(tree, *scales):
    """The tree with arrays `[len(scales), ...]`: its arrays times each number."""
    times = lambda leaf, scale: leaf * jnp.asarray(scale, leaf.dtype)
    return jax.tree.map(lambda x: jnp.stack([times(x, s) for s in scales]), tree)


def gradient_of_tangent(loss):
    """The gradient of the derivative of a scalar loss along its argument."""
    return jax.grad(lambda x: jax.jvp(loss, (x,), (x,))[1])


def in_raw_rnn(cell, x, state, lengths, **options):
    """The outputs `[time, batch, ...]` and the last state of `raw_rnn`.

    `x` is `[time, batch, ...]`, and `lengths` is `[batch]`.
    """

    def loop_fn(time, output, cell_state, _):
        inputs = x[jnp.minimum(time, len(x) - 1)]
        next_state = state if output is None else cell_state
        return time >= lengths, inputs, next_state, output, None

    emit_ta, last, _ = jaxrnn.raw_rnn(cell, loop_fn, max_time=len(x), **options)
    return emit_ta.stack(), last


def squared(run, *given):
    """The results of `run(*given)`, and the gradients of the sum of their squares."""
    total = lambda tree: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))
    return differentiated(run, *given, total=total)


def skip_before_opset_27():
    """Skips a test of ONNX's operators with a past state."""
    pytest.importorskip("onnx", "1.22")
    pytest.importorskip("onnxruntime", "1.32")
