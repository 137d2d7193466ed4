"""Matrix memories without parameters, for layers with their own projections."""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp

from ..._base.arguments import is_list_of
from ..._base.errors import counted, expect
from ..._base.trees import TensorShape
from ..._base.typing import Array, DType, Params, PyTree
from ..._loops.steps import Steps
from .. import fields
from ..params import Specs
from ..step_checks import check_step_inputs
from .cell import MatrixMemoryCell
from .delta_rule import LEAST_LOG, DeltaInputs, DeltaRule
from .mlstm_rule import SHUT, MLSTMInputs, MLSTMRule


@fields.dataclass
class BareMemoryCell(MatrixMemoryCell):
    """A `MatrixMemoryCell` without parameters, which reads projected inputs.

    A cell defines `rule`, `scaled` and, if a step may multiply the memory by more than
    1, `growth`.

    Shapes, for `N = num_heads` and `M = num_key_heads`: inputs `rule.Inputs`, with q
    and k `[batch, M, key_size]` and the sizes of `rule.sizes` for all others; output
    `[batch, N, value_size]`. In a sequence, a step gives NaN if a scaled value is
    beyond about 4e9 (in float32).
    """

    num_heads: int = fields.count()
    key_size: int = fields.count()
    value_size: int = fields.count()
    num_key_heads: int | None = fields.count(default=None)
    name: str | None = fields.name()

    feature_axes = None

    def __post_init__(self) -> None:
        super().__post_init__()
        divides = self.num_heads % (self.num_key_heads or 1) == 0
        must = f"divide `num_heads` ({self.num_heads})"
        expect(divides, "num_key_heads", must, self.num_key_heads)

    @abc.abstractmethod
    def scaled(self, values: Any) -> Any:
        """The values of a step in the scale and the range that the rule expects.

        Args:
            values: The inputs of a step as `rule.Inputs`, `[batch, N, ...]`, with the q
                and k of key heads repeated.
        """

    @property
    def input_sizes(self) -> Any:
        """The sizes of the inputs of a step, a named tuple of `TensorShape`s."""
        sizes, _ = self.rule.sizes(self.num_heads, self.key_size, self.value_size)
        key = TensorShape([self.num_key_heads or self.num_heads, self.key_size])
        return sizes._replace(q=key, k=key)

    @property
    def state_size(self) -> Any:
        """The sizes of the state of the rule."""
        return self.rule.sizes(self.num_heads, self.key_size, self.value_size)[1]

    @property
    def output_size(self) -> TensorShape:
        """The size of the output, `[num_heads, value_size]`."""
        return TensorShape([self.num_heads, self.value_size])

    def param_specs(self, depth: int) -> Specs:
        """No parameters."""
        return {}

    def step_inputs(self, inputs: PyTree) -> Any:
        """Checks the inputs of a step, and returns them as a named tuple.

        Raises:
            ValueError: If the inputs are not such a tuple, or a leaf is not real
                floating-point or does not have the size in `input_sizes`.
            TypeError: If a leaf is not an array.
        """
        kind = self.rule.Inputs
        names = kind._fields
        must = f"be a `{kind.__name__}` ({', '.join(names)})"
        # A plain tuple may replace the named tuple, but not a tuple of other names.
        fits = is_list_of(inputs, len(names)) and getattr(inputs, "_fields", names)
        fix = "`input_sizes` of the cell has the size of each."
        expect(fits == names, "inputs", must, inputs, fix)
        leaves: list[Any] = []
        for name, x, size in zip(names, inputs, self.input_sizes, strict=True):
            x = check_step_inputs(x, f"inputs.{name}", tuple(size), f"for {self!r}")
            expect(not jnp.iscomplexobj(x), f"inputs.{name}", "be real", x)
            leaves.append(x)
            rows = leaves[0].shape[0]
            must = f"have {counted(rows, 'row')}, as `inputs.{names[0]}` has"
            expect(x.shape[0] == rows, f"inputs.{name}", must, x)
        return kind(*leaves)

    def project(self, params: Params, inputs: Any, dtype: DType) -> tuple[None, Any]:
        """The values of a step, with keys for each head; see `MatrixMemoryCell`."""
        q, k, *others = (x.astype(dtype) for x in inputs)
        times = self.num_heads // (self.num_key_heads or self.num_heads)
        if times > 1:
            q, k = (_repeated(x, times) for x in (q, k))
        return None, self.scaled(self.rule.Inputs(q, k, *others))

    def safety_check(self, params: Params, dtype: DType) -> Callable[..., Array]:
        """Which steps cannot overflow in a chunk; see `MatrixMemoryCell`."""
        most = float(jnp.finfo(dtype).max)

        def are_safe(inputs: PyTree, state: PyTree, steps: Steps) -> Array:
            _, values = self.project(params, jax.lax.stop_gradient(inputs), dtype)
            # What a step reads is a product of a query, a key and a value.
            safe = [jnp.abs(x) < most**0.25 for x in values]
            growth = self.growth(values)
            if growth is not None:
                largest = jnp.expand_dims(_log_largest(state), steps.axis)
                safe.append(_stays_small(growth, largest, steps, math.log(most) / 2))
            each = [jnp.all(x, tuple(range(2, x.ndim))) for x in safe]
            return functools.reduce(jnp.logical_and, each)

        return are_safe

    def growth(self, values: Any) -> Array | None:
        """The logarithm of the factor by which a step may multiply the memory.

        `[batch, steps, heads]`, or with the first two axes swapped; at least 0. None if
        no step can.
        """
        return None

    def output(self, params: Params, h: Array, rest: None) -> Array:
        """What the step reads, `[batch, num_heads, value_size]`."""
        return h


def _repeated(x: Array, times: int) -> Array:
    """Repeats each head of `x`, `[..., heads, size]`, for consecutive heads."""
    *axes, heads, size = x.shape
    x = jnp.broadcast_to(x[..., None, :], (*axes, heads, times, size))
    return x.reshape(*axes, heads * times, size)


def _log_largest(state: Array) -> Array:
    """The log of the largest number of each head, at least 0; `[batch, heads]`."""
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(state)), axis=(2, 3), initial=1)
    return jnp.log(largest)


def _stays_small(growth: Array, largest: Array, steps: Steps, limit: float) -> Array:
    """Whether a memory that grows stays below `exp(limit)`, bool like `growth`.

    Args:
        growth: The result of `BareMemoryCell.growth` for the steps of a chunk.
        largest: The result of `_log_largest`, with an axis of size 1 for the steps.
        steps: The steps.
        limit: The limit.
    """
    # A step that exceeds the limit alone becomes zeros, and adds nothing.
    counted = jnp.where(growth < limit, growth, 0)
    total = jnp.cumsum(counted, steps.axis)
    if steps.restarts is not None:  # A restart begins again at 0.
        again = steps.restarts.where[..., None]
        before = jnp.where(again, total - counted, -1.0)
        before = jax.lax.cummax(before, steps.axis)
        total -= jnp.maximum(before, 0)
        largest = jnp.where(before < 0, largest, 0)
    return (growth < limit) & ((total == 0) | (total + largest < limit))


@final
@fields.dataclass
class DeltaMemoryCell(BareMemoryCell):
    """The gated delta rule without projections: a cell without parameters.

    For each head, with a matrix S [key, value], and vectors as rows:

        S'     = exp(log_a) S + b outer(k, v - exp(log_a) k S)
        output = q S' / sqrt(K)

    Use the cell in a layer with its own projections, convolutions or position
    embeddings; bind it to `{}`. Normalize k, and q if the layer does:
    `k / sqrt(sum(k * k) + 1e-6)`. With a longer k, a step may multiply the memory by
    `|1 - b sum(k * k)|`. Pass the logarithm of the decay, at most 0; without decay,
    pass zeros. `DeltaNetCell` and `GatedDeltaNetCell` are the same rule with
    projections.

    Shapes, for `N = num_heads`, `M = num_key_heads`, `K = key_size` and
    `V = value_size`: inputs `DeltaInputs(q, k, v, log_a, b)` with q and k
    `[batch, M, K]`, v `[batch, N, V]`, log_a and b `[batch, N]`; state S
    `[batch, N, K, V]`; output `[batch, N, V]`, in the widest dtype of the inputs.
    `log_a` is clipped to at least -87. In a sequence, a step gives NaN if an input is
    beyond about 4e9, or if keys are so long that the memory may grow beyond 1e19 (both
    in float32).

    Attributes:
        num_heads: `N`, the number of heads.
        key_size: `K`, the size of q and k in each head.
        value_size: `V`, the size of v in each head.
        num_key_heads: `M`, which must divide `N`; None for `N`. The q and k of one key
            head serve `N / M` consecutive heads.
        chunk_size: The largest number of steps that are computed together (a chunk).
            Results for different sizes differ only by rounding.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `num_key_heads` does not divide
            `num_heads`.

    Source: arXiv:2412.06464, equation 10; the scale of q and the shared heads as in the
    package `flash-linear-attention` and in Qwen3-Next.
    """

    _: dataclasses.KW_ONLY
    chunk_size: int = fields.count(default=32)

    rule = DeltaRule()

    def scaled(self, values: DeltaInputs) -> DeltaInputs:
        """The values with q divided by `sqrt(K)`, and with decays of at least -87."""
        q = values.q / self.key_size**0.5
        return values._replace(q=q, log_a=jnp.maximum(values.log_a, LEAST_LOG))

    def growth(self, values: DeltaInputs) -> Array:
        """More than 0 if k is too long; see `BareMemoryCell.growth`."""
        factor = jnp.abs(1 - values.b * jnp.sum(jnp.square(values.k), axis=-1))
        return jnp.maximum(values.log_a + jnp.log(jnp.maximum(factor, 1.0)), 0.0)


@final
@fields.dataclass
class MLSTMMemoryCell(BareMemoryCell):
    """The memory of an mLSTM without projections: a cell without parameters.

    For each head, with k scaled by `1 / sqrt(K)`:

        c'     = sigmoid(f) * c + exp(i) * outer(k, v)
        n'     = sigmoid(f) * n + exp(i) * k
        output = (q c') / (max(|q n'|, 1) + 1e-6 exp(m'))

    Use the cell in a layer with its own projections, convolutions, norms or gates; bind
    it to `{}`. `MLSTMCell` is the same rule with projections and an output gate, and
    documents the state.

    Shapes, for `N = num_heads`, `M = num_key_heads`, `K = key_size` and
    `V = value_size`: inputs `MLSTMInputs(q, k, v, i, f)` with q and k `[batch, M, K]`,
    v `[batch, N, V]`, i and f `[batch, N]`; state `MLSTMState(c, n, m)` with c
    `[batch, N, K, V]`, n `[batch, N, K]` and m `[batch, N]`; output `[batch, N, V]`, in
    the widest dtype of the inputs. f is clipped to [-87, 87], and i to at least -1e9.
    In a sequence, a step gives NaN if an input is beyond about 4e9 (in float32). For
    bfloat16 inputs, use a float32 state.

    Attributes:
        num_heads: `N`, the number of heads.
        key_size: `K`, the size of q and k in each head.
        value_size: `V`, the size of v in each head.
        num_key_heads: `M`, which must divide `N`; None for `N`. The q and k of one key
            head serve `N / M` consecutive heads.
        chunk_size: The largest number of steps that are computed together (a chunk).
            Results for different sizes differ only by rounding.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `num_key_heads` does not divide
            `num_heads`.

    Source: arXiv:2405.04517, section 2.3; `mlstm_kernels`, the package of the authors.
    """

    rule = MLSTMRule()

    def scaled(self, values: MLSTMInputs) -> MLSTMInputs:
        """The values with k divided by `sqrt(K)`, and with gates in range."""
        k = values.k / self.key_size**0.5
        # A closed input gate may be -inf, which `safe` would take for an overflow.
        i = jnp.maximum(values.i, -1e9)
        return values._replace(k=k, i=i, f=jnp.clip(values.f, SHUT, -SHUT))
