"""Cells whose state is multiplied by no kernel: `h' = a * h + b`."""

import abc
import dataclasses
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from .._base.errors import describe, describe_leaves, error_note
from .._base.math import affine, at_least_float32, cast_like, widened
from .._base.typing import Array, DType, Key, Params, PyTree
from .._sequences.linear import linear_sequence
from .._sequences.recurrence import Element, plus, times
from .._time.run import Run
from .hyperparameters import set_numbers
from .initializers import ParamSpec, kernel_and_bias
from .specs_cell import ParallelCell, VectorState

Coefficients: TypeAlias = tuple[Element, Element, PyTree]
"""`(a, b, rest)`, of the new state `a * h + b` and of the output."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LinearRecurrenceCell(ParallelCell):
    """A cell whose new state is `a * h + b`, with a and b of the inputs alone.

    A subclass has `param_specs`, `coefficients` and, unless its output is its state,
    `output`; `init` and `apply` follow from them. So does `apply_sequence`: over whole
    sequences products and gates are computed for many steps at once, and the states by
    a loop of one multiplication a step (on CPUs), or by a tree of steps.

    Inputs are `[batch, depth]` and floating; parameters and outputs have their dtype.
    The state is `[batch, units]`, or a `ComplexState` of two such arrays, and may be
    wider than the inputs. `a * h + b` is computed in at least float32; a and b have the
    precision of `coefficients`, which should cast as below: in bfloat16, `sigmoid(7)`
    is 1. For long sequences `|a|` must not exceed 1: in parallel, products of many of
    them are formed.

    Example:
        A leaky average, which decays at a learned rate.

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
        """All parameters for inputs of size `depth`, in the order of their creation."""

    @abc.abstractmethod
    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """`(a, b, rest)` of one step, which treats each row separately.

        Args:
            params: The parameters.
            inputs: `[batch, depth]`.

        Returns:
            The factor of the state and what is added to it, `[batch, units]`, or
            `[1, units]` if they are the same for all rows; what `output` needs of the
            inputs besides the state, each leaf `[batch, ...]`, or None. Compute the
            first two in at least float32, whatever the dtype of the inputs.
        """

    def output(self, params: Params, state: Element, rest: PyTree) -> Array:
        """The output of one step, `[batch, size]`, from the state after it."""
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
        """`coefficients`, of the shape of the state and the dtype of the arithmetic.

        Raises:
            ValueError: If `coefficients` returns something else than three values, or a
                shape that is not that of the state.
            TypeError: If it returns complex arrays.
        """
        name = type(self).__name__
        with error_note(f"{name}: raised by `coefficients`."):
            result = self.coefficients(params, inputs)
        if not isinstance(result, tuple) or len(result) != 3:
            must = "`coefficients` must return (a, b, rest)"
            raise ValueError(f"{name}: {must}, got {describe(result)}.")
        a, b, rest = result
        fit = lambda x: self._fitted(x, inputs.shape[0], state)
        return fit(a), fit(b), rest

    def narrow_output(
        self, params: Params, state: Element, rest: PyTree, dtype: DType
    ) -> PyTree:
        """`output`, in `dtype`."""
        output = self.output(params, state, rest)
        return jax.tree.map(lambda y: y.astype(dtype), output)

    def _fitted(self, x: Any, rows: int, state: Element) -> Element:
        """Coefficients `[rows, units]` in the dtype of the state's arithmetic."""
        like = widened(state)
        must = f"{type(self).__name__}: `coefficients` must return"
        if jax.tree.structure(x) != jax.tree.structure(like):
            raise ValueError(
                f"{must} a and b of the structure of the state, "
                f"{describe_leaves(state)}, got {describe(x)}."
            )

        def fit(x: Any, h: Array) -> Array:
            if jnp.iscomplexobj(x):
                raise TypeError(
                    f"{must} real arrays, got {describe(x)}. Complex a and b are a "
                    "`ComplexState` of arrays, as the state is."
                )
            x, shape = jnp.asarray(x, h.dtype), (rows, *h.shape[1:])
            try:
                return jnp.broadcast_to(x, shape)
            except ValueError:
                want = f"a and b of the shape of the state, {shape}"
                raise ValueError(f"{must} {want}, got {describe(x)}.") from None

        return jax.tree.map(fit, x, like)


class VectorRecurrenceCell(VectorState, LinearRecurrenceCell):
    """A linear recurrence whose state and output are one array `[batch, num_units]`."""


class DiagonalCell(VectorRecurrenceCell):
    """A cell with inputs as large as its outputs, and factors drawn from a ring."""

    min_radius: float
    max_radius: float

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "min_radius", "max_radius", low=0, high=1)
        if self.min_radius > self.max_radius:
            raise ValueError(
                f"{type(self).__name__}: `min_radius` must be at most `max_radius`, "
                f"{self.max_radius}, got {self.min_radius}."
            )

    def check_depth(self, depth: int) -> None:
        """Raises ValueError unless inputs are as large as outputs."""
        if depth != self.num_units:
            raise ValueError(
                f"{type(self).__name__}: `inputs` must have depth `num_units`, "
                f"{self.num_units}, got {depth}. Project them to that size before, as "
                "by `jaxrnn.contrib.InputProjectionWrapper`; of a `PastInputsWrapper` "
                "the depth is width * depth."
            )

    def draw_decays(self, key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
        """`-log |a|`, for factors `a` uniform in the area of the ring.

        They are in at least float32, and from 1e-7 to 80: in float32 no factor is 0,
        where its logarithm has no gradient, or 1.
        """
        dtype = at_least_float32(dtype)
        low, high = self.min_radius**2, self.max_radius**2
        squares = jax.random.uniform(key, shape, dtype, low, high)
        return jnp.clip(-0.5 * jnp.log(squares), 1e-7, 80.0)


def gate_specs(cell: Any, depth: int, blocks: int) -> dict[str, ParamSpec]:
    """`kernel` `[depth, blocks * H]` and `bias`, by the cell's initializers."""
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
