"""Which way a cell's sequences are run on a machine, and what bounds them there."""

import dataclasses
from typing import Any

import jax

from ._arguments import check_time_major
from ._cells._affine import AffineCell
from ._errors import describe
from ._kernels import _bounds
from ._kernels._bounds import Bound
from ._kernels._machines import KIB, Machine, as_machine
from ._kernels._work import Work, why_odd
from ._kernels.api import KERNELS, make
from ._typing import DType, PyTree, Shaped


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
        bounds = {
            "XLA's loop": self.xla,
            "a kernel's loop": self.kernel,
            "+ large products": self.products,
        }
        lines += [
            "",
            f"  {'at best':16}   forward    training  a step: MFLOP, KiB moved",
        ]
        lines += [f"  {name:16}{_shown(bound)}" for name, bound in bounds.items()]
        return "\n".join(lines)


def explain(
    cell: Any,
    inputs: Shaped,
    initial_state: PyTree | None = None,
    *,
    machine: str = "v5e",
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
        initial_state: The state, each leaf `[batch, size]`, or its types; None for
            leaves of the dtype of the inputs.
        machine: "v4", "v5e", "v5p", "v6e", "h100" or "h200".
        time_major: Whether time is the first axis.

    Raises:
        TypeError: If `cell` is no `AffineCell`, or the dtypes do not go together.
        ValueError: If the machine is not known, or shapes do not fit the cell.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> x = jax.ShapeDtypeStruct((16, 1024, 512), jnp.bfloat16)
        >>> found = jaxrnn.explain(jaxrnn.LSTMCell(768), x, machine="v5e")
        >>> found.chosen, [v.implementation for v in found.verdicts if v.serves]
        ('xla', ['xla', 'pallas_mosaic_tpu'])
    """
    where = "explain"
    _check_cell(where, cell)
    made = as_machine(where, machine)
    check_time_major(where, time_major)
    batch, time, depth = _sizes(where, inputs, time_major)
    work = _work(where, cell, time, (batch, depth), inputs.dtype, initial_state)
    title = f"{cell!r} over {work.dtype}[batch {batch}, time {time}, depth {depth}]"
    return Explanation(
        title,
        machine,
        "xla",
        (Verdict("xla", True, _why_xla(made)), *_verdicts(work, made)),
        _bounds.xla(work, made),
        _bounds.kernel(work, made),
        _bounds.products(work, made),
    )


def _check_cell(where: str, cell: Any) -> None:
    if not isinstance(cell, AffineCell) or type(cell).apply is not AffineCell.apply:
        raise TypeError(
            f"{where}: `cell` must be an AffineCell without its parameters, such as "
            f"LSTMCell(8), and without an `apply` of its own, got {describe(cell)}."
        )


def _sizes(where: str, inputs: Any, time_major: bool) -> tuple[int, int, int]:
    """The batch, the steps and the depth."""
    shape = getattr(inputs, "shape", ())
    if len(shape) != 3 or not all(isinstance(n, int) and n for n in shape):
        raise ValueError(
            f"{where}: `inputs` must be [batch, time, depth], all of them numbers from "
            f"1 on, got {describe(inputs)}."
        )
    batch, time, depth = shape
    return (time, batch, depth) if time_major else shape


def _work(
    where: str, cell: Any, time: int, shape: tuple, dtype: DType, state: PyTree | None
) -> Work:
    """That of the cell over steps of such inputs."""
    step = jax.ShapeDtypeStruct(shape, dtype)
    params = jax.eval_shape(lambda key: cell.init(key, step), jax.random.key(0))
    if state is None:
        state = jax.eval_shape(lambda: cell.zero_state(shape[0], dtype))
    jax.eval_shape(cell.apply, params, step, state)  # Refuses what does not fit.
    odd = why_odd(cell, params, step, state)
    if odd:
        raise ValueError(
            f"{where}: what bounds {cell!r} over {describe(step)} is not known: {odd}."
        )
    return Work.of(cell, params, time, step, state)


def _shown(bound: Bound) -> str:
    """A row of the table."""
    times = f"{bound.forward * 1e3:7.2f} ms {bound.training * 1e3:8.2f} ms"
    if bound.step is None:
        return times
    mflop, kib = bound.step.flops / 1e6, bound.step.moved / KIB
    return f"{times}  {bound.step.time * 1e6:.2f} us: {mflop:.1f}, {kib:.1f}"


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
