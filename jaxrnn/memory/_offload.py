"""Keeping in the memory of the host."""

import dataclasses

from .._base.arguments import as_count
from .._base.errors import describe
from ._recompute import Recompute
from ._strategy import Record, Strategy

# Large enough for large copies, small beside a run.
WINDOW = 64


@dataclasses.dataclass(frozen=True, repr=False)
class Offload(Strategy):
    """What another strategy keeps lies in the memory of the host, `pinned_host`.

    It is copied there as the run goes on, and back as its derivative is taken.
    `Offload(Recompute(64))` takes memory of the device that does not grow with the
    number of steps, and so does `Offload(Keep())`, which makes nothing again but copies
    all of it. On the CPU, where host and device are one, it is as if `of` stood alone.

    JAX returns what such a program computes as committed to its device. Commit the
    parameters beforehand, by `jax.device_put(params, jax.devices()[0])`, or the second
    call of a jitted training step compiles once more.

    Attributes:
        of: The other strategy, `Recompute()` by default.
        chunk: The number of steps that are copied at once of what `Keep()` keeps; None
            (the default) for 64. Other strategies have chunks of their own.

    Raises:
        TypeError: If `of` is no strategy, or `chunk` not an int.
        ValueError: If `chunk` is less than 1, or given where `of` has its own.
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
        if self.of.record(1).windows:
            raise ValueError(
                f"Offload: `chunk` must be None for {self.of!r}, which has chunks of "
                f"its own, got {self.chunk}. Write `Offload(Recompute({self.chunk}))`."
            )

    def record(self, time: int) -> Record:
        """That of the other strategy, on the host."""
        record = self.of.record(time)
        if not record.windows:
            record = Record((self.chunk or WINDOW,), whole=True)
        return dataclasses.replace(record, on_host=True)
