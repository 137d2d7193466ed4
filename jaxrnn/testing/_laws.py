"""The laws that `LAWS` lists, each a function of a `Setup`."""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import describe
from .._base.read_only import has_read_only
from .._base.trees import map_sizes
from .._base.typing import Array, Params, PyTree
from .._drivers.bidirectional import bidirectional_dynamic_rnn
from .._loops import masking
from ..memory import Recompute
from . import _oracle as oracle
from ._oracle import TIME, Setup, close, require


def is_a_value(setup: Setup) -> None:
    """The cell is hashable and equals its copy, so equal cells are compiled once."""
    twin = copy.copy(setup.cell)
    require(setup.cell == twin, "a copy is not equal")
    require(hash(setup.cell) == hash(twin), "a copy has a different hash")


def inits_from_shapes(setup: Setup) -> None:
    """`init` reads only shapes and dtypes and creates parameters of the given dtype."""
    step = jax.tree.map(lambda x: x[:, 0], setup.xs)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), step)
    params = setup.cell.init(jax.random.key(1), step, setup.dtype)
    oracle.equal(params, setup.cell.init(jax.random.key(1), shapes, setup.dtype))
    for leaf in jax.tree.leaves(params):
        require(leaf.dtype == setup.dtype, f"a parameter has dtype {leaf.dtype}")


def has_its_sizes(setup: Setup) -> None:
    """The zero state and one step agree with `state_size` and `output_size`."""
    batch = setup.lengths.shape[0]

    def shapes(size: Any) -> PyTree:
        make = lambda shape: jax.ShapeDtypeStruct((batch, *shape), setup.dtype)
        return map_sizes(make, size)

    if not has_read_only(setup.state):  # A cell with a memory has no zero state.
        zeros = setup.cell.zero_state(batch, setup.dtype)
        oracle.same_types(zeros, shapes(setup.cell.state_size), "the zero state")
        require(
            not any(jnp.any(x) for x in jax.tree.leaves(zeros)),
            "the zero state is not zero",
        )
    step = jax.tree.map(lambda x: x[:, 0], setup.xs)
    result = jax.eval_shape(setup.bind(), step, setup.state)
    is_pair = isinstance(result, tuple) and len(result) == 2
    require(is_pair, f"a step must return (output, state), got {describe(result)}")
    output, state = result
    oracle.same_types(output, shapes(setup.cell.output_size), "the output")
    oracle.same_types(state, setup.state, "the new state")


def runs_as_a_loop(setup: Setup) -> None:
    """`dynamic_rnn` equals a Python loop in outputs, state and gradients."""
    loop, args = setup.loop_differentiator, (setup.params, setup.xs, setup.state)
    close(setup.differentiated, loop(*args, setup.lengths), setup.dtype)
    want = loop(*args, jnp.full_like(setup.lengths, TIME))
    close(oracle.differentiated(setup, Setup.run, None), want, setup.dtype)


def runs_a_subclass(setup: Setup) -> None:
    """A subclass that overrides only `apply` is run with its own `apply`."""
    kind, double = type(setup.cell), lambda y: y + y

    def apply(self: Any, *args: Any, **kwargs: Any) -> tuple[PyTree, PyTree]:
        output, state = setup.cell.apply(*args, **kwargs)
        return jax.tree.map(double, output), state

    custom = object.__new__(type(kind.__name__, (kind,), {"apply": apply}))
    vars(custom).update(vars(setup.cell))
    args = setup.params, setup.xs, setup.state, setup.lengths
    outputs, state = setup.run(*args)
    got = dataclasses.replace(setup, cell=custom).run(*args)
    close(got, (jax.tree.map(double, outputs), state), setup.dtype)


def runs_backwards_as_a_loop(setup: Setup) -> None:
    """`bidirectional_dynamic_rnn` equals two Python loops."""
    n = jnp.clip(setup.lengths, 0, TIME)
    bound = setup.bind()
    args = setup.xs, n, setup.state, setup.state, setup.dtype
    pair, states = bidirectional_dynamic_rnn(bound, bound, *args)
    flipped = jax.tree.map(lambda x: oracle.reversed_rows(x, n), setup.xs)
    given, counts = (setup, setup.params), np.asarray(n)
    want_fw = oracle.unrolled(*given, setup.xs, setup.state, counts)
    out_bw, state_bw = oracle.unrolled(*given, flipped, setup.state, counts)
    want_bw = jax.tree.map(lambda x: oracle.reversed_rows(x, n), out_bw), state_bw
    close((pair[0], states[0]), want_fw, setup.dtype)
    close((pair[1], states[1]), want_bw, setup.dtype)


def starts_again_at_resets(setup: Setup) -> None:
    """With `resets`, `dynamic_rnn` equals a loop that resets the state of rows."""
    rows, ts = np.arange(setup.lengths.shape[0]), np.arange(TIME)
    resets = (rows[:, None] + ts) % 3 == 0  # Some rows reset at the first step.

    def differentiated(run: Callable) -> tuple[PyTree, list[Array]]:
        def with_resets(setup: Setup, params: Params, xs: PyTree, *args: Any) -> Any:
            state, lengths = args  # Rows restart from another row's state.
            other = jax.tree.map(lambda x: jnp.roll(x, 1, 0) if x.ndim else x, state)
            options = {"resets": resets, "reset_state": other}
            return run(setup, params, xs, state, lengths, **options)

        return oracle.differentiated(setup, with_resets, setup.lengths)

    close(differentiated(Setup.run), differentiated(oracle.unrolled), setup.dtype)


def returns_all_states(setup: Setup) -> None:
    """With `return_states`, `dynamic_rnn` returns the state after each step of a loop.

    Cells with state leaves that have no batch axis are skipped, because `return_states`
    rejects such cells.
    """
    if not _is_of_rows(setup):
        return
    run = functools.partial(Setup.run, return_states=True)
    got = oracle.differentiated(setup, run, setup.lengths)
    want = oracle.differentiated(setup, oracle.unrolled_states, setup.lengths)
    close(got, want, setup.dtype)


def leaves_out_gaps(setup: Setup) -> None:
    """With a `mask`, `dynamic_rnn` equals a loop that keeps the state in gaps.

    Inputs in gaps are NaN. The runs have no key, because `dynamic_rnn` skips gaps
    when it numbers the keys of steps.
    """
    if not _is_of_rows(setup):
        return
    keyless = dataclasses.replace(setup, key=None)
    rows, ts = np.arange(setup.lengths.shape[0])[:, None], np.arange(TIME)
    bits = np.resize([5, 6, 7, 2, 0, 1, 3, 4], rows.shape)
    mask = bits >> ts & 1 == 1  # Row 0 has a gap at the middle step.
    resets = mask & (ts == (rows + 1) % 3)
    other = jax.tree.map(lambda x: jnp.roll(x, 1, 0), setup.state)
    options = {"mask": mask, "resets": resets, "reset_state": other}

    def fill(x: Array) -> Array:
        keep = mask.reshape(mask.shape + (1,) * (x.ndim - 2))
        return jnp.where(keep, x, jnp.asarray(jnp.nan).astype(x.dtype))

    padded = dataclasses.replace(keyless, xs=jax.tree.map(fill, setup.xs))
    run = functools.partial(Setup.run, return_states=True, **options)
    loop = functools.partial(oracle.unrolled_states, **options)
    got = oracle.differentiated(padded, run, None)
    close(got, oracle.differentiated(padded, loop, None), setup.dtype)


def _is_of_rows(setup: Setup) -> bool:
    return masking.is_of_rows(setup.state) and not has_read_only(setup.state)


def runs_in_little_memory(setup: Setup) -> None:
    """Recomputation does not change outputs, state or gradients."""
    run = functools.partial(Setup.run, swap_memory=Recompute(2))
    got = oracle.differentiated(setup, run, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


def runs_unrolled(setup: Setup) -> None:
    """Unrolled `static_rnn` equals `dynamic_rnn` in outputs, state and gradients."""
    got = oracle.differentiated(setup, oracle.static, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


def runs_in_raw_rnn(setup: Setup) -> None:
    """`raw_rnn` equals `dynamic_rnn`, with NaN in the padding."""
    padded = _with_padding(setup, float("nan"))
    got = oracle.differentiated(padded, oracle.raw, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


def ignores_padding(setup: Setup) -> None:
    """NaN and infinity in the padding do not affect any result."""

    def run(value: float) -> PyTree:
        padded = _with_padding(setup, value)
        return setup.differentiator(padded.params, padded.xs, padded.state)

    clean = run(0.0)
    finite = all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(clean))
    require(finite, "results are not finite on rows of zeros")
    oracle.equal(run(float("nan")), clean)
    oracle.equal(run(float("inf")), clean)


def _with_padding(setup: Setup, value: float) -> Setup:
    """The setup with `value` in the padding of the inputs."""
    t = np.arange(TIME)[None, :]
    dead = t >= np.asarray(setup.lengths)[:, None]

    def fill(x: Array) -> Array:
        mask = dead.reshape(dead.shape + (1,) * (x.ndim - 2))
        return jnp.where(mask, jnp.asarray(value).astype(x.dtype), x)

    return dataclasses.replace(setup, xs=jax.tree.map(fill, setup.xs))


def compiles_to_the_same(setup: Setup) -> None:
    """Jit, `jax.checkpoint` and time-major arrays do not change the results."""

    def batch_major(xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        return setup.run(setup.params, xs, setup.state, lengths)

    def time_major(xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        xs = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), xs)
        args = setup.params, xs, setup.state, lengths
        outputs, state = setup.run(*args, time_major=True, parallel_iterations=2)
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs), state

    want = batch_major(setup.xs, setup.lengths)
    for variant in (batch_major, jax.checkpoint(batch_major), time_major):
        close(jax.jit(variant)(setup.xs, setup.lengths), want, setup.dtype)


def maps_over_an_axis(setup: Setup) -> None:
    """`vmap` over parameters, inputs and lengths equals separate runs."""
    scales = jnp.asarray([1.0, 0.5], setup.dtype)

    def run(scale: Array, xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        params = jax.tree.map(lambda p: p * scale, setup.params)
        return setup.run(params, xs, setup.state, lengths)

    flipped = jax.tree.map(lambda x: x[:, ::-1], setup.xs)
    xs = jax.tree.map(lambda *leaves: jnp.stack(leaves), setup.xs, flipped)
    lengths = jnp.stack([setup.lengths, setup.lengths[::-1]])
    got = jax.vmap(run)(scales, xs, lengths)
    for i in range(2):
        one = run(scales[i], jax.tree.map(lambda x, i=i: x[i], xs), lengths[i])
        close(jax.tree.map(lambda x, i=i: x[i], got), one, setup.dtype)


def differentiates_twice(setup: Setup) -> None:
    """Forward mode equals reverse mode, and second derivatives match a loop.

    The loop has two steps, because a third would dominate the compile time.
    """
    tangent = jax.tree.map(jnp.cos, setup.params)

    def directional(run: Callable, xs: PyTree) -> Callable[[Params], Array]:
        def loss(params: Params) -> Array:
            results = run(setup, params, xs, setup.state, setup.lengths)
            return oracle.weighted_sum(results)

        return jax.jit(lambda params: jax.jvp(loss, (params,), (tangent,))[1])

    slope = directional(Setup.run, setup.xs)(setup.params)
    _, gradients = setup.differentiated  # Parameter gradients come first.
    pairs = zip(gradients, jax.tree.leaves(tangent), strict=False)
    terms = (jnp.sum(g * t) for g, t in pairs)
    close(slope, sum(terms, jnp.zeros((), setup.dtype)), setup.dtype)
    start = jax.tree.map(lambda x: x[:, :2], setup.xs)
    second = lambda run: jax.jit(jax.grad(directional(run, start)))(setup.params)
    close(second(Setup.run), second(oracle.unrolled), setup.dtype)


def keeps_rows_apart(setup: Setup) -> None:
    """A row's results depend only on that row (without a key)."""
    keyless = dataclasses.replace(setup, key=None)
    order = jnp.arange(setup.lengths.shape[0])[::-1]
    rows = lambda tree: jax.tree.map(lambda x: x[order] if x.ndim else x, tree)
    want = keyless.run(setup.params, setup.xs, setup.state, setup.lengths)
    flipped = rows(setup.xs), rows(setup.state), setup.lengths[order]
    close(keyless.run(setup.params, *flipped), rows(want), setup.dtype)
    # All rows except the longest get another row's inputs.
    longest = int(jnp.argmax(setup.lengths))
    mixed = lambda x: jnp.roll(x, 1, axis=0).at[longest].set(x[longest])
    others = jax.tree.map(mixed, setup.xs)
    got = keyless.run(setup.params, others, setup.state, setup.lengths)
    row = lambda tree: jax.tree.map(lambda x: x[longest] if x.ndim else x, tree)
    close(row(got), row(want), setup.dtype)


def resumes(setup: Setup) -> None:
    """Running a sequence in two parts equals running it whole (without a key)."""
    keyless, cut, state = dataclasses.replace(setup, key=None), 2, setup.state
    halves = []
    for start, stop in ((0, cut), (cut, TIME)):
        xs = jax.tree.map(lambda x, a=start, b=stop: x[:, a:b], setup.xs)
        out, state = keyless.run(setup.params, xs, state, setup.lengths - start)
        halves.append(out)
    want, want_state = keyless.run(setup.params, setup.xs, setup.state, setup.lengths)
    outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), *halves)
    close(outputs, want, setup.dtype)
    # Leaves without axes are not compared. They may count steps, and every run has at
    # least one step, even if all lengths are 0.
    rows = lambda tree: [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim]
    close(rows(state), rows(want_state), setup.dtype)


LAWS: tuple[Callable[[Setup], None], ...] = (
    is_a_value,
    inits_from_shapes,
    has_its_sizes,
    keeps_rows_apart,
    runs_as_a_loop,
    runs_a_subclass,
    runs_backwards_as_a_loop,
    starts_again_at_resets,
    returns_all_states,
    leaves_out_gaps,
    runs_in_little_memory,
    runs_unrolled,
    runs_in_raw_rnn,
    ignores_padding,
    compiles_to_the_same,
    maps_over_an_axis,
    differentiates_twice,
    resumes,
)
