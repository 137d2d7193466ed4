"""The LSTM of cuDNN, which runs whole sequences, products of the inputs and all.

What it is not given is TensorFlow's: rows of length 0, padding that holds anything,
`forget_bias`.

**It has not run on a GPU yet.** `Calls` are all that asks for something of it: what is
around them is tested with JAX's own reference in their place, and they themselves by
the types of what they hand to JAX's primitives.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.custom_derivatives import SymbolicZero

from .._affine.xla_loop import Rule
from .._autodiff.differentiable import differentiable
from .._autodiff.transposable import dense
from .._base.sharding import as_varying_as
from .._base.trees import with_structure
from .._base.typing import Array, Params, PyTree
from .._time.sequence import DeclinedError
from .._time.steps import Steps
from .cudnn_calls import CUDNN, Calls, as_rows, flat_weights, precision_here
from .implementation import Implementation
from .rule import first_step, row_lengths, why_no_loop
from .work import Work

# More are refused: https://github.com/pytorch/pytorch/issues/133751.
MOST_STEPS = 65_535


@dataclasses.dataclass(frozen=True)
class Cudnn(Implementation):
    """The call of cuDNN for a `BasicLSTMCell` or an `LSTMCell` in float32.

    Products are rounded to TF32 as JAX's default precision has it on a GPU, in XLA's
    loop, too; `jax.default_matmul_precision("highest")` around the call of the driver
    keeps them exact, forward and backward.

    Under `vmap` the mapped axis becomes rows of one call, as long as the parameters are
    not mapped and no derivative is taken. Else there is a call for each of those that
    are mapped, one after another, since cuDNN sums the gradient of parameters over all
    rows: what can be rows of a batch should be. Rows that lie on several devices are to
    be spread by `jax.shard_map`; XLA cannot cut the call, and would gather them.

    Attributes:
        machine: The kind of GPU; nothing depends on it.
        calls: What asks cuDNN; tests put JAX's reference in its place.
    """

    name: ClassVar[str] = "cudnn"
    platform: ClassVar[str] = "cuda"
    calls: Calls = CUDNN

    def why_not(self, work: Work) -> str | None:
        """Why it cannot run that work, by the sizes alone, or None."""
        reason = why_not_cell(work.cell)
        if reason:
            return reason
        dtypes = {work.dtype, *(dtype for _, dtype in work.state)}
        if dtypes != {jnp.dtype(jnp.float32)}:
            return f"it computes in float32, got {', '.join(sorted(map(str, dtypes)))}"
        if work.time > MOST_STEPS:
            return f"it takes {MOST_STEPS} steps at most, got {work.time}"
        return None

    def describe(self, work: Work) -> str:
        """How it would run that work; `why_not` is None."""
        del work
        return "cuDNN runs all steps in one call, products of the inputs and all"

    def rule(self, cell: Any, history: bool) -> "CudnnRule":
        """How the sequences of a cell are run by it."""
        return CudnnRule(cell, history, self)


class CudnnRule(Rule):
    """As `Rule`, run by cuDNN, with its gradients.

    Derivatives that cuDNN does not serve (forward mode, second ones) are those of the
    loop, which is then run for what it keeps. The record is the outputs and what cuDNN
    calls its reserve, an array of floats that only it can read.
    """

    def __init__(self, cell: Any, history: bool, cudnn: Cudnn) -> None:
        super().__init__(cell, history)
        self.cudnn = cudnn
        # Both ways are of one precision, wherever the way back is traced.
        self.precision = precision_here()

    def check(self, params: Params, xs: Array, state: PyTree, steps: Steps) -> None:
        """Raises DeclinedError with the reason, if cuDNN cannot serve."""
        reason = self._why_not(params, xs, state, steps)
        reason = reason or self.cudnn.calls.why_not_here()
        if reason:
            raise DeclinedError(reason)

    def _why_not(
        self, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> str | None:
        if reason := why_no_loop(self.history, xs, steps):
            return reason
        if 0 in (*xs.shape, self.cell.output_size):
            return "there are no steps, no rows, no inputs, or no units"
        if reason := why_not_cell(self.cell):
            return reason
        first = first_step(xs, steps)
        work = Work.of(self.cell, params, steps.time, first, state)
        return self.cudnn.why_not(work)

    def run(
        self, lin: Any, steps: Steps, record: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """All steps forward: `(outputs, state, record)`."""

        def by_cudnn(lin: Any, steps: Steps) -> Any:
            return self._forward(lin, steps, record)

        def push_forward(primals: Any, tangents: Any) -> Any:
            lin, steps = primals
            outputs, state, reserve = by_cudnn(lin, steps)
            loop = lambda lin: super(CudnnRule, self).run(lin, steps, False)[:2]
            moved = jax.jvp(loop, (lin,), (dense(tangents[0]),))[1]
            # What is made of a reserve has a rule that reads the loop's record instead.
            still = lambda x: SymbolicZero(jax.typeof(x).to_tangent_aval())
            return (outputs, state, reserve), (*moved, jax.tree.map(still, reserve))

        outputs, state, reserve = differentiable(by_cudnn, push_forward, lin, steps)
        return outputs, state, (outputs, reserve) if record else ()

    def push_forward(self, res: Any, d_lin: Any) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`."""
        return super().push_forward(self._of_the_loop(res), d_lin)

    def pull_back(self, res: Any, cotangents: Any) -> Any:
        """The cotangents of `(params, xs, state, fresh)`."""

        def by_cudnn(steps: Steps, *moving: Any) -> Any:
            return self._backward(steps, *moving)

        def push_forward(primals: Any, tangents: Any) -> Any:
            steps, lin, _, cotangents = primals

            def loop(lin: Any, cotangents: Any) -> Any:
                res = self._of_the_loop((lin, steps, None))
                return super(CudnnRule, self).pull_back(res, cotangents)

            _, d_lin, _, d_cotangents = map(dense, tangents)
            moved = jax.jvp(loop, (lin, cotangents), (d_lin, d_cotangents))[1]
            return by_cudnn(*primals), moved

        lin, steps, record = res
        return differentiable(
            by_cudnn, push_forward, steps, lin, record, dense(cotangents)
        )

    def _of_the_loop(self, res: Any) -> Any:
        """The same with what the loop keeps in place of what cuDNN does."""
        lin, steps, _ = res
        return lin, steps, super().run(lin, steps, record=True)[2]

    def _forward(self, lin: Any, steps: Steps, record: bool) -> Any:
        """`(outputs, state, reserve)`."""
        state, alive = lin[2], _alive(lin, steps)
        one = functools.partial(self.cudnn.calls.forward, self.precision)
        run = sequential_vmap(one) if record else as_rows(one)
        given = self._given(lin, steps)
        # JAX has no types of them that vary over devices as what they are made of.
        y, h, c, *reserve = as_varying_as(given, run(*given))
        outputs = steps.zero_dead(_batch_major(y, steps))
        last = with_structure(state, self.cell.leave(c, h)[1])
        return outputs, _choose(alive, last, state), reserve

    def _backward(self, steps: Steps, lin: Any, record: Any, cotangents: Any) -> Any:
        (params, xs, _, fresh), alive = lin, _alive(lin, steps)
        (outputs, (reserve,)), (c_outputs, c_state) = record, cotangents
        c_outputs = _batch_major(steps.zero_dead(c_outputs), steps)
        c_h, carry = self.cell.enter(_choose(alive, c_state, 0))
        given = (
            *self._given(lin, steps),
            _batch_major(outputs, steps),
            reserve,
            *(c_outputs, c_h, carry.c),
        )
        one = functools.partial(self.cudnn.calls.backward, self.precision)
        c_weights, c_x, c_h, c_c = sequential_vmap(one)(*given)
        c_first = with_structure(c_state, self.cell.leave(c_c, c_h)[1])
        flat = lambda params: flat_weights(self.cell, params, xs.shape[-1])
        (c_params,) = jax.vjp(flat, params)[1](c_weights)
        c_xs = steps.zero_dead(_batch_major(c_x, steps))
        return c_params, c_xs, _choose(alive, c_first, c_state), fresh

    def _given(self, lin: Any, steps: Steps) -> tuple[Array, ...]:
        """What cuDNN reads, all of it finite where the rows are: see `forward`."""
        params, xs, state, _ = lin
        h, carry = self.cell.enter(_choose(_alive(lin, steps), state, 0))
        return (
            flat_weights(self.cell, params, xs.shape[-1]),
            _batch_major(steps.zero_dead(xs), steps),
            h,
            carry.c,
            # It fails at 0: https://github.com/jax-ml/jax/issues/17966.
            jnp.maximum(_lengths(lin, steps), 1),
        )


def why_not_cell(cell: Any) -> str | None:
    """Why cuDNN has no such cell, if it has not."""
    reason = cell.why_no_plain_lstm()
    return reason and f"it runs plain LSTMs with tanh: {reason}"


def _batch_major(x: Array, steps: Steps) -> Array:
    """Sequences with rows first, or those the other way: it is its own inverse."""
    return jnp.swapaxes(x, 0, 1 - steps.axis)


def _lengths(lin: Any, steps: Steps) -> Array:
    """`[batch]`, int32, from 0 to all steps."""
    return row_lengths(steps, lin[1].shape[1 - steps.axis])


def _alive(lin: Any, steps: Steps) -> Array:
    """`[batch, 1]`, whether a row has any step."""
    return _lengths(lin, steps)[:, None] > 0


def _choose(mask: Array, tree: PyTree, other: PyTree) -> PyTree:
    """Leaves of `tree` where the mask holds, else of `other`, or zeros for 0."""
    if isinstance(other, int):
        other = jax.tree.map(jnp.zeros_like, tree)
    return jax.tree.map(lambda x, y: jnp.where(mask, x, y), tree, other)
