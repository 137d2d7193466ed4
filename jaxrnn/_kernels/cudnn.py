"""The LSTM of cuDNN, which runs whole sequences, products of the inputs included.

What TensorFlow has and cuDNN lacks is done here: rows of length 0, padding with
arbitrary values, `forget_bias`.

**It has not run on a GPU yet.** `Calls` holds all functions that call cuDNN: the code
around them is tested with JAX's own reference in their place, and they themselves by
the types of the arguments that they pass to JAX's primitives.
"""

import dataclasses
import functools
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from .._affine.loop_rule import LoopRule, Primals, Residuals, run_loop
from .._affine.phases import Phases
from .._affine.sequence import XlaLoop
from .._autodiff.differentiable import differentiable
from .._autodiff.jax_internals import SymbolicZero
from .._autodiff.transposable import dense
from .._base.sharding import as_varying_as
from .._base.trees import with_structure
from .._base.typing import Array, Params, PyTree
from .._time import masking
from .._time.sequence import DeclinedError
from .._time.steps import Steps
from .cudnn_calls import CUDNN, Calls, flat_weights, precision_here
from .implementation import Implementation, row_lengths, why_not_arrays
from .mapped_rows import SHARED, as_rows

# cuDNN refuses more: https://github.com/pytorch/pytorch/issues/133751.
MOST_STEPS = 65_535


@final
@dataclasses.dataclass(frozen=True)
class Cudnn(Implementation):
    """The call of cuDNN for a `BasicLSTMCell` or an `LSTMCell` in float32.

    Products are rounded to TF32, JAX's default precision on a GPU, as they are in XLA's
    loop; `jax.default_matmul_precision("highest")` around the call of the driver keeps
    them exact, forward and backward.

    Under `vmap` the mapped axis becomes rows of one call, as long as the parameters are
    not mapped and no derivative is computed. Otherwise each mapped entry is a call,
    since cuDNN sums the gradient of the parameters over all rows: add rows to the batch
    in place of a mapped axis where you can. Rows on several devices need
    `jax.shard_map`: XLA cannot partition the call, and would gather them.

    Attributes:
        calls: The functions that call cuDNN; tests replace them by JAX's reference.
    """

    name: ClassVar[str] = "cudnn"
    calls: Calls = CUDNN

    def run_sequences(
        self, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps; see `Implementation`."""
        reason = why_not_cell(cell) or why_not_arrays(xs, state, steps)
        reason = reason or why_not_steps(steps) or self.calls.why_not_here()
        if reason:
            raise DeclinedError(reason)
        return run_loop(CudnnLoop(self.calls, cell), params, xs, state, Phases(steps))


@final
class CudnnLoop(LoopRule):
    """The run of an LSTM by cuDNN, with its gradients.

    Derivatives that cuDNN does not compute (forward mode, second derivatives) are those
    of XLA's loop, which is then run for its residuals. The residuals for cuDNN are the
    outputs and what it calls its reserve, an array of floats that only it can read.
    """

    def __init__(self, calls: Calls, cell: Any) -> None:
        self.calls, self.cell, self.xla = calls, cell, XlaLoop(cell)
        # The backward pass, wherever it is traced, has the forward pass's precision.
        self.precision = precision_here()

    def forward(
        self, primals: Primals, phases: Phases, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`; see `LoopRule`."""

        def by_cudnn(primals: Primals, phases: Phases) -> Any:
            return self._forward(primals, phases.steps, save)

        def push_forward(args: Any, tangents: Any) -> Any:
            primals, phases = args
            outputs, state, reserve = by_cudnn(primals, phases)
            loop = lambda primals: self.xla.forward(primals, phases, False)[:2]
            d_results = jax.jvp(loop, (primals,), (dense(tangents[0]),))[1]
            # What reads the reserve reads XLA's residuals when it is differentiated.
            zero = lambda x: SymbolicZero(jax.typeof(x).to_tangent_aval())
            d_results = *d_results, jax.tree.map(zero, reserve)
            return (outputs, state, reserve), d_results

        outputs, state, reserve = differentiable(
            by_cudnn, push_forward, primals, phases
        )
        return outputs, state, (outputs, reserve) if save else ()

    def tangent(self, residuals: Residuals, tangents: Primals) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`; see `LoopRule`."""
        return self.xla.tangent(self._of_xla(*residuals[:2]), tangents)

    def transpose(self, residuals: Residuals, cotangents: tuple) -> Primals:
        """The cotangents of the primals; see `LoopRule`."""

        def by_cudnn(phases: Phases, *floats: Any) -> Primals:
            return self._backward(phases.steps, *floats)

        def push_forward(args: Any, tangents: Any) -> Any:
            phases, primals, _, cotangents = args

            def loop(primals: Primals, cotangents: tuple) -> Primals:
                return self.xla.transpose(self._of_xla(primals, phases), cotangents)

            _, d_primals, _, d_cotangents = map(dense, tangents)
            d_results = jax.jvp(loop, (primals, cotangents), (d_primals, d_cotangents))[
                1
            ]
            return by_cudnn(*args), d_results

        primals, phases, saved = residuals
        return differentiable(
            by_cudnn, push_forward, phases, primals, saved, dense(cotangents)
        )

    def _of_xla(self, primals: Primals, phases: Phases) -> Residuals:
        """The residuals of XLA's loop."""
        return Residuals(primals, phases, self.xla.forward(primals, phases, True)[2])

    def _forward(self, primals: Primals, steps: Steps, save: bool) -> Any:
        """`(outputs, state, reserve)`."""
        one = functools.partial(self.calls.forward, self.precision)
        of_rows = lambda *args: one(*args)[:3]
        axes = SHARED, 0, 0, 0, 0
        run = sequential_vmap(one) if save else as_rows(of_rows, axes, 0)
        args = self._call_args(primals, steps)
        # The call's results do not even have types that vary over devices like these.
        y, h, c, *reserve = as_varying_as(args, run(*args))
        outputs = steps.zero_dead(_batch_major(y, steps))
        last = with_structure(primals.state, self.cell.leave(c, h)[1])
        has_steps = row_lengths(primals.xs, steps) > 0
        return outputs, masking.choose(has_steps, last, primals.state), reserve

    def _backward(
        self, steps: Steps, primals: Primals, saved: Any, cotangents: tuple
    ) -> Primals:
        (params, xs, _, restart_states) = primals
        (outputs, (reserve,)), (c_outputs, c_state) = saved, cotangents
        has_steps = row_lengths(primals.xs, steps) > 0
        c_h, carry = self.cell.enter(masking.zero_dead(has_steps, c_state))
        args = (
            *self._call_args(primals, steps),
            _batch_major(outputs, steps),
            reserve,
            _batch_major(steps.zero_dead(c_outputs), steps),
            c_h,
            carry.c,
        )
        one = functools.partial(self.calls.backward, self.precision)
        c_weights, c_x, c_h, c_c = sequential_vmap(one)(*args)
        c_first = with_structure(c_state, self.cell.leave(c_c, c_h)[1])
        flat = lambda params: flat_weights(self.cell, params, xs.shape[-1])
        (c_params,) = jax.vjp(flat, params)[1](c_weights)
        c_xs = steps.zero_dead(_batch_major(c_x, steps))
        c_state = masking.choose(has_steps, c_first, c_state)
        return Primals(c_params, c_xs, c_state, restart_states)

    def _call_args(self, primals: Primals, steps: Steps) -> tuple[Array, ...]:
        """The arguments of `cudnn_calls.forward`, with zeros in place of padding."""
        params, xs, state, _ = primals
        lengths = row_lengths(primals.xs, steps)
        h, carry = self.cell.enter(masking.zero_dead(lengths > 0, state))
        return (
            flat_weights(self.cell, params, xs.shape[-1]),
            _batch_major(steps.zero_dead(xs), steps),
            h,
            carry.c,
            # cuDNN fails at 0: https://github.com/jax-ml/jax/issues/17966.
            jnp.maximum(lengths, 1),
        )


def why_not_cell(cell: Any) -> str | None:
    """Why cuDNN cannot run that cell, or None."""
    reason = cell.why_not_plain()
    if cell.declared_kind != "lstm":
        reason = f"{type(cell).__name__} is not one"
    return reason and f"it runs plain LSTMs with tanh: {reason}"


def why_not_steps(steps: Steps) -> str | None:
    """Why cuDNN cannot run these steps, or None."""
    if steps.restarts is not None:
        return "rows of several sequences restart within the loop"
    if steps.time > MOST_STEPS:
        return f"it takes {MOST_STEPS} steps at most, got {steps.time}"
    return None


def _batch_major(x: Array, steps: Steps) -> Array:
    """Sequences `[batch, time, ...]` from the layout of the steps, and back."""
    return jnp.swapaxes(x, 0, 1 - steps.axis)
