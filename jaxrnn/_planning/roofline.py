"""The minimum time of a loop, by the memory bandwidth and arithmetic of a machine."""

import dataclasses

from .._kernels.machines import Machine
from .._kernels.work import Work


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The minimum time that memory and arithmetic allow, in seconds.

    Attributes:
        forward: For outputs and final state.
        training: For these and all gradients.
    """

    forward: float
    training: float


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of all rows.

    Attributes:
        traffic: The bytes read from the device's main memory and written to it.
        flops: The operations of the products, including those of padding rows.
        time: The seconds that the slower of the two takes.
    """

    traffic: float
    flops: float
    time: float


@dataclasses.dataclass(frozen=True)
class LoopRoofline(Roofline):
    """The minimum time of a loop.

    Attributes:
        step: One forward step.
    """

    step: Step


def xla(work: Work, machine: Machine) -> LoopRoofline:
    """The minimum time of a loop in which every step multiplies inputs and state."""
    input_weights = work.depth * sum(work.input_columns)
    weights = work.matrix_bytes + input_weights * work.dtype.itemsize
    is_cached = weights <= machine.cache
    row = work.depth * work.dtype.itemsize + work.output_bytes
    forward_traffic = work.batch * row + (0 if is_cached else weights)
    backward_traffic = _backward_traffic(work) + (0 if is_cached else work.matrix_bytes)
    step = _step(work, machine, forward_traffic, work.flops + 2 * input_weights)
    backward = _step(work, machine, backward_traffic, work.flops)
    residuals = work.batch * work.residual_bytes / machine.bandwidth
    forward, large = work.time * step.time, products(work, machine)
    training = forward + work.time * (residuals + backward.time)
    return LoopRoofline(forward, training + large.training - large.forward, step)


def kernel(work: Work, machine: Machine, streamed_bytes: int) -> LoopRoofline:
    """The minimum time of a kernel's loop, which reads precomputed input products.

    Args:
        work: The cell and the sizes.
        machine: The machine on which it runs.
        streamed_bytes: The bytes of the matrices that every step reads again; the rest
            is read once.
    """
    once = work.matrix_bytes / machine.bandwidth
    row = work.input_product_bytes + work.output_bytes
    step, saving, backward = (
        _step(work, machine, streamed_bytes + traffic, work.flops)
        for traffic in (
            work.batch * row,
            work.batch * (row + work.residual_bytes),
            _backward_traffic(work),
        )
    )
    training = 2 * once + work.time * (saving.time + backward.time)
    return LoopRoofline(once + work.time * step.time, training, step)


def products(work: Work, machine: Machine) -> Roofline:
    """The minimum time of the large products before and after a kernel's loop."""
    rows, columns = work.batch * work.time, sum(n for _, n in work.matrices)
    peak, width = machine.peak(work.dtype), work.dtype.itemsize
    inputs = rows * work.depth * width
    of_inputs = 2 * rows * work.depth * sum(work.input_columns) / peak
    before = max(
        of_inputs, (inputs + rows * work.input_product_bytes) / machine.bandwidth
    )
    of_all = 2 * of_inputs + rows * work.flops / peak
    after = max(of_all, 2 * (inputs + rows * columns * width) / machine.bandwidth)
    return Roofline(before, before + after)


def _step(work: Work, machine: Machine, traffic: float, flops: float) -> Step:
    """A step with `traffic` bytes for all rows and `flops` operations for each row."""
    flops *= max(work.batch, machine.least_rows)
    time = max(traffic / machine.bandwidth, flops / machine.peak(work.dtype))
    return Step(traffic, flops, time)


def _backward_traffic(work: Work) -> int:
    """The bytes that all rows read and write at a step of the backward pass."""
    cotangents = sum(columns for _, columns in work.matrices) * work.dtype.itemsize
    return work.batch * (work.residual_bytes + work.output_bytes + cotangents)
