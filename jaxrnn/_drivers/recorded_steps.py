"""The derivative of a loop that recorded the carry before each of its steps.

The tangent is a scan over these carries; its transpose on CPUs is a while loop from the
last step that was taken to the first. Both run each step again for what its derivative
reads. Elsewhere, and for further derivatives, JAX transposes the scan: on CPUs that
took 1.15 times as long, as each of its chunks, which are skipped after the end, adds
to the gradients of all that the steps close over.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._base.math import cast_like, is_float, where, widened
from .._base.operation import run_beside_xla
from .._base.sharding import as_varying_as, zeros_like
from .._base.typing import Array, PyTree
from .._time.alive_scan import chunked_scan


class Record(NamedTuple):
    """What the derivative of a loop reads.

    Attributes:
        arrays: What its steps close over.
        first: The carry before the first step.
        carries: The carry before each step, zeros for steps not taken.
        taken: The number of steps taken.
    """

    arrays: list
    first: PyTree
    carries: PyTree
    taken: Array


@dataclasses.dataclass(frozen=True)
class RecordedSteps:
    """The steps of a loop.

    Attributes:
        step: `step(arrays, t, carry) -> (carry, y)`; it closes over no arrays.
        max_steps: The largest number of steps.
        perturbed: The indices of the arrays that have tangents.
    """

    step: Callable[[list, Array, PyTree], tuple[PyTree, PyTree]]
    max_steps: int
    perturbed: list[int]

    def tangent(
        self, record: Record, d_arrays: list, d_first: PyTree, like: PyTree
    ) -> PyTree:
        """The tangents of `like`, which is `(carry, ys)` after the loop.

        The tangents of the arrays and of the first carry may be symbolic zeros.
        """
        dense = lambda x, d: d if isinstance(d, jax.Array) else zeros_like(x)
        d_carry = _floats(jax.tree.map(dense, record.first, d_first))
        d_read = [d_arrays[i] for i in self.perturbed]
        linear = d_read, as_varying_as((record.first, d_read), d_carry)
        push, pull = self._push_forward, self._pull_back

        def pull_by_scan(record: Record, cts: Any) -> tuple[list, list]:
            read = self._read(record), _floats(record.first)
            return jax.linear_transpose(lambda d: push(record, d), read)(cts)[0]

        def transpose(record: Record, cts: Any) -> tuple[list, list]:
            return run_beside_xla(pull, pull_by_scan, record, cts)

        found = run_beside_xla(push, push, record, linear, transpose=transpose)
        floats = [*found[0], *found[1]]
        return _with_floats(jax.tree.map(no_tangent, like), floats, like)

    def _read(self, record: Record) -> list[Array]:
        return [record.arrays[i] for i in self.perturbed]

    def _of_floats(self, record: Record, t: Array, carry: PyTree) -> Callable:
        """Step t as a function of the perturbed arrays and of the carry's floats."""

        def run(read: list, floats: list) -> tuple[list, list]:
            replaced = dict(zip(self.perturbed, read, strict=True))
            arrays = [replaced.get(i, x) for i, x in enumerate(record.arrays)]
            after, y = self.step(arrays, t, _with_floats(carry, floats, carry))
            return _floats(after), _floats(y)

        return run

    def _push_forward(
        self, record: Record, tangents: tuple[list, list]
    ) -> tuple[list, list]:
        """The tangents of the last carry and of the ys."""
        read, d_read = self._read(record), widened(tangents[0])

        def step(d_carry: list, scanned: Any) -> tuple[list, list]:
            is_taken, t, carry = scanned
            # As finite as the loop is: what follows from it after the end is dropped.
            carry = where(is_taken, carry, record.first)
            run, given = self._of_floats(record, t, carry), (read, _floats(carry))
            d_given = cast_like(read, d_read), d_carry
            _, (d_after, d_y) = jax.jvp(run, given, d_given)
            zeros = jax.tree.map(jnp.zeros_like, d_y)
            return where(is_taken, d_after, d_carry), where(is_taken, d_y, zeros)

        times = jnp.arange(self.max_steps, dtype=jnp.int32)
        # A chunk may go on after the last step, which is then not taken again.
        scanned = times < record.taken, times, record.carries
        is_run = lambda t: t < record.taken
        return chunked_scan(step, tangents[1], scanned, is_run, save_inputs_only=True)

    def _pull_back(
        self, record: Record, cotangents: tuple[list, list]
    ) -> tuple[list, list]:
        """The transpose of `_push_forward`; gradients are summed in float32."""
        read, (ct_last, ct_ys) = self._read(record), cotangents

        def body(loop: Any) -> Any:
            t, ct_carry, ct_read = loop
            at_t = lambda x: jax.lax.dynamic_index_in_dim(x, t, keepdims=False)
            carry = jax.tree.map(at_t, record.carries)
            run = self._of_floats(record, t, carry)
            _, pull = jax.vjp(run, read, _floats(carry))
            terms, ct_carry = pull((ct_carry, list(map(at_t, ct_ys))))
            ct_read = jax.tree.map(jnp.add, ct_read, widened(terms))
            return t - 1, ct_carry, ct_read

        zeros = jax.tree.map(jnp.zeros_like, widened(read))
        loop = record.taken - 1, ct_last, zeros
        loop = as_varying_as((record, cotangents), loop)
        _, ct_first, ct_read = jax.lax.while_loop(lambda loop: loop[0] >= 0, body, loop)
        return cast_like(read, ct_read), ct_first


def no_tangent(x: Array) -> np.ndarray:
    """The tangent of an array of integers."""
    return np.zeros(x.shape, jax.dtypes.float0)


def _floats(tree: PyTree) -> list[Array]:
    """The leaves that have tangents."""
    return [x for x in jax.tree.leaves(tree) if is_float(x)]


def _with_floats(tree: PyTree, floats: list[Array], like: PyTree) -> PyTree:
    """The tree with these in the place of leaves that are floats in `like`."""
    rest = iter(floats)
    put = lambda x, y: next(rest) if is_float(y) else x
    return jax.tree.map(put, tree, like)
