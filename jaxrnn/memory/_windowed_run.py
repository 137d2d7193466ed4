"""Sequences in windows, of which little is kept between the ways forward and back.

JAX can do much of this by `jax.checkpoint` around the body of a scan over windows. But
such a scan wants its inputs cut into windows, which copies them where they are not time
major or do not divide; and where it reads them itself, its transpose adds the gradient
of all inputs to that of all inputs once a window. Here a window is read where it lies,
and its gradient is written where it belongs, also in windows of windows.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr
from jax.custom_derivatives import SymbolicZero

from .._autodiff.differentiable import differentiable
from .._autodiff.host import to_device, to_host
from .._autodiff.leaves import (
    add,
    dense_tangent,
    is_float,
    is_zero_tangent,
    merge,
    only_floats,
    split,
    with_zero_tangents,
)
from .._autodiff.transposable import dense, only_arrays, transposable
from .._base.sharding import as_varying_as, buffers_for
from .._base.typing import Array, PyTree
from .._time.steps import Steps
from ._residuals import FirstState, Residuals, Window
from ._strategy import Record

Run = Callable[[PyTree, PyTree, Steps], tuple[PyTree, PyTree]]
Go = Callable[..., Any]


def run_recorded(
    record: Record, run: Run, xs: PyTree, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`run(xs, state, steps)`, of which derivatives keep what the record says.

    Args:
        record: What is kept.
        run: Gives `(outputs, state)`, outputs along the same axes as `xs`. It may close
            over arrays, and gives of a window what it gives of that part of the whole.
        xs: Inputs, time along `steps.axis`.
        state: The initial state.
        steps: Their steps, at least one.
    """
    if not record.windows:
        return run(xs, state, steps)
    fresh, steps = steps.restart_states, steps.with_restart_states(None)
    windows = _Windows(run, (xs, state, fresh), steps, record)

    def push_forward(primals: Any, tangents: Any) -> tuple[Any, Any]:
        (values, steps), d_values = primals, tangents[0]
        tangent = _Tangent(windows, record, values, d_values)
        outs, kept = tangent.run(values, steps)
        d_outs = tangent.outs((values, steps, kept), d_values)
        moved = [with_zero_tangents(*pair) for pair in zip(outs, d_outs, strict=True)]
        return outs, tuple(moved)

    outputs, state = differentiable(windows.run, push_forward, windows.values, steps)
    outputs_tree, state_tree = windows.out_trees
    return outputs_tree.unflatten(outputs), state_tree.unflatten(state)


class _Values(NamedTuple):
    """What a run is differentiated by, as lists of leaves."""

    consts: list
    xs: list
    state: list
    fresh: list

    def split(self, marks: "_Values") -> tuple["_Values", "_Values"]:
        """Those that are not marked, and those that are."""
        pairs = [split(*pair) for pair in zip(self, marks, strict=True)]
        rest, marked = zip(*pairs, strict=True)
        return _Values(*rest), _Values(*marked)

    def merge(self, marked: "_Values", marks: "_Values") -> "_Values":
        """What `split` took apart, of which these are not marked."""
        return _Values(*map(merge, self, marked, marks))


class _Windows:
    """A run cut into windows, these into smaller ones, and so on.

    A piece is what a level cuts: at level 0 the whole, at level 1 a window of level 0.
    The last of its windows has the steps that are left.
    """

    def __init__(self, run: Run, args: tuple, steps: Steps, record: Record) -> None:
        self.sizes = record.windows
        self.values = _Values([], *map(jax.tree.leaves, args))
        self.trees = tuple(map(jax.tree.structure, args))
        innermost = self._innermost(0, steps.time)
        self.traced = {size: self._trace(run, size, steps) for size in innermost}

    def _innermost(self, level: int, length: int) -> set[int]:
        """The sizes of the innermost windows of a piece."""
        if level == len(self.sizes) or not length:
            return {length} - {0}
        size, _, left = self.parts(level, length)
        return self._innermost(level + 1, size) | self._innermost(level + 1, left)

    def _trace(self, run: Run, size: int, steps: Steps) -> tuple[Any, slice]:
        """The run over so many steps, and which of the constants are its own."""

        def flat(lists: list, steps: Steps) -> tuple[PyTree, PyTree]:
            pairs = zip(self.trees, lists, strict=True)
            xs, state, fresh = (tree.unflatten(leaves) for tree, leaves in pairs)
            return run(xs, state, steps.with_restart_states(fresh))

        (consts, *lists), steps = self.cut(self.values, steps, size, jnp.int32(0))
        # Not `closure_convert`, which leaves integers in the closure.
        closed, outs = jax.make_jaxpr(flat, return_shape=True)(lists, steps)
        own = slice(len(consts), len(consts) + len(closed.consts))
        consts.extend(closed.consts)
        self.out_trees = tuple(map(jax.tree.structure, outs))
        return closed.jaxpr, own

    def cut(
        self, values: _Values, steps: Steps, size: int, start: Array
    ) -> tuple[_Values, Steps]:
        """The inputs and the steps from `start` on, `size` of them."""
        xs = steps.read_window(values.xs, start, size)
        return values._replace(xs=xs), steps.window(start, size)

    def window(self, size: int, values: _Values, steps: Steps) -> tuple[list, list]:
        """`(outputs, state)` of what `cut` gave."""
        jaxpr, own = self.traced[size]
        consts, *lists = values
        outs = eval_jaxpr(jaxpr, consts[own], *jax.tree.leaves((lists, steps)))
        count = self.out_trees[0].num_leaves
        return outs[:count], outs[count:]

    def run(self, values: _Values, steps: Steps) -> tuple[list, list]:
        """`(outputs, state)` of all steps."""

        def visit(size: int, start: Array, state: list) -> tuple[list, list]:
            here = self.cut(values._replace(state=state), steps, size, start)
            outputs, state = self.window(size, *here)
            return state, outputs

        visit, carry = self.collecting(visit, values.state, (values, steps))
        state, room = self.through(0, steps.time, jnp.int32(0), visit, carry)
        return room, state

    def collecting(
        self, visit: Go, carry: Any, like: tuple[Any, Steps]
    ) -> tuple[Go, tuple[Any, list]]:
        """A visit that writes what it puts out, and what the first one is given.

        Args:
            visit: `carry, outputs = visit(size, start, carry)`.
            carry: What the first one is given.
            like: What outputs vary as, and the steps.
        """
        steps = like[1]

        def collect(size: int, start: Array, carry: Any) -> Any:
            carry, room = carry
            carry, outputs = visit(size, start, carry)
            return carry, steps.write_window(room, start, outputs)

        def step(carry: Any) -> list:
            outputs = visit(max(self.traced), jnp.int32(0), carry)[1]
            return steps.read(outputs, jnp.int32(0))

        types = jax.eval_shape(step, carry)
        return collect, (carry, buffers_for(like, types, steps.time, steps.axis))

    def through(
        self, level: int, length: int, start: Array, visit: Go, carry: Any
    ) -> Any:
        """`carry = visit(size, start, carry)` over the innermost windows of a piece."""
        if level == len(self.sizes):
            return visit(length, start, carry)

        def go(size: int, start: Array, carry: Any) -> tuple[Any, list]:
            return self.through(level + 1, size, start, visit, carry), []

        return self.forward(level, length, start, go, carry)[0]

    def forward(
        self,
        level: int,
        length: int,
        start: Array,
        go: Go,
        carry: Any,
        on_host: bool = False,
    ) -> tuple[Any, tuple[list, list]]:
        """`carry, kept = go(size, start, carry)` over the windows of a piece.

        Args:
            level: The level that cuts the piece.
            length: Its number of steps.
            start: Its first step.
            go: Takes one window.
            carry: What the first one is given.
            on_host: Whether what is kept lies in the memory of the host.
        """
        size, count, left = self.parts(level, length)
        place = to_host if on_host else list

        def window(carry: Any, i: Array) -> tuple[Any, list]:
            carry, kept = go(size, start + i * size, carry)
            return carry, place(kept)

        carry, rows = jax.lax.scan(window, carry, jnp.arange(count, dtype=jnp.int32))
        last = []
        if left:
            carry, last = go(left, start + count * size, carry)
        return carry, (rows, place(last))

    def backward(
        self, level: int, length: int, start: Array, go: Go, carry: Any, kept: Any
    ) -> Any:
        """`carry = go(size, start, carry, kept)`, from the last window to the first."""
        size, count, left = self.parts(level, length)
        rows, last = kept
        if left:
            carry = go(left, start + count * size, carry, to_device(last))

        def window(carry: Any, at: Any) -> tuple[Any, tuple]:
            i, kept = at
            return go(size, start + i * size, carry, to_device(kept)), ()

        at = jnp.arange(count, dtype=jnp.int32), rows
        return jax.lax.scan(window, carry, at, reverse=True)[0]

    def parts(self, level: int, length: int) -> tuple[int, int, int]:
        """A piece's windows: their size, their number, and the steps that are left."""
        size = min(self.sizes[level], length)
        return size, *divmod(length, size)


class _Tangent:
    """What moving a run's values does to its outputs and its last state."""

    def __init__(
        self, windows: _Windows, record: Record, values: _Values, tangents: _Values
    ) -> None:
        self.windows, self.on_host = windows, record.on_host
        self.keeper = Residuals() if record.whole else FirstState()
        self.innermost = len(record.windows) - 1
        moves = [[not is_zero_tangent(d) for d in part] for part in tangents]
        self.marks = _Values(*moves)._replace(state=[is_float(x) for x in values.state])

    def run(self, values: _Values, steps: Steps) -> tuple[tuple[list, list], Any]:
        """`((outputs, state), kept)`."""
        visit = functools.partial(self.visit, values, steps)
        plain = lambda *args: visit(*args)[:2]
        collect, carry = self.windows.collecting(plain, values.state, (values, steps))

        def keep(size: int, start: Array, carry: Any) -> tuple[Any, Any]:
            state, room = carry
            state, outputs, kept = visit(size, start, state)
            return (state, steps.write_window(room, start, outputs)), kept

        piece = 0, steps.time, jnp.int32(0)
        (state, room), kept = self.keep(*piece, collect, keep, carry)
        return (room, state), kept

    def visit(
        self, values: _Values, steps: Steps, size: int, start: Array, state: list
    ) -> tuple[list, list, Any]:
        """`(state, outputs, kept)` of an innermost window."""
        at = functools.partial(self.at, values, steps, size, start)
        (outputs, state), kept = self.keeper.keep(at, state)
        return state, outputs, kept

    def keep(
        self,
        level: int,
        length: int,
        start: Array,
        visit: Go,
        keep: Go,
        carry: Any,
    ) -> tuple[Any, Any]:
        """The windows of a piece, with what is kept of each.

        Args:
            level: The level that cuts the piece.
            length: Its number of steps.
            start: Its first step.
            visit: `carry = visit(size, start, carry)`, an innermost window.
            keep: `carry, kept = keep(size, start, carry)`, the same.
            carry: What the first one is given: the state, and what else there is.
        """

        def go(size: int, start: Array, carry: Any) -> tuple[Any, list]:
            if level == self.innermost:
                return keep(size, start, carry)
            args = level + 1, size, start, visit, carry
            return self.windows.through(*args), carry[0]

        on_host = self.on_host and not level
        return self.windows.forward(level, length, start, go, carry, on_host)

    def outs(self, res: Any, tangents: _Values) -> tuple[list, list]:
        """The tangents of the floating parts of `(outputs, state)`."""
        values, _, _ = res
        moved = [
            [dense_tangent(*pair) for pair in zip(*part, strict=True)]
            for part in zip(values, tangents, strict=True)
        ]
        moving = _Values(*moved).split(self.marks)[1]
        return transposable(self.push_forward, self.pull_back, res, moving)

    def at(
        self, values: _Values, steps: Steps, size: int, start: Array, state: list | None
    ) -> Window:
        """A window that starts from `state`; without one, what is known of it."""
        values = values._replace(state=values.state if state is None else state)
        values, steps = self.windows.cut(values, steps, size, start)
        still, moving = values.split(self.marks)

        def run(moving: _Values) -> tuple[tuple[list, list], tuple[list, list]]:
            whole = still.merge(moving, self.marks)
            outputs, state = self.windows.window(size, whole, steps)
            return (only_floats(outputs), only_floats(state)), (outputs, state)

        known = jax.tree.leaves((values._replace(state=[]), steps))
        return Window(size, run, moving, known)

    def push_forward(self, res: Any, d_moving: _Values) -> tuple[list, list]:
        """From tangents of what moves to those of `(outputs, state)`."""
        values, steps, _ = res

        def visit(size: int, start: Array, carry: Any) -> tuple[Any, list]:
            state, d_state = carry
            here = self.at(values, steps, size, start, state)
            d_xs = steps.read_window(d_moving.xs, start, size)
            d_here = d_moving._replace(xs=d_xs, state=d_state)
            _, (d_outputs, d_state), (_, state) = jax.jvp(
                here.run, (here.moving,), (d_here,), has_aux=True
            )
            return (state, d_state), d_outputs

        like = (res, d_moving), steps
        carry = values.state, d_moving.state
        visit, carry = self.windows.collecting(visit, carry, like)
        start = jnp.int32(0)
        (_, d_state), room = self.windows.through(0, steps.time, start, visit, carry)
        return room, d_state

    def pull_back(self, res: Any, cotangents: Any) -> _Values:
        """From cotangents of `(outputs, state)` to those of what moves."""
        values, steps, kept = res
        c_outputs, c_state = cotangents[0], dense(cotangents[1])

        def visit(size: int, start: Array, carry: _Values, kept: Any) -> _Values:
            at = functools.partial(self.at, values, steps, size, start)
            c_here = _cut(c_outputs, steps, start, size), carry.state
            c_here = self.keeper.pull_back(at, kept, c_here)
            return _Values(
                consts=add(carry.consts, c_here.consts),
                xs=steps.write_window(carry.xs, start, c_here.xs),
                state=c_here.state,
                fresh=add(carry.fresh, c_here.fresh),
            )

        run = functools.partial(self.visit, values, steps)
        zeros = jax.tree.map(jnp.zeros_like, values.split(self.marks)[1])
        carry = as_varying_as((res, only_arrays(cotangents)), zeros)
        carry = carry._replace(state=c_state)
        piece = 0, steps.time, jnp.int32(0)
        return self.back(*piece, run, visit, carry, kept)

    def back(
        self,
        level: int,
        length: int,
        start: Array,
        run: Go,
        visit: Go,
        *args: Any,
    ) -> _Values:
        """Over a piece from its last window to its first.

        Args:
            level: The level that cuts the piece.
            length: Its number of steps.
            start: Its first step.
            run: `state, outputs, kept = run(size, start, state)`, an innermost window.
            visit: `carry = visit(size, start, carry, kept)`, the way back over one.
            args: What the last one is given, and what is kept of all of them.
        """

        def forward(size: int, start: Array, carry: tuple) -> tuple:
            return (run(size, start, carry[0])[0],)

        def keep(size: int, start: Array, carry: tuple) -> tuple[tuple, Any]:
            state, _, kept = run(size, start, carry[0])
            return (state,), kept

        def go(size: int, start: Array, carry: _Values, kept: Any) -> _Values:
            if level == self.innermost:
                return visit(size, start, carry, kept)
            piece = level + 1, size, start
            _, kept = self.keep(*piece, forward, keep, (kept,))
            return self.back(*piece, run, visit, carry, kept)

        return self.windows.backward(level, length, start, go, *args)


def _cut(cotangents: list, steps: Steps, start: Array, size: int) -> list:
    """A window of them, of nothing a window of nothing."""

    def cut(c: Any) -> Any:
        if not isinstance(c, SymbolicZero):
            return steps.read_window(c, start, size)
        aval: Any = c.aval
        shape = list(aval.shape)
        shape[steps.axis] = size
        return SymbolicZero(aval.update(shape=tuple(shape)))

    return [cut(c) for c in cotangents]
