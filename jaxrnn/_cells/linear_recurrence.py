"""Cells that update their state element-wise: `h' = a * h + b`."""

import abc
import dataclasses
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from .._base.errors import (
    InvalidType,
    InvalidValue,
    describe,
    describe_leaves,
    error_note,
)
from .._base.math import affine, at_least_float32, cast_like, widened
from .._base.typing import Array, DType, Key, Params, PyTree
from .._sequences.linear import linear_sequence
from .._sequences.recurrence import Element, plus, times
from .._time.run import Run
from .hyperparameters import set_numbers
from .initializers import ParamSpec, kernel_and_bias
from .specs_cell import ParallelCell, VectorState

Coefficients: TypeAlias = tuple[Element, Element, PyTree]
"""`(a, b, rest)`: the new state is `a * h + b`; the output may also use `rest`."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LinearRecurrenceCell(ParallelCell):
    """A cell with the new state `a * h + b`; a and b depend only on the inputs.

    A subclass defines `param_specs` and `coefficients`, and also `output` if the output
    is not the state. `init`, `apply` and `apply_sequence` are derived from them. For a
    whole sequence, products and gates are computed for many steps at once. The states
    are then computed by a loop with one multiplication per step on CPUs, and by a
    parallel tree of steps on other devices.

    Inputs are floating-point arrays `[batch, depth]`; parameters and outputs have the
    same dtype. The state is `[batch, units]`, or a `ComplexState` of two such arrays,
    and may be wider than the inputs. `a * h + b` is computed in at least float32.
    `coefficients` should also compute in at least float32, because `sigmoid(7)` is 1 in
    bfloat16. `|a|` must not exceed 1 in long sequences, because the tree multiplies
    many factors.

    Example:
        A leaky average that decays at a learned rate.

        >>> import dataclasses, jax, jax.numpy as jnp, jaxrnn
        >>> zeros = jax.nn.initializers.zeros
        >>> @dataclasses.dataclass(frozen=True, eq=False)
        ... class LeakyAverage(jaxrnn.LinearRecurrenceCell):
        ...     num_units: int
        ...     state_size = output_size = property(lambda self: self.num_units)
        ...
        ...     def param_specs(self, depth):
        ...         return {"rate": jaxrnn.ParamSpec((depth,), zeros)}
        ...
        ...     def coefficients(self, params, inputs):
        ...         a = jax.nn.sigmoid(params["rate"])[None, :]
        ...         return a, (1 - a) * inputs, None
        >>> cell, x = LeakyAverage(3), jnp.ones((2, 5, 3))
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, h = jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)
        >>> print(h[0])
        [0.96875 0.96875 0.96875]
    """

    @abc.abstractmethod
    def param_specs(self, depth: int) -> dict[str, Any]:
        """Specs of all parameters for inputs of size `depth`, in creation order."""

    @abc.abstractmethod
    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """Computes `(a, b, rest)` for one step; rows must not affect each other.

        Args:
            params: The parameters.
            inputs: One step of inputs, `[batch, depth]`.

        Returns:
            `a` and `b`: the factor and the addend of the state, `[batch, units]`, or
            `[1, units]` if all rows share them. Compute a and b in at least float32,
            whatever the dtype of the inputs. `rest`: values that `output` needs in
            addition to the state, each leaf `[batch, ...]`, or None.
        """

    def output(self, params: Params, state: Element, rest: PyTree) -> Array:
        """The output of one step, `[batch, size]`, from the new state."""
        return state

    def _step(self, params: Params, inputs: Array, state: Any) -> tuple[Any, Any]:
        a, b, rest = self.wide_coefficients(params, inputs, state)
        new_state = cast_like(state, plus(times(a, widened(state)), b))
        return self.narrow_output(params, new_state, rest, inputs.dtype), new_state

    def _all_steps(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        return linear_sequence(self, params, run.inputs, run.state, run.steps)

    def wide_coefficients(
        self, params: Params, inputs: Array, state: Element
    ) -> Coefficients:
        """The result of `coefficients`, broadcast to the state, in at least float32.

        Raises:
            ValueError: If `coefficients` does not return three values, or a shape does
                not match the state.
            TypeError: If `coefficients` returns complex arrays.
        """
        with error_note("Raised by `coefficients`."):
            result = self.coefficients(params, inputs)
        if not isinstance(result, tuple) or len(result) != 3:
            must = "`coefficients` must return (a, b, rest)"
            raise InvalidValue(f"{must}, got {describe(result)}.")
        a, b, rest = result
        fit = lambda x: self._fitted(x, inputs.shape[0], state)
        return fit(a), fit(b), rest

    def narrow_output(
        self, params: Params, state: Element, rest: PyTree, dtype: DType
    ) -> PyTree:
        """The result of `output`, cast to `dtype`."""
        output = self.output(params, state, rest)
        return jax.tree.map(lambda y: y.astype(dtype), output)

    def _fitted(self, x: Any, rows: int, state: Element) -> Element:
        """Coefficients `[rows, units]` in the state's dtype, or at least float32."""
        like = widened(state)
        must = "`coefficients` must return"
        if jax.tree.structure(x) != jax.tree.structure(like):
            raise InvalidValue(
                f"{must} a and b with the structure of the state, "
                f"{describe_leaves(state)}, got {describe(x)}."
            )

        def fit(x: Any, h: Array) -> Array:
            if jnp.iscomplexobj(x):
                raise InvalidType(
                    f"{must} real arrays, got {describe(x)}. For a complex state, "
                    "return each of a and b as a `ComplexState` of real arrays."
                )
            x, shape = jnp.asarray(x, h.dtype), (rows, *h.shape[1:])
            try:
                return jnp.broadcast_to(x, shape)
            except ValueError:
                want = f"a and b with the shape of the state, {shape}"
                raise InvalidValue(f"{must} {want}, got {describe(x)}.") from None

        return jax.tree.map(fit, x, like)


class VectorRecurrenceCell(VectorState, LinearRecurrenceCell):
    """A linear recurrence whose state and output are one array `[batch, num_units]`."""


class DiagonalCell(VectorRecurrenceCell):
    """A cell with equal input and output sizes and factors drawn from a ring."""

    min_radius: float
    max_radius: float

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "min_radius", "max_radius", low=0, high=1)
        if self.min_radius > self.max_radius:
            raise InvalidValue(
                "`min_radius` must be at most `max_radius` "
                f"({self.max_radius}), got {self.min_radius}."
            )

    def check_depth(self, depth: int) -> None:
        """Raises ValueError unless the inputs have depth `num_units`."""
        if depth != self.num_units:
            raise InvalidValue(
                "`inputs` must have depth `num_units` "
                f"({self.num_units}), got {depth}. Project them to that size, e.g. "
                "with `jaxrnn.contrib.InputProjectionWrapper`. A `PastInputsWrapper` "
                "passes inputs of depth width * depth."
            )

    def draw_decays(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        """Draws `-log |a|` for factors `a` that are uniform in the area of the ring.

        The results are in at least float32 and clipped to [1e-7, 80], so factors in
        float32 are less than 1 and greater than 0. At 0, the logarithm would have no
        gradient.
        """
        dtype = at_least_float32(dtype)
        low, high = self.min_radius**2, self.max_radius**2
        squares = jax.random.uniform(key, shape, dtype, low, high)
        return jnp.clip(-0.5 * jnp.log(squares), 1e-7, 80.0)


def gate_specs(cell: Any, depth: int, blocks: int) -> dict[str, ParamSpec]:
    """Specs of `kernel` `[depth, blocks * H]` and `bias` `[blocks * H]`."""
    columns = blocks * cell.num_units
    kernel, bias = kernel_and_bias(cell)
    return {
        "kernel": ParamSpec((depth, columns), kernel, depth, blocks),
        "bias": ParamSpec((columns,), bias, blocks=blocks),
    }


def gates(params: Params, inputs: Array, blocks: int) -> list[Array]:
    """The blocks of `inputs kernel + bias`, `[batch, H]`, in at least float32."""
    z = affine(params, [inputs], at_least_float32(inputs.dtype))
    return jnp.split(z, blocks, axis=-1)
