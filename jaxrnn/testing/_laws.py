"""`check_cell`, and the laws: properties of every cell, such as ignoring padding.

Each law is one function; `LAWS` lists them.
"""

import copy
import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import trees
from .._base.arguments import as_dtype, check_instance, check_rank, check_shape
from .._base.cell_keys import check_key_or_none
from .._base.errors import describe, describe_leaves, error_note, expect, leaf_name
from .._base.inputs import check_shaped, check_structure
from .._base.trees import has_read_only, named_leaves, types_of_size
from .._base.typing import Array, DType, Key, Params, PyTree, Shaped
from .._cells.base import RNNCell, check_rnn_cell
from .._cells.matrix.cell import MatrixMemoryCell
from .._drivers.bidirectional import bidirectional_dynamic_rnn
from .._run import masking
from .._run.memory import Recompute
from . import _oracle as oracle
from ._oracle import TIME, Setup, close, make_setup, require

_log = logging.getLogger("jaxrnn")


def is_a_value(setup: Setup) -> None:
    """The cell is hashable and equals its copy, so equal cells are compiled once."""
    twin = copy.copy(setup.cell)
    fix = "Keep the `__eq__` and `__hash__` of `RNNCell`."
    require(setup.cell == twin, f"the cell must equal its copy. {fix}")
    must = "the cell and its copy must have one hash"
    require(hash(setup.cell) == hash(twin), f"{must}. {fix}")


def inits_from_shapes(setup: Setup) -> None:
    """`init` reads only shapes and dtypes and creates parameters of the given dtype."""
    step = oracle.at_steps(setup.xs, 0)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), step)
    params = setup.cell.init(jax.random.key(1), step, setup.dtype)
    oracle.equal(params, setup.cell.init(jax.random.key(1), shapes, setup.dtype))
    for name, leaf in named_leaves("params", params):
        must = f"have dtype {setup.dtype}, got {describe(leaf)}"
        require(leaf.dtype == setup.dtype, f"`{name}` must {must}")


def has_its_sizes(setup: Setup) -> None:
    """The zero state and one step agree with `state_size` and `output_size`."""
    batch = setup.lengths.shape[0]

    # A cell whose state has read-only parts, such as an attention memory, has no zero
    # state.
    if not has_read_only(setup.state):
        zeros = setup.cell.zero_state(batch, setup.dtype)
        sizes = types_of_size(setup.cell.state_size, batch, setup.dtype)
        oracle.same_types(zeros, sizes, "the zero state")
        for name, leaf in named_leaves("cell.zero_state(...)", zeros):
            require(not leaf.any(), f"`{name}` must be zeros, got other numbers")
    step = oracle.at_steps(setup.xs, 0)
    result = jax.eval_shape(setup.bind(), step, setup.state)
    must = f"a step must return (output, state), got {describe_leaves(result)}"
    require(isinstance(result, tuple) and len(result) == 2, must)
    output, state = result
    sizes = types_of_size(setup.cell.output_size, batch, setup.dtype)
    oracle.same_types(output, sizes, "the output")
    oracle.same_types(state, setup.state, "the new state")


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


def runs_as_a_loop(setup: Setup) -> None:
    """`dynamic_rnn` equals a Python loop in outputs, state and gradients."""
    compiled = oracle.differentiator(setup, oracle.unrolled)
    loop = functools.partial(compiled, setup.params, setup.xs, setup.state)
    close(setup.differentiated, loop(setup.lengths), setup.dtype)
    want = loop(jnp.full_like(setup.lengths, TIME))
    close(oracle.differentiated(setup, Setup.run, None), want, setup.dtype)


def _run(setup: Setup) -> tuple[PyTree, PyTree]:
    return setup.run(setup.params, setup.xs, setup.state, setup.lengths)


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


def returns_all_states(setup: Setup) -> None:
    """With `return_states`, `dynamic_rnn` returns the state after each step of a loop.

    The law skips cells whose state has leaves without a batch axis, because
    `return_states` rejects them.
    """
    if not _is_of_rows(setup):
        return
    run = functools.partial(Setup.run, return_states=True)
    got = oracle.differentiated(setup, run, setup.lengths)
    want = oracle.differentiated(setup, oracle.unrolled_states, setup.lengths)
    close(got, want, setup.dtype)


def leaves_out_gaps(setup: Setup) -> None:
    """With a `mask`, `dynamic_rnn` equals a loop that keeps the state in gaps.

    A reset at a masked step takes effect, and nothing else happens there. The runs have
    no key, because `dynamic_rnn` skips gaps when it numbers the keys of steps, whereas
    the loop does not.
    """
    if not _is_of_rows(setup):
        return
    padded, options = _with_gaps(dataclasses.replace(setup, key=None))
    run = functools.partial(Setup.run, return_states=True, **options)
    loop = functools.partial(oracle.unrolled_states, **options)
    got = oracle.differentiated(padded, run, None)
    close(got, oracle.differentiated(padded, loop, None), setup.dtype)


def _with_gaps(setup: Setup) -> tuple[Setup, dict[str, Any]]:
    """Returns the setup with NaN in the gaps of a mask, and the mask and the resets."""
    rows = np.arange(setup.lengths.shape[0])[:, None]
    ts = np.arange(TIME)
    bits = np.resize([5, 6, 7, 2, 0, 1, 3, 4], rows.shape)
    mask = bits >> ts & 1 == 1  # Row 0 has a gap at the middle step.
    options = {
        "mask": mask,
        "resets": ts == (rows + 1) % 3,  # In some rows, this step is masked.
        "reset_state": _of_rows(setup.state, jnp.roll(rows[:, 0], 1)),
    }
    xs = jax.tree.map(lambda x: _filled(x, ~mask, jnp.nan), setup.xs)
    return dataclasses.replace(setup, xs=xs), options


def _is_of_rows(setup: Setup) -> bool:
    return masking.is_of_rows(setup.state) and not has_read_only(setup.state)


def runs_in_little_memory(setup: Setup) -> None:
    """Recomputation does not change outputs, state or gradients."""
    run = functools.partial(Setup.run, swap_memory=Recompute(2))
    got = oracle.differentiated(setup, run, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


def runs_as_a_scan(setup: Setup) -> None:
    """The default loop equals `implementation="scan"`, with lengths, resets and gaps.

    The scan numbers random keys as the default loop does, so here, unlike in
    `leaves_out_gaps`, the runs with gaps also have keys.
    """

    def compare(setup: Setup, lengths: Array | None, **options: Any) -> None:
        run = functools.partial(Setup.run, **options)
        scan = functools.partial(run, implementation="scan")
        want = oracle.differentiated(setup, scan, lengths)
        close(oracle.differentiated(setup, run, lengths), want, setup.dtype)

    is_of_rows = _is_of_rows(setup)
    padded, options = _with_gaps(setup)
    mask = options.pop("mask")
    compare(setup, setup.lengths, return_states=is_of_rows, **options)
    if is_of_rows:
        compare(padded, None, return_states=True, mask=mask, **options)


def runs_in_raw_rnn(setup: Setup) -> None:
    """`raw_rnn` equals `dynamic_rnn`, with NaN in the padding."""
    padded = _with_padding(setup, float("nan"))
    got = oracle.differentiated(padded, oracle.raw, setup.lengths)
    close(got, setup.differentiated, setup.dtype)


def ignores_padding(setup: Setup) -> None:
    """NaN and infinity in the padding do not affect any result."""

    def run(value: float) -> PyTree:
        padded = _with_padding(setup, value)
        return setup.differentiator(setup.params, padded.xs, setup.state, setup.lengths)

    results, gradients = clean = run(0.0)
    named = [*named_leaves("(outputs, state)", results)]
    named += named_leaves("gradients", gradients)
    for name, leaf in named:
        must = f"`{name}` must be finite if the padding is zeros"
        fix = "Check the step for divisions, roots and logarithms of 0."
        require(jnp.isfinite(leaf).all(), f"{must}. {fix}")
    oracle.equal(run(float("nan")), clean)
    oracle.equal(run(float("inf")), clean)


def _with_padding(setup: Setup, value: float) -> Setup:
    """The setup with `value` in the padding of the inputs."""
    padding = np.arange(TIME)[None, :] >= np.asarray(setup.lengths)[:, None]
    xs = jax.tree.map(lambda x: _filled(x, padding, value), setup.xs)
    return dataclasses.replace(setup, xs=xs)


def _filled(x: Array, where: np.ndarray, value: object) -> Array:
    """The inputs with `value` in the rows and steps where `where` is True."""
    mask = where.reshape(where.shape + (1,) * (x.ndim - 2))
    return jnp.where(mask, jnp.asarray(value).astype(x.dtype), x)


def spreads_nan_only_forward(setup: Setup) -> None:
    """NaN, infinity or overflow in a step reaches only later steps, up to a reset.

    All other outputs, the gradients of other rows and the gradients of steps after the
    reset must stay the same. The gradients of earlier steps may be NaN, because JAX
    multiplies NaN by 0 there. In a matrix memory, overflow may also reach the other
    steps of the same chunk. The law skips cells whose rows interact.
    """
    if setup.cell.rows_interact:
        return
    floats, rebuild = oracle.split_floats(setup.xs)
    rows = np.arange(setup.lengths.shape[0])[:, None]
    bad = (rows > 0) & (np.arange(TIME) == rows % 2)
    resets = np.roll(bad, 1, axis=1)
    lengths = jnp.asarray(TIME - (rows[:, 0] + 1) % 2, jnp.int32)

    def spared(where: np.ndarray, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x[where], tree)

    def loss(
        after: np.ndarray, options: dict[str, Any], floats: list[Array]
    ) -> tuple[Array, PyTree]:
        xs = rebuild(floats)
        ends = lengths if options else None
        outputs, _ = setup.run(setup.params, xs, setup.state, ends, **options)
        return oracle.weighted_sum(spared(after, outputs)), outputs

    scales = [np.nan, np.inf, -np.inf]
    scales += [] if isinstance(setup.cell, MatrixMemoryCell) else [0.9, -0.9]
    for options in ({}, {"resets": resets, "reset_state": setup.state}):
        after = np.broadcast_to(rows == 0, bad.shape)
        if options:
            after = after | np.logical_or.accumulate(resets, axis=1)
        either = after | ~np.logical_or.accumulate(bad, axis=1)
        own = functools.partial(loss, after, options)
        differentiate = jax.jit(jax.grad(own, has_aux=True))
        gradients, outputs = differentiate(floats)
        for scale in scales:
            got_gradients, got = differentiate(
                [_filled(x, bad, jnp.finfo(x.dtype).max * scale) for x in floats]
            )
            close(spared(either, got), spared(either, outputs), setup.dtype)
            gradients_after = spared(after, got_gradients), spared(after, gradients)
            close(*gradients_after, setup.dtype)


def compiles_to_the_same(setup: Setup) -> None:
    """`jit`, `jax.checkpoint` and time-major arrays do not change the results."""
    run = functools.partial(setup.run, setup.params)

    def batch_major(xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        return run(xs, setup.state, lengths)

    def time_major(xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        options = {"time_major": True, "parallel_iterations": 2}
        outputs, state = run(oracle.swapped(xs), setup.state, lengths, **options)
        return oracle.swapped(outputs), state

    want = batch_major(setup.xs, setup.lengths)
    for variant in (batch_major, jax.checkpoint(batch_major), time_major):
        close(jax.jit(variant)(setup.xs, setup.lengths), want, setup.dtype)


def maps_over_an_axis(setup: Setup) -> None:
    """`vmap` over runs, over gradients and inside `grad` equals separate runs."""
    scales = jnp.asarray([1.0, 0.5], setup.dtype)

    def run(scale: Array, xs: PyTree, lengths: Array) -> tuple[PyTree, PyTree]:
        floats, rebuild = oracle.split_floats((setup.params, xs))
        params, xs = rebuild([x * scale for x in floats])
        return setup.run(params, xs, setup.state, lengths)

    def loss(*given: PyTree) -> Array:
        return oracle.weighted_sum(run(*given))

    flipped = oracle.at_steps(setup.xs, slice(None, None, -1))
    xs = jax.tree.map(lambda *leaves: jnp.stack(leaves), setup.xs, flipped)
    lengths = jnp.stack([setup.lengths, setup.lengths[::-1]])
    got = jax.vmap(run)(scales, xs, lengths)
    differentiate = jax.jit(jax.grad(loss))
    of_map = jax.grad(lambda *given: jnp.sum(jax.vmap(loss)(*given)))
    gradients = jax.jit(of_map)(scales, xs, lengths)
    mapped = jax.jit(jax.vmap(jax.grad(loss)))(scales, xs, lengths)
    for i in range(2):
        one = scales[i], _of_rows(xs, i), lengths[i]
        close(_of_rows(got, i), run(*one), setup.dtype)
        want = differentiate(*one)
        close((gradients[i], mapped[i]), (want, want), setup.dtype)


def differentiates_twice(setup: Setup) -> None:
    """Forward mode equals reverse mode, and second derivatives match a loop.

    The loop has only two steps, because a third step would dominate the compile time.
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
    # Do not compare scalar leaves, which may count steps. Each half runs at least one
    # step, so the two halves may together run more steps than the whole run.
    got_leaves, leaves = (
        [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim]
        for tree in (state, want_state)
    )
    close(got_leaves, leaves, setup.dtype)


LAWS: tuple[Callable[[Setup], None], ...] = (
    is_a_value,
    inits_from_shapes,
    has_its_sizes,
    keeps_rows_apart,
    runs_as_a_loop,
    runs_backwards_as_a_loop,
    starts_again_at_resets,
    returns_all_states,
    leaves_out_gaps,
    runs_in_little_memory,
    runs_as_a_scan,
    runs_in_raw_rnn,
    ignores_padding,
    spreads_nan_only_forward,
    compiles_to_the_same,
    maps_over_an_axis,
    differentiates_twice,
    resumes,
)
"""The laws, in the order in which `check_cell` checks them."""


def _check_state(cell: RNNCell, state: PyTree, batch: int) -> None:
    """Checks the state of the caller, because a wrong state would seem to break a law.

    Leaves without axes are accepted.

    Raises:
        TypeError: If a leaf is not an array.
        ValueError: If the structure or a shape differs from `cell.state_size`.
    """
    fix = "Pass a state like the result of `cell.zero_state`."
    check_structure("`state`", cell.state_size, trees.opaque(state), False, fix)
    named = named_leaves("state", state, trees.is_tensor_array)
    sizes = trees.size_shapes(cell.state_size)
    for (name, leaf), size in zip(named, sizes, strict=True):
        if trees.is_tensor_array(leaf):
            continue
        check_instance(name, leaf, jax.Array | np.ndarray, "an array", fix)
        if leaf.ndim:
            check_shape(name, leaf, (batch, *size), fix=fix)


def check_cell(
    cell: RNNCell,
    inputs: Shaped | PyTree,
    dtype: DType = jnp.float32,
    key: Key | None = None,
    state: PyTree = None,
) -> None:
    """Checks that a cell has all properties (laws) that `dynamic_rnn` relies on.

    `LAWS` lists the laws. On two CPU cores, the check takes 10 to 30 seconds, and about
    50 seconds for a matrix memory. The logger "jaxrnn" reports each law at level INFO.

    Args:
        cell: The cell under test.
        inputs: One step of inputs, `[batch, ...]` or a nest, given as arrays or as
            `jax.ShapeDtypeStruct`s, with a batch size of at least 4. Only shapes and
            dtypes are read, because the cell runs on random values. Floats are drawn
            from a normal distribution, and may be negative.
        dtype: The dtype of parameters, inputs and state, real or complex.
        key: A random key, for cells that draw random numbers.
        state: The initial state. Default: a random state with the structure of
            `state_size`.

    Raises:
        AssertionError: If the cell breaks a law. The message contains the law's name
            and description.
        TypeError: If `cell` is not an unbound `RNNCell`, a leaf of `inputs` is neither
            an array nor a `jax.ShapeDtypeStruct`, or `dtype`, `key` or `state` has the
            wrong type.
        ValueError: If the batch has fewer than 4 rows, an array of `inputs` has only a
            batch axis, or `state` does not have the cell's sizes.
    """
    check_rnn_cell("cell", cell)
    fix = "For example, pass `jax.ShapeDtypeStruct((4, 3), 'float32')`."
    check_shaped("inputs", inputs, fix)
    for path, leaf in jax.tree.leaves_with_path(inputs):
        fix = "For one number per row, pass an array [batch, 1]."
        check_rank(leaf_name("inputs", path), leaf, 2, "[batch, ...]", fix)
    batches = [leaf.shape[0] for leaf in jax.tree.leaves(inputs)]
    rows = min(batches, default=0)
    expect(rows >= 4, "inputs", "have at least 4 rows", rows)
    dtype = as_dtype(dtype)
    check_key_or_none(key)
    if state is not None and not has_read_only(state):
        _check_state(cell, state, batches[0])
    with error_note("Raised while creating parameters and data."):
        setup = make_setup(cell, inputs, dtype, key, state)
    for number, law in enumerate(LAWS, 1):
        name = law.__name__
        _log.info("check_cell: law %d of %d, %s", number, len(LAWS), name)
        try:
            law(setup)
        except Exception as error:
            summary = (law.__doc__ or "").splitlines()[0]
            if isinstance(cell, MatrixMemoryCell) and cell.rule.chunk:
                rule = type(cell.rule).__name__
                summary += f" `{rule}.chunk` must equal a loop of `{rule}.step`."
            text = f"{cell!r} breaks `{name}`. {summary}\n{error}"
            raise AssertionError(text) from error
