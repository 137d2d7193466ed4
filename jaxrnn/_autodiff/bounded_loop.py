"""A while loop with a bound on its steps that can be differentiated in every mode.

JAX cannot differentiate `lax.while_loop` backward, as it saves nothing of the steps.
With a bound on their number there can be a buffer for it: a loop that is differentiated
also records the carry before each step. Its tangent is another bounded loop that walks
over the record, and the transpose of that a third one, from the last step to the first.
All three are while loops that end with the last step taken. As the tangent is a bounded
loop itself, it can be differentiated again.

* A loop that is not differentiated records nothing.
* Forward and backward pass cost what the steps taken cost; the bound costs memory for
  the record, and the time to fill it.
* Only what the derivative of a step reads is recorded: not a buffer that is only
  written to.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.sharding import as_varying_as, zeros_along
from .._base.typing import Array, PyTree
from .differentiable import differentiable
from .host import move_beside, read_rows, to_device, to_host, write_rows
from .jax_internals import dce_jaxpr, eval_jaxpr
from .leaves import (
    add,
    dense_tangent,
    is_float,
    is_zero_tangent,
    merge,
    only_floats,
    split,
    with_zero_tangents,
    zero_tangent,
)
from .transposable import dense, only_arrays, transposable

Step = Callable[[Array, PyTree], tuple[PyTree, PyTree]]


def bounded_loop(
    running: Callable[[Array, PyTree], Array],
    step: Step,
    carry: PyTree,
    limit: int,
    on_host: bool = False,
) -> tuple[Array, PyTree, PyTree]:
    """Takes steps while `running(t, carry)`, `limit` at most.

    Args:
        running: Whether to take step t, a bool scalar; it closes over no arrays.
        step: `step(t, carry) -> (carry, y)`, where `t` is an int32 scalar and the carry
            keeps its structure, shapes and dtypes. It may close over arrays, and is
            traced once.
        carry: What the first step receives.
        limit: The largest number of steps, static.
        on_host: Whether the record is stored in the memory of the host.

    Returns:
        `(n, carry, ys)`: the number of steps taken, an int32 scalar; the carry after
        them; and the y of each step, `[limit, ...]`, zeros for steps not taken.

    Raises:
        ValueError: If the step changes the structure of the carry.
    """
    loop, closed_over = _trace(running, step, carry, limit, on_host)
    fixed, changing = split(jax.tree.leaves(carry), loop.changes)
    consts = closed_over, fixed
    run = functools.partial(loop.run, recorded=[False] * len(changing))
    if limit:  # Else no step is taken, nor is there a row to read.
        run = functools.partial(
            differentiable, run, functools.partial(_push_forward, loop, False)
        )
    n, changing, ys, _ = run(consts, changing)
    return n, loop.whole(consts, changing), loop.ys_tree.unflatten(ys)


def time_loop(
    count: Array | None,
    limit: int,
    body: Callable[[Array, PyTree], PyTree],
    carry: PyTree,
) -> PyTree:
    """`carry = body(t, carry)` for t from 0; differentiable in every mode.

    Args:
        count: The number of steps, an int32 scalar; None for `limit`.
        limit: The largest number of steps, static.
        body: A step; it may close over arrays.
        carry: What the first step receives.
    """
    if count is None:
        return jax.lax.fori_loop(np.int32(0), np.int32(limit), body, carry)

    def step(t: Array, carry: PyTree) -> tuple[PyTree, tuple]:
        count, carry = carry
        return (count, body(t, carry)), ()

    return bounded_loop(_before_end, step, (count, carry), limit)[1][1]


def _before_end(t: Array, carry: Any) -> Array:
    return t < carry[0]


def _trace(
    running: Callable, step: Step, carry: PyTree, limit: int, on_host: bool
) -> tuple["_Loop", list]:
    """The loop without the arrays that its step closes over, and these."""
    # Not `closure_convert`, which leaves integers in the closure.
    t = as_varying_as(carry, jnp.zeros((), jnp.int32))
    closed, (new, ys) = jax.make_jaxpr(step, return_shape=True)(t, carry)
    tree = jax.tree.structure(carry)
    if jax.tree.structure(new) != tree:
        raise ValueError(
            f"a step must keep what it carries, {tree}, got {jax.tree.structure(new)}."
        )
    place = to_host if on_host else list
    trees = tree, jax.tree.structure(ys)
    return _Loop(running, limit, closed.jaxpr, *trees, place), list(closed.consts)


def _push_forward(
    loop: "_Loop", with_record: bool, primals: Any, tangents: Any
) -> tuple[tuple, tuple]:
    """The rule of differentiation of a loop, with its record or without."""
    (consts, start), (d_consts, d_start) = primals, tangents
    reads = loop.find_reads(consts, start)
    run = functools.partial(loop.run, recorded=reads)
    rule = functools.partial(_push_forward, loop, True)
    n, *outs = differentiable(run, rule, consts, start)
    (leaves, tree), d_leaves = jax.tree.flatten(consts), jax.tree.leaves(d_consts)
    perturbed = [not is_zero_tangent(d) for d in d_leaves]
    floats = [is_float(x) for x in start]
    recorded = [r and with_record for r in split(reads, floats)[1]]
    linear = _LinearLoop(loop, tree, reads, perturbed, floats, recorded)
    residuals = n, *split(leaves, perturbed), split(start, reads)[0], outs[-1]
    pairs = zip(start, d_start, strict=True)
    d_state = [dense_tangent(x, d) for x, d in pairs if is_float(x)]
    linear_in = split(d_leaves, perturbed)[1], d_state
    rules = linear.push_forward, linear.pull_back
    d_floats = transposable(*rules, residuals, linear_in)
    outs = outs if with_record else outs[:-1]
    return (n, *outs), (zero_tangent(n), *map(with_zero_tangents, outs, d_floats))


@dataclasses.dataclass(frozen=True)
class _Loop:
    """A step as a flat function of its constants and of what changes in the carry.

    The constants are `(closed_over, fixed)`: the arrays that the step closes over, and
    the leaves of the carry that it returns as they are.

    Attributes:
        running: Whether to take a step.
        limit: The largest number of steps.
        jaxpr: The step.
        carry_tree: The structure of the carry.
        ys_tree: That of a y.
        place: Moves leaves to the memory in which the record is stored.
    """

    running: Callable
    limit: int
    jaxpr: Any
    carry_tree: Any
    ys_tree: Any
    place: Callable[[list], list]

    @functools.cached_property
    def changes(self) -> list[bool]:
        """For each leaf of the carry, whether a step changes it."""
        ends = zip(self.jaxpr.invars[1:], self.jaxpr.outvars, strict=False)
        return [before is not after for before, after in ends]

    def whole(self, consts: Any, changing: list) -> PyTree:
        """The carry with these parts."""
        return self.carry_tree.unflatten(merge(consts[1], changing, self.changes))

    def step(self, consts: Any, t: Array, changing: list) -> tuple[list, list]:
        """One step: `(changing, y)`."""
        closed_over, fixed = consts
        leaves = merge(fixed, changing, self.changes)
        outs = eval_jaxpr(self.jaxpr, closed_over, t, *leaves)
        return split(outs[: len(leaves)], self.changes)[1], outs[len(leaves) :]

    def run(
        self, consts: Any, changing: list, recorded: list[bool]
    ) -> tuple[Array, list, list, list]:
        """The loop: `(n, changing, ys, record)`."""
        y_types = [v.aval for v in self.jaxpr.outvars[len(self.changes) :]]
        ys = [zeros_along(0, self.limit, y) for y in y_types]
        start = jnp.zeros((), jnp.int32), ys
        n, ys = as_varying_as((consts, changing), start)
        record = self._empty_record(split(changing, recorded)[1])
        if not self.limit:
            return n, changing, ys, record

        def goes_on(state: tuple) -> Array:
            t, changing, _, _ = state
            return (t < self.limit) & self.running(t, self.whole(consts, changing))

        def body(state: tuple) -> tuple:
            t, changing, ys, record = state
            record = write_rows(record, t, split(changing, recorded)[1])
            changing, y = self.step(consts, t, changing)
            return t + 1, changing, write_rows(ys, t, y), record

        return jax.lax.while_loop(goes_on, body, (n, changing, ys, record))

    def _empty_record(self, first: list) -> list:
        """A buffer with a row for each step.

        Rows that are never written hold a carry with which a step can start: under
        vmap a derivative is taken there too, and dropped.
        """
        # Moved before it is repeated: the device has no memory for the record.
        rows = lambda x: jnp.broadcast_to(x, (self.limit, *x.shape))
        return [rows(x) for x in self.place(first)]

    def find_reads(self, consts: Any, changing: list) -> list[bool]:
        """For each leaf that changes, whether the derivative of a step reads it."""
        leaves, tree = jax.tree.flatten((consts, changing))
        floats = [is_float(x) for x in leaves]

        def tangent(t: Array, leaves: list, tangents: list) -> Any:
            others, primals = split(leaves, floats)

            def of_floats(primals: list) -> Any:
                consts, changing = tree.unflatten(merge(others, primals, floats))
                return [only_floats(out) for out in self.step(consts, t, changing)]

            return jax.jvp(of_floats, (primals,), (tangents,))[1]

        t = as_varying_as(leaves, jnp.zeros((), jnp.int32))
        jaxpr = jax.make_jaxpr(tangent)(t, leaves, only_floats(leaves)).jaxpr
        _, is_read = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        return is_read[1 : 1 + len(leaves)][len(leaves) - len(changing) :]


@dataclasses.dataclass(frozen=True)
class _LinearLoop:
    """The tangent of a loop, a linear function of the tangents of `(perturbed, state)`.

    What is perturbed are constants; the state are the floating leaves that change.

    Attributes:
        loop: The loop.
        consts_tree: The structure of its constants.
        reads: For each leaf that changes, whether it is recorded.
        perturbed: For each constant, whether it is perturbed.
        floats: For each leaf that changes, whether it is part of the state.
        recorded: For each leaf of the state, whether its record has a tangent.
    """

    loop: _Loop
    consts_tree: Any
    reads: list[bool]
    perturbed: list[bool]
    floats: list[bool]
    recorded: list[bool]

    def step_at(self, t: Array, residuals: Any) -> tuple[Callable, list, list]:
        """Step t as a function of `(perturbed, state)`, and these."""
        _, unperturbed, perturbed, unread, record = residuals
        entry = merge(unread, read_rows(record, t), self.reads)
        others, state = split(entry, self.floats)

        def step(perturbed: list, state: list) -> list[list]:
            leaves = merge(unperturbed, perturbed, self.perturbed)
            consts = self.consts_tree.unflatten(leaves)
            outs = self.loop.step(consts, t, merge(others, state, self.floats))
            return [only_floats(out) for out in outs]

        return step, perturbed, state

    def push_forward(self, residuals: Any, tangents: Any) -> tuple[list, list, list]:
        """From tangents of `(perturbed, state)` to those of `(state, ys, record)`."""
        d_perturbed, d_state = tangents

        def step(t: Array, carry: Any) -> tuple[Any, Any]:
            n, d_state = carry
            fn, *primals = self.step_at(t, residuals)
            d_new, d_y = jax.jvp(fn, primals, [d_perturbed, d_state])[1]
            return (n, d_new), (d_y, split(d_state, self.recorded)[1])

        carry = residuals[0], d_state
        _, (_, d_state), ys = bounded_loop(_before_end, step, carry, self.loop.limit)
        d_ys, d_record = ys
        return d_state, d_ys, self.loop.place(d_record)

    def pull_back(self, residuals: Any, cotangents: Any) -> tuple[list, list]:
        """From cotangents of `(state, ys, record)` to those of `(perturbed, state)`."""
        n, _, perturbed, *_ = residuals
        c_state, c_ys, c_record = dense(cotangents[0]), *cotangents[1:]

        def step(i: Array, carry: Any) -> tuple[Any, Any]:
            n, c_perturbed, c_state = carry
            t = n - 1 - i
            fn, *primals = self.step_at(t, residuals)
            _, pull_back = jax.vjp(fn, *primals)
            terms, c_state = pull_back([c_state, read_rows(dense(c_ys), t)])
            unrecorded, recorded = split(c_state, self.recorded)
            if only_arrays(c_record):
                recorded = add(recorded, read_rows(dense(c_record), t))
            c_state = merge(unrecorded, recorded, self.recorded)
            return (n, add(c_perturbed, to_device(terms)), c_state), ()

        # Sums are computed on the device, even those for what the host stores.
        zeros = to_device([jnp.zeros_like(x) for x in perturbed])
        zeros = as_varying_as((residuals, only_arrays(cotangents)), zeros)
        carry = n, zeros, c_state
        _, carry, _ = bounded_loop(_before_end, step, carry, self.loop.limit)
        _, c_perturbed, c_state = carry
        return move_beside(perturbed, c_perturbed), c_state
