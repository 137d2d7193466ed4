"""Scans over the steps of a sequence.

* `scan_steps` runs a cell step by step. This scan is the reference: every faster loop
  must give the same results.
* `ragged_scan` is a `lax.scan` that, on CPUs, skips chunks of steps after the longest
  row has ended.
* `summed_in_float32` makes JAX sum gradients over steps in float32. If every step reads
  an array, such as a parameter, the gradient of the array is a sum over the steps. By
  default, JAX accumulates this sum in the dtype of the array. In bfloat16, after some
  hundred steps, a new term is often too small to change the rounded sum, and is lost.
* `segmented_run` runs a sequence segment by segment, to save less for the backward
  pass. A scan over segments, whose body is under `jax.checkpoint`, saves the state
  before each segment and reruns the segment in the backward pass. A policy can store
  named arrays in host memory between the forward and backward passes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import checkify

from .._base.jax_internals import eval_jaxpr
from .._base.math import at_least_float32, is_float
from .._base.sharding import as_varying_as, instantiated, zeros_of
from .._base.typing import Array, PyTree
from . import masking
from .steps import Steps

Apply: TypeAlias = Callable[[Array, PyTree, PyTree], tuple[PyTree, PyTree]]
"""`apply(t, inputs, state) -> (output, new_state)` runs step t of the whole run."""

Body: TypeAlias = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
"""`body(carry, x) -> (carry, y)`, as in `lax.scan`."""

RunSteps: TypeAlias = Callable[[PyTree, PyTree, Steps], tuple[PyTree, PyTree]]
"""`run(xs, state, steps) -> (outputs, state)`."""

# The range of chunk sizes, in steps. On a CPU, a loop skips the chunks after the end of
# the longest row.
LEAST = 8
MOST = 16

# The `checkpoint_name`s of arrays that a strategy may store on the host: the state
# before a segment, and the residuals of a loop.
STATE = "jaxrnn_state"
RESIDUALS = "jaxrnn_residuals"


def scan_steps(
    apply: Apply, xs: PyTree, state: PyTree, steps: Steps, unroll: int = 1
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of all steps, one after another; a single step has no loop.

    Args:
        apply: Runs one step.
        xs: The inputs, time along `steps.axis`.
        state: The initial state.
        steps: The time axis. If `steps.returns_states` is true, the outputs are pairs
            `(output, new_state)`.
        unroll: The number of steps unrolled in each iteration; 1 if the number of steps
            is symbolic.
    """
    restart_states = summed_in_float32(steps.restart_states)

    def step(state: PyTree, scanned: tuple[Array, PyTree]) -> tuple[PyTree, PyTree]:
        t, inputs = scanned
        restarted = steps.with_restart_states(restart_states())
        inputs, before = restarted.step_inputs(t, inputs, state)
        output, new_state = apply(steps.index_in_run(t), inputs, before)
        state, output = steps.mask_step(t, state, new_state, output)
        return state, (output, state) if steps.returns_states else output

    if isinstance(steps.time, int) and steps.time == 1:
        first = jnp.int32(0), masking.first_inputs(xs, steps.axis)
        state, output = step(state, first)
        output = jax.tree.map(lambda y: jnp.expand_dims(y, steps.axis), output)
        return output, jax.tree.map(jnp.asarray, state)
    ts = jnp.arange(steps.time, dtype=jnp.int32)
    unroll = unroll if isinstance(steps.time, int) else 1
    state, outputs = jax.lax.scan(step, state, (ts, steps.swap_time(xs)), unroll=unroll)
    return steps.swap_time(outputs), state


def in_scan(body: Callable, policy: Callable | None = None) -> Callable:
    """Checkpoints a scan's body; without a policy, saves only the body's arguments."""
    return jax.checkpoint(body, prevent_cse=False, policy=policy)


def ragged_scan(
    body: Body,
    carry: PyTree,
    xs: PyTree,
    steps_to_run: Array | None,
    save_inputs_only: bool = False,
    skipped: PyTree = None,
) -> tuple[PyTree, PyTree]:
    """Runs `lax.scan(body, carry, xs)`; on CPUs, skips most steps past `steps_to_run`.

    The scan has a fixed number of iterations, so JAX can differentiate it in every
    mode.

    Args:
        body: The function of one step. Steps after the first `steps_to_run` must not
            change the carry, and no final result may depend on the stacked results of
            these steps.
        carry: The carry before the first step.
        xs: The inputs of each step, each leaf `[time, ...]`. The last chunk is padded
            with copies of the last step, except that bools are padded with False.
        steps_to_run: The number of valid steps, an int32 scalar; None if all are valid.
        save_inputs_only: Whether derivatives save only the inputs of each step and
            recompute the residuals. If False, derivatives save the residuals.
        skipped: The result to stack for a skipped step, with the structure of the
            results of `body`; None for zeros.
    """
    step = in_scan(body) if save_inputs_only else body
    time = jax.tree.leaves(xs)[0].shape[0]
    if steps_to_run is None or time <= LEAST:
        return jax.lax.scan(step, carry, xs)
    size = chunk_size(time)
    types = jax.eval_shape(step, carry, jax.tree.map(lambda x: x[0], xs))[1]

    def skip(carry: PyTree, part: PyTree) -> tuple[PyTree, PyTree]:
        if skipped is None:
            return carry, zeros_of(types, size, (carry, part))
        repeated = jax.tree.map(
            lambda y: jnp.broadcast_to(y, (size, *y.shape)), skipped
        )
        return carry, as_varying_as((carry, part), repeated)

    # Skip chunks on CPUs only. With `lax.cond`, the TPU compiler keeps no kernel in
    # fast memory, and estimates 1.8 times as many cycles for an LSTM with 512 units. On
    # a GPU, the host would wait for each condition before it starts a chunk.
    skips = jax.lax.platform_dependent(cpu=lambda: True, default=lambda: False)

    def chunk(carry: PyTree, scanned: PyTree) -> tuple[PyTree, PyTree]:
        start, part = scanned
        run = functools.partial(jax.lax.scan, step)
        is_run = (start < steps_to_run) | ~skips
        return jax.lax.cond(is_run, run, skip, carry, part)

    count = -(-time // size)
    parts = jax.tree.map(lambda x: in_chunks(x, count, size), xs)
    starts = jnp.arange(count, dtype=jnp.int32) * size
    # Checkpoint the whole chunk too. If only the steps were checkpointed, JAX would
    # also save the inputs of `lax.cond`.
    chunk = in_scan(chunk) if save_inputs_only else chunk
    carry, ys = jax.lax.scan(chunk, carry, (starts, parts))
    return carry, jax.tree.map(lambda y: jax.lax.collapse(y, 0, 2)[:time], ys)


def chunk_size(time: int) -> int:
    """Returns the chunk size for which the last chunk needs the least padding."""
    return min(range(MOST, LEAST - 1, -1), key=lambda size: -time % size)


def in_chunks(x: Array, count: int, size: int) -> Array:
    """Splits steps into chunks `[count, size, ...]`, padded at the end.

    Padding repeats the last step, so the padding is finite if the inputs are finite.
    Zeros would not do, because the derivative of a cell may not be finite at zeros.
    Bools are padded with False, because all rows are finished at the added steps.
    """
    repeats_last = x.shape[0] > 0 and x.dtype != bool
    last = x[-1:] if repeats_last else jnp.zeros((1, *x.shape[1:]), x.dtype)
    filled = jnp.concatenate([x] + [last] * (count * size - x.shape[0]))
    return filled.reshape(count, size, *x.shape[1:])


def summed_in_float32(tree: PyTree) -> Callable[[], PyTree]:
    """Returns a function that returns `tree`; each step of a loop calls the function.

    The cotangents of the results are summed in float32 and rounded once, after the
    loop, because each result has the tangent of a float32 copy. The values of the copy
    are never read.
    """
    leaves, structure = jax.tree.flatten(tree)
    copies = [_float32_copy(leaf) for leaf in leaves]

    def at_step() -> PyTree:
        pairs = zip(leaves, copies, strict=True)
        return structure.unflatten(
            leaf if copy is None else with_tangent_of(leaf, copy.astype(leaf.dtype))
            for leaf, copy in pairs
        )

    return at_step


def _float32_copy(leaf: Any) -> Array | None:
    """A float32 copy of an array with a narrower floating-point dtype, or None."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return None
    return None if at_least_float32(dtype) == dtype else leaf.astype(jnp.float32)


@jax.custom_jvp
def with_tangent_of(x: Array, same: Array) -> Array:
    """Returns `x` with the tangent of another array, whose own values are not read."""
    del same
    return x


@with_tangent_of.defjvp
def _tangent_of_same(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return primals[0], tangents[1]


def closed_over(
    fn: Callable[..., PyTree], *args: PyTree
) -> tuple[Callable[..., PyTree], list[Array], PyTree, Any]:
    """Turns the arrays that a function closes over into an argument.

    Args:
        fn: A function that closes over arrays. The function is traced once.
        *args: The arguments of `fn`.

    Returns:
        `(pure, arrays, types, program)`: `pure` closes over no arrays, and
        `pure(arrays, *args)` equals `fn(*args)`; `arrays` are the arrays that `fn`
        closed over; `types` are the types of the results; `program` is the jaxpr.
    """
    closed, types = jax.make_jaxpr(fn, return_shape=True)(*args)
    structure = jax.tree.structure(types)

    def pure(arrays: list[Array], *args: PyTree) -> PyTree:
        results = eval_jaxpr(closed.jaxpr, arrays, *jax.tree.leaves(args))
        return structure.unflatten(results)

    return pure, closed.consts, types, closed.jaxpr


def has_reverse_rule(program: Any) -> bool:
    """Whether a jaxpr calls a `jax.custom_vjp`, which has no forward mode.

    Inside a `jax.custom_jvp`, whose rule replaces its function, such calls are ignored.
    """

    def inner(eqn: Any) -> list:
        if eqn.primitive.name == "custom_jvp_call":
            return []
        programs = jax.tree.leaves(list(eqn.params.values()))
        return [x for x in programs if hasattr(x, "eqns")]

    return any(
        eqn.primitive.name == "custom_vjp_call"
        or any(map(has_reverse_rule, inner(eqn)))
        for eqn in program.eqns
    )


def in_reverse(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`fn` with a rule for reverse mode, which can be the only mode of `fn`.

    Under `vmap`, JAX maps over the tangents that a `jax.custom_jvp` computes, which
    fails for the tangents of a `jax.custom_vjp` in the loop. With this rule, JAX first
    transposes the tangents, as it does for a scan.
    """

    def run(*args: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(args)

        def of_leaves(*leaves: Any) -> PyTree:
            return fn(*structure.unflatten(leaves))

        def forward(*leaves: Any) -> tuple[PyTree, Any]:
            given = {i: x.value for i, x in enumerate(leaves) if x.perturbed}

            def of_given(given: dict[int, Array]) -> PyTree:
                return of_leaves(*(given.get(i, x.value) for i, x in enumerate(leaves)))

            return jax.vjp(of_given, given)

        def backward(pull: Callable, cts: PyTree) -> tuple:
            (found,) = pull(jax.tree.map(instantiated, cts))
            return tuple(map(found.get, range(len(leaves))))

        flat = jax.custom_vjp(of_leaves)
        flat.defvjp(forward, backward, symbolic_zeros=True)
        # JAX gives integer results of a `jax.custom_vjp` a tangent, for which many
        # operations have no rule. A conversion to the same dtype has no tangent.
        return jax.tree.map(
            lambda y: y if is_float(y) else jax.lax.bitcast_convert_type(y, y.dtype),
            flat(*leaves),
        )

    return run


def of_some(fn: Callable, args: Sequence, indices: Sequence[int]) -> Callable:
    """`fn` as a function of the arguments at `indices`; the others are in `args`."""

    def run(*given: Any) -> Any:
        replaced = dict(zip(indices, given, strict=True))
        return fn(*(replaced.get(i, x) for i, x in enumerate(args)))

    return run


def jvp_of_perturbed(fn: Callable, args: Sequence, d_args: Sequence) -> tuple[Any, Any]:
    """`jax.jvp(fn, args, d_args)` for arrays; a tangent may be a symbolic zero."""
    perturbed = [i for i, d in enumerate(d_args) if isinstance(d, jax.Array)]
    primals = [args[i] for i in perturbed]
    tangents = [d_args[i] for i in perturbed]
    return jax.jvp(of_some(fn, args, perturbed), primals, tangents)


def differentiated_as(
    derived: Callable[..., PyTree], alone: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """A function that runs `derived` in a derivative, and otherwise `alone`.

    Args:
        derived: A function of pytrees of arrays.
        alone: A function with the same results up to rounding, which is faster if the
            call is not differentiated.
    """

    def run(*args: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(args)

        def of_leaves(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
            return lambda *leaves: fn(*structure.unflatten(leaves))

        flat = jax.custom_jvp(of_leaves(alone))
        push = functools.partial(jvp_of_perturbed, of_leaves(derived))
        flat.defjvp(push, symbolic_zeros=True)
        return flat(*leaves)

    return run


def named(name: str, tree: PyTree) -> PyTree:
    """Names the floating-point arrays of a tree, except scalars, which are small."""
    return jax.tree.map(
        lambda x: checkpoint_name(x, name) if is_float(x) and x.ndim > 0 else x, tree
    )


def save_on_host(names: tuple[str, ...]) -> Callable:
    """Returns a policy of `jax.checkpoint` that saves named arrays on the host."""
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=list(names),
        offload_src="device",
        offload_dst="pinned_host",
    )


def segmented_run(
    sizes: tuple[int, ...],
    on_host: tuple[str, ...],
    run: RunSteps,
    xs: PyTree,
    state: PyTree,
    steps: Steps,
) -> tuple[PyTree, PyTree]:
    """Calls `run` on segments; derivatives save only the states between segments.

    Args:
        sizes: The segment sizes, in steps, from the outermost to the innermost level of
            nested segments. If `sizes` is empty, derivatives save all residuals.
        on_host: The names of arrays to store in host memory: empty, `STATE`, or `STATE`
            and `RESIDUALS`. Stored residuals are not recomputed.
        run: `run(xs, state, steps) -> (outputs, state)`, where the outputs have the
            same axes as `xs`. The function may close over arrays. For a segment, the
            function returns the segment's outputs.
        xs: Inputs, time along `steps.axis`.
        state: The initial state.
        steps: The time axis of `xs`, with at least one step.
    """
    if not sizes:
        return run(xs, state, steps)
    steps_first = steps.time_first()
    size = min(sizes[0], steps.time)
    count, remaining = divmod(steps.time, size)

    def segment(size: int, state: PyTree, scanned: PyTree) -> tuple[PyTree, PyTree]:
        start, part = scanned
        state = named(STATE, state) if on_host else state
        inputs = _inputs_of_segment(xs, start, size, steps, part)
        steps_of_segment = steps_first.slice(start, size)
        outputs, state = segmented_run(
            sizes[1:], (), run, inputs, state, steps_of_segment
        )
        return state, outputs

    def body(size: int) -> Callable:
        policy = save_on_host(on_host) if on_host else None
        return in_scan(functools.partial(segment, size), policy)

    whole = count * size
    xs_first = steps.swap_time(xs)
    parts = jax.tree.map(
        lambda x: x[:whole].reshape(count, size, *x.shape[1:]), xs_first
    )
    starts = jnp.arange(count, dtype=jnp.int32) * size
    state, outputs = jax.lax.scan(body(size), state, (starts, parts))
    outputs = jax.tree.map(lambda y: jax.lax.collapse(y, 0, 2), outputs)
    if remaining:
        part = jax.tree.map(lambda x: x[whole:], xs_first)
        state, last = body(remaining)(state, (jnp.int32(whole), part))
        outputs = jax.tree.map(lambda *ys: jnp.concatenate(ys), outputs, last)
    return steps.swap_time(outputs), state


def _inputs_of_segment(
    xs: PyTree, start: Array | int, size: int, steps: Steps, part: PyTree
) -> PyTree:
    """Returns the inputs of the `size` steps from `start` on, `[time, batch, ...]`.

    A segment receives its inputs twice: as a slice of `xs`, and as `part`, which comes
    from the scan over segments. The values are read from the slice, which copies no
    other steps. The gradient goes to `part`, whose values are never read. The gradient
    of the slice would also be correct, but each segment would add this gradient to the
    gradient of all inputs.
    """
    values = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, steps.axis), xs
    )
    values = steps.swap_time(values)
    return jax.tree.map(with_tangent_of, values, part)


def run_in_segments(
    size: int, run: RunSteps, xs: PyTree, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """Calls `run(xs, state, steps)` for each segment of `size` steps.

    If there are several segments, derivatives save the state before each segment and
    rerun the segment. If there are at most `size` steps, `run` is called once. The
    other arguments are as in `segmented_run`.
    """
    sizes = (size,) if size < steps.time else ()
    return segmented_run(sizes, (), run, xs, state, steps)


def without_checks(f: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Returns the function without its run-time checks.

    Checks have effects, which exported files cannot represent.
    """
    checked = checkify.checkify(f, errors=frozenset())
    return lambda *arguments: checked(*arguments)[1]
