"""`LinearRecurrenceCell`, whose units change separately: `h_t = a_t * h_{t-1} + b_t`.

A subclass computes a and b from the inputs alone.
"""

import abc
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ..._base.errors import error_note, expect
from ..._base.inputs import check_structure
from ..._base.math import cast, cast_like, widened, widest_dtype
from ..._base.typing import Array, Params, PyTree, State
from ..._run import masking
from .. import fields
from ..base import SpecsCell
from ..params import Specs
from .element import Element, is_zero, plus, times

Terms: TypeAlias = tuple[Element, Element, Element | None, PyTree]
"""`(a, b, b_from_zeros, rest)` of a step: its new state is `a * h + b`. If h is zeros,
`b_from_zeros` replaces b, unless `b_from_zeros` is None. The output may use rest."""


Coefficients: TypeAlias = tuple[Element, Element, PyTree]
"""`(a, b, rest)` of a step, whose new state is `a * h + b`. The output may use rest."""


@fields.dataclass
class LinearRecurrenceCell(SpecsCell[State]):
    """A cell with the new state `a * h + b`, where a and b do not depend on the state.

    A subclass defines `param_specs` and `coefficients`, and also `output` if the output
    is not the state. `init`, `apply` and a loop over whole sequences are derived from
    these methods. For a whole sequence, matrix products and gates are computed for many
    steps at once. The states are then computed step by step on CPUs, and by a parallel
    scan on other devices.

    Inputs are floating-point arrays `[batch, depth]`. The inputs, the parameters and
    the outputs share one dtype. The state is `[batch, units]`, or a `ComplexState` of
    two `[batch, units]` arrays, and may have a wider dtype. `a * h + b` is computed in
    at least float32. `coefficients` should also compute in at least float32, because
    `sigmoid(7)` is 1 in bfloat16. In long sequences, `|a|` must not exceed 1, because
    the product of many factors a could overflow.

    Example:
        A cell whose inputs determine how fast the state decays.

        >>> import dataclasses, jax, jax.numpy as jnp, jaxrnn
        >>> from jaxrnn.extend import affine_specs, at_least_float32
        >>> @dataclasses.dataclass(frozen=True, eq=False)
        ... class DecayCell(jaxrnn.LinearRecurrenceCell):
        ...     num_units: int
        ...     state_size = output_size = property(lambda self: self.num_units)
        ...
        ...     def param_specs(self, depth):
        ...         return affine_specs(depth, 2 * self.num_units)
        ...
        ...     def coefficients(self, params, inputs):
        ...         z = inputs @ params["kernel"] + params["bias"][None, :]
        ...         z = z.astype(at_least_float32(z.dtype))
        ...         rate, new = jnp.split(z, 2, axis=-1)
        ...         return jnp.exp(-jax.nn.softplus(rate)), jnp.tanh(new), None
        ...
        ...     def output(self, params, state, rest):
        ...         return jnp.tanh(state)
        >>> cell, x = DecayCell(8), jnp.ones((2, 5, 3))
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, h = jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)
        >>> outputs.shape, h.shape
        ((2, 5, 8), (2, 8))
    """

    @abc.abstractmethod
    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""

    @abc.abstractmethod
    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """Computes `(a, b, rest)` for one step; rows must not affect each other.

        Args:
            params: The parameters.
            inputs: One step of inputs, `[batch, depth]`.

        Returns:
            `(a, b, rest)`. `a` is the factor and `b` the addend of the state, each
            `[batch, units]`, or `[1, units]` if all rows share it. For a complex state,
            `a` and `b` are `ComplexState`s of two arrays each. Compute them in at least
            float32, whatever the dtype of the inputs. `rest` holds other values that
            `output` or `term_from_zeros` needs, each leaf `[batch, ...]`, or is None.
        """

    def output(self, params: Params, state: Element, rest: PyTree) -> Array:
        """The output of one step, `[batch, size]`, from the new state.

        Args:
            params: The parameters.
            state: The new state, `[batch, units]`, or a `ComplexState` of two arrays.
            rest: The third value that `coefficients` returned.
        """
        return state

    @property
    def term_from_zeros(self) -> Callable[[PyTree], Element] | None:
        """A function `rest -> b` that computes another b for a state of zeros, or None.

        If None, a step from a state of zeros uses the usual b. The result of the
        function must be 0 wherever the usual b is 0.
        """
        return None

    def step(
        self, params: Params, inputs: Array, state: Element
    ) -> tuple[PyTree, Element]:
        """Runs one step with checked arguments; see `SpecsCell.step`."""
        a, b, b_from_zeros, rest = self.terms(params, inputs, state)
        if b_from_zeros is not None:
            b = masking.select(is_zero(state), b_from_zeros, b)
        new_state = cast_like(state, plus(times(a, widened(state)), b))
        output = self.output(params, new_state, rest)
        return cast(output, widest_dtype(inputs)), new_state

    def terms(self, params: Params, inputs: Array, state: Element) -> Terms:
        """The terms of one step, broadcast to the state, in at least float32.

        Args:
            params: The parameters.
            inputs: One step of inputs, `[batch, depth]`.
            state: The state, of which only the shape and the dtype are read.

        Raises:
            ValueError: If `coefficients` does not return three values, or a shape does
                not match the state.
            TypeError: If `coefficients` returns complex arrays.
        """
        a, b, rest = self.coefficients(params, inputs)
        rows = jax.tree.leaves(inputs)[0].shape[0]
        a, b = _fitted("a", a, rows, state), _fitted("b", b, rows, state)
        from_zeros = self.term_from_zeros
        b_from_zeros = from_zeros and _fitted("b", from_zeros(rest), rows, state)
        return a, b, b_from_zeros, rest


def _fitted(name: str, x: PyTree, rows: int, state: Element) -> Element:
    """Broadcasts coefficients to `[rows, units]`, in at least float32."""
    wide = widened(state)
    fix = "For a complex state, a, b and `state_size` must all be `ComplexState`s."
    check_structure(f"`{name}`", wide, x, strict=True, fix=fix)

    def fit(x: Array, h: Array) -> Array:
        is_real = not jnp.iscomplexobj(x)
        expect(is_real, name, "hold real arrays", x, fix, error=TypeError)
        return jnp.broadcast_to(jnp.asarray(x, h.dtype), (rows, *h.shape[1:]))

    with error_note(f"Raised for `{name}`, which `coefficients` returned."):
        return jax.tree.map(fit, x, wide)
