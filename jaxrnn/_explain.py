"""Which way a cell's sequences are run on a machine, and what bounds them there."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ._arguments import check_time_major
from ._cells._affine import AffineCell
from ._errors import describe
from ._kernels._machines import Machine, as_machine
from ._kernels._work import Work, why_odd
from ._kernels.api import KERNELS, make
from ._typing import DType, Shaped


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is said of one implementation.

    Attributes:
        implementation: Its name.
        serves: Whether it can run the work.
        reason: How, or why not.
    """

    implementation: str
    serves: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time that memory and arithmetic allow, in seconds.

    Attributes:
        step: One step of the loop, or 0 of what is no loop.
        forward: Outputs and final state.
        training: The same and the gradients of all.
    """

    step: float
    forward: float
    training: float


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` finds; `print` shows it as a table.

    Attributes:
        title: The cell and its sizes.
        machine: The name of the machine.
        chosen: What `implementation=None` takes.
        verdicts: What is said of each implementation.
        xla: The bound of the loop that XLA compiles, which multiplies inputs and state
            at every step, and reads the matrices again unless they fit a cache.
        kernel: The bound of a kernel that reads those of the state once, as far as they
            fit.
        products: The bound of the large products ahead of a kernel and after it.
    """

    title: str
    machine: str
    chosen: str
    verdicts: tuple[Verdict, ...]
    xla: Bound
    kernel: Bound
    products: Bound

    def __str__(self) -> str:
        lines = [f"{self.title} on {self.machine}", ""]
        for verdict in self.verdicts:
            mark = "*" if verdict.implementation == self.chosen else " "
            can = "yes" if verdict.serves else "no"
            name = verdict.implementation
            lines.append(f"{mark} {name:18} {can:4} {verdict.reason}")
        lines += ["", "  at best            a step   forward  training"]
        bounds = {
            "XLA's loop": self.xla,
            "a kernel's loop": self.kernel,
            "+ large products": self.products,
        }
        for name, bound in bounds.items():
            step = f"{bound.step * 1e6:6.2f} us" if bound.step else " " * 9
            times = (f"{t * 1e3:6.2f} ms" for t in (bound.forward, bound.training))
            lines.append(f"  {name:16} {step} {' '.join(times)}")
        return "\n".join(lines)


def explain(
    cell: Any,
    inputs: Shaped,
    *,
    machine: str = "v5e",
    dtype: DType | None = None,
    time_major: bool = False,
) -> Explanation:
    """Says which implementations can run a cell on a machine, and what bounds them.

    From shapes alone: nothing is compiled or run. The bounds are what the machine's
    memory and arithmetic allow at best (its bandwidth, its peak; a product of few rows
    costs as much as one of `least_rows`); starting programs, and reading the matrices
    from the memory next to the arithmetic, comes on top.

    Args:
        cell: An `AffineCell`.
        inputs: `[batch, time, depth]` or its `jax.ShapeDtypeStruct`.
        machine: "v4", "v5e", "v5p", "v6e", "h100" or "h200".
        dtype: The dtype of the state; None for that of the inputs. float32 beside
            bfloat16 inputs is that of the memory c of an LSTM.
        time_major: Whether time is the first axis.

    Raises:
        TypeError: If `cell` is no `AffineCell`.
        ValueError: If the machine is not known, or the inputs have another rank.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> x = jax.ShapeDtypeStruct((16, 1024, 512), jnp.bfloat16)
        >>> found = jaxrnn.explain(jaxrnn.LSTMCell(768), x, machine="v5e")
        >>> found.chosen, [v.implementation for v in found.verdicts if v.serves]
        ('xla', ['xla', 'pallas_mosaic_tpu'])
    """
    where = "explain"
    if not isinstance(cell, AffineCell) or type(cell).apply is not AffineCell.apply:
        raise TypeError(
            f"{where}: `cell` must be an AffineCell without its parameters, such as "
            f"LSTMCell(8), and without an `apply` of its own, got {describe(cell)}."
        )
    made = as_machine(where, machine)
    check_time_major(where, time_major)
    if len(getattr(inputs, "shape", ())) != 3:
        raise ValueError(
            f"{where}: `inputs` must be [batch, time, depth], got {describe(inputs)}."
        )
    batch, time, depth = inputs.shape
    if time_major:
        batch, time = time, batch
    step = jax.ShapeDtypeStruct((batch, depth), inputs.dtype)
    params = jax.eval_shape(lambda key: cell.init(key, step), jax.random.key(0))
    state = jax.eval_shape(lambda: cell.zero_state(batch, dtype or inputs.dtype))
    odd = why_odd(cell, params, step, state)
    if odd or 0 in inputs.shape:
        raise ValueError(
            f"{where}: `cell` and `inputs` must have sizes to multiply, got "
            f"{cell!r} and {describe(inputs)}: {odd or 'nothing to read'}."
        )
    work = Work.of(cell, params, time, step, state)
    verdicts = (Verdict("xla", True, _why_xla(made)), *_verdicts(work, made))
    title = f"{cell!r} over {jnp.dtype(inputs.dtype)}[batch {batch}, time {time}, "
    return Explanation(
        f"{title}depth {depth}]",
        machine,
        "xla",
        verdicts,
        _xla(work, made),
        _kernel(work, made),
        _products(work, made),
    )


def _why_xla(machine: Machine) -> str:
    return (
        f"runs everything; chosen, as no kernel has been measured on {machine.name} yet"
    )


def _verdicts(work: Work, machine: Machine) -> list[Verdict]:
    """What each kernel says."""
    found = []
    for name in KERNELS:
        kernel = make(name)
        if kernel.platform != machine.platform:
            reason = f"runs on {kernel.platform}"
        else:
            kernel = kernel.on(machine)
            reason = kernel.declines(work)
        found.append(
            Verdict(name, reason is None, reason or f"if named: {kernel.says(work)}")
        )
    return found


def _xla(work: Work, machine: Machine) -> Bound:
    """A loop whose every step multiplies inputs and state."""
    of_inputs = work.depth * sum(work.shares)
    reads = work.matrix_bytes + of_inputs * work.dtype.itemsize
    reads, again = (reads, work.matrix_bytes) if reads > machine.cache else (0, 0)
    row = work.depth * work.dtype.itemsize + work.output_bytes
    step = _least(work, machine, reads + work.batch * row, work.flops + 2 * of_inputs)
    keep = work.batch * work.kept_bytes / machine.bandwidth
    back = _least(work, machine, again + _back_bytes(work), work.flops)
    forward, (_, after) = work.time * step, _large_products(work, machine)
    return Bound(step, forward, forward + work.time * (keep + back) + after)


def _kernel(work: Work, machine: Machine) -> Bound:
    """A loop that reads the matrices once, and of the inputs what they add.

    What of the matrices no cache can hold it reads at every step.
    """
    once = work.matrix_bytes / machine.bandwidth
    again = max(0, work.matrix_bytes - machine.cache)
    row = work.share_bytes + work.output_bytes
    kept = row + work.kept_bytes
    step = _least(work, machine, again + work.batch * row, work.flops)
    keeping = _least(work, machine, again + work.batch * kept, work.flops)
    back = _least(work, machine, again + _back_bytes(work), work.flops)
    training = 2 * once + work.time * (keeping + back)
    return Bound(step, once + work.time * step, training)


def _products(work: Work, machine: Machine) -> Bound:
    """The large products ahead of a kernel's loop, and after it."""
    ahead, after = _large_products(work, machine)
    return Bound(0.0, ahead, ahead + after)


def _large_products(work: Work, machine: Machine) -> tuple[float, float]:
    """What the inputs add, of all steps; and the gradients of matrices and inputs."""
    rows, share = work.batch * work.time, sum(work.shares)
    peak, wide = machine.peak(work.dtype), work.dtype.itemsize
    read = rows * work.depth * wide
    of_inputs = 2 * rows * work.depth * share / peak
    ahead = max(of_inputs, (read + rows * work.share_bytes) / machine.bandwidth)
    moved = rows * sum(columns for _, columns in work.matrices) * wide
    of_state = rows * work.flops / peak
    after = max(2 * of_inputs + of_state, (2 * read + 2 * moved) / machine.bandwidth)
    return ahead, after


def _back_bytes(work: Work) -> int:
    """What all rows read and write at a step of the loop backward."""
    columns = sum(columns for _, columns in work.matrices)
    moved = columns * work.dtype.itemsize
    return work.batch * (work.kept_bytes + work.output_bytes + moved)


def _least(work: Work, machine: Machine, moved: float, flops: int) -> float:
    """The seconds of a step that moves so many bytes, and so many flops a row."""
    rows = max(work.batch, machine.least_rows)
    return max(moved / machine.bandwidth, rows * flops / machine.peak(work.dtype))
