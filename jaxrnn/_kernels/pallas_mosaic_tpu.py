"""A recurrent loop as one TPU kernel: the matrices stay in VMEM for all steps.

The grid is (tiles of rows, blocks of steps). Blocks of what is read and written move
between HBM and VMEM while others are computed; the matrices are brought once.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .._sharding import as_varying_as
from .._typing import Array, DType, Params, PyTree
from ._kernel import Kernel
from ._machines import MIB
from ._rule import KernelRule
from ._step import backward_step, forward_step, in_float32
from ._work import Work


@dataclasses.dataclass(frozen=True)
class PallasMosaicTPU(Kernel):
    """The kernels, and how they are cut.

    Attributes:
        machine: The kind of TPU whose VMEM they must fit; None for that of the first
            device, or "v5e" where there is none.
        rows: The most rows of a tile.
        block: The most steps of a block.
        interpret: Whether they are run by Pallas's interpreter, on any device.
    """

    rows: int = 256
    block: int = 8
    interpret: Any = False

    @property
    def name(self) -> str:
        """What users call it."""
        return "pallas_mosaic_tpu"

    @property
    def platform(self) -> str:
        """What it runs on."""
        return "tpu"

    def declines(self, work: Work) -> str | None:
        """Why it cannot run that work, if it cannot."""
        dtypes = {work.dtype, *(dtype for _, dtype in work.state)}
        if not dtypes <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)}:
            names = ", ".join(sorted(map(str, dtypes)))
            return f"it computes in float32 and bfloat16, got {names}"
        if self.tile(work) is None:
            least, memory = self.vmem(work, 8, 1), self._memory
            return (
                f"the matrices, {work.matrix_bytes / MIB:.1f} MiB, and the least tile "
                f"need {least / MIB:.1f} MiB of VMEM, of which there are "
                f"{memory / MIB:.0f}"
            )
        return None

    def says(self, work: Work) -> str:
        """How it would run that work, which it does not decline."""
        rows, block = self.tile(work) or (0, 0)
        return (
            f"{self.vmem(work, rows, block) / MIB:.1f} of "
            f"{self._memory / MIB:.0f} MiB of VMEM, matrices "
            f"{work.matrix_bytes / MIB:.1f}; tiles of {rows} rows, blocks of {block} "
            "steps"
        )

    @property
    def _memory(self) -> int:
        """The bytes of VMEM that there are."""
        return self.made_for("v5e").memory

    def tile(self, work: Work) -> tuple[int, int] | None:
        """The rows of a tile and the steps of a block; None if nothing fits."""
        memory = self._memory
        rows = min(self.rows, work.batch)
        while True:
            block = min(self.block, work.time)
            while block:
                if self.vmem(work, rows, block) <= memory:
                    return rows, block
                block //= 2
            if rows <= 8:
                return None
            # Rows come in eights, or in sixteens where they are of 16 bits.
            rows = max(8, rows // 2 // 16 * 16)

    def vmem(self, work: Work, rows: int, block: int) -> int:
        """The bytes of VMEM that the larger of both kernels takes for such a tile."""
        room = lambda sizes, dtype: sum(_padded(rows, n, dtype) for n in sizes)
        states = sum(room([n], dtype) for n, dtype in work.state)
        outputs = sum(room([n], dtype) for n, dtype in work.outputs)
        columns = [columns for _, columns in work.matrices]
        kept = room(columns, work.product_dtype) + states
        f32 = jnp.dtype(jnp.float32)
        forward = room(filter(None, work.shares), f32) + outputs + kept
        backward = kept + outputs + room(columns, work.dtype)
        whole = sum(_padded(r, c, work.dtype) for r, c in work.matrices if r)
        whole = max(
            whole, sum(_padded(c, r, work.dtype) for r, c in work.matrices if r)
        )
        whole += 2 * sum(_padded(1, n, f32) for n in work.small)
        carried = room([n for n, _ in work.state], f32)
        # What moves is there twice. What a step computes with lies there, too.
        moving = 2 * (block * max(forward, backward) + 2 * states + room([1], f32))
        return whole + moving + carried + 4 * room(columns, f32)

    def rule(self, cell: Any, history: bool) -> KernelRule:
        """How a cell's sequences are run by it."""
        return KernelRule(cell, history, self)

    def forward(
        self,
        cell: Any,
        work: Work,
        lengths: Array,
        weights: list[Array | None],
        biases: list[Array | None],
        small: Params,
        shares: list[Array | None],
        state: PyTree,
        types: PyTree,
    ) -> PyTree:
        """The loop forward.

        Args:
            cell: An `AffineCell`.
            work: The sizes.
            lengths: `[batch]`, int32.
            weights: As of `forward_step`.
            biases: As of `forward_step`.
            small: As of `forward_step`.
            shares: As of `forward_step`, `[time, batch, columns]`.
            state: The initial state, each leaf `[batch, size]`.
            types: Of what is put out at each step, `(output, kept)`, as arrays
                `[batch, size]`; `kept` is `(zs, state)`, or `()`.

        Returns:
            `(output, kept)` of all steps, `[time, batch, size]`, and the final state.
        """
        tiling = self._tiling(work)

        def kernel(
            longest: Any,
            lengths: Any,
            weights: Any,
            biases: Any,
            small: Any,
            shares: Any,
            state: Any,
            made: Any,
            final: Any,
            carry: Any,
        ) -> None:
            biases, small = _read_small((biases, small))
            tiling.at_first(lambda: _write(carry, in_float32(_read(state))))

            def step(i: Array, t: Array) -> None:
                before = _read(carry)
                output, after, zs = forward_step(
                    cell,
                    t < lengths[...],
                    _read(weights),
                    biases,
                    small,
                    _read(shares, i),
                    before,
                )
                _write(carry, after)
                outputs, kept = made
                _write(outputs, output, i)
                if kept:
                    _write(kept, (zs, before), i)

            tiling.each_step(longest, step, lambda: _clear(made))
            tiling.at_last(lambda: _write(final, _read(carry)))

        by_rows, by_steps, whole = tiling.by_rows, tiling.by_steps, tiling.whole
        return self._call(
            kernel,
            tiling,
            (
                *tiling.columns(lengths),
                weights,
                *_as_rows((biases, small)),
                shares,
                state,
            ),
            (tiling.scalars, by_rows, whole, whole, whole, by_steps, by_rows),
            (tiling.over_time(types), state),
            (by_steps, by_rows),
            state,
        )

    def backward(
        self,
        cell: Any,
        work: Work,
        lengths: Array,
        turned: list[Array],
        small: Params,
        kept: PyTree,
        c_outputs: PyTree,
        c_state: PyTree,
    ) -> tuple[list[Array], PyTree, Params]:
        """The loop backward: the cotangents of `(zs, state, small)`.

        Args:
            cell: An `AffineCell`.
            work: The sizes.
            lengths: `[batch]`, int32.
            turned: As of `backward_step`.
            small: As of `backward_step`.
            kept: `(zs, states)`, `[time, batch, size]` each.
            c_outputs: The cotangents of what was put out, likewise.
            c_state: The cotangent of the final state, each leaf `[batch, size]`.
        """
        zs, _ = kept
        tiling = dataclasses.replace(self._tiling(work), reverse=True)

        def kernel(
            longest: Any,
            lengths: Any,
            turned: Any,
            small: Any,
            kept: Any,
            c_outputs: Any,
            c_state: Any,
            c_zs: Any,
            c_first: Any,
            c_small: Any,
            carry: Any,
        ) -> None:
            small = _read_small(small)

            @tiling.at_first
            def _() -> None:
                _write(carry, in_float32(_read(c_state)))
                _clear(c_small)

            def step(i: Array, t: Array) -> None:
                zs, state, c_output = in_float32(_read((*kept, c_outputs), i))
                moved = backward_step(
                    cell,
                    t < lengths[...],
                    _read(turned),
                    small,
                    zs,
                    state,
                    c_output,
                    _read(carry),
                )
                _write(c_zs, moved[0], i)
                _write(carry, moved[1])
                for name, more in moved[2].items():
                    c_small[name][0] += more[None, :]

            tiling.each_step(longest, step, lambda: _clear(c_zs))
            tiling.at_last(lambda: _write(c_first, _read(carry)))

        dtype = jax.tree.leaves(turned)[0].dtype
        c_zs = [jax.ShapeDtypeStruct(z.shape, dtype) for z in zs]
        by_rows, by_steps, whole = tiling.by_rows, tiling.by_steps, tiling.whole
        c_zs, c_state, c_small = self._call(
            kernel,
            tiling,
            (
                *tiling.columns(lengths),
                turned,
                _as_rows(small),
                kept,
                c_outputs,
                c_state,
            ),
            (tiling.scalars, by_rows, whole, whole, by_steps, by_steps, by_rows),
            (c_zs, c_state, tiling.one_each(small)),
            (by_steps, by_rows, tiling.by_tile),
            c_state,
        )
        total = lambda c, x: jnp.sum(c, (0, 1)).astype(x.dtype)
        return c_zs, c_state, jax.tree.map(total, c_small, small)

    def _tiling(self, work: Work) -> "_Tiling":
        rows, block = self.tile(work) or (0, 0)
        memory = self._memory
        return _Tiling(work.time, work.batch, block, rows, memory)

    def _call(
        self,
        kernel: Callable,
        tiling: "_Tiling",
        args: tuple,
        in_specs: tuple,
        outs: tuple,
        out_specs: tuple,
        state: PyTree,
    ) -> Any:
        """The kernel on arguments, with a spec for each of them and for each result."""
        each = lambda specs, trees: tuple(map(jax.tree.map, specs, trees))
        args = as_varying_as(args, args)
        zeros = lambda x: jnp.zeros(x.shape, x.dtype)
        make = lambda args: as_varying_as(args, jax.tree.map(zeros, outs))
        call = pl.pallas_call(
            kernel,
            out_shape=jax.eval_shape(make, args),
            grid=tiling.grid,
            in_specs=each(in_specs, args),
            out_specs=each(out_specs, outs),
            scratch_shapes=[tiling.carries(state)],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "arbitrary"),
                vmem_limit_bytes=tiling.memory,
            ),
            interpret=self.interpret,
            name="recurrence_backward" if tiling.reverse else "recurrence",
        )
        with jax.enable_x64(False):  # Mosaic knows no integers of 64 bits.
            return call(*args)


@dataclasses.dataclass(frozen=True)
class _Tiling:
    """How arrays are cut into blocks.

    Attributes:
        time: The number of steps.
        batch: The number of rows.
        block: The steps of a block.
        rows: The rows of a tile.
        memory: The bytes of VMEM that there are.
        reverse: Whether the last block comes first.
    """

    time: int
    batch: int
    block: int
    rows: int
    memory: int
    reverse: bool = False

    @property
    def tiles(self) -> int:
        """The number of tiles of rows."""
        return pl.cdiv(self.batch, self.rows)

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of rows, blocks of steps."""
        return self.tiles, pl.cdiv(self.time, self.block)

    def by_steps(self, x: Any) -> pl.BlockSpec:
        """Blocks of sequences, `[time, batch, size]`."""
        last = self.grid[1] - 1
        place = (lambda t: last - t) if self.reverse else (lambda t: t)
        block = self.block, self.rows, x.shape[-1]
        return pl.BlockSpec(block, lambda b, t: (place(t), b, 0))

    def by_rows(self, x: Any) -> pl.BlockSpec:
        """Tiles of what has rows alone, `[batch, size]`."""
        return pl.BlockSpec((self.rows, x.shape[-1]), lambda b, t: (b, 0))

    def by_tile(self, x: Any) -> pl.BlockSpec:
        """What each tile has for itself, `[tiles, 1, size]`."""
        return pl.BlockSpec((1, *x.shape[1:]), lambda b, t: (b, 0, 0))

    def scalars(self, x: Any) -> pl.BlockSpec:
        """All of an array of numbers that are asked for one by one."""
        del x
        return pl.BlockSpec(memory_space=pltpu.SMEM)

    def whole(self, x: Any) -> pl.BlockSpec:
        """All of an array, brought once."""
        zeros = (0,) * x.ndim
        return pl.BlockSpec(x.shape, lambda b, t: zeros, pipeline_mode=pl.Buffered(1))

    def columns(self, lengths: Array) -> tuple[Array, Array]:
        """The longest row of each tile; and all lengths, `[rows of all tiles, 1]`.

        The rows that fill the last tile are never alive.
        """
        missing = self.tiles * self.rows - self.batch
        lengths = jnp.pad(lengths, (0, missing))
        return lengths.reshape(self.tiles, self.rows).max(1), lengths[:, None]

    def over_time(self, types: PyTree) -> PyTree:
        """The types of one step, of all steps."""
        longer = lambda x: jax.ShapeDtypeStruct((self.time, *x.shape), x.dtype)
        return jax.tree.map(longer, types)

    def one_each(self, small: Params) -> Params:
        """The types of what each tile has for itself, in place of such parameters."""
        room = lambda x: jax.ShapeDtypeStruct((self.tiles, 1, *x.shape), jnp.float32)
        return jax.tree.map(room, small)

    def carries(self, state: PyTree) -> PyTree:
        """Room for a tile's state, in float32."""
        room = lambda x: pltpu.VMEM((self.rows, x.shape[-1]), jnp.float32)
        return jax.tree.map(room, state)

    def at_first(self, fn: Callable[[], None]) -> None:
        """Calls it in the first block of each tile."""
        pl.when(pl.program_id(1) == 0)(fn)

    def at_last(self, fn: Callable[[], None]) -> None:
        """Calls it in the last block of each tile."""
        pl.when(pl.program_id(1) == self.grid[1] - 1)(fn)

    def each_step(
        self,
        longest: Any,
        step: Callable[[Array, Array], None],
        clear: Callable[[], None],
    ) -> None:
        """Calls `step(i, t)` for the steps of a block in turn; i is t's place in it.

        Where all rows of the tile have ended it calls `clear()` in place of them.
        """
        turn = pl.program_id(1)
        begin = (self.grid[1] - 1 - turn if self.reverse else turn) * self.block

        def body(i: Array, _: None) -> None:
            i = self.block - 1 - i if self.reverse else i
            step(i, begin + i)

        runs = begin < longest[pl.program_id(0)]
        pl.when(runs)(lambda: jax.lax.fori_loop(0, self.block, body, None))
        pl.when(jnp.logical_not(runs))(clear)


def _padded(rows: int, columns: int, dtype: DType) -> int:
    """The bytes of a matrix in VMEM, in tiles of 128 columns and 32 bytes of rows."""
    sublanes = 32 // dtype.itemsize
    return -(-rows // sublanes) * sublanes * -(-columns // 128) * 128 * dtype.itemsize


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


def _as_rows(small: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[None, :], small)


def _read_small(small: PyTree) -> PyTree:
    return in_float32(jax.tree.map(lambda r: r[0], small))
