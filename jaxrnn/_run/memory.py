"""Memory strategies, which select the arrays that a run saves for its backward pass."""

import abc
import dataclasses
import math

import numpy as np

from .._base.arguments import as_count, check_instance
from .._base.errors import expect
from .._base.hints import with_hints
from .._base.mesh import platform_of
from .._base.typing import AxisSize, PyTree

# The `checkpoint_name`s of arrays that a strategy may store on the host: the state
# before a part, and the residuals of a loop.
STATE = "jaxrnn_state"
RESIDUALS = "jaxrnn_residuals"

# A part of this many steps is large enough for efficient copies to the host, and
# short compared with a long run.
STEPS_PER_COPY = 64


@dataclasses.dataclass(frozen=True)
class CheckpointPlan:
    """Selects the arrays that a run saves for its backward pass, on device or host.

    Attributes:
        part: The number of steps in a part, such as 64. The forward pass saves the
            state before each part, and the backward pass recomputes the part. If None,
            the forward pass saves everything that the backward pass reads.
        save_residuals: Whether to also store the residuals of affine cells (subclasses
            of `AffineCell`) on the host. The backward pass recomputes the residuals of
            other cells. Without `on_host`, `save_residuals` has no effect.
        on_host: Whether the states before the parts are stored in host memory.

    Raises:
        TypeError: If `part` is not an int.
        ValueError: If `part` is less than 1.
    """

    part: int | None = None
    save_residuals: bool = False
    on_host: bool = False

    def __post_init__(self) -> None:
        if self.part is not None:
            as_count("part", self.part)

    @property
    def names_on_host(self) -> tuple[str, ...]:
        """The names of the arrays to store on the host; empty without `on_host`."""
        names = (STATE, RESIDUALS) if self.save_residuals else (STATE,)
        return names if self.on_host else ()


@dataclasses.dataclass(frozen=True)
class Strategy(abc.ABC):
    """The base class of all memory strategies.

    Write a custom strategy as a frozen dataclass, so that runs with equal strategies
    share one compilation::

        @dataclasses.dataclass(frozen=True)
        class PartsOnHost(Strategy):
            size: int = 64

            def plan(self, time):
                if time <= self.size:
                    return CheckpointPlan()
                return CheckpointPlan(self.size, on_host=True)
    """

    @abc.abstractmethod
    def plan(self, time: int) -> CheckpointPlan:
        """Returns the plan for a run of `time` steps, where `time` is at least 1."""

    def __repr__(self) -> str:
        values = [(getattr(self, f.name), f.default) for f in dataclasses.fields(self)]
        arguments = [repr(value) for value, default in values if value != default]
        return f"{type(self).__name__}({', '.join(arguments)})"


def plan_of(strategy: Strategy, time: AxisSize) -> CheckpointPlan:
    """Returns the strategy's plan, or one without parts if `time` is < 2 or symbolic.

    Raises:
        TypeError: If `strategy.plan` does not return a `CheckpointPlan`.
    """
    is_known = isinstance(time, int) and time > 1
    plan = strategy.plan(time) if is_known else CheckpointPlan()
    name = f"{type(strategy).__name__}.plan(time)"
    what = "a `CheckpointPlan`, such as `CheckpointPlan(64)`"
    return check_instance(name, plan, CheckpointPlan, what)


@dataclasses.dataclass(frozen=True, repr=False)
class Keep(Strategy):
    """Saves everything that the backward pass reads, as `swap_memory=False` does.

    An LSTM saves about six numbers per unit and step. The backward pass recomputes only
    element-wise operations. A small network can be faster with a strategy that saves
    less, because the residuals of a part then fit in the CPU's caches. With `Keep`,
    `raw_rnn` instead saves the state and the loop state before each step, and
    recomputes the steps.
    """

    def plan(self, time: int) -> CheckpointPlan:
        """Returns a plan without parts."""
        del time
        return CheckpointPlan()


@with_hints
@dataclasses.dataclass(frozen=True, repr=False)
class Recompute(Strategy):
    """Saves only the state before each part; the backward pass reruns the part.

    By default, 10,000 steps are divided into 100 parts of 100 steps. For an LSTM, this
    strategy then needs about a fortieth of the memory that `Keep` needs. The cost is
    one more forward pass.

    Attributes:
        part: The number of steps in a part; 1 saves the state before every step.
            None (the default) selects a number near the square root of the number of
            steps, preferably a divisor of the number of steps.

    Raises:
        TypeError: If `part` is not an int.
        ValueError: If `part` is less than 1.

    Source: arXiv:1604.06174, section 4.
    """

    part: int | None = None

    def __post_init__(self) -> None:
        if self.part is not None:
            as_count("part", self.part)

    def plan(self, time: int) -> CheckpointPlan:
        """Returns a plan with parts of one size."""
        return CheckpointPlan(self.part or _near_root(time))


def _near_root(time: int) -> int:
    """Returns a number near the square root of `time`, if possible a divisor of `time`.

    Otherwise, the last part would be shorter and would be compiled separately.
    """
    root = max(1, round(math.sqrt(time)))
    near = range(root - root // 4, root + root // 4 + 1)
    divisors = [k for k in near if time % k == 0]
    return min(divisors, key=lambda k: abs(k - root), default=root)


@with_hints
@dataclasses.dataclass(frozen=True, repr=False)
class Offload(Strategy):
    """Saves the same arrays as another strategy, but in host memory (`pinned_host`).

    The saved arrays are copied to the host during the forward pass, and back during the
    backward pass. With `Offload(Recompute(64))` or `Offload(Keep())`, the device memory
    for saved arrays does not grow with the number of steps. `Offload(Keep())` copies
    the residuals of affine cells (subclasses of `AffineCell`) and recomputes no steps
    of these cells. For other cells, `Offload(Keep())` copies the state before each
    part, and recomputes the part. On the CPU, host and device share one memory.

    If a program offloads arrays, JAX commits the program's results to a device. Before
    the first training step, commit the parameters too, with
    `jax.device_put(params, jax.devices()[0])`. Otherwise, the second call of the jitted
    step compiles again.

    Attributes:
        of: The strategy that selects the arrays, `Recompute()` by default.
        part: If `of` is `Keep()`, the number of steps whose residuals are copied at
            once; None (the default) selects 64. If `of` already has parts, `part` must
            be None.

    Raises:
        TypeError: If `of` is not a strategy, or if `part` is not an int.
        ValueError: If `part` is less than 1, or if `part` is given although `of` has
            parts.
    """

    of: Strategy = Recompute()
    part: int | None = None

    def __post_init__(self) -> None:
        fix = "For example, use `Offload(Recompute(64))`."
        check_instance("of", self.of, Strategy, "a strategy", fix)
        if self.part is None:
            return
        as_count("part", self.part)
        # Plan a long run, because `of` may divide only long runs into parts.
        of_other = plan_of(self.of, 2**20).part
        must = f"be None, because {self.of!r} already divides the run into parts"
        expect(of_other is None, "part", must, self.part)

    def plan(self, time: int) -> CheckpointPlan:
        """Returns the plan of the strategy `of`, with storage on the host."""
        plan = plan_of(self.of, time)
        if plan.part is not None:
            return dataclasses.replace(plan, on_host=True)
        steps = self.part or STEPS_PER_COPY
        return CheckpointPlan(steps, save_residuals=True, on_host=True)


def as_strategy(
    name: str,
    swap_memory: bool | Strategy,
    arrays: PyTree = (),
    platform: str | None = None,
) -> Strategy:
    """Returns the strategy that an argument `swap_memory` selects.

    False selects `Keep()`. True selects `Offload(Recompute())` on accelerators and
    `Recompute()` on the CPU, where host and device share one memory and offloading has
    no benefit. To compile for an accelerator without a mesh, pass `Offload()`.

    Args:
        name: The name of the argument, for error messages.
        swap_memory: The value of the argument.
        arrays: Other arguments of the same call, whose mesh determines the platform.
        platform: The platform; None selects the platform of the mesh or, without a
            mesh, of JAX's default backend.
    """
    if isinstance(swap_memory, bool | np.bool_):
        if not swap_memory:
            return Keep()
        # On CPUs, `Offload(Recompute())` compiles to the same program as `Recompute()`,
        # but JAX commits the results to a device, so the second call of a training step
        # would compile again.
        is_cpu = (platform or platform_of(arrays)) == "cpu"
        return Recompute() if is_cpu else Offload(Recompute())
    what = "True, False or a strategy of `jaxrnn.memory`"
    return check_instance(name, swap_memory, Strategy, what)
