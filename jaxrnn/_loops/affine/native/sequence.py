"""Runs whole sequences with the native loops, with derivatives of any order.

The native loops run the forward and backward passes. XLA's loop computes all other
derivatives, and runs on other platforms (`operation.py`).
"""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ...._base.math import cast, is_perturbed
from ...._base.trees import with_structure
from ...._base.typing import Array, Params, PyTree
from ...._run.masking import Steps
from ...._run.run import Run
from ..few_steps import why_few_steps
from ..xla_loop import AffineLoop, Primals, primals_of, with_tangent_rule
from .calls import NO_ROWS, ROWS, call, float32
from .operation import native_or_xla
from .supported import ACTIVATIONS, equations_of, native_cell

if TYPE_CHECKING:
    from ...._cells.affine import AffineCell

_REFUSAL = (
    "`implementation` 'native' runs only on CPUs in this process, but "
    "this program is compiled for another platform or exported. To use XLA's loop, "
    "do not pass `implementation` to the function or module."
)


class NativeLoop:
    """Runs whole sequences of a cell in native loops, forward and backward.

    A call runs whole sequences on several threads. The call rearranges matrices once
    for fast matrix products, and performs the element-wise operations right after each
    product. After the backward loop, large products over the steps of all rows compute
    the gradients of matrices and inputs.

    Under `vmap`, mapped axes become rows of one call, and gradients are computed as for
    a batch of all rows. If parameters are mapped, the mapped axes become independent
    batches, the *entries* of the call, which share its threads. Rows on several devices
    need `jax.shard_map`, because XLA cannot partition the call.

    Args:
        cell: An `AffineCell`.
        is_default: Whether to use XLA's loop for few steps, and in programs for other
            platforms. If False, compiling for another platform raises an error.
    """

    def __init__(self, cell: "AffineCell", is_default: bool = False) -> None:
        self.cell = cell
        self.is_default = is_default
        self.refusal = None if is_default else _REFUSAL
        self.equations: Any = equations_of(cell)
        self.native_cell = native_cell(self.equations)

    def run(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps; returns the same `(outputs, state)` as a scan.

        Args:
            params: The cell's parameters.
            run: The inputs, `[batch, time, depth]`, or `[time, batch, depth]` if
                `run.steps.axis` is 0; the initial state, each leaf `[batch, size]`; and
                the steps.
        """
        run_all = with_tangent_rule(self.forward, self.push_forward)
        return run_all(*primals_of(self.cell, params, run))

    def forward(
        self, primals: Primals, steps: Steps, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Runs all steps; returns `(outputs, state, saved)`.

        `saved` is `(zs, (h, c))`, with the axes of the inputs: the products, and the
        state before each step. If there are no resets, h before a step equals the
        output of the previous step. In this case, `outputs` are saved instead of h, and
        functions that read h shift the outputs by one step.
        """
        xla = functools.partial(self._forward_by_xla, save=save)

        def native(primals: Primals, steps: Steps) -> tuple:
            if self._is_short(primals, steps):
                return xla(primals, steps)
            return self._forward(primals, steps, save)

        of_primals, of_steps, sequence = _row_axes(steps)
        rows = (of_primals, of_steps), (sequence, ROWS, sequence)
        return native_or_xla(
            native, xla, primals, steps, refusal=self.refusal, rows=rows
        )

    def push_forward(
        self, primals: Primals, steps: Steps, saved: PyTree, tangents: Primals
    ) -> tuple[PyTree, PyTree]:
        """Computes tangents of `(outputs, state)`; the transpose is a native loop."""
        perturbed = jax.tree.map(is_perturbed, tangents)

        def only_perturbed(tree: Primals) -> Primals:
            return jax.tree.map(lambda keep, x: x if keep else None, perturbed, tree)

        def pull(*args: PyTree) -> Primals:
            return only_perturbed(self.transpose(*args))

        args = primals, steps, saved, only_perturbed(tangents)
        of_primals, of_steps, sequence = _row_axes(steps)
        rows = (of_primals, of_steps, sequence, of_primals), (sequence, ROWS)
        return native_or_xla(
            self.tangent, self.tangent, *args, transpose=pull, rows=rows
        )

    def tangent(
        self, primals: Primals, steps: Steps, saved: PyTree, tangents: Primals
    ) -> tuple[PyTree, PyTree]:
        """Computes the tangents of `(outputs, state)` in XLA's loop."""
        primals = primals._replace(xs=steps.to_time_major(primals.xs))
        tangents = tangents._replace(xs=steps.to_time_major(tangents.xs))
        saved = self._saved_by_xla(primals, steps, steps.to_time_major(saved))
        d_outputs, d_state = AffineLoop(self.cell).push_forward(
            primals, steps.time_first(), saved, tangents
        )
        return steps.from_time_major(d_outputs), d_state

    def transpose(
        self, primals: Primals, steps: Steps, saved: PyTree, cotangents: tuple
    ) -> Primals:
        """Computes the cotangents of the primals, on CPUs in a native loop."""

        def by_xla(primals: Primals, steps: Steps, saved: PyTree, cts: Any) -> Primals:
            push = functools.partial(self.tangent, primals, steps, saved)
            return jax.linear_transpose(push, primals)(cts)[0]

        def native(primals: Primals, steps: Steps, *args: Any) -> Primals:
            pull = by_xla if self._is_short(primals, steps) else self._backward
            return pull(primals, steps, *args)

        # A mapped transpose returns one gradient for each mapped entry, so it has no
        # `rows`. Its loop still runs once, on all mapped rows; see `call`.
        args = primals, steps, saved, cotangents
        return native_or_xla(native, by_xla, *args, refusal=self.refusal)

    def _is_short(self, primals: Primals, steps: Steps) -> bool:
        """Whether to run XLA's loop by default, because there are few steps."""
        return self.is_default and bool(why_few_steps(self.cell, primals.xs, steps))

    def _forward_by_xla(self, primals: Primals, steps: Steps, save: bool) -> tuple:
        primals = primals._replace(xs=steps.to_time_major(primals.xs))
        xla = AffineLoop(self.cell)
        outputs, state, saved = xla.forward(primals, steps.time_first(), save)
        if save:
            zs, states = saved
            h, c = self._split(states)
            if steps.resets is None:
                h = outputs[0] if steps.returns_states else outputs
            saved = zs, (h, c)
        outputs, saved = steps.from_time_major((outputs, saved))
        return outputs, state, saved

    def _saved_by_xla(self, primals: Primals, steps: Steps, saved: PyTree) -> PyTree:
        """Returns the values that XLA's loop would have saved, with time first."""
        zs, (h, c) = saved
        if steps.resets is None:
            first, _ = self._split(primals.state)
            if steps.lengths is not None:  # In a row of length 0, `first` may be NaN.
                first = jnp.where(steps.lengths[:, None] > 0, first, 0)
            h = jnp.concatenate([first[None], h[:-1]])
        return zs, self._join(primals.state, (h, c))

    def _forward(self, primals: Primals, steps: Steps, save: bool) -> tuple:
        """Runs `forward` in a native loop."""
        given, steps, attributes = self._as_call_arguments(primals, steps)
        xs, sequence = given.xs, 1 - steps.axis  # The row axis of a sequence.
        h, c = jax.tree.map(lambda x: float32(*xs.shape[:2], x.shape[-1]), given.state)
        zs = [float32(*xs.shape[:2], stage.columns) for stage in self.cell.stages]
        # Without resets, h before a step is the previous output.
        saved_h = None if steps.resets is None else h
        outputs, last, new_c, zs, saved = call(
            "forward",
            args=[
                (ROWS, steps.lengths),
                (sequence, steps.resets),
                (sequence, xs),
                (NO_ROWS, [(p["kernel"], p.get("bias")) for p in given.product_params]),
                (NO_ROWS, given.elementwise),
                (ROWS, given.state),
                (ROWS, given.reset_state),
            ],
            results=[  # In finished rows, results are zeros, and `zs` are finite.
                (sequence, h),
                (ROWS, given.state),
                (sequence, c if steps.returns_states else None),
                (sequence, zs if save else []),
                (sequence, (saved_h, c) if save else None),
            ],
            attributes=attributes | {"save": save},
        )
        if save:
            h, c = saved
            saved = zs, (outputs if h is None else h, c)
        if steps.returns_states:
            outputs = outputs, self._join(primals.state, (outputs, new_c))
        return outputs, self._join(primals.state, last), saved if save else ()

    def _backward(
        self, primals: Primals, steps: Steps, saved: PyTree, cotangents: tuple
    ) -> Primals:
        """Runs `transpose` in a native loop, then products over steps of all rows."""
        arguments = self._as_call_arguments(primals, steps)
        pulled = self._pull_states(*arguments, saved, cotangents)
        ct_zs, computed, ct_state, ct_reset_state, ct_rows = pulled
        products = self._pull_products(*arguments, saved, computed, ct_zs)
        ct_xs = self._pull_inputs(*arguments, ct_zs)
        names = jax.tree.structure(primals.elementwise)
        return Primals(
            product_params=products,
            elementwise=names.unflatten(() if ct_rows is None else ct_rows.sum(0)),
            xs=ct_xs,
            state=self._join(primals.state, ct_state),
            reset_state=self._join(primals.state, ct_reset_state),
        )

    def _as_call_arguments(
        self, primals: Primals, steps: Steps
    ) -> tuple[Primals, Steps, dict[str, Any]]:
        """Converts the arrays for calls, and adds the static arguments of all calls.

        * The element-wise parameters become one array, in the order of their names, or
          None.
        * A state becomes a pair `(h, c)`; see `_split`.
        * Sequences stay `[batch, time, size]` or `[time, batch, size]`.
        * Each row gets a length, and resets become int32.
        """
        if steps.lengths is None:
            rows = primals.xs.shape[1 - steps.axis]
            lengths = jnp.full(rows, steps.time, jnp.int32)
            steps = dataclasses.replace(steps, lengths=lengths)
        steps = dataclasses.replace(steps, resets=cast(steps.resets, jnp.int32))
        vectors = jax.tree.leaves(primals.elementwise)  # By name, as in C++.
        given = primals._replace(
            elementwise=jnp.stack(vectors) if vectors else None,
            state=self._split(primals.state),
            reset_state=self._split(primals.reset_state),
        )
        return given, steps, self._attributes(given, steps)

    def _pull_states(
        self,
        given: Primals,
        steps: Steps,
        attributes: dict[str, Any],
        saved: PyTree,
        cotangents: tuple,
    ) -> tuple:
        """Runs the backward loop.

        Returns:
            `(ct_zs, computed, ct_state, ct_reset_state, ct_rows)`. `computed` is the
            operand that a step computes from h, or None (see `NativeCell`). The others
            are the cotangents of the products, of the initial state, of the reset
            state, and of the element-wise parameters of each row.
        """
        zs, (h, c) = saved
        (ct_outputs, ct_last), ct_new_c = cotangents, None
        if steps.returns_states:
            ct_outputs, ct_states = ct_outputs
            ct_h, ct_new_c = self._split(ct_states)
            ct_outputs = ct_outputs + ct_h
        sequence = 1 - steps.axis
        computed = None
        if "computed" in self.native_cell.operands:
            computed = float32(*given.xs.shape[:2], attributes["units"])
        of_rows = lambda x: float32(*steps.lengths.shape, *x.shape)
        return call(
            "backward",
            args=[
                (ROWS, steps.lengths),
                (sequence, steps.resets),
                (NO_ROWS, [product["kernel"] for product in given.product_params]),
                (NO_ROWS, given.elementwise),
                (sequence, zs),
                (sequence, (h, c)),  # The outputs in place of h, if h was not saved.
                (ROWS, given.state[0] if steps.resets is None else None),
                (sequence, ct_outputs),
                (sequence, ct_new_c),
                (ROWS, self._split(ct_last)),
            ],
            results=[  # In finished rows, only `computed` is defined: zeros.
                (sequence, zs),
                (sequence, computed),
                (ROWS, given.state),
                (ROWS, None if steps.resets is None else given.state),
                (ROWS, jax.tree.map(of_rows, given.elementwise)),
            ],
            attributes=attributes,
            reused=4,
        )

    def _pull_products(
        self,
        given: Primals,
        steps: Steps,
        attributes: dict[str, Any],
        saved: PyTree,
        computed: Any,
        ct_zs: list,
    ) -> list[Params]:
        """Computes the cotangents of the kernels and biases."""
        # The operands of the state matrices, as pairs `(array, first)`. Without resets,
        # the array has outputs: step 0 multiplied `first`, and step t multiplied the
        # output of step t - 1. If `first` is None, step t multiplied step t of the
        # array.
        _, (h, _) = saved
        first = given.state[0] if steps.resets is None else None
        operands = {"h": (h, first), "computed": (computed, None), None: (None, None)}

        def pull(number: int, stage: Any, product: Params, ct_z: Array) -> Params:
            xs = given.xs if stage.takes_inputs else None
            arrays = (
                steps.lengths,
                xs,
                *operands[self.native_cell.operands[number]],
                ct_z,
            )
            names = [name for name in ("kernel", "bias") if name in product]
            found = call(
                "weights",
                args=[(NO_ROWS, x) for x in arrays],
                results=[(NO_ROWS, product[name]) for name in names],
                attributes=attributes | {"product": np.int32(number)},
            )
            return dict(zip(names, found, strict=True))

        stages = self.cell.stages
        return list(map(pull, range(len(stages)), stages, given.product_params, ct_zs))

    def _pull_inputs(
        self, given: Primals, steps: Steps, attributes: dict[str, Any], ct_zs: list
    ) -> Array:
        """Computes the cotangent of the inputs."""
        stages = zip(self.cell.stages, given.product_params, ct_zs, strict=True)
        pairs = [(p["kernel"], ct_z) for stage, p, ct_z in stages if stage.takes_inputs]
        sequence = 1 - steps.axis
        (ct_xs,) = call(
            "inputs",
            args=[(ROWS, steps.lengths), ([(NO_ROWS, sequence)] * len(pairs), pairs)],
            results=[(sequence, given.xs)],
            attributes=attributes,
        )
        return ct_xs

    def _attributes(self, given: Primals, steps: Steps) -> dict[str, Any]:
        """The static arguments of all calls."""
        equations = self.equations
        h, c = given.state

        def bound(clip: float | None) -> np.float32:
            return np.float32(math.inf if clip is None else clip)

        return {
            "cell": np.int32(self.native_cell.number),
            "activation": np.int32(ACTIVATIONS.index(equations.activation)),
            "forget_bias": np.float32(equations.forget_bias),
            "cell_clip": bound(equations.cell_clip),
            "output_clip": bound(equations.proj_clip),
            "time": steps.time,
            "time_major": steps.axis == 0,
            "depth": given.xs.shape[-1],
            "units": (h if c is None else c).shape[-1],
            "outputs": h.shape[-1],
            "resets": steps.resets is not None,
            "elementwise": given.elementwise is not None,
            "new_states": steps.returns_states,
        }

    def _split(self, state: PyTree) -> PyTree:
        """Returns h `[..., outputs]` and c `[..., units]`; only LSTMs have a c."""
        if state is None:
            return None
        h, carry = self.cell.enter(state)
        # The carry of an LSTM begins with c.
        return h, carry[0] if self.native_cell.has_c else None

    def _join(self, like: PyTree, pair: tuple[Array, Array | None] | None) -> PyTree:
        """Inverts `_split`: returns a state with the structure of `like`."""
        if pair is None:
            return None
        h, c = pair
        if c is None:
            return h
        if jax.tree_util.all_leaves([like]):  # One array `[c, h]`.
            return jnp.concatenate([c, h], axis=-1)
        return with_structure(like, (c, h))


def _row_axes(steps: Steps) -> tuple[Primals, Steps, Any]:
    """The row axes of primals, steps and sequences, as pytree prefixes."""
    sequence: Any = 1 - steps.axis
    # Mapped rows share `steps_to_run`, which is a maximum over them (`batch_maximum`).
    of_steps = steps.prefix_tree(rows=ROWS, sequences=sequence, shared=NO_ROWS)
    return Primals(NO_ROWS, NO_ROWS, sequence, ROWS, ROWS), of_steps, sequence
