"""Matrix memories without projections, for layers with their own."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ..._base.arguments import is_list_of
from ..._base.errors import expect, is_array, warn
from ..._base.inputs import as_like
from ..._base.math import concrete_or_none
from ..._base.trees import TensorShape
from ..._base.typing import Array, DType, Params, PyTree, Size, State
from .. import fields
from ..params import Specs
from ..step_checks import check_named_inputs
from .cell import MatrixMemoryCell
from .rule import LEAST_LOG


@fields.dataclass
class BareMemoryCell(MatrixMemoryCell[State]):
    """A `MatrixMemoryCell` without projections, which reads projected inputs.

    A subclass defines `rule`, and may override `scaled`. By default, the cell has no
    parameters.

    Shapes, for `N = num_heads` and `M = num_key_heads`: inputs `rule.Inputs`, with q
    and k `[batch, M, key_size]`, and all other inputs in the sizes that `rule.sizes`
    returns; output `[batch, N, value_size]`.

    Attributes:
        num_heads: `N`, the number of heads.
        key_size: The size of q and k in each head.
        value_size: The size of the output in each head.
        num_key_heads: `M`, the number of heads of q and k, which must divide `N`.
            Default: `N`. Each q and k is shared by `N / M` consecutive heads.
        chunk_size: The largest number of steps that are computed together (a chunk).
        scale: The factor of q. Default: `1 / sqrt(key_size)`.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, or `num_key_heads` does not divide
            `num_heads`.
    """

    num_heads: int = fields.count()
    key_size: int = fields.count()
    value_size: int = fields.count()
    num_key_heads: int | None = fields.count(default=None)
    name: str | None = fields.name()
    _: dataclasses.KW_ONLY
    scale: float | None = fields.number(None)

    feature_axes = None

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = self.rule
        fields_of_inputs = rule.Inputs._fields
        must = "have the fields q and k first"
        name = f"{type(rule).__name__}.Inputs"
        expect(fields_of_inputs[:2] == ("q", "k"), name, must, fields_of_inputs)
        divides = self.num_heads % (self.num_key_heads or 1) == 0
        must = f"divide `num_heads` ({self.num_heads})"
        expect(divides, "num_key_heads", must, self.num_key_heads)

    def scaled(self, values: PyTree) -> PyTree:
        """Scales and clips the values of a step to the range that the rule expects.

        By default, q is multiplied by `scale`, and g is clipped to at least -87 if the
        rule has this input.

        Args:
            values: The inputs of a step as `rule.Inputs`, `[batch, N, ...]`, with the q
                and k of key heads repeated.
        """
        values = values._replace(q=self.times_scale(values.q))
        if "g" not in values._fields:
            return values
        return values._replace(g=jnp.maximum(values.g, LEAST_LOG))

    def times_scale(self, x: Array) -> Array:
        """Returns `scale * x`, or `x / sqrt(key_size)` if `scale` is None."""
        return x / self.key_size**0.5 if self.scale is None else self.scale * x

    @property
    def _sizes(self) -> tuple[Size, Size]:
        """The sizes of the values and of the state of the rule."""
        sizes = self.rule.sizes(self.num_heads, self.key_size, self.value_size)
        fits = is_list_of(sizes, 2) and isinstance(sizes[0], self.rule.Inputs)
        fits = fits and all(isinstance(x, TensorShape) for x in jax.tree.leaves(sizes))
        must = (
            "return a pair `(values, state)`, an `Inputs` and a nest of `TensorShape`s"
        )
        name = f"{type(self.rule).__name__}.sizes"
        expect(fits, name, must, sizes, error=TypeError)
        return sizes

    @property
    def input_sizes(self) -> Size:
        """The sizes of the inputs of a step, a named tuple of `TensorShape`s."""
        key = TensorShape([self.num_key_heads or self.num_heads, self.key_size])
        return self._sizes[0]._replace(q=key, k=key)

    @property
    def state_size(self) -> Size:
        """The sizes of the state of the rule."""
        return self._sizes[1]

    @property
    def output_size(self) -> TensorShape:
        """The size of the output, `[num_heads, value_size]`."""
        return TensorShape([self.num_heads, self.value_size])

    def param_specs(self, depth: int) -> Specs:
        """Returns `{}`, because the cell has no parameters."""
        return {}

    def _check_values(self, inputs: PyTree) -> None:
        """Warns if g seems to hold decays instead of their logarithms."""
        names = self.rule.Inputs._fields
        if "g" not in names or not is_list_of(inputs, len(names)):
            return
        g = inputs[names.index("g")]
        known = concrete_or_none(g) if is_array(g) else None
        # NumPy warns if 16-bit NaN is compared.
        known = None if known is None else known.astype(float)
        if known is not None and (known >= 0).all() and (known > 0).any():
            warn(
                "`g`, the logarithm of the decay, is nowhere negative, so the memory "
                "grows. If g is the decay itself, pass `jnp.log(g)`."
            )

    def step_inputs(self, inputs: PyTree) -> PyTree:
        """Checks the inputs of a step, and returns them as a named tuple.

        Raises:
            ValueError: If the inputs are not a tuple with the fields of `rule.Inputs`,
                or a leaf is not real floating-point or does not have the size in
                `input_sizes`.
            TypeError: If a leaf is not an array.
        """
        return check_named_inputs(self, self.rule.Inputs, inputs)

    def project(self, params: Params, inputs: Any, dtype: DType) -> tuple[None, Any]:
        """Returns the values of a step, with q and k repeated for all heads."""
        q, k, *others = (x.astype(dtype) for x in inputs)
        times = self.num_heads // (self.num_key_heads or self.num_heads)
        if times > 1:
            q, k = (_repeated(x, times) for x in (q, k))
        values = self.rule.Inputs(q, k, *others)
        return None, as_like("scaled", self.scaled(values), values, any_dtype=True)

    def output(self, params: Params, h: Array, rest: PyTree) -> Array:
        """Returns `h` unchanged, `[batch, num_heads, value_size]`."""
        return h


def _repeated(x: Array, times: int) -> Array:
    """Repeats each head of `x` `[..., heads, size]`: `[..., heads * times, size]`."""
    *axes, heads, size = x.shape
    x = jnp.broadcast_to(x[..., None, :], (*axes, heads, times, size))
    return x.reshape(*axes, heads * times, size)
