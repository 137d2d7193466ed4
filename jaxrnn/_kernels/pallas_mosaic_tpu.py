"""A recurrent loop as one TPU kernel: the matrices stay in VMEM for all steps.

The grid is (tiles of rows, blocks of steps). Blocks of what is read and written move
between HBM and VMEM while others are computed; the matrices are brought once.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import JaxprEqn

from .._base.typing import Array, Params, PyTree
from .blocks import as_rows, c_zs_types, call, read_small, total
from .chunks import parts, read, rooms, times, turned_parts, turned_times
from .kernel import Kernel
from .machines import MIB
from .operands import Backward, Forward
from .operations import SUPPORTED, is_batched, why_unsupported
from .step import backward_step, forward_step, in_float32
from .tiling import Tiling
from .vmem import LEAST, Plan, least, plan
from .work import Work

# What Pallas lowers for a TPU alone.
_KNOWN = SUPPORTED | {"concatenate", "erf", "pad", "round", "slice"}


@dataclasses.dataclass(frozen=True)
class PallasMosaicTPU(Kernel):
    """The kernels, and how they are cut.

    Attributes:
        machine: The kind of TPU whose VMEM they must fit; None for that of the first
            device, or "v5e" where there is none.
        rows: The most rows of a tile.
        block: The most steps of a block.
    """

    name: ClassVar[str] = "pallas_mosaic_tpu"
    platform: ClassVar[str] = "tpu"
    rows: int = 256
    block: int = 8

    def declines(self, work: Work) -> str | None:
        """Why it cannot run that work, if it cannot."""
        reason = why_unsupported(work, LEAST, _why_not_operation)
        if reason:
            return reason
        if self.plan(work) is None:
            needed, memory = least(work).bytes(work), self._memory
            return (
                f"the least tile needs {needed / MIB:.1f} MiB of VMEM, of which there "
                f"are {memory / MIB:.0f}"
            )
        return None

    def says(self, work: Work) -> str:
        """How it would run that work, which it does not decline."""
        plan = self._served(work)
        moved, matrices = plan.moved(work) / MIB, work.matrix_bytes / MIB
        stays = f", {moved:.1f} of them brought at every step" if moved else ""
        return (
            f"{plan.bytes(work) / MIB:.1f} of {self._memory / MIB:.0f} MiB of VMEM, "
            f"matrices {matrices:.1f}{stays}; tiles of {plan.rows} rows, blocks of "
            f"{plan.block} step{'s' * (plan.block > 1)}"
        )

    def moved(self, work: Work) -> int:
        """The bytes that all tiles read again at a step."""
        plan = self._served(work)
        return -(-work.batch // plan.rows) * plan.moved(work)

    def plan(self, work: Work) -> Plan | None:
        """How that work is cut; None if nothing fits."""
        return plan(work, self.rows, self.block, self._memory)

    def forward(self, work: Work, given: Forward, types: PyTree) -> PyTree:
        """The loop forward; see `Kernel`."""
        plan = self._served(work)
        tiling, weights = self._tiling(work, plan), parts(plan, given.weights)

        def kernel(longest: Any, *refs: Any) -> None:
            given, (made, final, carry, room) = Forward(*refs[:6]), refs[6:]
            biases, small = read_small((given.biases, given.small))
            tiling.at_first(lambda: _write(carry, in_float32(_read(given.state))))

            def step(i: Array, t: Array) -> None:
                before = _read(carry)
                alive, shares = t < given.lengths[...], _read(given.shares, i)
                output, after, zs = forward_step(
                    work.cell,
                    alive,
                    read(plan, given.weights, room),
                    biases,
                    small,
                    shares,
                    before,
                    times,
                )
                _write(carry, after)
                outputs, kept = made
                _write(outputs, output, i)
                if kept:
                    _write(kept, (zs, before), i)

            tiling.each_step(longest, step, lambda: _clear(made))
            tiling.at_last(lambda: _write(final, _read(carry)))

        biases, small = as_rows((given.biases, given.small))
        column = tiling.column(given.lengths)
        by_rows, by_steps, whole = tiling.by_rows, tiling.by_steps, tiling.whole
        return self._call(
            kernel,
            tiling,
            Forward(column, weights, biases, small, given.shares, given.state),
            (by_rows, tiling.matrix, whole, whole, by_steps, by_rows),
            (tiling.over_time(types), given.state),
            (by_steps, by_rows),
            rooms(plan, weights),
        )

    def backward(
        self, work: Work, given: Backward
    ) -> tuple[list[Array], PyTree, Params]:
        """The loop backward; see `Kernel`."""
        plan = self._served(work)
        tiling = self._tiling(work, plan, reverse=True)
        turned = turned_parts(plan, given.turned)

        def kernel(longest: Any, *refs: Any) -> None:
            given, (c_zs, c_first, c_small, carry, room) = Backward(*refs[:6]), refs[6:]
            small = read_small(given.small)

            @tiling.at_first
            def _() -> None:
                _write(carry, in_float32(_read(given.c_state)))
                _clear(c_small)

            def step(i: Array, t: Array) -> None:
                moving = _read((*given.kept, given.c_outputs), i)
                zs, state, c_output = in_float32(moving)
                moved = backward_step(
                    work.cell,
                    t < given.lengths[...],
                    read(plan, given.turned, room),
                    small,
                    zs,
                    state,
                    c_output,
                    _read(carry),
                    turned_times,
                )
                _write(c_zs, moved[0], i)
                _write(carry, moved[1])
                for name, more in moved[2].items():
                    c_small[name][0] += more[None, :]

            tiling.each_step(longest, step, lambda: _clear(c_zs))
            tiling.at_last(lambda: _write(c_first, _read(carry)))

        column = tiling.column(given.lengths)
        by_rows, by_steps, whole = tiling.by_rows, tiling.by_steps, tiling.whole
        c_zs, c_state, c_small = self._call(
            kernel,
            tiling,
            given._replace(lengths=column, turned=turned, small=as_rows(given.small)),
            (by_rows, tiling.matrix, whole, by_steps, by_steps, by_rows),
            (c_zs_types(given), given.c_state, tiling.one_each(given.small)),
            (by_steps, by_rows, tiling.by_tile),
            rooms(plan, turned),
        )
        return c_zs, c_state, total(c_small, given.small)

    def _served(self, work: Work) -> Plan:
        """The plan of work that is not declined."""
        return self.plan(work) or least(work)

    def _tiling(self, work: Work, plan: Plan, reverse: bool = False) -> Tiling:
        return Tiling(
            work.time, work.batch, plan.rows, plan.block, self._memory, reverse
        )

    def _call(
        self,
        kernel: Callable,
        tiling: Tiling,
        given: Any,
        specs: tuple,
        outs: tuple,
        out_specs: tuple,
        rooms: list[Any],
    ) -> Any:
        """The kernel on what is given, with a spec for each of it and for each result.

        Ahead of it the kernel is told the longest row of each tile.
        """

        def run(given: Any) -> Any:
            return call(
                kernel,
                (tiling.longest(given.lengths), *given),
                (tiling.scalars, *specs),
                outs,
                out_specs,
                grid=tiling.grid,
                scratch_shapes=[tiling.carries(given[-1]), rooms],
                compiler_params=pltpu.CompilerParams(
                    dimension_semantics=("parallel", "arbitrary"),
                    vmem_limit_bytes=tiling.memory,
                ),
                interpret=self.interpret,
                name="recurrence_backward" if tiling.reverse else "recurrence",
            )

        # Mosaic has no mapped arrays of which a kernel itself brings the parts.
        in_chunks = any(room is not None for room in rooms)
        return (sequential_vmap(run) if in_chunks else run)(given)


def _why_not_operation(eqn: JaxprEqn) -> str | None:
    name = eqn.primitive.name
    if name in _KNOWN and not (name == "dot_general" and is_batched(eqn)):
        return None
    return f"Pallas has no `{name}` of such arrays there"


def _read(refs: PyTree, *index: Array) -> PyTree:
    return jax.tree.map(lambda r: r[index] if index else r[...], refs)


def _write(refs: PyTree, values: PyTree, *index: Array) -> None:
    def put(ref: Any, value: Array) -> None:
        ref[index or ...] = value.astype(ref.dtype)

    jax.tree.map(put, refs, values)


def _clear(refs: PyTree) -> None:
    def zero(ref: Any) -> None:
        ref[...] = jnp.zeros(ref.shape, ref.dtype)

    jax.tree.map(zero, refs)
