"""A while loop with a bound on its steps that can be differentiated in every mode.

JAX cannot differentiate `lax.while_loop` backward, since the loop saves nothing of its
steps. With a bound on their number there can be a buffer for that: a loop that is
differentiated also saves the carry before each step, its record. The tangent of the
loop is another bounded loop that reads the record, and the transpose of that is a third
one, from the last step to the first. All three are while loops that end with the last
step taken. As the tangent is a bounded loop itself, it can be differentiated again.

* A loop that is not differentiated has no record.
* The time of the forward and the backward pass is proportional to the number of steps
  taken; the bound costs memory for the record, and the time to fill it.
* Only what the derivative of a step reads is recorded; a buffer that is only written to
  is not.
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
from .host import move_beside, read_entries, to_device, to_host, write_entries
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
    """Takes steps while `running(t, carry)`, at most `limit`.

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
    if limit:  # Otherwise no step is taken, and there is no entry to read.
        run = functools.partial(
            differentiable, run, functools.partial(_push_forward, loop, False)
        )
    n, changing, ys, _ = run(consts, changing)
    return n, loop.full_carry(consts, changing), loop.ys_tree.unflatten(ys)


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

    return bounded_loop(_t_below_count, step, (count, carry), limit)[1][1]


def _t_below_count(t: Array, carry: Any) -> Array:
    return t < carry[0]


def _trace(
    running: Callable, step: Step, carry: PyTree, limit: int, on_host: bool
) -> tuple["_Loop", list]:
    """The loop as a closed function, and the arrays that its step closed over."""
    # Not `closure_convert`, which leaves integers in the closure.
    t = as_varying_as(carry, jnp.zeros((), jnp.int32))
    closed, (new, ys) = jax.make_jaxpr(step, return_shape=True)(t, carry)
    tree = jax.tree.structure(carry)
    if jax.tree.structure(new) != tree:
        raise ValueError(
            "a step must keep the structure of its carry, "
            f"{tree}, got {jax.tree.structure(new)}."
        )
    to_memory = to_host if on_host else list
    trees = tree, jax.tree.structure(ys)
    jaxpr = _without_debug_checks(closed.jaxpr)
    return _Loop(running, limit, jaxpr, *trees, to_memory), list(closed.consts)


def _without_debug_checks(jaxpr: Any) -> Any:
    """The step without `checkify.debug_check`s: `checkify` does not see into the loop.

    Their effects would stay in the program, which `jax.export` then cannot serialize.
    """
    is_check = lambda eqn: eqn.primitive.name == "check" and eqn.params["debug"]
    eqns = [eqn for eqn in jaxpr.eqns if not is_check(eqn)]
    effects = set().union(*(eqn.effects for eqn in eqns))
    return jaxpr.replace(eqns=eqns, effects=effects)


def _push_forward(
    loop: "_Loop", with_record: bool, primals: Any, tangents: Any
) -> tuple[tuple, tuple]:
    """The derivative rule of a loop, whose outputs include its record or do not."""
    (consts, start), (d_consts, d_start) = primals, tangents
    recorded = loop.find_recorded(consts, start)
    run = functools.partial(loop.run, recorded=recorded)
    rule = functools.partial(_push_forward, loop, True)
    n, *outs = differentiable(run, rule, consts, start)
    (leaves, tree), d_leaves = jax.tree.flatten(consts), jax.tree.leaves(d_consts)
    perturbed = [not is_zero_tangent(d) for d in d_leaves]
    floats = [is_float(x) for x in start]
    record_is_output = [r and with_record for r in split(recorded, floats)[1]]
    linear = _LinearLoop(loop, tree, recorded, perturbed, floats, record_is_output)
    residuals = n, *split(leaves, perturbed), split(start, recorded)[0], outs[-1]
    pairs = zip(start, d_start, strict=True)
    d_state = [dense_tangent(x, d) for x, d in pairs if is_float(x)]
    linear_in = split(d_leaves, perturbed)[1], d_state
    rules = linear.push_forward, linear.pull_back
    d_floats = transposable(*rules, residuals, linear_in)
    outs = outs if with_record else outs[:-1]
    return (n, *outs), (zero_tangent(n), *map(with_zero_tangents, outs, d_floats))


@dataclasses.dataclass(frozen=True)
class _Loop:
    """The steps, as flat functions of constants and of the leaves that change.

    The constants are `(closed_over, fixed)`: the arrays that a step closes over, and
    the leaves of the carry that it returns as they are.

    Attributes:
        running: Whether to take a step.
        limit: The largest number of steps.
        jaxpr: The step.
        carry_tree: The structure of the carry.
        ys_tree: The structure of a y.
        to_memory: Moves leaves to the memory in which the record is stored.
    """

    running: Callable
    limit: int
    jaxpr: Any
    carry_tree: Any
    ys_tree: Any
    to_memory: Callable[[list], list]

    @functools.cached_property
    def changes(self) -> list[bool]:
        """For each leaf of the carry, whether a step changes it."""
        ends = zip(self.jaxpr.invars[1:], self.jaxpr.outvars, strict=False)
        return [before is not after for before, after in ends]

    def full_carry(self, consts: Any, changing: list) -> PyTree:
        """The carry, from its fixed leaves and from those that change."""
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
        """All steps: `(n, changing, ys, record)`."""
        y_types = [v.aval for v in self.jaxpr.outvars[len(self.changes) :]]
        ys = [zeros_along(0, self.limit, y) for y in y_types]
        start = jnp.zeros((), jnp.int32), ys
        n, ys = as_varying_as((consts, changing), start)
        record = self._empty_record(split(changing, recorded)[1])
        if not self.limit:
            return n, changing, ys, record

        def goes_on(state: tuple) -> Array:
            t, changing, _, _ = state
            return (t < self.limit) & self.running(t, self.full_carry(consts, changing))

        def body(state: tuple) -> tuple:
            t, changing, ys, record = state
            record = write_entries(record, t, split(changing, recorded)[1])
            changing, y = self.step(consts, t, changing)
            return t + 1, changing, write_entries(ys, t, y), record

        return jax.lax.while_loop(goes_on, body, (n, changing, ys, record))

    def _empty_record(self, start: list) -> list:
        """Buffers with an entry for each step, all of which hold `start`.

        Entries that are never written hold a carry with which a step can be taken:
        under vmap a derivative is computed there too, and dropped.
        """
        # Moved before it is broadcast: the device may lack memory for the record.
        entries = lambda x: jnp.broadcast_to(x, (self.limit, *x.shape))
        return [entries(x) for x in self.to_memory(start)]

    def find_recorded(self, consts: Any, changing: list) -> list[bool]:
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

    `perturbed` are the perturbed constants, `state` the floating leaves that change.

    Attributes:
        loop: The loop.
        consts_tree: The structure of its constants.
        recorded: For each leaf that changes, whether it is recorded.
        perturbed: For each constant, whether it is perturbed.
        floats: For each leaf that changes, whether it is part of the state.
        record_is_output: For each leaf of the state, whether its record is among the
            outputs, and has a tangent.
    """

    loop: _Loop
    consts_tree: Any
    recorded: list[bool]
    perturbed: list[bool]
    floats: list[bool]
    record_is_output: list[bool]

    def step_at(self, t: Array, residuals: Any) -> tuple[Callable, list, list]:
        """Step t as a function of `(perturbed, state)`, and these two."""
        _, unperturbed, perturbed, unrecorded, record = residuals
        changing = merge(unrecorded, read_entries(record, t), self.recorded)
        others, state = split(changing, self.floats)

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
            return (n, d_new), (d_y, split(d_state, self.record_is_output)[1])

        carry = residuals[0], d_state
        _, (_, d_state), ys = bounded_loop(_t_below_count, step, carry, self.loop.limit)
        d_ys, d_record = ys
        return d_state, d_ys, self.loop.to_memory(d_record)

    def pull_back(self, residuals: Any, cotangents: Any) -> tuple[list, list]:
        """From cotangents of `(state, ys, record)` to those of `(perturbed, state)`."""
        n, _, perturbed, *_ = residuals
        c_state, c_ys, c_record = dense(cotangents[0]), *cotangents[1:]

        def step(i: Array, carry: Any) -> tuple[Any, Any]:
            n, c_perturbed, c_state = carry
            t = n - 1 - i
            fn, *primals = self.step_at(t, residuals)
            _, pull_back = jax.vjp(fn, *primals)
            terms, c_state = pull_back([c_state, read_entries(dense(c_ys), t)])
            others, with_record = split(c_state, self.record_is_output)
            if only_arrays(c_record):
                with_record = add(with_record, read_entries(dense(c_record), t))
            c_state = merge(others, with_record, self.record_is_output)
            return (n, add(c_perturbed, to_device(terms)), c_state), ()

        # Sums are computed on the device, even those for what the host stores.
        zeros = to_device([jnp.zeros_like(x) for x in perturbed])
        zeros = as_varying_as((residuals, only_arrays(cotangents)), zeros)
        carry = n, zeros, c_state
        _, carry, _ = bounded_loop(_t_below_count, step, carry, self.loop.limit)
        _, c_perturbed, c_state = carry
        return move_beside(perturbed, c_perturbed), c_state
