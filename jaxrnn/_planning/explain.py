"""Which implementations can run a cell on a machine, and how fast they could be."""

import dataclasses
from typing import Any

import jax

from .._base.arguments import check_time_major
from .._base.errors import describe
from .._base.typing import PyTree, Shaped
from .._cells.affine import AffineCell
from .._kernels.default import default_implementation
from .._kernels.implementation import KERNELS, Implementation, make
from .._kernels.machines import CPU, KIB, MACHINES, Machine, as_machine
from .._kernels.work import Work, why_not_values
from . import roofline
from .roofline import LoopRoofline, Roofline

_NOTE = """\
* is what `implementation=None` takes; the others run only if they are named."""
_CPU_NOTE = """\
* is what `implementation=None` takes on one CPU device, and in `jax.shard_map`;
the others run only if they are named."""
_TIMES = """\
Times are lower bounds, not predictions: nothing was measured. Launching
programs and reading caches takes extra time; a product of fewer than
{rows} rows takes as long as one of {rows}."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether one implementation can run a cell.

    Attributes:
        implementation: The name of the implementation.
        serves: Whether it can run the cell.
        reason: How it does, or why it cannot.
    """

    implementation: str
    serves: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The result of `explain`; `print` shows it as a table.

    Attributes:
        title: The cell and its sizes.
        machine: The name of the machine.
        chosen: What `implementation=None` uses.
        verdicts: One for each implementation.
        xla: The minimum time of the loop that XLA compiles, which multiplies inputs and
            state at every step, and reads the matrices again unless they fit a cache;
            None for a CPU, as for the next two.
        kernel: The minimum time of a kernel's loop, which reads the state's matrices
            once, as far as they fit on the chip; if no kernel can run the cell, that of
            a kernel that could.
        products: The minimum time of the large products before and after a kernel.
    """

    title: str
    machine: str
    chosen: str
    verdicts: tuple[Verdict, ...]
    xla: LoopRoofline | None = None
    kernel: LoopRoofline | None = None
    products: Roofline | None = None

    def __str__(self) -> str:
        lines = [f"{self.title} on {self.machine}", ""]
        for verdict in self.verdicts:
            mark = "*" if verdict.implementation == self.chosen else " "
            can = "yes" if verdict.serves else "no"
            name = verdict.implementation
            lines.append(f"{mark} {name:18} {can:4} {verdict.reason}")
        return "\n".join([*lines, "", *self._times()])

    def _times(self) -> list[str]:
        """The lines below the table of implementations."""
        if self.xla is None or self.kernel is None or self.products is None:
            return [_CPU_NOTE]
        serves = any(v.serves for v in self.verdicts if v.implementation != "xla")
        kernel = _around_kernel(self.kernel, self.products) if serves else None
        row = "  {:16} {:>9} {:>9}  {}".format
        return [
            row("at best", "forward", "training", "a step"),
            row("XLA's loop", *_cells(self.xla)),
            row("with a kernel", *_cells(kernel))
            if kernel
            else "  no kernel can run it",
            "",
            _NOTE,
            _TIMES.format(rows=MACHINES[self.machine].least_rows),
        ]


def _around_kernel(loop: LoopRoofline, large: Roofline) -> LoopRoofline:
    """A kernel's loop and the large products around it."""
    forward = loop.forward + large.forward
    return LoopRoofline(forward, loop.training + large.training, loop.step)


def explain(
    cell: Any,
    inputs: Shaped,
    initial_state: PyTree | None = None,
    *,
    machine: str | None = None,
    time_major: bool = False,
) -> Explanation:
    """Reports which implementations can run a cell on a machine, and their least times.

    Only shapes are needed: nothing is compiled or run. The times are lower bounds,
    which follow from the machine's memory bandwidth and peak arithmetic; a product of
    few rows costs as much as one of the machine's least number of rows. Launching
    programs, and reading matrices from caches or on-chip memory, takes extra time.

    Args:
        cell: An `AffineCell`.
        inputs: `[batch, time, depth]` or its `jax.ShapeDtypeStruct`; time first if
            `time_major`.
        initial_state: The state, each leaf `[batch, size]` or its
            `jax.ShapeDtypeStruct`; None for leaves of the dtype of the inputs.
        machine: "v4", "v5e", "v5p", "v6e", "h100" or "h200"; "cpu" for one CPU device,
            which has no times; None for that of the first device, or "v5e" if that is
            none of the first six.
        time_major: Whether time is the first axis.

    Returns:
        An `Explanation`, which prints as a table.

    Raises:
        TypeError: If `cell` is not an `AffineCell`, or dtypes do not match.
        ValueError: If the machine is not known, shapes do not fit the cell, or no
            kernel of a TPU or GPU supports its shapes or dtypes.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> x = jax.ShapeDtypeStruct((16, 1024, 512), jnp.bfloat16)
        >>> found = jaxrnn.explain(jaxrnn.LSTMCell(768), x, machine="v5e")
        >>> found.chosen, [v.implementation for v in found.verdicts if v.serves]
        ('xla', ['xla', 'pallas_mosaic_tpu'])
    """
    where = "explain"
    _check_cell(where, cell)
    target = as_machine(where, machine)
    check_time_major(where, time_major)
    batch, time, depth = _sizes(where, inputs, time_major)
    step = jax.ShapeDtypeStruct((batch, depth), inputs.dtype)
    work = _work(where, target, cell, time, step, initial_state)
    kernels = _kernels(target)
    verdicts = [_verdict(kernel, work, target) for kernel in kernels]
    found = Explanation(
        f"{cell!r} over {work.dtype}[batch {batch}, time {time}, depth {depth}]",
        target.name,
        default_implementation(work) if target is CPU else "xla",
        (Verdict("xla", True, _why_xla(target)), *verdicts),
    )
    if target is CPU:
        return found
    pairs = zip(kernels, verdicts, strict=True)
    streamed = min((k.streamed_bytes(work) for k, v in pairs if v.serves), default=0)
    return dataclasses.replace(
        found,
        xla=roofline.xla(work, target),
        kernel=roofline.kernel(work, target, streamed),
        products=roofline.products(work, target),
    )


def _check_cell(where: str, cell: Any) -> None:
    if not isinstance(cell, AffineCell) or cell.is_random is not False:
        raise TypeError(
            f"{where}: `cell` must be an AffineCell without its parameters, such as "
            f"LSTMCell(8), that does not override `apply`, got {describe(cell)}. For a "
            "stack or a wrapper, explain each of its cells."
        )


def _sizes(where: str, inputs: Any, time_major: bool) -> tuple[int, int, int]:
    """The batch, the steps and the depth."""
    shape = getattr(inputs, "shape", ())
    if len(shape) != 3 or not all(isinstance(n, int) and n for n in shape):
        raise ValueError(
            f"{where}: `inputs` must be [batch, time, depth], all integers from 1 on, "
            f"got {describe(inputs)}.{_instead_of_a_shape(inputs)}"
        )
    batch, time, depth = shape
    return (time, batch, depth) if time_major else shape


def _instead_of_a_shape(inputs: Any) -> str:
    """What to pass instead, if `inputs` is a shape."""
    if not isinstance(inputs, tuple | list) or [*map(type, inputs)] != 3 * [int]:
        return ""
    struct = f"jax.ShapeDtypeStruct({tuple(inputs)}, jnp.float32)"
    return f" Pass an array or `{struct}`."


def _work(
    where: str, machine: Machine, cell: Any, time: int, step: Shaped, state: PyTree
) -> Work:
    """The work of running the cell over `time` steps of inputs of that type."""
    params = jax.eval_shape(lambda key: cell.init(key, step), jax.random.key(0))
    if state is None:
        state = jax.eval_shape(lambda: cell.zero_state(step.shape[0], step.dtype))
    jax.eval_shape(cell.apply, params, step, state)  # Raises if they do not fit.
    params = jax.eval_shape(cell.stage_params, params)
    reason = why_not_values(cell, params, step, state)
    if reason and machine is not CPU:
        raise ValueError(
            f"{where}: no kernel can run {cell!r} over {describe(step)}: {reason}. "
            "XLA's loop can."
        )
    return Work.of(cell, params, time, step, state)


def _cells(times: LoopRoofline) -> tuple[str, str, str]:
    """The cells of a row of the table."""
    step = times.step
    flop, traffic = _number(step.flops / 1e6), _number(step.traffic / KIB)
    about = f"{_time(step.time)}: {flop} MFLOP, {traffic} KiB read and written"
    return _time(times.forward), _time(times.training), about


def _time(seconds: float) -> str:
    """Three digits, in milliseconds or microseconds."""
    if seconds >= 1e-3:
        return f"{_number(seconds * 1e3)} ms"
    return f"{_number(seconds * 1e6)} us"


def _number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def _why_xla(machine: Machine) -> str:
    if machine is CPU:
        return "runs everything"
    return f"runs everything; no kernel has been measured on {machine.name} yet"


def _kernels(machine: Machine) -> list[Implementation]:
    """All kernels, those of the machine's platform configured for it."""
    kernels = map(make, KERNELS)
    return [k.on(machine) if k.platform == machine.platform else k for k in kernels]


def _verdict(kernel: Implementation, work: Work, machine: Machine) -> Verdict:
    """Whether a kernel can run the work, and how or why not."""
    if kernel.platform != machine.platform:
        return Verdict(kernel.name, False, f"runs on {kernel.platform}")
    reason = kernel.why_not(work)
    return Verdict(kernel.name, reason is None, reason or kernel.how(work))
