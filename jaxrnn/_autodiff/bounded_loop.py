"""A while loop with a bound on its steps that can be differentiated in every mode.

JAX cannot reverse `lax.while_loop`, as it keeps nothing of the steps. With a bound on
their number there is a place to keep it: a loop that is differentiated also records
what each step started from. Its tangent is another bounded loop that walks over the
record, and the transpose of that one more, from the last step to the first. All three
are while loops that end with the last step taken. As the tangent is a bounded loop
itself, it can be differentiated again.

* A loop that is not differentiated records nothing.
* Forward and backward cost what the steps taken cost; what the bound costs is memory
  for the record, and its filling.
* Only what a step's derivative reads is recorded: not a buffer that is only written to.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.interpreters import partial_eval

from .._base.sharding import as_varying_as, zeros_along
from .._base.typing import Array, PyTree
from .differentiable import differentiable
from .host import move_beside, read_rows, to_device, to_host, write_rows
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
        carry: What the first step is given.
        limit: The most steps that are taken, static.
        on_host: Whether what is recorded lies in the memory of the host.

    Returns:
        `(n, carry, ys)`: the number of steps taken, an int32 scalar; the carry after
        them; and the y of each step, `[limit, ...]`, zeros for steps not taken.
    """
    loop, closed_over = _trace(running, step, carry, limit, on_host)
    fixed, changing = split(jax.tree.leaves(carry), loop.changes)
    consts = closed_over, fixed
    # Without steps there is no row to read, and no derivative but that of nothing.
    run = _run if limit else _Loop.run_plainly
    n, changing, ys = run(loop, consts, changing)
    return n, loop.whole(consts, changing), loop.ys_tree.unflatten(ys)


def time_loop(
    count: Array | None,
    limit: int,
    body: Callable[[Array, PyTree], PyTree],
    carry: PyTree,
) -> PyTree:
    """`carry = body(t, carry)` for t from 0; differentiable in every mode.

    Args:
        count: How many steps to take, an int32 scalar; None for `limit`.
        limit: The most steps that are taken, static.
        body: A step; it may close over arrays.
        carry: What the first step is given.
    """
    if count is None:
        return jax.lax.fori_loop(np.int32(0), np.int32(limit), body, carry)

    def step(t: Array, carry: PyTree) -> tuple[PyTree, tuple]:
        count, carry = carry
        return (count, body(t, carry)), ()

    return bounded_loop(_before_end, step, (count, carry), limit)[1][1]


def _run(loop: "_Loop", consts: Any, changing: list) -> tuple:
    """`loop.run_plainly`, of which JAX knows the derivatives."""

    def run_recorded(consts: Any, changing: list) -> tuple:
        return loop.run(consts, changing, loop.find_read(consts, changing))

    def push_forward(keep: int, primals: Any, tangents: Any) -> tuple[tuple, tuple]:
        of_record = functools.partial(push_forward, 3)
        n, *outs = differentiable(run_recorded, of_record, *primals)
        tangent = _Tangent(loop, primals, tangents, keep == len(outs))
        d_outs = tangent.outs(n, primals, tangents, outs[-1])[:keep]
        outs = outs[:keep]
        moved = [with_zero_tangents(*pair) for pair in zip(outs, d_outs, strict=True)]
        return (n, *outs), (zero_tangent(n), *moved)

    rule = functools.partial(push_forward, 2)
    return differentiable(loop.run_plainly, rule, consts, changing)


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
    trees = tree, jax.tree.structure(ys)
    loop = _Loop(running, limit, closed.jaxpr, *trees, on_host)
    return loop, list(closed.consts)


class _Loop:
    """A step as a flat function of its constants and of what changes in the carry.

    The constants are what it closes over, and the leaves of the carry that it hands on
    as they are.
    """

    def __init__(
        self,
        running: Callable,
        limit: int,
        jaxpr: Any,
        carry_tree: Any,
        ys_tree: Any,
        on_host: bool,
    ) -> None:
        self.running, self.limit, self.jaxpr = running, limit, jaxpr
        self.carry_tree, self.ys_tree = carry_tree, ys_tree
        self.read: list[bool] = []
        self.place = to_host if on_host else list
        ends = list(zip(jaxpr.invars[1:], jaxpr.outvars, strict=False))
        self.changes = [before is not after for before, after in ends]
        self.y_types = [v.aval for v in jaxpr.outvars[len(ends) :]]

    def whole(self, consts: Any, changing: list) -> PyTree:
        """The carry that these are the parts of."""
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
        """The loop itself: `(n, changing, ys, record)`."""
        rows = lambda x: jnp.broadcast_to(x, (self.limit, *x.shape))
        # Rows that are not written hold what a step can start from, in case that under
        # vmap a derivative is taken there too, and dropped.
        # A row is moved before it is repeated: the device has no room for the record.
        record = [rows(x) for x in self.place(split(changing, recorded)[1])]
        ys = [zeros_along(0, self.limit, y) for y in self.y_types]
        n, ys = as_varying_as((consts, changing), (jnp.zeros((), jnp.int32), ys))
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

    def run_plainly(self, consts: Any, changing: list) -> tuple:
        """The loop without a record: `(n, changing, ys)`."""
        return self.run(consts, changing, [False] * len(changing))[:3]

    def find_read(self, consts: Any, changing: list) -> list[bool]:
        """For each leaf that changes, whether a step's derivative reads its value."""
        if self.read:
            return self.read
        leaves, tree = jax.tree.flatten((consts, changing))
        floats = [is_float(x) for x in leaves]

        def tangent(t: Array, leaves: list, tangents: list) -> Any:
            rest, primals = split(leaves, floats)

            def of_floats(primals: list) -> Any:
                consts, changing = tree.unflatten(merge(rest, primals, floats))
                return [only_floats(out) for out in self.step(consts, t, changing)]

            return jax.jvp(of_floats, (primals,), (tangents,))[1]

        t = as_varying_as(leaves, jnp.zeros((), jnp.int32))
        jaxpr = jax.make_jaxpr(tangent)(t, leaves, only_floats(leaves)).jaxpr
        _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
        self.read = used[1 : 1 + len(leaves)][len(leaves) - len(changing) :]
        return self.read


class _Tangent:
    """What moving a loop's constants and start does to what it returns.

    With `keeps_record` also what it does to the record, for derivatives of derivatives.
    """

    def __init__(
        self, loop: _Loop, primals: Any, tangents: Any, keeps_record: bool
    ) -> None:
        consts, start = primals
        self.loop, self.consts_tree = loop, jax.tree.structure(consts)
        self.moved = [not is_zero_tangent(d) for d in jax.tree.leaves(tangents[0])]
        self.floats = [is_float(x) for x in start]
        self.kept = [r and keeps_record for r in split(loop.read, self.floats)[1]]

    def outs(
        self, n: Array, primals: Any, tangents: Any, record: list
    ) -> tuple[list, list, list]:
        """The tangents of the floating parts of `(changing, ys, record)`."""
        (consts, start), (d_consts, d_start) = primals, tangents
        still, moving = split(jax.tree.leaves(consts), self.moved)
        res = (n, still, moving, split(start, self.loop.read)[0], record)
        d_moving = split(jax.tree.leaves(d_consts), self.moved)[1]
        pairs = zip(start, d_start, strict=True)
        d_state = [dense_tangent(x, d) for x, d in pairs if is_float(x)]
        return transposable(self.forward, self.backward, res, (d_moving, d_state))

    def at(self, t: Array, res: Any) -> tuple[Callable, list, list]:
        """Step t as a function of `(moving, state)`, and these."""
        _, still, moving, unread, record = res
        entry = merge(unread, read_rows(record, t), self.loop.read)
        rest, state = split(entry, self.floats)

        def step(moving: list, state: list) -> list[list]:
            consts = self.consts_tree.unflatten(merge(still, moving, self.moved))
            outs = self.loop.step(consts, t, merge(rest, state, self.floats))
            return [only_floats(out) for out in outs]

        return step, moving, state

    def forward(self, res: Any, lin: Any) -> tuple[list, list, list]:
        """From tangents of `(moving, state)` to those of `(state, ys, record)`."""
        d_moving, d_state = lin

        def step(t: Array, carry: Any) -> tuple[Any, Any]:
            n, d_state = carry
            fn, *primals = self.at(t, res)
            d_new, d_y = jax.jvp(fn, primals, [d_moving, d_state])[1]
            return (n, d_new), (d_y, split(d_state, self.kept)[1])

        _, (_, d_state), (d_ys, d_record) = bounded_loop(
            _before_end, step, (res[0], d_state), self.loop.limit
        )
        return d_state, d_ys, self.loop.place(d_record)

    def backward(self, res: Any, cotangents: Any) -> tuple[list, list]:
        """From cotangents of `(state, ys, record)` to those of `(moving, state)`."""
        c_state, c_ys, c_record = dense(cotangents[0]), *cotangents[1:]

        def step(t: Array, carry: Any) -> tuple[Any, Any]:
            n, c_moving, c_state = carry
            t = n - 1 - t
            fn, *primals = self.at(t, res)
            _, pull_back = jax.vjp(fn, *primals)
            more, c_state = pull_back([c_state, read_rows(dense(c_ys), t)])
            unkept, kept = split(c_state, self.kept)
            if only_arrays(c_record):
                kept = add(kept, read_rows(dense(c_record), t))
            c_moving = add(c_moving, to_device(more))
            return (n, c_moving, merge(unkept, kept, self.kept)), ()

        # Sums are made on the device, even those for what lies on the host.
        zeros = to_device([jnp.zeros_like(x) for x in res[2]])
        nothing = as_varying_as((res, only_arrays(cotangents)), zeros)
        _, (_, c_moving, c_state), _ = bounded_loop(
            _before_end, step, (res[0], nothing, c_state), self.loop.limit
        )
        return move_beside(res[2], c_moving), c_state


def _before_end(t: Array, carry: Any) -> Array:
    return t < carry[0]
