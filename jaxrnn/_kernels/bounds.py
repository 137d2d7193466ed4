"""What memory and arithmetic of a machine allow at best: the roofline of a loop."""

import dataclasses

from .machines import Machine
from .work import Work


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time that memory and arithmetic allow, in seconds.

    Attributes:
        forward: Outputs and final state.
        training: The same and the gradients of all.
    """

    forward: float
    training: float


@dataclasses.dataclass(frozen=True)
class LoopBound(Bound):
    """That of a loop.

    Attributes:
        step: One step of it forward.
    """

    step: "Step"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of all rows.

    Attributes:
        moved: The bytes that are read from the large memory and written to it.
        flops: The operations of the products, with those of rows that are filled up.
        time: The seconds that the longer of both takes.
    """

    moved: float
    flops: float
    time: float

    @classmethod
    def of(cls, work: Work, machine: Machine, moved: float, flops: float) -> "Step":
        """A step that moves so many bytes and does so many operations a row."""
        flops *= max(work.batch, machine.least_rows)
        time = max(moved / machine.bandwidth, flops / machine.peak(work.dtype))
        return cls(moved, flops, time)


def xla(work: Work, machine: Machine) -> LoopBound:
    """That of a loop whose every step multiplies inputs and state."""
    of_inputs = work.depth * sum(work.shares)
    reads = work.matrix_bytes + of_inputs * work.dtype.itemsize
    reads, again = (reads, work.matrix_bytes) if reads > machine.cache else (0, 0)
    row = work.depth * work.dtype.itemsize + work.output_bytes
    flops = work.flops + 2 * of_inputs
    step = Step.of(work, machine, reads + work.batch * row, flops)
    keep = work.batch * work.kept_bytes / machine.bandwidth
    back = Step.of(work, machine, again + _back_bytes(work), work.flops)
    forward, after = work.time * step.time, products(work, machine)
    large = after.training - after.forward
    return LoopBound(forward, forward + work.time * (keep + back.time) + large, step)


def kernel(work: Work, machine: Machine, again: int) -> LoopBound:
    """That of a loop that reads the matrices once, and of the inputs what they add.

    Args:
        work: The cell and the sizes.
        machine: What it runs on.
        again: The bytes of matrices that it reads again at every step.
    """
    once = work.matrix_bytes / machine.bandwidth
    row = work.share_bytes + work.output_bytes
    of = lambda moved: Step.of(work, machine, again + moved, work.flops)
    step, keeping = of(work.batch * row), of(work.batch * (row + work.kept_bytes))
    training = 2 * once + work.time * (keeping.time + of(_back_bytes(work)).time)
    return LoopBound(once + work.time * step.time, training, step)


def products(work: Work, machine: Machine) -> Bound:
    """That of the large products ahead of a kernel's loop, and after it."""
    rows, share = work.batch * work.time, sum(work.shares)
    peak, wide = machine.peak(work.dtype), work.dtype.itemsize
    read = rows * work.depth * wide
    of_inputs = 2 * rows * work.depth * share / peak
    ahead = max(of_inputs, (read + rows * work.share_bytes) / machine.bandwidth)
    moved = rows * sum(columns for _, columns in work.matrices) * wide
    of_state = rows * work.flops / peak
    after = max(2 * of_inputs + of_state, (2 * read + 2 * moved) / machine.bandwidth)
    return Bound(ahead, ahead + after)


def _back_bytes(work: Work) -> int:
    """What all rows read and write at a step of the loop backward."""
    columns = sum(columns for _, columns in work.matrices)
    moved = columns * work.dtype.itemsize
    return work.batch * (work.kept_bytes + work.output_bytes + moved)
