"""The memory strategies, and what the argument `swap_memory` of a driver stands for."""

import abc
import dataclasses
import logging
import math
from typing import Any

import numpy as np

from .._base.arguments import as_count, check_instance, check_one_of
from .._base.errors import describe
from .._base.sharding import platform_of
from .._base.typing import PyTree
from .._time.segments import RESIDUALS, STATE

_log = logging.getLogger("jaxrnn")

# Large enough for efficient copies, few compared to the steps of a run.
STEPS_PER_COPY = 64

# JAX names GPUs by "gpu" or by kind.
_PLATFORMS = ("cpu", "gpu", "cuda", "rocm", "tpu")
_STEPS = "It is the number of steps of a run."


@dataclasses.dataclass(frozen=True)
class CheckpointPlan:
    """What a run of some steps saves for its backward pass.

    Attributes:
        segments: The number of steps in a segment, in a segment within it, and so on;
            they need not divide one another. The state before each segment is saved. If
            the tuple is empty, all that the backward pass reads is saved.
        save_residuals: Whether what the loops of affine cells save is stored on the
            host as well; other cells are run again. It needs segments `on_host`.
        on_host: Whether what is saved of the outermost segments is stored in the memory
            of the host.

    Raises:
        TypeError: If `segments` is not a tuple of ints.
        ValueError: If one of them is less than 1, or `save_residuals` lacks `on_host`.
    """

    segments: tuple[int, ...] = ()
    save_residuals: bool = False
    on_host: bool = False

    def __post_init__(self) -> None:
        name = "CheckpointPlan"
        if not isinstance(self.segments, tuple):
            raise TypeError(
                f"{name}: `segments` must be a tuple of ints, got {self.segments!r}. "
                "`(64,)` is one segment of 64 steps after another."
            )
        for i, size in enumerate(self.segments):
            fix = "It is the number of steps in a segment."
            as_count(name, f"segments[{i}]", size, fix=fix)
        if self.save_residuals and not self.on_host:
            raise ValueError(
                f"{name}: `save_residuals` must have `on_host` as well, got "
                "on_host=False. On the device `CheckpointPlan()` saves residuals."
            )

    @property
    def names_on_host(self) -> tuple[str, ...]:
        """The names of what is stored on the host; see `segmented_run`."""
        names = (STATE, RESIDUALS) if self.save_residuals else (STATE,)
        return names if self.on_host else ()


@dataclasses.dataclass(frozen=True)
class Strategy(abc.ABC):
    """What a run saves for its backward pass: the base class of all strategies.

    A custom strategy is a frozen dataclass with this method, so that runs with equal
    strategies share one compilation:

        @dataclasses.dataclass(frozen=True)
        class SegmentsOnHost(Strategy):
            size: int = 64

            def plan(self, time):
                if time <= self.size:
                    return CheckpointPlan()
                return CheckpointPlan((self.size,), on_host=True)
    """

    @abc.abstractmethod
    def plan(self, time: int) -> CheckpointPlan:
        """What a run of `time` steps, at least one, saves."""

    def __repr__(self) -> str:
        values = [(getattr(self, f.name), f.default) for f in dataclasses.fields(self)]
        arguments = [repr(value) for value, default in values if value != default]
        return f"{type(self).__name__}({', '.join(arguments)})"


def plan_of(strategy: Strategy, time: Any) -> CheckpointPlan:
    """The strategy's plan; no segments of zero steps, or of a symbolic number of them.

    Raises:
        TypeError: If its `plan` does not return a `CheckpointPlan`.
    """
    if not isinstance(time, int):
        _log.debug("%r: the number of steps is symbolic: all is saved", strategy)
        return CheckpointPlan()
    plan = strategy.plan(time) if time else CheckpointPlan()
    if not isinstance(plan, CheckpointPlan):
        name = type(strategy).__name__
        raise TypeError(
            f"{name}: `plan` must return a `CheckpointPlan`, got {describe(plan)}. "
            "`CheckpointPlan((64,))` has segments of 64 steps."
        )
    return plan


@dataclasses.dataclass(frozen=True, repr=False)
class Keep(Strategy):
    """All that the backward pass reads stays on the device: what `False` stands for.

    An LSTM saves about six numbers per unit and step. Only elementwise work is
    recomputed. Small networks can be faster with another strategy, whose residuals fit
    the caches. `raw_rnn` recomputes its steps in any case, from the carry before
    each step on CPUs, before every 16 steps elsewhere.
    """

    def plan(self, time: int) -> CheckpointPlan:
        """No segments."""
        del time
        return CheckpointPlan()


@dataclasses.dataclass(frozen=True, repr=False)
class Recompute(Strategy):
    """The states between segments are saved; the backward pass reruns each segment.

    With segments of about the square root of the number of steps, the saved states take
    as much memory as one segment: an LSTM over 10,000 steps needs a fortieth of the
    memory of `Keep`. It costs one more forward pass.

    Attributes:
        chunk: The number of steps in a segment. 1 saves every state; None (the default)
            stands for about the square root of the number of steps, a divisor of that
            number if there is one nearby.

    Raises:
        TypeError: If `chunk` is not an int.
        ValueError: If `chunk` is less than 1.

    Source: arXiv:1604.06174, section 4.
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None:
            as_count("Recompute", "chunk", self.chunk)

    def plan(self, time: int) -> CheckpointPlan:
        """Segments of one size."""
        as_count("Recompute.plan", "time", time, fix=_STEPS)
        return CheckpointPlan((self.chunk or _near_root(time),))


def _near_root(time: int) -> int:
    """About the square root of `time`; if possible a divisor of it.

    A remainder would be compiled separately.
    """
    root = max(1, round(math.sqrt(time)))
    near = range(root - root // 4, root + root // 4 + 1)
    divisors = [k for k in near if time % k == 0]
    return min(divisors, key=lambda k: abs(k - root), default=root)


@dataclasses.dataclass(frozen=True, repr=False)
class Nested(Strategy):
    """Segments within segments: saved states grow with the logarithm of the steps.

    The backward pass over a segment recomputes the states between its `branches`
    parts, and so on down to segments of a few steps. Each level costs one more forward
    pass, and time to compile.

    Attributes:
        branches: The number of parts of a segment, at least 2.

    Raises:
        TypeError: If `branches` is not an int.
        ValueError: If `branches` is less than 2.

    Source: arXiv:1604.06174, section 4.
    """

    branches: int = 8

    def __post_init__(self) -> None:
        fix = "A segment has at least two parts."
        as_count("Nested", "branches", self.branches, least=2, fix=fix)

    def plan(self, time: int) -> CheckpointPlan:
        """One size of segment for each level, `branches` times the next."""
        as_count("Nested.plan", "time", time, fix=_STEPS)
        levels = max(1, round(math.log(time, self.branches)) - 1)
        innermost = -(-time // self.branches**levels)
        powers = reversed(range(levels))
        return CheckpointPlan(tuple(innermost * self.branches**p for p in powers))


@dataclasses.dataclass(frozen=True, repr=False)
class Offload(Strategy):
    """What another strategy saves is stored in the memory of the host, `pinned_host`.

    It is copied there during the forward pass, and back during the backward pass.
    `Offload(Recompute(64))` takes device memory that does not grow with the number of
    steps, and so does `Offload(Keep())`. That copies what the loops of affine cells
    save of every step, and recomputes nothing; other cells are run again, segment by
    segment. On the CPU host and device share one memory.

    JAX returns the results of such a program committed to their device. Commit the
    parameters beforehand, by `jax.device_put(params, jax.devices()[0])`, or the second
    call of a jitted training step compiles once more.

    Attributes:
        of: The other strategy, `Recompute()` by default.
        chunk: If `of` is `Keep()`, the number of steps whose residuals are copied at
            once; None (the default) for 64. It must be None if `of` has segments.

    Raises:
        TypeError: If `of` is not a strategy, or `chunk` not an int.
        ValueError: If `chunk` is less than 1, or given where `of` has segments.
    """

    of: Strategy = Recompute()
    chunk: int | None = None

    def __post_init__(self) -> None:
        fix = "`Offload(Recompute(64))`, say."
        check_instance("Offload", "of", self.of, Strategy, "a strategy", fix)
        if self.chunk is None:
            return
        as_count("Offload", "chunk", self.chunk)
        if plan_of(self.of, 2**20).segments:  # It may keep all of a few steps.
            what = f"None for {self.of!r}, which has segments already"
            fix = f"Write `Offload(Recompute({self.chunk}))`."
            check_one_of("Offload", "chunk", self.chunk, (None,), what, fix)

    def plan(self, time: int) -> CheckpointPlan:
        """The plan of the other strategy, on the host."""
        plan = plan_of(self.of, time)
        if plan.segments:
            return dataclasses.replace(plan, on_host=True)
        steps = self.chunk or STEPS_PER_COPY
        return CheckpointPlan((steps,), save_residuals=True, on_host=True)


def resolve(swap_memory: bool | Strategy, platform: str | None = None) -> Strategy:
    """The strategy that a value of `swap_memory` stands for.

    False is `Keep()`. True is `Offload(Recompute())`; on the CPU, where host and device
    share one memory, so that offloading does nothing, it is `Recompute()`.

    Args:
        swap_memory: False, True or a strategy, which is returned as it is.
        platform: The platform that runs it, "cpu", "gpu" or "tpu". None for that of the
            mesh in context or, without one, of JAX's default backend. Drivers know the
            mesh of their arrays as well. To compile for another platform without a
            mesh, pass `Offload()` itself to the driver.

    Raises:
        TypeError: If `swap_memory` is neither a bool nor a strategy.
        ValueError: If `platform` is not a platform.

    Example:
        >>> import jaxrnn
        >>> jaxrnn.memory.resolve(True, "cpu"), jaxrnn.memory.resolve(True, "tpu")
        (Recompute(), Offload())
    """
    known, what = (None, *_PLATFORMS), f"one of {', '.join(_PLATFORMS)}"
    fix = "None is JAX's default."
    check_one_of("resolve", "platform", platform, known, what, fix)
    return as_strategy("resolve", "swap_memory", swap_memory, platform=platform)


def as_strategy(
    caller: str,
    name: str,
    swap_memory: Any,
    beside: PyTree = (),
    platform: str | None = None,
) -> Strategy:
    """The strategy that a driver's argument stands for; see `resolve`.

    Args:
        caller: The driver, for messages.
        name: The argument, for messages.
        swap_memory: Its value.
        beside: Other arguments, whose mesh tells the platform.
        platform: The platform; None for that of the mesh, or JAX's default.
    """
    if isinstance(swap_memory, bool | np.bool_):
        if not swap_memory:
            return Keep()
        # With `Offload` a program for CPUs is the same, but JAX commits its results to
        # a device, so that the second call of a training step would compile again.
        is_cpu = (platform or platform_of(beside)) == "cpu"
        return Recompute() if is_cpu else Offload(Recompute())
    what = "True, False or a strategy of `jaxrnn.memory`"
    fix = _how_to_make_one_of(swap_memory)
    return check_instance(caller, name, swap_memory, Strategy, what, fix)


def _how_to_make_one_of(value: Any) -> str:
    if isinstance(value, str):
        return "Pass True for the default strategy of this platform."
    is_class = isinstance(value, type) and issubclass(value, Strategy)
    return f"Make one: {value.__name__}()." if is_class else ""
