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
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .._autodiff.jax_internals import JaxprEqn
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from . import chunks, vmem
from .blocks import Tiles, call, read_rows
from .kernel import BackwardInputs, ForwardInputs, Kernel
from .kernel_loop import run_kernel, work_for
from .machines import MIB
from .operations import SUPPORTED, is_batched, why_not_operations
from .step import backward_step, forward_step, in_float32
from .work import Work

# For a TPU Pallas lowers more than for both platforms.
_KNOWN = SUPPORTED | {"concatenate", "erf", "pad", "round", "slice"}


@dataclasses.dataclass(frozen=True)
class PallasMosaicTPU(Kernel):
    """The kernels, and how they are cut.

    Attributes:
        machine: The kind of TPU whose VMEM they must fit; None for that of the first
            device, or "v5e" if that is no TPU.
        rows: The maximum number of rows of a tile.
        block: The maximum number of steps of a block.
    """

    name: ClassVar[str] = "pallas_mosaic_tpu"
    platform: ClassVar[str] = "tpu"
    rows: int = 256
    block: int = 8

    def why_not(self, work: Work) -> str | None:
        """Why it cannot run that work, or None."""
        reason = why_not_operations(work, vmem.FEWEST_ROWS, _why_not_operation)
        if reason:
            return reason
        if self.tiling(work) is None:
            needed, memory = vmem.smallest(work).bytes(work), self._memory
            return (
                f"the smallest tile needs {needed / MIB:.1f} MiB of VMEM; there are "
                f"{memory / MIB:.0f}"
            )
        return None

    def how(self, work: Work) -> str:
        """How it would run that work."""
        tiling = self._tiling(work)
        streamed, matrices = tiling.streamed_bytes(work) / MIB, work.matrix_bytes / MIB
        part = f", {streamed:.1f} of them read again at every step" if streamed else ""
        return (
            f"{tiling.bytes(work) / MIB:.1f} of {self._memory / MIB:.0f} MiB of VMEM, "
            f"matrices {matrices:.1f}{part}; tiles of {tiling.rows} rows, blocks of "
            f"{tiling.block} step{'s' * (tiling.block > 1)}"
        )

    def run_sequences(
        self, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps; see `Implementation`."""
        work_for(self, cell, params, xs, state, steps)
        return run_kernel(self, cell, params, xs, state, steps)

    def streamed_bytes(self, work: Work) -> int:
        """The bytes of the matrices that all tiles read at every step."""
        tiling = self._tiling(work)
        return -(-work.batch // tiling.rows) * tiling.streamed_bytes(work)

    def tiling(self, work: Work) -> vmem.Tiling | None:
        """How the loop is cut; None if nothing fits."""
        return vmem.find_tiling(work, self.rows, self.block, self._memory)

    def tiles(self, work: Work, reverse: bool) -> Tiles:
        """The grid; see `Kernel`."""
        tiling = self._tiling(work)
        return Tiles(work.time, work.batch, tiling.rows, tiling.block, reverse)

    def call(self, work: Work, tiles: Tiles, kernel_inputs: Any, outs: list) -> tuple:
        """The results of the forward or the backward kernel; see `Kernel`.

        The kernel's first argument is the longest row of each tile. Its last ones are
        scratch memory: the state that is carried, or its cotangent, and the buffers.
        """
        cuts = self._tiling(work).cuts
        kernel = _backward if tiles.reverse else _forward
        matrices = chunks.split(cuts, kernel_inputs.matrices, tiles.reverse)
        buffers = chunks.buffers_for(cuts, matrices, tiles.rows)

        def run(kernel_inputs: Any) -> Any:
            return call(
                functools.partial(kernel, work.cell, tiles, cuts),
                (_longest(tiles, kernel_inputs.lengths), *kernel_inputs),
                (_scalars, *tiles.specs(kernel_inputs, _matrix, _whole)),
                outs,
                grid=tiles.grid,
                scratch_shapes=[_carries(tiles, kernel_inputs[-1]), buffers],
                compiler_params=pltpu.CompilerParams(
                    dimension_semantics=("parallel", "arbitrary"),
                    vmem_limit_bytes=self._memory,
                ),
                interpret=self.interpret,
                name="recurrence_backward" if tiles.reverse else "recurrence",
            )

        # Mosaic cannot map over arrays that a kernel itself copies in parts.
        run = sequential_vmap(run) if any(buffers) else run
        column = tiles.column(kernel_inputs.lengths)
        return run(kernel_inputs._replace(lengths=column, matrices=matrices))

    def _tiling(self, work: Work) -> vmem.Tiling:
        """The tiling with which to run work, the smallest one if nothing fits."""
        return self.tiling(work) or vmem.smallest(work)


def _forward(cell: Any, tiles: Tiles, cuts: Any, longest: Any, *refs: Any) -> None:
    """The kernel of the forward loop."""
    kernel_inputs, (results, final, carry, buffers) = ForwardInputs(*refs[:6]), refs[6:]
    biases, elementwise = read_rows((kernel_inputs.biases, kernel_inputs.elementwise))
    first = lambda: _write(carry, in_float32(_read(kernel_inputs.state)))
    pl.when(pl.program_id(1) == 0)(first)

    def step(i: Array, t: Array) -> None:
        before = _read(carry)
        output, after, zs = forward_step(
            cell,
            t < kernel_inputs.lengths[...],
            chunks.read(cuts, kernel_inputs.matrices, buffers),
            biases,
            elementwise,
            _read(kernel_inputs.input_products, i),
            before,
            chunks.matmul,
        )
        _write(carry, after)
        _write(results, (output, (zs, before) if results[1] else ()), i)

    _each_step(tiles, longest, step, lambda: _clear(results))
    pl.when(_is_last(tiles))(lambda: _write(final, _read(carry)))


def _backward(cell: Any, tiles: Tiles, cuts: Any, longest: Any, *refs: Any) -> None:
    """The kernel of the backward loop."""
    kernel_inputs, results = BackwardInputs(*refs[:6]), refs[6:]
    c_zs, c_first, c_elementwise, carry, buffers = results
    elementwise = read_rows(kernel_inputs.elementwise)

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        _write(carry, in_float32(_read(kernel_inputs.c_state)))
        _clear(c_elementwise)

    def step(i: Array, t: Array) -> None:
        sequences = *kernel_inputs.saved, kernel_inputs.c_outputs
        zs, before, c_output = in_float32(_read(sequences, i))
        c_z, c_before, c_params = backward_step(
            cell,
            t < kernel_inputs.lengths[...],
            chunks.read(cuts, kernel_inputs.matrices, buffers),
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

    _each_step(tiles, longest, step, lambda: _clear(c_zs))
    pl.when(_is_last(tiles))(lambda: _write(c_first, _read(carry)))


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


def _scalars(x: Any) -> pl.BlockSpec:
    """All of an array in SMEM, from which a kernel reads single numbers."""
    del x
    return pl.BlockSpec(memory_space=pltpu.SMEM)


def _whole(x: Any) -> pl.BlockSpec:
    """All of an array, copied to VMEM once."""
    zeros = (0,) * x.ndim
    return pl.BlockSpec(x.shape, lambda b, t: zeros, pipeline_mode=pl.Buffered(1))


def _matrix(x: Any) -> pl.BlockSpec:
    """All of a matrix; streamed chunks, of rank 3, stay in HBM."""
    return pl.BlockSpec(memory_space=pl.ANY) if x.ndim == 3 else _whole(x)


def _carries(tiles: Tiles, state: PyTree) -> PyTree:
    """Buffers for the state of a tile, in float32."""
    buffer = lambda x: pltpu.VMEM((tiles.rows, x.shape[-1]), jnp.float32)
    return jax.tree.map(buffer, state)


def _longest(tiles: Tiles, column: Array) -> Array:
    """`[tiles, 1, 1]`, the longest row of each tile; `vmap` may add axes in front."""
    return column.reshape(tiles.grid[0], tiles.rows).max(1)[:, None, None]


def _is_last(tiles: Tiles) -> Any:
    """Whether this is the last block of a tile."""
    return pl.program_id(1) == tiles.grid[1] - 1


def _each_step(
    tiles: Tiles,
    longest: Any,
    step: Callable[[Array, Array], None],
    clear: Callable[[], None],
) -> None:
    """Calls `step(i, t)` for each step t of the sequences, step i of this block.

    Calls `clear()` instead if all rows of the tile have ended before this block.
    """
    nth = pl.program_id(1)
    start = (tiles.grid[1] - 1 - nth if tiles.reverse else nth) * tiles.block

    def body(i: Array, _: None) -> None:
        i = tiles.block - 1 - i if tiles.reverse else i
        step(i, start + i)

    runs = start < longest[pl.program_id(0), 0, 0]
    pl.when(runs)(lambda: jax.lax.fori_loop(0, tiles.block, body, None))
    pl.when(jnp.logical_not(runs))(clear)
