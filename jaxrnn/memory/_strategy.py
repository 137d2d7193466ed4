"""What a memory strategy is."""

import abc
import dataclasses

from .._base.arguments import as_count


@dataclasses.dataclass(frozen=True)
class Record:
    """What a run of some steps leaves behind for its derivative.

    Attributes:
        windows: The steps of a window, of a window within it, and so on; they need not
            divide one another. Of each window the state that it starts from is kept.
            Without windows all is kept that the derivative reads.
        whole: Of the innermost windows all is kept that the derivative reads.
        on_host: What is kept of the outermost windows lies in the memory of the host.
    """

    windows: tuple[int, ...] = ()
    whole: bool = False
    on_host: bool = False

    def __post_init__(self) -> None:
        windows = self.windows
        if not isinstance(windows, tuple):
            raise TypeError(
                f"Record: `windows` must be a tuple of ints, got {windows!r}. "
                "`(64,)` is one window of 64 steps after the other."
            )
        for i, size in enumerate(windows):
            fix = "It is the steps of a window."
            as_count("Record", f"windows[{i}]", size, fix=fix)


@dataclasses.dataclass(frozen=True)
class Strategy(abc.ABC):
    """A way to hold what derivatives need of a run: the base class of all of them.

    One of your own is a frozen dataclass with this method, so that runs with equal
    strategies share one compilation:

        @dataclasses.dataclass(frozen=True)
        class ChunksOnHost(Strategy):
            size: int = 64

            def record(self, time):
                if time <= self.size:
                    return Record()
                return Record((self.size,), on_host=True)
    """

    @abc.abstractmethod
    def record(self, time: int) -> Record:
        """What is left behind by a run of `time` steps, one at least."""

    def __repr__(self) -> str:
        given = [
            getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != _default(field)
        ]
        return f"{type(self).__name__}({', '.join(map(repr, given))})"


def _default(field: dataclasses.Field) -> object:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()
