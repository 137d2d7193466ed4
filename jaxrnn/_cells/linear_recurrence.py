"""Cells that update their state element-wise: `h' = a * h + b`."""

import abc
from typing import TypeAlias

import jax
import jax.numpy as jnp

from .._base.errors import error_note
from .._base.expect import expect
from .._base.like import check_structure
from .._base.math import cast_like, widened
from .._base.sharding import whole_on_explicit_mesh
from .._base.trees import with_structure
from .._base.typing import Array, DType, Params, PyTree
from .._loops.choice import Choice
from .._loops.linear_recurrence import Element, linear_sequence, plus, times
from .._loops.steps import Run
from . import fields
from .base import SpecsCell, scope_name
from .params import Specs

Coefficients: TypeAlias = tuple[Element, Element, PyTree]
"""`(a, b, rest)`: the new state is `a * h + b`; the output may also use `rest`."""


@fields.dataclass
class LinearRecurrenceCell(SpecsCell):
    """A cell with the new state `a * h + b`, where a and b do not depend on the state.

    A subclass defines `param_specs` and `coefficients`, and also `output` if the output
    is not the state. `init`, `apply` and `apply_sequence` are derived from these
    methods. For a whole sequence, matrix products and gates are computed for many
    steps at once. The states are then computed step by step on CPUs, and by a parallel
    scan on other devices.

    Inputs are floating-point arrays `[batch, depth]`. The inputs, the parameters and
    the outputs share one dtype. The state is `[batch, units]`, or a `ComplexState` of
    two such arrays, and may be wider than the inputs. `a * h + b` is computed in at
    least float32. `coefficients` should also compute in at least float32, because
    `sigmoid(7)` is 1 in bfloat16. `|a|` must not exceed 1 in long sequences, because
    the product of many factors a could overflow.

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
    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""

    @abc.abstractmethod
    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """Computes `(a, b, rest)` for one step; rows must not affect each other.

        Args:
            params: The parameters.
            inputs: One step of inputs, `[batch, depth]`.

        Returns:
            `a` and `b`: the factor and the addend of the state, `[batch, units]`, or
            `[1, units]` if all rows share them; for a complex state, each a
            `ComplexState` of two such arrays. Compute a and b in at least float32,
            whatever the dtype of the inputs. `rest`: values that `output` needs in
            addition to the state, each leaf `[batch, ...]`, or None.
        """

    def output(self, params: Params, state: Element, rest: PyTree) -> Array:
        """The output of one step, `[batch, size]`, from the new state."""
        return state

    def step(
        self, params: Params, inputs: Array, state: Element
    ) -> tuple[PyTree, Element]:
        """Runs one step with checked arguments; see `SpecsCell.step`."""
        a, b, rest = self.wide_coefficients(params, inputs, state)
        new_state = cast_like(state, plus(times(a, widened(state)), b))
        return self.narrow_output(params, new_state, rest, inputs.dtype), new_state

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a loop over blocks of steps; see `RNNCell.choose_loop`."""
        return choose_many_steps("blocks", self, run)

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps, many at once; see `RNNCell.apply_sequence`."""
        params, run = for_many_steps(self, params, run)
        with jax.named_scope(scope_name(self)):
            return linear_sequence(self, params, run)

    def wide_coefficients(
        self, params: Params, inputs: Array, state: Element
    ) -> Coefficients:
        """The result of `coefficients`, broadcast to the state, in at least float32.

        Raises:
            ValueError: If `coefficients` does not return three values, or a shape does
                not match the state.
            TypeError: If `coefficients` returns complex arrays.
        """
        result = self.coefficients(params, inputs)
        fix = "If `output` needs no other values, return (a, b, None)."
        is_triple = isinstance(result, tuple) and len(result) == 3
        expect(is_triple, "coefficients", "return a tuple (a, b, rest)", result, fix)
        a, b, rest = result
        rows = inputs.shape[0]
        return _fitted("a", a, rows, state), _fitted("b", b, rows, state), rest

    def narrow_output(
        self, params: Params, state: Element, rest: PyTree, dtype: DType
    ) -> PyTree:
        """The result of `output`, cast to `dtype`."""
        output = self.output(params, state, rest)
        return jax.tree.map(lambda y: y.astype(dtype), output)


def choose_many_steps(name: str, cell: SpecsCell, run: Run) -> Choice:
    """The choice of a cell whose `apply_sequence` runs many steps at once."""
    if run.implementation not in (None, "xla"):
        return Choice.scan(f"{type(cell).__name__} is not an `AffineCell`")
    if not isinstance(run.steps.time, int):
        return Choice.scan("the number of steps is symbolic")
    return Choice(name, cell.apply_sequence)


def for_many_steps(cell: SpecsCell, params: Params, run: Run) -> tuple[Params, Run]:
    """Prepares the parameters and the run of a cell that runs many steps at once."""
    # Gather the parameters, because their sharding might not be compatible with the
    # sharding of the state.
    params = whole_on_explicit_mesh(params)
    return params, run.replace(state=with_structure(cell.state_size, run.state))


def _fitted(name: str, x: PyTree, rows: int, state: Element) -> Element:
    """Coefficients `[rows, units]` in the state's dtype, or at least float32."""
    wide = widened(state)
    fix = "For a complex state, a, b and `state_size` are `ComplexState`s."
    check_structure(f"`{name}`", wide, x, strict=True, fix=fix)

    def fit(x: Array, h: Array) -> Array:
        is_real = not jnp.iscomplexobj(x)
        expect(is_real, name, "hold real arrays", x, fix, error=TypeError)
        return jnp.broadcast_to(jnp.asarray(x, h.dtype), (rows, *h.shape[1:]))

    with error_note(f"Raised for `{name}`, which `coefficients` returned."):
        return jax.tree.map(fit, x, wide)
