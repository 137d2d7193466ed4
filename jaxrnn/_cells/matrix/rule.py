"""`MatrixRule`, which says how a step reads and writes a matrix memory.

A step writes a value u at a key k, and reads with a query q. With vectors as rows,

    S_t = a_t S_{t-1} + outer(k_t, u_t)        S: [key, value]
    o_t = q_t S_t
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp

from ..._base.errors import expect, is_array
from ..._base.math import at_least_float32, cast_like, widest_dtype
from ..._base.typing import Array, DType, PyTree, Size
from ..base import check_overrides

# The least logarithm of a decay, and the least argument of a forget gate's sigmoid.
# exp(-87) is about the smallest normal float32. A chunk (steps that are computed
# together) subtracts sums of these logarithms from each other. Without this limit, a
# logarithm of large magnitude would round away the terms of other steps, and the
# difference of two infinite sums would be NaN.
LEAST_LOG = -87.0


def arithmetic_dtype(inputs: Array, state: PyTree) -> DType:
    """The widest dtype of inputs and state, at least float32."""
    return at_least_float32(widest_dtype((inputs, state)))


def decayed(g: Array, state: Array) -> Array:
    """Returns `exp(g) S`, for one logarithm g per head or per key.

    This function does not call `unit_axes.scaled`, because XLA for CPUs would then copy
    the state at each step of a scan.

    Args:
        g: `[batch, heads]` or `[batch, heads, key]`.
        state: S, `[batch, heads, key, value]`.
    """
    return jnp.exp(jnp.expand_dims(g, tuple(range(g.ndim, state.ndim)))) * state


class MatrixRule(abc.ABC):
    """An immutable rule for how a step changes and reads a matrix memory.

    A cell has a rule, and computes the values of the rule from its inputs. A rule
    defines `Inputs`, `idle`, `sizes` and `step`. If it also defines `chunk`, whole
    sequences run one chunk of steps at a time, otherwise step by step. The built-in
    rules define neither `chunk` nor `transition`, because their loops are registered in
    `_loops/memories/`. A rule that overrides `step` must also override an inherited
    `chunk`, and a rule that overrides `chunk` must also override an inherited
    `transition`.

    Attributes:
        Inputs: The values of a step, a named tuple. For a `BareMemoryCell`, the first
            two are the queries `q` and the keys `k`, `[batch, heads, key]`.
        idle: The values of a step that does not change the state, as scalars.
        chunk: None, or a method `chunk(self, chunk)`, which runs all steps of a `Chunk`
            at once, and returns `(h, states)`. `h` is what the steps read,
            `[batch, heads, steps, size]`. `states` has leaves `[batch, heads, n, ...]`
            with the states after each step if `chunk.returns_states`, otherwise with
            only the last state (n = 1). The results must equal the results of `step`;
            `jaxrnn.testing.check_cell` compares them.
    """

    Inputs: ClassVar[Any]
    idle: ClassVar[PyTree]
    chunk: Any = None

    def __init_subclass__(cls, **options: object) -> None:
        """Raises an error if the methods and attributes of a rule do not match."""
        super().__init_subclass__(**options)
        fix = "Derive the rule from `jaxrnn.extend.MatrixRule` instead."
        check_overrides(cls, ("step",), "chunk", MatrixRule, fix)
        check_overrides(cls, ("chunk",), "transition", MatrixRule, fix)
        if cls.step is MatrixRule.step:
            return
        inputs: Any = getattr(cls, "Inputs", None)
        idle: Any = getattr(cls, "idle", None)
        is_named = isinstance(inputs, type) and hasattr(inputs, "_fields")
        name = f"{cls.__name__}.Inputs"
        expect(is_named, name, "be a class of named tuples", inputs, error=TypeError)
        name = f"{cls.__name__}.idle"
        is_number = lambda x: isinstance(x, int | float) or (is_array(x) and not x.ndim)
        fits = isinstance(idle, inputs) and all(map(is_number, idle))
        expect(fits, name, "be an `Inputs` of numbers", idle, error=TypeError)

    @abc.abstractmethod
    def sizes(self, heads: int, key: int, value: int) -> tuple[Size, Size]:
        """The sizes of the values and of the state, without the batch axis.

        Each size is a `TensorShape`, and its first axis has the size `heads`. A leaf of
        the state of size `[heads]` is the logarithm of a scale, and may be -inf.

        Args:
            heads: The number of heads.
            key: The size of the keys of a head.
            value: The size of the values of a head.

        Returns:
            `(values, state)`, where `values` is an `Inputs` of sizes, and `state` is
            one size or a nest of sizes.
        """

    @abc.abstractmethod
    def step(self, values: PyTree, state: PyTree) -> tuple[Array, PyTree]:
        """Runs one step; this method defines the rule.

        Args:
            values: The values of the step, leaves `[batch, heads, ...]`.
            state: The state before the step, leaves `[batch, heads, ...]`.

        Returns:
            `(h, state)`, where h is what the step reads, `[batch, heads, size]`, and
            `state` is the new state.
        """

    def stored(self, like: PyTree, state: PyTree) -> PyTree:
        """Casts `state`, which may have a time axis, to the dtypes of `like`."""
        return cast_like(like, state)

    def transition(self) -> tuple[Callable, Callable, Callable, Callable] | None:
        """Returns functions that map a state to the state after several steps.

        The functions work with *maps*. A map is a nest of arrays that represents a
        function from a state to the state some steps later, such as the factors A and B
        of `A h + B`.

        Returns:
            None if such maps have no simple form, which is the default. Otherwise, a
            tuple of four functions:

            - `chunk` is the method `chunk` with maps in place of states.
            - `identity(state)` returns the map of each state to itself, for states with
              the structure and shapes of `state`.
            - `constant(state)` returns the map of all states to `state`.
            - `map(transition, state)` applies the map `transition` to `state`. Both
              arguments are finite.
        """
        return None
