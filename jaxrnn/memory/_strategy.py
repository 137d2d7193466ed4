"""What a memory strategy is."""

import abc
import dataclasses

from .._base.arguments import as_count


@dataclasses.dataclass(frozen=True)
class CheckpointPlan:
    """What a run of some steps saves for its backward pass.

    Attributes:
        segments: The number of steps in a segment, in a segment within it, and so on;
            they need not divide one another. The state before each segment is saved.
            Without segments all that the backward pass reads is saved.
        save_residuals: All that the backward pass reads of the innermost segments is
            saved as well.
        on_host: What is saved of the outermost segments is stored in the memory of the
            host.

    Raises:
        TypeError: If `segments` is not a tuple of ints.
        ValueError: If one of them is less than 1.
    """

    segments: tuple[int, ...] = ()
    save_residuals: bool = False
    on_host: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.segments, tuple):
            raise TypeError(
                "CheckpointPlan: `segments` must be a tuple of ints, got "
                f"{self.segments!r}. `(64,)` is one segment of 64 steps after another."
            )
        for i, size in enumerate(self.segments):
            fix = "It is the number of steps in a segment."
            as_count("CheckpointPlan", f"segments[{i}]", size, fix=fix)


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
        arguments = [
            getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != _default(field)
        ]
        return f"{type(self).__name__}({', '.join(map(repr, arguments))})"


def _default(field: dataclasses.Field) -> object:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()
