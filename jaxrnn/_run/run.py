"""`Run`, the arrays that a loop over all steps reads, and `Choice`, the loop."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from .._base.arguments import check_function, check_instance
from .._base.trees import without_read_only
from .._base.typing import Array, Implementation, Key, Params, PyTree
from . import masking
from .masking import Steps


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["inputs", "state", "reset_state", "steps"],
    meta_fields=["key_of_step", "implementation", "vmap_size"],
)
@dataclasses.dataclass(frozen=True)
class Run:
    """The inputs, states and steps of whole sequences: the argument of a loop.

    A loop of a `Choice` may rely on the following properties. Runs without these
    properties are scanned.

    * There is at least one row and one step.
    * The rows of the cell do not interact.
    * The state has no read-only parts; it may have leaves without a batch axis.
    * There is no mask: the valid steps are at the front of each row.
    * No row is reset past its length.
    * One step of the cell was checked, so the state has the shapes and dtypes that a
      step returns.
    * All arrays with rows are divided over devices like the rows of the inputs.

    Padding may be NaN, and so may a state that no step reads.

    Attributes:
        inputs: All steps of inputs, each leaf `[batch, time, ...]`, or
            `[time, batch, ...]` if `steps.axis` is 0.
        state: The initial state, each leaf `[batch, ...]`.
        steps: The time axis, and which rows are finished or reset at each step.
        reset_state: The state to which rows are reset, like `state`; None if no row is
            reset.
        key_of_step: `key_of_step(i)` returns the random key of step i of the whole run;
            see `key_at`. If `key_of_step` is None, the run is deterministic.
        implementation: The argument `implementation` of `dynamic_rnn`, such as "xla",
            "native" or None. For "scan", `choose_loop` is not called. If the argument
            is "native" or the name of a package, `choose_loop` must return a `Choice`
            of this name; otherwise, the user gets an error. A wrapper therefore returns
            the choice of its inner cell.
        vmap_size: Product of the sizes of the enclosing `vmap`s; 1 if unknown.
    """

    inputs: PyTree
    state: PyTree
    steps: Steps
    reset_state: PyTree = None
    key_of_step: Callable[[Array], Key] | None = None
    implementation: Implementation | None = None
    vmap_size: int = 1

    def replace(self, **changes: object) -> "Run":
        """Returns a copy of the run in which `changes` replace attributes."""
        return dataclasses.replace(self, **changes)

    def of_inner(self, inputs: PyTree, state: PyTree, **changes: object) -> "Run":
        """Returns the run of an inner cell on `inputs` from an initial state.

        `changes` replace further attributes of the run.
        """
        return self.replace(inputs=inputs, state=state, **changes).with_stand_in()

    def with_stand_in(self) -> "Run":
        """Sets `steps.stand_in`: finite inputs and states for finished rows.

        Without resets, the stand-in is the row's first inputs and its initial state.
        With resets, the stand-in is the row's last inputs and, if the row is reset, its
        reset state, because values before a reset may be NaN or infinite. Rows without
        a valid step get zeros.
        """
        steps = self.steps
        if steps.lengths is None:
            return self
        state = without_read_only(self.state)
        inputs = masking.first_inputs(self.inputs, steps.axis)
        is_valid = steps.is_valid(jnp.int32(0))
        if steps.resets is not None and steps.time != 0:
            is_reset = jnp.any(steps.resets, steps.axis)
            state = masking.select(~is_reset, state, self.reset_state)
            if steps.time != 1 and not steps.rows_interact:
                inputs = masking.last_inputs(self.inputs, steps.lengths, steps.axis)
                is_valid = steps.lengths > 0
        found = masking.zero_unless(is_valid, jax.lax.stop_gradient((inputs, state)))
        return self.replace(steps=dataclasses.replace(steps, stand_in=found))

    def key_at(self, t: Array) -> Key | None:
        """The random key of a step; None for a deterministic run.

        Args:
            t: The step, an int32 scalar.
        """
        return self.key_of_step and self.key_of_step(self.steps.index_in_run(t))

    def map_keys(self, fn: Callable[[Key], Key]) -> "Run":
        """Returns the run with `fn(key)` in place of the key of each step, if any."""
        key_of_step = self.key_of_step
        if key_of_step is None:
            return self
        return self.replace(key_of_step=lambda i: fn(key_of_step(i)))

    def prefix_tree(self, rows: object, sequences: object, shared: object) -> "Run":
        """Builds a prefix tree for `in_specs`: one value for each array.

        Args:
            rows: The value for arrays whose first axis is the rows.
            sequences: The value for arrays in the layout of the inputs.
            shared: The value for scalars.
        """
        steps = self.steps.prefix_tree(rows=rows, sequences=sequences, shared=shared)
        return self.replace(inputs=sequences, state=rows, reset_state=rows, steps=steps)


Loop: TypeAlias = Callable[[Params, Run], tuple[PyTree, PyTree]]
"""`loop(params, run) -> (outputs, state)` of all steps."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The loop that runs a cell over whole sequences, and why no faster loop does.

    A choice is made once for a run, before a loop is traced. A loop may still run some
    steps in another way. For example, the default native loop runs short sequences in
    XLA's loop. A matrix memory runs step by step instead of in chunks if its results
    are not finite, or if it is small and the run is not differentiated.

    Attributes:
        name: The name of the loop, which may be any name for a custom cell. A stack
            joins the names of its cells' loops by "and". The package uses these names:

            * "native" or "xla" for an affine cell;
            * "chunks" for a linear recurrence or a matrix memory;
            * the name of a package whose kernels run a matrix memory;
            * "convolution" for a `ShortConvCell`;
            * "scan" for a scan of `apply`;
            * "step" for one call of `apply`, if there is a single step.
        loop: `loop(params, run) -> (outputs, state)`. If None, the cell is scanned or
            runs one step. The outputs of all steps have time along the same axis as the
            inputs, and zeros in finished rows. If `run.steps.returns_states`, the
            outputs are pairs `(output, new_state)`. The state is the state after each
            row's last step.
        reason: Why no faster loop runs; empty if no loop is faster.
        scales_state: Whether the loop can multiply each new state by one mask for all
            steps, as dropout of the state does.

    Raises:
        TypeError: If `name` is not a string, or `loop` is neither None nor a function.
    """

    name: str
    loop: Loop | None = None
    reason: str = ""
    scales_state: bool = False

    def __post_init__(self) -> None:
        check_instance("name", self.name, str, "a string")
        if self.loop is not None:
            check_function("loop", self.loop)

    @classmethod
    def scan(cls, reason: str) -> "Choice":
        """Chooses a scan of `apply`; `reason` says why."""
        return cls("scan", reason=reason)

    def within(self, run: Callable[[Loop, Params, Run], PyTree]) -> "Choice":
        """Returns the choice of a wrapper whose loop calls `run(loop, params, run)`.

        The argument `loop` is the loop of this choice. If the wrapped cell is scanned,
        the wrapper is scanned too.
        """
        if self.loop is None:
            return self
        loop = functools.partial(run, self.loop)
        return dataclasses.replace(self, loop=loop, scales_state=False)
