"""The laws: each is one function of a `Setup`; `LAWS` is the list of them."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe, noting
from .._base.trees import map_sizes
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .._cells.base import RNNCell
from .._drivers.bidirectional import bidirectional_dynamic_rnn
from ..memory import Recompute
from ._oracle import (
    TIME,
    Setup,
    close,
    differentiated,
    dynamic,
    equal,
    raw,
    require,
    reversed_rows,
    same_types,
    static,
    unrolled,
    weighted_sum,
)


def make_setup(
    cell: RNNCell,
    inputs: Shaped | PyTree,
    dtype: DType = jnp.float32,
    key: Key | None = None,
    state: PyTree = None,
) -> Setup:
    """Random data for `cell`.

    Args:
        cell: The cell under test.
        inputs: One step of inputs, `[batch, ...]` or a nest, arrays or
            `jax.ShapeDtypeStruct`; floating leaves take the dtype `dtype`, integers are
            drawn from 0 and 1. The batch should be at least 4.
        dtype: The dtype of parameters, inputs and state.
        key: The random key of the run, for cells that draw random numbers.
        state: The initial state; None for a random one of the structure of
            `state_size`.
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...], like: DType) -> Array:
        if jnp.issubdtype(like, jnp.integer):
            return jnp.asarray(rng.integers(0, 2, shape), like)
        return jnp.asarray(rng.normal(size=shape) * 0.7, dtype)

    batch = jax.tree.leaves(inputs)[0].shape[0]
    step = jax.tree.map(lambda x: draw(x.shape, x.dtype), inputs)
    params = cell.init(jax.random.key(0), step, dtype)
    return Setup(
        cell=cell,
        params=jax.tree.map(lambda p: draw(p.shape, p.dtype), params),
        xs=jax.tree.map(lambda x: draw((batch, TIME, *x.shape[1:]), x.dtype), inputs),
        lengths=jnp.asarray([(3 * b) % (TIME + 2) for b in range(batch)], jnp.int32),
        state=map_sizes(lambda s: draw((batch, *s), dtype), cell.state_size)
        if state is None
        else state,
        dtype=dtype,
        key=key,
    )


def check_cell(
    cell: RNNCell,
    inputs: Shaped | PyTree,
    dtype: DType = jnp.float32,
    key: Key | None = None,
    state: PyTree = None,
) -> None:
    """Hold a cell to every law of `LAWS`.

    Args:
        cell: The cell under test.
        inputs: One step of inputs, `[batch, ...]` or a nest, arrays or
            `jax.ShapeDtypeStruct`; a batch of at least 4.
        dtype: The dtype to run in.
        key: A random key, for cells that draw random numbers.
        state: The initial state; None for a random one of the structure of
            `state_size`.

    It takes ten to thirty seconds, most of them compilation.

    Raises:
        AssertionError: If a law is broken; the message names it and what it asks.
        TypeError: If `cell` is not a cell without parameters.
        ValueError: If the batch has less than 4 rows, too few to tell rows apart.
    """
    if not isinstance(cell, RNNCell):
        raise TypeError(
            f"check_cell: `cell` must be an RNNCell, got {describe(cell)}. Give it "
            "unbound: parameters are made by its `init`."
        )
    batches = [leaf.shape[0] for leaf in jax.tree.leaves(inputs) if leaf.shape]
    if min(batches, default=0) < 4:
        raise ValueError(
            "check_cell: `inputs` must be arrays [batch, ...] or their shapes, with a "
            f"batch of at least 4, got {batches}."
        )
    with noting("check_cell: raised while parameters and data were made."):
        setup = make_setup(cell, inputs, dtype, key, state)
    for law in LAWS:
        try:
            law(setup)
        except Exception as error:
            asks = (law.__doc__ or "").splitlines()[0]
            raise AssertionError(
                f"{cell!r} breaks `{law.__name__}`. {asks}\n{error}"
            ) from error


def is_a_value(setup: Setup) -> None:
    """The cell is hashable and equal to its copy, so that equal cells compile once."""
    twin = copy.copy(setup.cell)
    require(setup.cell == twin, "a copy is not equal")
    require(hash(setup.cell) == hash(twin), "a copy has another hash")


def inits_from_shapes(setup: Setup) -> None:
    """`init` reads shapes and dtypes alone, and makes parameters of the dtype."""
    step = jax.tree.map(lambda x: x[:, 0], setup.xs)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), step)
    params = setup.cell.init(jax.random.key(1), step, setup.dtype)
    equal(params, setup.cell.init(jax.random.key(1), shapes, setup.dtype))
    for leaf in jax.tree.leaves(params):
        require(leaf.dtype == setup.dtype, f"a parameter is {leaf.dtype}")


def has_its_sizes(setup: Setup) -> None:
    """The zero state and one step are as `state_size` and `output_size` say."""
    batch = setup.lengths.shape[0]

    def shapes(size: Any) -> PyTree:
        make = lambda shape: jax.ShapeDtypeStruct((batch, *shape), setup.dtype)
        return map_sizes(make, size)

    zeros = setup.cell.zero_state(batch, setup.dtype)
    same_types(zeros, shapes(setup.cell.state_size), "the zero state")
    require(not any(jnp.any(x) for x in jax.tree.leaves(zeros)), "it is not zero")
    step = jax.tree.map(lambda x: x[:, 0], setup.xs)
    result = jax.eval_shape(setup.bind(), step, setup.state)
    require(
        isinstance(result, tuple) and len(result) == 2,
        f"a step must return (output, new_state), got {describe(result)}",
    )
    output, state = result
    same_types(output, shapes(setup.cell.output_size), "the output")
    same_types(state, setup.state, "the new state")


def runs_as_a_loop(setup: Setup) -> None:
    """`dynamic_rnn` gives what a Python loop gives: outputs, state and gradients."""
    want = differentiated(setup, unrolled, setup.lengths)
    close(setup.differentiated, want, setup.dtype)
    want = differentiated(setup, unrolled, None)
    close(differentiated(setup, dynamic, None), want, setup.dtype)


def runs_backwards_as_a_loop(setup: Setup) -> None:
    """`bidirectional_dynamic_rnn` gives what two Python loops give."""
    n = jnp.clip(setup.lengths, 0, TIME)
    bound = setup.bind()
    pair, states = bidirectional_dynamic_rnn(
        bound, bound, setup.xs, n, setup.state, setup.state, setup.dtype
    )
    turned = jax.tree.map(lambda x: reversed_rows(x, n), setup.xs)
    want_fw = unrolled(setup, setup.params, setup.xs, setup.state, n)
    out_bw, state_bw = unrolled(setup, setup.params, turned, setup.state, n)
    want_bw = jax.tree.map(lambda x: reversed_rows(x, n), out_bw), state_bw
    close((pair[0], states[0]), want_fw, setup.dtype)
    close((pair[1], states[1]), want_bw, setup.dtype)


def runs_in_little_memory(setup: Setup) -> None:
    """Memory strategies change nothing: outputs, state and gradients."""

    def run(setup: Setup, *args: Any) -> tuple[PyTree, PyTree]:
        return setup.run(*args, swap_memory=Recompute(2))

    got = differentiated(setup, run, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


def runs_step_by_step(setup: Setup) -> None:
    """`static_rnn` gives what `dynamic_rnn` gives: outputs, state and gradients."""
    got = differentiated(setup, static, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


def runs_in_a_loop_of_its_own(setup: Setup) -> None:
    """`raw_rnn` gives what `dynamic_rnn` gives, with NaN in the padding."""
    padded = _with_padding(setup, float("nan"))
    got = differentiated(padded, raw, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


def does_not_see_padding(setup: Setup) -> None:
    """NaN and infinity beyond a row's length change nothing, bit for bit."""

    def run(value: float) -> PyTree:
        padded = _with_padding(setup, value)
        return setup.differentiator(padded.params, padded.xs, padded.state)

    clean = run(0.0)
    finite = all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(clean))
    require(finite, "results are not finite on rows of zeros")
    equal(run(float("nan")), clean)
    equal(run(float("inf")), clean)


def _with_padding(setup: Setup, value: float) -> Setup:
    """The same, with `value` in the inputs beyond each row's length."""
    t = np.arange(TIME)[None, :]
    dead = t >= np.asarray(setup.lengths)[:, None]

    def fill(x: Array) -> Array:
        mask = dead.reshape(dead.shape + (1,) * (x.ndim - 2))
        return jnp.where(mask, jnp.asarray(value).astype(x.dtype), x)

    return dataclasses.replace(setup, xs=jax.tree.map(fill, setup.xs))


def compiles_to_the_same(setup: Setup) -> None:
    """Under jit, rematerialised or time major, results are those of the plain call."""

    def batch_major(xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        return setup.run(setup.params, xs, setup.state, lengths)

    def time_major(xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        xs = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), xs)
        outputs, state = setup.run(
            setup.params,
            xs,
            setup.state,
            lengths,
            time_major=True,
            parallel_iterations=2,
        )
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs), state

    want = batch_major(setup.xs, setup.lengths)
    for variant in (batch_major, jax.checkpoint(batch_major), time_major):
        close(jax.jit(variant)(setup.xs, setup.lengths), want, setup.dtype)


def maps_over_an_axis(setup: Setup) -> None:
    """`vmap` over parameters, inputs and lengths gives the runs one by one."""
    scales = jnp.asarray([1.0, 0.5], setup.dtype)

    def run(scale: Array, xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        params = jax.tree.map(lambda p: p * scale, setup.params)
        return setup.run(params, xs, setup.state, lengths)

    turned = jax.tree.map(lambda x: x[:, ::-1], setup.xs)
    xs = jax.tree.map(lambda *leaves: jnp.stack(leaves), setup.xs, turned)
    lengths = jnp.stack([setup.lengths, setup.lengths[::-1]])
    got = jax.vmap(run)(scales, xs, lengths)
    for i in range(2):
        one = run(scales[i], jax.tree.map(lambda x, i=i: x[i], xs), lengths[i])
        close(jax.tree.map(lambda x, i=i: x[i], got), one, setup.dtype)


def differentiates_twice(setup: Setup) -> None:
    """Forward mode agrees with reverse mode, and both with the loop at second order."""
    tangent = jax.tree.map(jnp.cos, setup.params)

    def loss(run: Callable, params: Params) -> Array:
        outputs, state = run(setup, params, setup.xs, setup.state, setup.lengths)
        return weighted_sum((outputs, state))

    def directional(run: Callable) -> Callable[[Params], Array]:
        return jax.jit(lambda p: jax.jvp(lambda q: loss(run, q), (p,), (tangent,))[1])

    slope = directional(dynamic)(setup.params)
    _, gradients = setup.differentiated  # By the parameters first.
    pairs = zip(gradients, jax.tree.leaves(tangent), strict=False)
    terms = (jnp.sum(g * t) for g, t in pairs)
    close(slope, sum(terms, jnp.zeros((), setup.dtype)), setup.dtype)
    got, want = (
        jax.jit(jax.grad(directional(run)))(setup.params) for run in (dynamic, unrolled)
    )
    close(got, want, setup.dtype)


def keeps_rows_apart(setup: Setup) -> None:
    """A row's results depend on that row alone, wherever it stands (without noise)."""
    quiet = dataclasses.replace(setup, key=None)
    order = jnp.arange(setup.lengths.shape[0])[::-1]
    rows = lambda tree: jax.tree.map(lambda x: x[order] if x.ndim else x, tree)
    want = quiet.run(setup.params, setup.xs, setup.state, setup.lengths)
    turned = rows(setup.xs), rows(setup.state), setup.lengths[order]
    close(quiet.run(setup.params, *turned), rows(want), setup.dtype)
    # The longest row stays; all others get another row's inputs.
    kept = int(jnp.argmax(setup.lengths))
    others = jax.tree.map(
        lambda x: jnp.roll(x, 1, axis=0).at[kept].set(x[kept]), setup.xs
    )
    got = quiet.run(setup.params, others, setup.state, setup.lengths)
    row = lambda tree: jax.tree.map(lambda x: x[kept] if x.ndim else x, tree)
    close(row(got), row(want), setup.dtype)


def resumes(setup: Setup) -> None:
    """A sequence in two parts, the state carried on, is the whole (without noise)."""
    quiet, cut, state = dataclasses.replace(setup, key=None), 2, setup.state
    parts = []
    for start, stop in ((0, cut), (cut, TIME)):
        xs = jax.tree.map(lambda x, a=start, b=stop: x[:, a:b], setup.xs)
        out, state = quiet.run(setup.params, xs, state, setup.lengths - start)
        parts.append(out)
    want, want_state = quiet.run(setup.params, setup.xs, setup.state, setup.lengths)
    outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), *parts)
    close(outputs, want, setup.dtype)
    # Leaves without axes count steps: a run of dead rows alone still takes one.
    rows = lambda tree: [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim]
    close(rows(state), rows(want_state), setup.dtype)


LAWS: tuple[Callable[[Setup], None], ...] = (
    is_a_value,
    inits_from_shapes,
    has_its_sizes,
    keeps_rows_apart,
    runs_as_a_loop,
    runs_backwards_as_a_loop,
    runs_in_little_memory,
    runs_step_by_step,
    runs_in_a_loop_of_its_own,
    does_not_see_padding,
    compiles_to_the_same,
    maps_over_an_axis,
    differentiates_twice,
    resumes,
)
