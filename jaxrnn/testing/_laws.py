"""The laws, the properties that a cell must have, each checked by one function."""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import check_instance
from .._base.errors import counted, describe, describe_leaves
from .._base.trees import has_read_only, map_sizes, named_leaves
from .._base.typing import Array, Params, PyTree
from .._cells.base import RNNCell
from .._drivers.bidirectional import bidirectional_dynamic_rnn
from .._loops import masking
from ..memory import Recompute
from . import _oracle as oracle
from ._oracle import TIME, Setup, close, require

_LAWS: list[Callable[[Setup], None]] = []


def _law(check: Callable[[Setup], None]) -> Callable[[Setup], None]:
    """Adds a function to `LAWS`, with a check of the function's argument."""

    @functools.wraps(check)
    def law(setup: Setup) -> None:
        fix = "Create a setup with `testing.make_setup(cell, inputs)`."
        check_instance("setup", setup, Setup, "a Setup", fix)
        check(setup)

    _LAWS.append(law)
    return law


@_law
def is_a_value(setup: Setup) -> None:
    """The cell is hashable and equals its copy, so equal cells are compiled once."""
    twin = copy.copy(setup.cell)
    fix = "Keep the `__eq__` and `__hash__` of `RNNCell`."
    is_equal = setup.cell == twin
    require(is_equal, f"the cell must equal its copy, got cells that differ. {fix}")
    hashes = hash(setup.cell), hash(twin)
    must = "the cell and its copy must have one hash"
    require(hashes[0] == hashes[1], f"{must}, got {hashes[0]} and {hashes[1]}. {fix}")


@_law
def inits_from_shapes(setup: Setup) -> None:
    """`init` reads only shapes and dtypes and creates parameters of the given dtype."""
    step = oracle.at_steps(setup.xs, 0)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), step)
    params = setup.cell.init(jax.random.key(1), step, setup.dtype)
    oracle.equal(params, setup.cell.init(jax.random.key(1), shapes, setup.dtype))
    for name, leaf in named_leaves("params", params):
        require(
            leaf.dtype == setup.dtype,
            f"`{name}` must have dtype {setup.dtype}, got {describe(leaf)}",
        )


@_law
def has_its_sizes(setup: Setup) -> None:
    """The zero state and one step agree with `state_size` and `output_size`."""
    batch = setup.lengths.shape[0]

    def of_rows(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *shape), setup.dtype)

    # If a state has read-only parts, such as the memory of attention, the cell has no
    # zero state.
    if not has_read_only(setup.state):
        zeros = setup.cell.zero_state(batch, setup.dtype)
        sizes = map_sizes(of_rows, setup.cell.state_size)
        oracle.same_types(zeros, sizes, "the zero state")
        for name, leaf in named_leaves("cell.zero_state(...)", zeros):
            count = int(jnp.count_nonzero(leaf))
            entries = counted(count, "nonzero entry", "nonzero entries")
            require(count == 0, f"`{name}` must be zeros, got {entries}")
    step = oracle.at_steps(setup.xs, 0)
    result = jax.eval_shape(setup.bind(), step, setup.state)
    is_pair = isinstance(result, tuple) and len(result) == 2
    require(
        is_pair, f"a step must return (output, state), got {describe_leaves(result)}"
    )
    output, state = result
    sizes = map_sizes(of_rows, setup.cell.output_size)
    oracle.same_types(output, sizes, "the output")
    oracle.same_types(state, setup.state, "the new state")


@_law
def keeps_rows_apart(setup: Setup) -> None:
    """A row's results depend only on that row, or `rows_interact` is True."""
    if setup.cell.rows_interact:
        return
    keyless = dataclasses.replace(setup, key=None)
    order = jnp.arange(setup.lengths.shape[0])[::-1]
    want = _run(keyless)
    flipped = dataclasses.replace(
        keyless,
        xs=_of_rows(setup.xs, order),
        state=_of_rows(setup.state, order),
        lengths=setup.lengths[order],
    )
    close(_run(flipped), _of_rows(want, order), setup.dtype)
    # Give some rows the inputs of other rows. The longest row keeps its inputs, so its
    # results must not change.
    longest = int(jnp.argmax(setup.lengths))
    others = jnp.roll(order, 1).at[longest].set(longest)
    got = _run(dataclasses.replace(keyless, xs=_of_rows(setup.xs, others)))
    close(_of_rows(got, longest), _of_rows(want, longest), setup.dtype)


@_law
def runs_as_a_loop(setup: Setup) -> None:
    """`dynamic_rnn` equals a Python loop in outputs, state and gradients."""
    compiled = oracle.differentiator(setup, oracle.unrolled)
    loop = functools.partial(compiled, setup.params, setup.xs, setup.state)
    close(setup.differentiated, loop(setup.lengths), setup.dtype)
    want = loop(jnp.full_like(setup.lengths, TIME))
    close(oracle.differentiated(setup, Setup.run, None), want, setup.dtype)


@_law
def runs_a_subclass(setup: Setup) -> None:
    """A subclass that overrides only `apply` is run with its own `apply`."""

    def apply(self: RNNCell, *args: Any, **kwargs: Any) -> tuple[PyTree, PyTree]:
        output, state = setup.cell.apply(*args, **kwargs)
        return jax.tree.map(lambda y: y + y, output), state

    kind = type(setup.cell)
    # The name shows in the log, which reports that this class runs step by step.
    name = f"SubclassOf{kind.__name__}"
    custom = object.__new__(type(name, (kind,), {"apply": apply}))
    vars(custom).update(vars(setup.cell))
    outputs, state = _run(setup)
    want = (jax.tree.map(lambda y: y + y, outputs), state)
    close(_run(dataclasses.replace(setup, cell=custom)), want, setup.dtype)


def _run(setup: Setup) -> tuple[PyTree, PyTree]:
    return setup.run(setup.params, setup.xs, setup.state, setup.lengths)


@_law
def runs_backwards_as_a_loop(setup: Setup) -> None:
    """`bidirectional_dynamic_rnn` equals two Python loops."""
    lengths = jnp.clip(setup.lengths, 0, TIME)
    bound = setup.bind()
    state = setup.state
    (outputs_fw, outputs_bw), (state_fw, state_bw) = bidirectional_dynamic_rnn(
        bound, bound, setup.xs, lengths, state, state, setup.dtype
    )

    def flipped(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: oracle.reversed_rows(x, lengths), tree)

    loop = functools.partial(
        oracle.unrolled, setup, setup.params, state=state, lengths=np.asarray(lengths)
    )
    close((outputs_fw, state_fw), loop(xs=setup.xs), setup.dtype)
    want, want_state = loop(xs=flipped(setup.xs))
    close((outputs_bw, state_bw), (flipped(want), want_state), setup.dtype)


@_law
def starts_again_at_resets(setup: Setup) -> None:
    """With `resets`, `dynamic_rnn` equals a loop that resets the state of rows."""
    rows = np.arange(setup.lengths.shape[0])[:, None]
    resets = np.arange(TIME) == rows % 3
    # Shift the lengths, so that row 0, which resets at its first step, is not empty.
    lengths = jnp.roll(setup.lengths, -1)

    def differentiated(run: Callable) -> tuple[PyTree, list[Array]]:
        def with_resets(
            setup: Setup, params: Params, xs: PyTree, state: PyTree, lengths: Array
        ) -> tuple[PyTree, PyTree]:
            other = _of_rows(state, jnp.roll(rows[:, 0], 1))
            return run(
                setup, params, xs, state, lengths, resets=resets, reset_state=other
            )

        return oracle.differentiated(setup, with_resets, lengths)

    close(differentiated(Setup.run), differentiated(oracle.unrolled), setup.dtype)


@_law
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


@_law
def leaves_out_gaps(setup: Setup) -> None:
    """With a `mask`, `dynamic_rnn` equals a loop that keeps the state in gaps.

    Inputs in gaps are NaN. The runs have no key, because `dynamic_rnn` skips gaps
    when it numbers the keys of steps.
    """
    if not _is_of_rows(setup):
        return
    keyless = dataclasses.replace(setup, key=None)
    rows = np.arange(setup.lengths.shape[0])[:, None]
    ts = np.arange(TIME)
    bits = np.resize([5, 6, 7, 2, 0, 1, 3, 4], rows.shape)
    mask = bits >> ts & 1 == 1  # Row 0 has a gap at the middle step.
    options = {
        "mask": mask,
        "resets": mask & (ts == (rows + 1) % 3),
        "reset_state": jax.tree.map(lambda x: jnp.roll(x, 1, 0), setup.state),
    }
    padded = _filled(keyless, ~mask, jnp.nan)
    run = functools.partial(Setup.run, return_states=True, **options)
    loop = functools.partial(oracle.unrolled_states, **options)
    got = oracle.differentiated(padded, run, None)
    close(got, oracle.differentiated(padded, loop, None), setup.dtype)


def _is_of_rows(setup: Setup) -> bool:
    return masking.is_of_rows(setup.state) and not has_read_only(setup.state)


@_law
def runs_in_little_memory(setup: Setup) -> None:
    """Recomputation does not change outputs, state or gradients."""
    run = functools.partial(Setup.run, swap_memory=Recompute(2))
    got = oracle.differentiated(setup, run, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


@_law
def runs_unrolled(setup: Setup) -> None:
    """Unrolled `static_rnn` equals `dynamic_rnn` in outputs, state and gradients."""
    got = oracle.differentiated(setup, oracle.static, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


@_law
def runs_in_raw_rnn(setup: Setup) -> None:
    """`raw_rnn` equals `dynamic_rnn`, with NaN in the padding."""
    padded = _with_padding(setup, float("nan"))
    got = oracle.differentiated(padded, oracle.raw, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


@_law
def ignores_padding(setup: Setup) -> None:
    """NaN and infinity in the padding do not affect any result."""

    def run(value: float) -> PyTree:
        padded = _with_padding(setup, value)
        return setup.differentiator(setup.params, padded.xs, setup.state, setup.lengths)

    results, gradients = clean = run(0.0)
    named = [*named_leaves("(outputs, state)", results)]
    named += named_leaves("gradients", gradients)
    for name, leaf in named:
        count = int(jnp.count_nonzero(~jnp.isfinite(leaf)))
        entries = counted(count, "NaN or infinity", "NaNs or infinities")
        must = "be finite if the padding is zeros"
        fix = "Check the step for divisions, roots and logarithms of 0."
        require(count == 0, f"`{name}` must {must}, got {entries}. {fix}")
    oracle.equal(run(float("nan")), clean)
    oracle.equal(run(float("inf")), clean)


def _with_padding(setup: Setup, value: float) -> Setup:
    """The setup with `value` in the padding of the inputs."""
    padding = np.arange(TIME)[None, :] >= np.asarray(setup.lengths)[:, None]
    return _filled(setup, padding, value)


def _filled(setup: Setup, where: np.ndarray, value: float) -> Setup:
    """The setup with `value` in the steps of the inputs where `where` is True."""

    def fill(x: Array) -> Array:
        mask = where.reshape(where.shape + (1,) * (x.ndim - 2))
        return jnp.where(mask, jnp.asarray(value).astype(x.dtype), x)

    return dataclasses.replace(setup, xs=jax.tree.map(fill, setup.xs))


@_law
def spreads_nan_only_forward(setup: Setup) -> None:
    """NaN, infinity or overflow in a step reaches only later steps, up to a reset.

    The results are equal to the bit, and so are the gradients in other rows and after a
    reset. Before such a step, gradients may be NaN, because JAX multiplies by 0 there.
    Cells whose rows interact are skipped.
    """
    if setup.cell.rows_interact:
        return
    floats, rebuild = oracle.split_floats(setup.xs)
    rows = np.arange(setup.lengths.shape[0])[:, None]
    bad = (rows > 0) & (np.arange(TIME) == rows % 2)
    resets = np.roll(bad, 1, axis=1)

    def fill(x: Array, scale: float) -> Array:
        where = bad.reshape(bad.shape + (1,) * (x.ndim - 2))
        return jnp.where(where, (jnp.finfo(x.dtype).max * scale).astype(x.dtype), x)

    def spared(where: np.ndarray, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x[where], tree)

    for options in ({}, {"resets": resets, "reset_state": setup.state}):
        after = np.broadcast_to(rows == 0, bad.shape)
        if options:
            after = after | np.logical_or.accumulate(resets, axis=1)
        either = after | ~np.logical_or.accumulate(bad, axis=1)
        run = _differentiated_at(setup, rebuild, after, options)
        outputs, gradients = run(floats)
        for scale in (np.nan, np.inf, -np.inf, 0.9, -0.9):
            got, got_gradients = run([fill(x, scale) for x in floats])
            oracle.equal(spared(either, got), spared(either, outputs))
            oracle.equal(spared(after, got_gradients), spared(after, gradients))


def _differentiated_at(
    setup: Setup,
    rebuild: Callable[[list[Array]], PyTree],
    where: np.ndarray,
    options: dict[str, Any],
) -> Callable[[list[Array]], tuple[PyTree, list[Array]]]:
    """Runs on inputs that `rebuild` makes of floating-point leaves.

    Returns a function that returns all outputs, and the gradients of the outputs at the
    steps `where` with respect to the leaves.
    """

    def loss(floats: list[Array]) -> tuple[Array, PyTree]:
        state = setup.state
        outputs, _ = setup.run(setup.params, rebuild(floats), state, None, **options)
        return oracle.weighted_sum(jax.tree.map(lambda y: y[where], outputs)), outputs

    differentiate = jax.jit(jax.grad(loss, has_aux=True))

    def run(floats: list[Array]) -> tuple[PyTree, list[Array]]:
        gradients, outputs = differentiate(floats)
        return outputs, gradients

    return run


@_law
def compiles_to_the_same(setup: Setup) -> None:
    """Jit, `jax.checkpoint` and time-major arrays do not change the results."""

    def batch_major(xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        return setup.run(setup.params, xs, setup.state, lengths)

    def time_major(xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        outputs, state = setup.run(
            setup.params,
            jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), xs),
            setup.state,
            lengths,
            time_major=True,
            parallel_iterations=2,
        )
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs), state

    want = batch_major(setup.xs, setup.lengths)
    for variant in (batch_major, jax.checkpoint(batch_major), time_major):
        close(jax.jit(variant)(setup.xs, setup.lengths), want, setup.dtype)


@_law
def maps_over_an_axis(setup: Setup) -> None:
    """`vmap` over parameters, inputs and lengths equals separate runs."""
    scales = jnp.asarray([1.0, 0.5], setup.dtype)

    def run(scale: Array, xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        params = jax.tree.map(lambda p: p * scale, setup.params)
        return setup.run(params, xs, setup.state, lengths)

    flipped = oracle.at_steps(setup.xs, slice(None, None, -1))
    xs = jax.tree.map(lambda *leaves: jnp.stack(leaves), setup.xs, flipped)
    lengths = jnp.stack([setup.lengths, setup.lengths[::-1]])
    got = jax.vmap(run)(scales, xs, lengths)
    for i in range(2):
        one = run(scales[i], _of_rows(xs, i), lengths[i])
        close(_of_rows(got, i), one, setup.dtype)


@_law
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
    # The gradients of the parameters come first, and `zip` drops the other gradients.
    _, gradients = setup.differentiated
    pairs = zip(gradients, jax.tree.leaves(tangent), strict=False)
    terms = (jnp.sum((g * t).real) for g, t in pairs)
    close(slope, sum(terms, jnp.zeros((), slope.dtype)), setup.dtype)
    start = oracle.at_steps(setup.xs, slice(2))
    got, want = (
        jax.jit(jax.grad(directional(run, start)))(setup.params)
        for run in (Setup.run, oracle.unrolled)
    )
    close(got, want, setup.dtype)


def _of_rows(tree: PyTree, index: int | Array) -> PyTree:
    """The rows at `index`; leaves without axes remain unchanged."""
    return jax.tree.map(lambda x: x[index] if x.ndim else x, tree)


@_law
def resumes(setup: Setup) -> None:
    """Running a sequence in two parts equals running it whole (without a key)."""
    keyless = dataclasses.replace(setup, key=None)
    state = setup.state
    halves = []
    for start, stop in ((0, 2), (2, TIME)):
        xs = oracle.at_steps(setup.xs, slice(start, stop))
        out, state = keyless.run(setup.params, xs, state, setup.lengths - start)
        halves.append(out)
    want, want_state = _run(keyless)
    outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), *halves)
    close(outputs, want, setup.dtype)
    # Do not compare leaves without axes, which may count steps. Each half runs at least
    # one step, so the halves together may run more steps than the whole run.
    got_leaves, leaves = (
        [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim]
        for tree in (state, want_state)
    )
    close(got_leaves, leaves, setup.dtype)


LAWS: tuple[Callable[[Setup], None], ...] = tuple(_LAWS)
