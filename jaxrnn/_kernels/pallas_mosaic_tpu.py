"""A recurrent loop as one TPU kernel: the matrices stay in VMEM for all steps.

The grid is (tiles of rows, blocks of steps). Blocks of sequences are copied between HBM
and VMEM while others are computed; the matrices are copied once.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.experimental.pallas import tpu as pltpu

from .._autodiff.jax_internals import JaxprEqn
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from . import chunks, tpu_grid, vmem
from .blocks import Tiles, as_rows, c_zs_types, call, read_rows, total
from .kernel import Kernel
from .kernel_loop import check, run_kernel
from .machines import MIB
from .operands import BackwardOperands, ForwardOperands
from .operations import SUPPORTED, is_batched, why_unsupported
from .step import backward_step, forward_step, in_float32
from .work import Work

# What Pallas lowers for a TPU alone.
_KNOWN = SUPPORTED | {"concatenate", "erf", "pad", "round", "slice"}


@dataclasses.dataclass(frozen=True)
class PallasMosaicTPU(Kernel):
    """The kernels, and how they are cut.

    Attributes:
        machine: The kind of TPU whose VMEM they must fit; None for that of the first
            device, or "v5e" where there is none.
        rows: The rows of a tile at most.
        block: The steps of a block at most.
    """

    name: ClassVar[str] = "pallas_mosaic_tpu"
    platform: ClassVar[str] = "tpu"
    rows: int = 256
    block: int = 8

    def why_not(self, work: Work) -> str | None:
        """Why it cannot run that work, or None."""
        reason = why_unsupported(work, vmem.FEWEST_ROWS, _why_not_operation)
        if reason:
            return reason
        if self.plan(work) is None:
            needed, memory = vmem.smallest(work).bytes(work), self._memory
            return (
                f"the smallest tile needs {needed / MIB:.1f} MiB of VMEM; there are "
                f"{memory / MIB:.0f}"
            )
        return None

    def describe(self, work: Work) -> str:
        """How it would run that work."""
        plan = self._plan(work)
        streamed, matrices = plan.streamed_bytes(work) / MIB, work.matrix_bytes / MIB
        part = f", {streamed:.1f} of them read again at every step" if streamed else ""
        return (
            f"{plan.bytes(work) / MIB:.1f} of {self._memory / MIB:.0f} MiB of VMEM, "
            f"matrices {matrices:.1f}{part}; tiles of {plan.rows} rows, blocks of "
            f"{plan.block} step{'s' * (plan.block > 1)}"
        )

    def run_sequences(
        self, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps; see `Implementation`."""
        check(self, cell, params, xs, state, steps)
        return run_kernel(self, cell, params, xs, state, steps)

    def streamed_bytes(self, work: Work) -> int:
        """The bytes of the matrices that all tiles read again at a step."""
        plan = self._plan(work)
        return -(-work.batch // plan.rows) * plan.streamed_bytes(work)

    def plan(self, work: Work) -> vmem.Plan | None:
        """How that work is cut; None if nothing fits."""
        return vmem.plan(work, self.rows, self.block, self._memory)

    def forward(self, work: Work, operands: ForwardOperands, types: PyTree) -> PyTree:
        """The loop forward; see `Kernel`."""
        plan = self._plan(work)
        tiles = Tiles(work.time, work.batch, plan.rows, plan.block)
        weights = chunks.split(plan.cuts, operands.weights)
        biases, elementwise = as_rows((operands.biases, operands.elementwise))
        by_rows, by_steps, whole = tiles.by_rows, tiles.by_steps, tpu_grid.whole
        return self._call(
            functools.partial(_forward, work.cell, tiles, plan.cuts),
            tiles,
            operands._replace(weights=weights, biases=biases, elementwise=elementwise),
            (by_rows, tpu_grid.matrix, whole, whole, by_steps, by_rows),
            (tiles.over_time(types), operands.state),
            (by_steps, by_rows),
            chunks.buffers_for(plan.cuts, weights, plan.rows),
        )

    def backward(
        self, work: Work, operands: BackwardOperands
    ) -> tuple[list[Array], PyTree, Params]:
        """The loop backward; see `Kernel`."""
        plan = self._plan(work)
        tiles = Tiles(work.time, work.batch, plan.rows, plan.block, reverse=True)
        transposed = chunks.split_transposed(plan.cuts, operands.transposed)
        elementwise = as_rows(operands.elementwise)
        by_rows, by_steps, whole = tiles.by_rows, tiles.by_steps, tpu_grid.whole
        c_zs, c_state, c_elementwise = self._call(
            functools.partial(_backward, work.cell, tiles, plan.cuts),
            tiles,
            operands._replace(transposed=transposed, elementwise=elementwise),
            (by_rows, tpu_grid.matrix, whole, by_steps, by_steps, by_rows),
            (
                c_zs_types(operands),
                operands.c_state,
                tiles.per_tile(operands.elementwise),
            ),
            (by_steps, by_rows, tiles.by_tile),
            chunks.buffers_for(plan.cuts, transposed, plan.rows),
        )
        return c_zs, c_state, total(c_elementwise, operands.elementwise)

    def _plan(self, work: Work) -> vmem.Plan:
        """The plan of work that it can run."""
        return self.plan(work) or vmem.smallest(work)

    def _call(
        self,
        kernel: Callable,
        tiles: Tiles,
        operands: ForwardOperands | BackwardOperands,
        specs: tuple,
        outs: tuple,
        out_specs: tuple,
        buffers: list[Any],
    ) -> Any:
        """The kernel on its operands, with a spec for each of them and each result.

        Its first argument is the longest row of each tile, its last ones are what
        carries the state, or its cotangent, and the buffers.
        """

        def run(operands: Any) -> Any:
            return call(
                kernel,
                (tpu_grid.longest(tiles, operands.lengths), *operands),
                (tpu_grid.scalars, *specs),
                outs,
                out_specs,
                grid=tiles.grid,
                scratch_shapes=[tpu_grid.carries(tiles, operands[-1]), buffers],
                compiler_params=pltpu.CompilerParams(
                    dimension_semantics=("parallel", "arbitrary"),
                    vmem_limit_bytes=self._memory,
                ),
                interpret=self.interpret,
                name="recurrence_backward" if tiles.reverse else "recurrence",
            )

        # Mosaic has no mapped arrays that a kernel itself copies in parts.
        run = sequential_vmap(run) if any(buffers) else run
        return run(operands._replace(lengths=tiles.column(operands.lengths)))


def _forward(cell: Any, tiles: Tiles, cuts: Any, longest: Any, *refs: Any) -> None:
    """The kernel of the loop forward."""
    operands, (results, final, carry, buffers) = ForwardOperands(*refs[:6]), refs[6:]
    biases, elementwise = read_rows((operands.biases, operands.elementwise))
    tpu_grid.at_first(lambda: _write(carry, in_float32(_read(operands.state))))

    def step(i: Array, t: Array) -> None:
        before = _read(carry)
        output, after, zs = forward_step(
            cell,
            t < operands.lengths[...],
            chunks.read(cuts, operands.weights, buffers),
            biases,
            elementwise,
            _read(operands.input_products, i),
            before,
            chunks.matmul,
        )
        _write(carry, after)
        outputs, saved = results
        _write(outputs, output, i)
        if saved:
            _write(saved, (zs, before), i)

    tpu_grid.each_step(tiles, longest, step, lambda: _clear(results))
    tpu_grid.at_last(tiles, lambda: _write(final, _read(carry)))


def _backward(cell: Any, tiles: Tiles, cuts: Any, longest: Any, *refs: Any) -> None:
    """The kernel of the loop backward."""
    operands, results = BackwardOperands(*refs[:6]), refs[6:]
    c_zs, c_first, c_elementwise, carry, buffers = results
    elementwise = read_rows(operands.elementwise)

    @tpu_grid.at_first
    def _() -> None:
        _write(carry, in_float32(_read(operands.c_state)))
        _clear(c_elementwise)

    def step(i: Array, t: Array) -> None:
        zs, before, c_output = in_float32(
            _read((*operands.saved, operands.c_outputs), i)
        )
        c_z, c_before, c_params = backward_step(
            cell,
            t < operands.lengths[...],
            chunks.read(cuts, operands.transposed, buffers),
            elementwise,
            zs,
            before,
            c_output,
            _read(carry),
            chunks.matmul_transposed,
        )
        _write(c_zs, c_z, i)
        _write(carry, c_before)
        for name, c_param in c_params.items():
            c_elementwise[name][0] += c_param[None, :]

    tpu_grid.each_step(tiles, longest, step, lambda: _clear(c_zs))
    tpu_grid.at_last(tiles, lambda: _write(c_first, _read(carry)))


def _why_not_operation(eqn: JaxprEqn) -> str | None:
    name = eqn.primitive.name
    if name in _KNOWN and not (name == "dot_general" and is_batched(eqn)):
        return None
    return f"Pallas has no `{name}` of such arrays for TPUs"


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
