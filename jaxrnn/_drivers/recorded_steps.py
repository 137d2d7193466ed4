"""Differentiates a loop on CPUs, from the recorded carry before each step.

The loop runs as a while loop that also returns the carry before each step. The tangent
is a while loop over the same steps. The transpose is a while loop that runs backward,
from the last step taken to the first step. The tangent and the transpose rerun each
step to recompute the residuals. The forward and backward passes of the scan in
`loop_forms.py` take 1.3 to 1.9 times as long as these loops, and need the same memory
unless the carry is large. On other platforms, in exported programs and for higher
derivatives, the derivative of the scan is used.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._base.math import cast_like, is_float, widened
from .._base.operation import run_beside_xla
from .._base.sharding import zeros_like
from .._base.typing import Array, PyTree
from .loop_forms import Loop

# Two lists of values, tangents or cotangents. The lists of inputs belong to the
# perturbed arrays and to the floats of the first carry. The lists of results belong to
# the floats of the last carry and to the floats of the ys.
Floats = tuple[list[Array], list[Array]]


class _Record(NamedTuple):
    """The record from which the derivative of a loop is computed.

    Attributes:
        arrays: The arrays that the steps read.
        first: The carry before the first step.
        carries: The carry before each step, with zeros for steps that were not taken.
        taken: The number of steps taken.
    """

    arrays: list
    first: PyTree
    carries: PyTree
    taken: Array


def jvp_by_record(loop: Loop, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """Returns the results of the loop and their tangents.

    Args:
        loop: The loop. Its steps must not have effects, and `max_steps` must be static.
        primals: The arrays of the loop, and the carry before the first step.
        tangents: The tangents of the primals, which may be symbolic zeros.
    """
    (arrays, first), (d_arrays, d_first) = primals, tangents

    def recording(arrays: list, t: Array, carry: PyTree) -> tuple[PyTree, PyTree]:
        after, y = loop.step(arrays, t, carry)
        return after, (y, carry)

    recorded = dataclasses.replace(loop, step=recording)
    results = run_beside_xla(recorded.as_while_loop, recorded.as_scan, *primals)
    taken, last, (ys, carries) = results
    record = _Record(arrays, first, carries, taken)
    steps = _Steps(loop, [i for i, d in enumerate(d_arrays) if _is_array(d)])
    dense = lambda x, d: d if _is_array(d) else zeros_like(x)
    d_carry = _floats(jax.tree.map(dense, first, d_first))
    d_read = [d_arrays[i] for i in steps.perturbed]
    d_last, d_ys = steps.tangent(record, (d_read, d_carry))
    outs = taken, last, ys
    no_tangent = lambda x: np.zeros(x.shape, jax.dtypes.float0)
    return outs, _with_floats(jax.tree.map(no_tangent, outs), [*d_last, *d_ys], outs)


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The steps of a loop, to differentiate with respect to some arrays and the carry.

    Attributes:
        loop: The loop.
        perturbed: The indices of the arrays that have tangents.
    """

    loop: Loop
    perturbed: list[int]

    def tangent(self, record: _Record, tangents: Floats) -> Floats:
        """Returns the tangents of the last carry and of the stacked results."""
        programs = self._push_forward, self._push_forward_by_scan

        def transpose(record: _Record, cts: Floats) -> Floats:
            pulls = self._pull_back, self._pull_back_by_scan
            return run_beside_xla(*pulls, record, cts)

        return run_beside_xla(*programs, record, tangents, transpose=transpose)

    def _push_forward(self, record: _Record, tangents: Floats) -> Floats:
        d_read, d_first = tangents

        def step(_: list, t: Array, d_carry: list) -> tuple[list, list]:
            run, values = self._at(record, t)
            return jax.jvp(run, values, (d_read, d_carry))[1]

        is_taken = lambda t, _: t < record.taken
        tangent = dataclasses.replace(self.loop, is_running=is_taken, step=step)
        return tangent.as_while_loop([], d_first)[1:]

    def _pull_back(self, record: _Record, cotangents: Floats) -> Floats:
        """Runs the transpose; accumulates sums over the steps in float32."""
        ct_last, ct_ys = cotangents
        read = self._perturbed(record)

        def body(loop: Any) -> Any:
            t, ct_carry, ct_read = loop
            run, values = self._at(record, t)
            pull = jax.vjp(run, *values)[1]
            terms, ct_carry = pull((ct_carry, [_entry(t, ct) for ct in ct_ys]))
            return t - 1, ct_carry, jax.tree.map(jnp.add, ct_read, widened(terms))

        zeros = jax.tree.map(jnp.zeros_like, widened(read))
        loop = record.taken - 1, ct_last, zeros
        _, ct_first, ct_read = jax.lax.while_loop(lambda loop: loop[0] >= 0, body, loop)
        return cast_like(read, ct_read), ct_first

    def _push_forward_by_scan(self, record: _Record, tangents: Floats) -> Floats:
        run, values = self._whole(record)
        return jax.jvp(run, values, tangents)[1]

    def _pull_back_by_scan(self, record: _Record, cotangents: Floats) -> Floats:
        run, values = self._whole(record)
        return jax.vjp(run, *values)[1](cotangents)

    def _at(self, record: _Record, t: Array) -> tuple[Callable, Floats]:
        """Returns step t as a function of floats, and the values of these floats."""
        step = lambda arrays, carry: self.loop.step(arrays, t, carry)
        carry = jax.tree.map(lambda x: _entry(t, x), record.carries)
        return self._of_floats(step, record, carry)

    def _whole(self, record: _Record) -> tuple[Callable, Floats]:
        """Returns the loop as a function of floats, and the values of these floats."""
        run = lambda arrays, carry: self.loop.as_scan(arrays, carry)[1:]
        return self._of_floats(run, record, record.first)

    def _of_floats(
        self, fn: Callable, record: _Record, carry: PyTree
    ) -> tuple[Callable, Floats]:
        def run(read: list, floats: list) -> Floats:
            replaced = dict(zip(self.perturbed, read, strict=True))
            arrays = [replaced.get(i, x) for i, x in enumerate(record.arrays)]
            after, y = fn(arrays, _with_floats(carry, floats, carry))
            return _floats(after), _floats(y)

        return run, (self._perturbed(record), _floats(carry))

    def _perturbed(self, record: _Record) -> list[Array]:
        return [record.arrays[i] for i in self.perturbed]


def _entry(t: Array, x: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(x, t, keepdims=False)


def _is_array(x: Any) -> bool:
    """Whether a tangent is an array instead of a symbolic zero."""
    return isinstance(x, jax.Array)


def _floats(tree: PyTree) -> list[Array]:
    """Returns the floating-point leaves; only these leaves have tangents."""
    return [x for x in jax.tree.leaves(tree) if is_float(x)]


def _with_floats(tree: PyTree, floats: list[Array], like: PyTree) -> PyTree:
    """Replaces, in order, each leaf of `tree` that is a float in `like`."""
    rest = iter(floats)
    put = lambda x, y: next(rest) if is_float(y) else x
    return jax.tree.map(put, tree, like)
