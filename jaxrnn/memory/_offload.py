"""Saving in the memory of the host."""

import dataclasses

from .._base.arguments import as_count
from .._base.errors import describe
from ._recompute import Recompute
from ._strategy import CheckpointPlan, Strategy

# Large enough for large copies, small beside a run.
STEPS_PER_COPY = 64


@dataclasses.dataclass(frozen=True, repr=False)
class Offload(Strategy):
    """What another strategy saves is stored in the memory of the host, `pinned_host`.

    It is copied there during the forward pass and back during the backward pass.
    `Offload(Recompute(64))` takes device memory that does not grow with the number of
    steps, and so does `Offload(Keep())`, which recomputes nothing but copies
    everything. On the CPU, where host and device share one memory, it has the effect of
    `of` alone.

    JAX returns the results of such a program committed to their device. Commit the
    parameters beforehand, by `jax.device_put(params, jax.devices()[0])`, or the second
    call of a jitted training step compiles once more.

    Attributes:
        of: The other strategy, `Recompute()` by default.
        chunk: The number of steps that are copied at once of what `Keep()` saves; None
            (the default) for 64. Other strategies have segments, which are copied.

    Raises:
        TypeError: If `of` is not a strategy, or `chunk` not an int.
        ValueError: If `chunk` is less than 1, or given where `of` has segments.
    """

    of: Strategy = dataclasses.field(default_factory=Recompute)
    chunk: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.of, Strategy):
            raise TypeError(
                f"Offload: `of` must be a strategy, got {describe(self.of)}. "
                "`Offload(Recompute(64))`, say."
            )
        if self.chunk is None:
            return
        as_count("Offload", "chunk", self.chunk)
        if self.of.plan(1).segments:
            raise ValueError(
                f"Offload: `chunk` must be None for {self.of!r}, which has chunks "
                f"already, got {self.chunk}. Write `Offload(Recompute({self.chunk}))`."
            )

    def plan(self, time: int) -> CheckpointPlan:
        """That of the other strategy, on the host."""
        plan = self.of.plan(time)
        if not plan.segments:
            steps = self.chunk or STEPS_PER_COPY
            plan = CheckpointPlan((steps,), save_residuals=True)
        return dataclasses.replace(plan, on_host=True)
