"""Cells that update their state element-wise, `h_t = a_t * h_{t-1} + x_t`.

Sequences are run one block of steps at a time. For each block, all matrix products and
gates are computed at once, then the states, and then the outputs. On a CPU, a block is
small enough for the cache, so little of its data goes through main memory. The backward
pass recomputes each block from the state before the block. Therefore, except for
outputs and gradients, only the states between blocks take memory that grows with time.

The states are computed in one of two forms. One form, a loop, runs the steps one after
another. The other form combines steps in a tree: a step maps the state h to `a * h +
x`, and two consecutive steps together are again such a map, with a different a and x.

The tangent of a recurrence is the recurrence with `da_t * h_{t-1} + dx_t` instead of
`x_t`. Numbers are real or complex; complex numbers are stored as pairs of real arrays.
"""

import abc
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from .._base.errors import error_note, expect
from .._base.inputs import check_structure
from .._base.math import cast_like, widened
from .._base.sharding import as_varying_as, platform_of
from .._base.trees import TensorShape, map_sizes, serializable
from .._base.typing import Array, DType, Params, PyTree, Size
from .._loops import masking
from .._loops.scans import run_in_segments, summed_in_float32
from .._loops.steps import Choice, Run, Steps, at_each_step
from . import fields
from .base import SpecsCell, choose_many_steps, on_each_device, scope_name
from .params import Specs
from .transition import Transition


@serializable
class ComplexState(NamedTuple):
    """Complex numbers as two real arrays, cast and masked like other leaves.

    Attributes:
        real: The real part.
        imag: The imaginary part, with the same shape and dtype.
    """

    real: Any
    imag: Any


Element: TypeAlias = Any
"""`[..., units]`: a real array, or a `ComplexState`."""

Coefficients: TypeAlias = tuple[Element, Element, PyTree]
"""`(a, b, rest)`: the new state is `a * h + b`; the output may also use `rest`."""

Factors: TypeAlias = tuple[Element, Array | None]
"""`(a, restarting)`; see `linear_recurrence`."""


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
            whatever the dtype of the inputs. `rest`: values that `output` or
            `term_from_zeros` needs in addition, each leaf `[batch, ...]`, or None.
        """

    def output(self, params: Params, state: Element, rest: PyTree) -> Array:
        """The output of one step, `[batch, size]`, from the new state."""
        return state

    def term_from_zeros(self, rest: PyTree) -> Element | None:
        """The b of steps from a state of zeros in all units; None for the same b.

        The result must be zeros where the usual b is.

        Args:
            rest: The third result of `coefficients`.
        """
        return None

    def step(
        self, params: Params, inputs: Array, state: Element
    ) -> tuple[PyTree, Element]:
        """Runs one step with checked arguments; see `SpecsCell.step`."""
        a, b, rest = self.wide_coefficients(params, inputs, state)
        first = self.wide_term_from_zeros(rest, inputs, state)
        if first is not None:
            b = masking.select(self.is_zero(state), first, b)
        new_state = cast_like(state, plus(times(a, widened(state)), b))
        return self.narrow_output(params, new_state, rest, inputs.dtype), new_state

    def transition(self) -> "LinearTransition":
        """The cell that maps states over several steps; see `RNNCell.transition`."""
        return LinearTransition(self)

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses a loop over blocks of steps; see `RNNCell.choose_loop`."""
        return choose_many_steps("blocks", self, run)

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps, many at once; see `RNNCell.apply_sequence`."""
        params, run = on_each_device(self, params, run)
        params_in_loop = summed_in_float32(params)

        def run_block(xs: Array, state: Element, steps: Steps) -> tuple[PyTree, PyTree]:
            xs = steps.swap_time(xs)
            steps_first = steps.time_first()
            outputs, last = _run_block(self, params_in_loop(), xs, state, steps_first)
            return steps.swap_time(outputs), last

        size = steps_in_block(run.state, platform_of((params, run.inputs, run.state)))
        with jax.named_scope(scope_name(self)):
            return run_in_segments(size, run_block, run.inputs, run.state, run.steps)

    def is_zero(self, state: Element) -> Array:
        """Whether all units of a state are 0, without the axis of units."""
        each = [jnp.all(x == 0, axis=-1) for x in jax.tree.leaves(state)]
        return functools.reduce(jnp.logical_and, each)

    def are_from_zeros(
        self, first: Element, state: Element, restarting: Array | None, before: Element
    ) -> Array:
        """Whether the state before each step is zeros, `[time, batch]`.

        A state of zeros stays so while `first` is zeros.

        Args:
            first: The terms of steps from zeros, `[time, batch, units]`.
            state: The state before the first step.
            restarting: Where rows restart, `[time, batch]`, or None.
            before: The restart states, `[1 or time, batch, units]`, or None.
        """

        def is_written(x: Element) -> Array:
            is_zero = self.is_zero(jax.lax.stop_gradient(x))
            return (~is_zero)[..., None].astype(jnp.float32)

        written, start = is_written(first), is_written(state)
        again = jnp.zeros_like(written)
        if restarting is not None:
            again += masking.zero_unless(restarting, again + is_written(before))
        factors = jnp.ones_like(written), restarting
        counts, _ = linear_recurrence(factors, written + again, start)
        counts = jnp.concatenate([start[None], counts[:-1]])
        return (_zero_at(restarting, counts) + again)[..., 0] == 0

    def wide_coefficients(
        self, params: Params, inputs: Array, state: Element
    ) -> Coefficients:
        """The result of `coefficients`, broadcast to the state, in at least float32.

        Raises:
            ValueError: If `coefficients` does not return three values, or a shape does
                not match the state.
            TypeError: If `coefficients` returns complex arrays.
        """
        a, b, rest = self.coefficients(params, inputs)
        rows = inputs.shape[0]
        return _fitted("a", a, rows, state), _fitted("b", b, rows, state), rest

    def wide_term_from_zeros(
        self, rest: PyTree, inputs: Array, state: Element
    ) -> Element | None:
        """The result of `term_from_zeros`, as in `wide_coefficients`, or None."""
        first = self.term_from_zeros(rest)
        rows = inputs.shape[0]
        return None if first is None else _fitted("b", first, rows, state)

    def narrow_output(
        self, params: Params, state: Element, rest: PyTree, dtype: DType
    ) -> PyTree:
        """The result of `output`, cast to `dtype`."""
        output = self.output(params, state, rest)
        return jax.tree.map(lambda y: y.astype(dtype), output)


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


def times(a: Element, h: Element) -> Element:
    """The element-wise product."""
    if isinstance(a, ComplexState):
        real = a.real * h.real - a.imag * h.imag
        return ComplexState(real, a.real * h.imag + a.imag * h.real)
    return a * h


def plus(x: Element, y: Element) -> Element:
    """The element-wise sum."""
    return jax.tree.map(jnp.add, x, y)


def one_like(a: Element) -> Element:
    """The number 1, with the structure of `a`."""
    return ComplexState(1, 0) if isinstance(a, ComplexState) else 1


def steps_in_block(state: Element, platform: str) -> int:
    """The number of steps in a block, a power of two.

    On CPUs, the states of a block take about 2 MiB. For MinGRU with 8 rows, 256 units
    and 8192 steps, blocks of 128, 256, 512 and 1024 steps were compared. The forward
    pass took 232, 175, 192 and 210 ms, and a training step took 680, 722, 775 and
    839 ms. With 1 row, blocks of 256 to 2048 steps are equally fast.

    On other platforms, a block has 1024 steps. For the gradient of MinGRU with 4 rows,
    512 units and 8192 steps, the TPU's compiler estimates 18 million cycles and 99 MiB.
    If all steps are in one block, the compiler estimates 13 million cycles and 829 MiB.
    """
    if not all(isinstance(n, int) for x in jax.tree.leaves(state) for n in x.shape):
        return 256  # A size is symbolic.
    if platform != "cpu":
        return 1024
    step_bytes = 4 * sum(leaf.size for leaf in jax.tree.leaves(state))
    steps = min(max(32, 2**21 // max(1, step_bytes)), 2**16)
    return 1 << (steps.bit_length() - 1)


def _run_block(
    cell: LinearRecurrenceCell, params: Params, xs: Array, state: Element, steps: Steps
) -> tuple[PyTree, PyTree]:
    """Runs one block of steps; `xs` are `[time, batch, depth]`."""

    def at_step(x: Array) -> tuple[Element, Element, PyTree, Element | None]:
        a, b, rest = cell.wide_coefficients(params, x, state)
        return a, b, rest, cell.wide_term_from_zeros(rest, x, state)

    a, b, rest, first = at_each_step(at_step, steps.fill_finished(xs))
    restarting: Any = None
    before: Any = None
    if steps.restarts is not None:
        restarting = steps.restarts.where
        before = widened(steps.restarts.states_at_steps(steps.axis))
    if first is not None:
        from_zeros = cell.are_from_zeros(first, state, restarting, before)
        b = masking.select(from_zeros, first, b)
    alive = steps.alive_steps()
    if alive is not None:  # Finished rows keep their state.
        a = masking.select(alive, a, one_like(a))
        b = masking.zero_unless(alive, b)
    if before is not None:
        # At steps without a restart, `before` is arbitrary and must not be added. Zero
        # the states rather than the product, because in the product's gradient, 0 * inf
        # would be NaN.
        before = masking.zero_unless(restarting, before)
        b = plus(b, times(a, before))
    h = as_varying_as((a, b), widened(state))
    hs, last = linear_recurrence((a, restarting), b, h)
    hs = cast_like(state, hs)
    last = cast_like(state, last)
    outputs = at_each_step(
        lambda h, rest: cell.narrow_output(params, h, rest, xs.dtype), hs, rest
    )
    outputs = steps.zero_finished(outputs)
    return (outputs, hs) if steps.returns_states else outputs, last


@jax.custom_jvp
def linear_recurrence(
    factors: Factors, x: Element, h: Element
) -> tuple[Element, Element]:
    """`(hs, h)`: the state after each step of `h' = a * h + x`, and the last state.

    Args:
        factors: `(a, restarting)`: the factors, `[time, batch, units]`, whose absolute
            values should not exceed 1, because `by_tree` multiplies many factors; and a
            mask, bool `[time, batch]`, true where a row restarts. At a restart, the
            state before the step has no effect, even if this state or `a` is NaN. None
            for no restarts.
        x: The terms, with the shape of `a`.
        h: The state before the first step, `[batch, units]`.

    Source: Blelloch, "Prefix sums and their applications", 1990.
    """
    return run_steps(factors, x, h)


@linear_recurrence.defjvp
def _recurrence_of_tangents(primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    factors, x, h = primals
    (d_a, _), d_x, d_h = tangents
    hs, last = linear_recurrence(factors, x, h)
    before = jax.tree.map(lambda h, hs: jnp.concatenate([h[None], hs[:-1]]), h, hs)
    # The states before a restart may be NaN. Replace them by zeros in `before` rather
    # than in the product, because the product's transpose also multiplies by `before`.
    d_x = plus(d_x, times(d_a, _zero_at(factors[1], before)))
    return (hs, last), linear_recurrence(factors, d_x, d_h)


def run_steps(factors: Factors, x: Element, h: Element) -> tuple[Element, Element]:
    """`(hs, h)` of all steps, in the form that suits the run and the platform.

    CPUs and runs of fewer than 64 steps always use the loop. On CPUs, XLA compiles a
    step of the loop into one function that reads and writes each number once, unlike
    any parallel form. For 8192 steps of 256 units, the loop took 1.2 ms with 1 row and
    36 ms with 8 rows; the tree took 13 ms and 197 ms. On other platforms, each step of
    a loop costs microseconds, regardless of the size of the step. For the gradient of
    1024 steps, a GPU launches about 40 operations for the tree, but several operations
    per step for a loop.

    Args:
        factors: `(a, restarting)`; see `linear_recurrence`.
        x: The terms.
        h: The state before the first step.
    """
    if jax.tree.leaves(x)[0].shape[0] < 64:
        return by_loop(factors, x, h)
    return jax.lax.platform_dependent(factors, x, h, cpu=by_loop, default=by_tree)


def by_loop(factors: Factors, x: Element, h: Element) -> tuple[Element, Element]:
    """Runs the steps one after another."""

    def step(h: Element, scanned: PyTree) -> tuple[Element, Element]:
        new = _step(h, *scanned)
        return new, new

    last, hs = jax.lax.scan(step, h, (*factors, x))
    return hs, last


def by_tree(factors: Factors, x: Element, h: Element) -> tuple[Element, Element]:
    """Runs all T steps at once, in a tree of about `log2(T)` levels."""

    def join(first: PyTree, second: PyTree) -> PyTree:
        a, restarting, x = first
        a_after, restarting_after, x_after = second

        def through(x: Element) -> Element:
            return _zero_at(restarting_after, times(a_after, x))

        either = jax.tree.map(jnp.logical_or, restarting, restarting_after)
        return through(a), either, plus(through(x), x_after)

    a, restarting, x = jax.lax.associative_scan(join, (*factors, x))
    hs = _step(jax.tree.map(lambda h: h[None], h), a, restarting, x)
    return hs, jax.tree.map(lambda h: h[-1], hs)


def _step(h: Element, a: Element, restarting: Array | None, x: Element) -> Element:
    return plus(_zero_at(restarting, times(a, h)), x)


def _zero_at(restarting: Array | None, x: Element) -> Element:
    """Replaces `x` by zeros where rows restart, because `x` may be NaN at a restart."""
    return x if restarting is None else masking.zero_unless(~restarting, x)


@fields.dataclass
class LinearTransition(Transition, LinearRecurrenceCell):
    """`a * h + b` of a linear recurrence, as the units `[a, b]`.

    A step multiplies both by its own a, and adds its own b to b. A cell with
    `term_from_zeros` has a third block of units: the result for a state of zeros.
    """

    cell: LinearRecurrenceCell

    @property
    def _blocks(self) -> int:
        usual = LinearRecurrenceCell.term_from_zeros
        return 2 if type(self.cell).term_from_zeros is usual else 3

    @property
    def state_size(self) -> Size:
        """The size of the cell's state, times the number of blocks."""
        repeat = lambda shape: TensorShape([*shape[:-1], self._blocks * shape[-1]])
        return map_sizes(repeat, self.cell.state_size)

    def identity(self, state: Element) -> Element:
        """See `Transition.identity`."""
        one = jax.tree.map(jnp.full_like, state, one_like(state))
        return self._joined(one, _zeros(state))

    def constant(self, state: Element) -> Element:
        """See `Transition.constant`."""
        return self._joined(_zeros(state), state)

    def map(self, transition: Element, state: Element) -> Element:
        """`a * state + b`; see `Transition.map`."""
        a, b, *others = self._split(transition)
        for from_zeros in others:
            b = masking.select(self.cell.is_zero(state), from_zeros, b)
        return plus(times(a, state), b)

    def is_zero(self, state: Element) -> Array:
        """Whether the state of the cell in the last block is 0."""
        return self.cell.is_zero(self._split(state)[-1])

    def wide_coefficients(
        self, params: Params, inputs: Array, state: Element
    ) -> Coefficients:
        """The coefficients of the cell for each block."""
        own = self._split(state)[0]
        a, b, rest = self.cell.wide_coefficients(params, inputs, own)
        return self._joined(a, a), self.constant(b), (b, rest)

    def wide_term_from_zeros(
        self, rest: PyTree, inputs: Array, state: Element
    ) -> Element | None:
        """The terms of the cell, in the third block."""
        b, rest = rest
        own = self._split(state)[0]
        first = self.cell.wide_term_from_zeros(rest, inputs, own)
        return None if first is None else self._joined(_zeros(b), b, first)

    def coefficients(self, params: Params, inputs: Array) -> Coefficients:
        """The coefficients of the cell; `wide_coefficients` replaces them."""
        return self.cell.coefficients(params, inputs)

    def output(self, params: Params, state: Element, rest: PyTree) -> Array:
        """No numbers."""
        return jax.tree.leaves(state)[0][..., :0]

    def _joined(self, a: Element, b: Element, from_zeros: Element = None) -> Element:
        """The blocks side by side; `from_zeros` is `b` by default."""
        blocks = [a, b, b if from_zeros is None else from_zeros][: self._blocks]
        return jax.tree.map(lambda *x: jnp.concatenate(x, axis=-1), *blocks)

    def _split(self, x: Element) -> list[Element]:
        """The blocks of a state or of its coefficients."""
        split = lambda x: jnp.split(x, self._blocks, axis=-1)
        return jax.tree.transpose(jax.tree.structure(x), None, jax.tree.map(split, x))


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, tree)
