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
from jax.extend.core import JaxprEqn

from .._typing import Array, DType, Params, PyTree
from ._blocks import Tiles, as_rows, c_zs_types, call, read_small, total
from ._kernel import Kernel
from ._machines import MIB
from ._operands import Backward, Forward
from ._operations import is_batched, why_unknown
from ._step import backward_step, forward_step, in_float32
from ._work import Work

# What Pallas lowers for a TPU of what the elementwise work of cells is made of.
_KNOWN = frozenset(
    """
    abs add add_any and broadcast_in_dim ceil clamp concatenate convert_element_type cos
    div dot_general eq erf exp exp2 floor ge gt integer_pow is_finite le log log1p
    logistic lt max min mul ne neg not or pad pow reduce_max reduce_min reduce_sum rem
    reshape round rsqrt select_n sign sin slice split sqrt square squeeze stack
    stop_gradient sub tan tanh transpose xor
    """.split()
)


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
        reason = why_unknown(work, 8, _trouble)
        if reason:
            return reason
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

    def forward(self, work: Work, given: Forward, types: PyTree) -> PyTree:
        """The loop forward; see `Kernel`."""
        tiling = self._tiling(work)

        def kernel(longest: Any, *refs: Any) -> None:
            given, (made, final, carry) = Forward(*refs[:6]), refs[6:]
            biases, small = read_small((given.biases, given.small))
            tiling.at_first(lambda: _write(carry, in_float32(_read(given.state))))

            def step(i: Array, t: Array) -> None:
                before = _read(carry)
                alive, shares = t < given.lengths[...], _read(given.shares, i)
                output, after, zs = forward_step(
                    work.cell,
                    alive,
                    _read(given.weights),
                    biases,
                    small,
                    shares,
                    before,
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
            given._replace(lengths=column, biases=biases, small=small),
            (by_rows, whole, whole, whole, by_steps, by_rows),
            (tiling.over_time(types), given.state),
            (by_steps, by_rows),
            given.state,
        )

    def backward(
        self, work: Work, given: Backward
    ) -> tuple[list[Array], PyTree, Params]:
        """The loop backward; see `Kernel`."""
        tiling = dataclasses.replace(self._tiling(work), reverse=True)

        def kernel(longest: Any, *refs: Any) -> None:
            given, (c_zs, c_first, c_small, carry) = Backward(*refs[:6]), refs[6:]
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
                    _read(given.turned),
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

        column = tiling.column(given.lengths)
        by_rows, by_steps, whole = tiling.by_rows, tiling.by_steps, tiling.whole
        c_zs, c_state, c_small = self._call(
            kernel,
            tiling,
            given._replace(lengths=column, small=as_rows(given.small)),
            (by_rows, whole, whole, by_steps, by_steps, by_rows),
            (c_zs_types(given), given.c_state, tiling.one_each(given.small)),
            (by_steps, by_rows, tiling.by_tile),
            given.c_state,
        )
        return c_zs, c_state, total(c_small, given.small)

    def _tiling(self, work: Work) -> "_Tiling":
        rows, block = self.tile(work) or (0, 0)
        memory = self._memory
        return _Tiling(work.time, work.batch, rows, block, memory)

    def _call(
        self,
        kernel: Callable,
        tiling: "_Tiling",
        given: Any,
        specs: tuple,
        outs: tuple,
        out_specs: tuple,
        state: PyTree,
    ) -> Any:
        """The kernel on what is given, with a spec for each of it and for each result.

        Ahead of it the kernel is told the longest row of each tile.
        """
        return call(
            kernel,
            (tiling.longest(given.lengths), *given),
            (tiling.scalars, *specs),
            outs,
            out_specs,
            grid=tiling.grid,
            scratch_shapes=[tiling.carries(state)],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "arbitrary"),
                vmem_limit_bytes=tiling.memory,
            ),
            interpret=self.interpret,
            name="recurrence_backward" if tiling.reverse else "recurrence",
        )


@dataclasses.dataclass(frozen=True)
class _Tiling(Tiles):
    """How arrays are cut into blocks.

    Attributes:
        block: The steps of a block.
        memory: The bytes of VMEM that there are.
        reverse: Whether the last block comes first.
    """

    block: int
    memory: int
    reverse: bool = False

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

    def scalars(self, x: Any) -> pl.BlockSpec:
        """All of an array of numbers that are asked for one by one."""
        del x
        return pl.BlockSpec(memory_space=pltpu.SMEM)

    def longest(self, column: Array) -> Array:
        """`[tiles, 1, 1]`, the longest row of each; `vmap` may put an axis before."""
        return column.reshape(self.tiles, self.rows).max(1)[:, None, None]

    def whole(self, x: Any) -> pl.BlockSpec:
        """All of an array, brought once."""
        zeros = (0,) * x.ndim
        return pl.BlockSpec(x.shape, lambda b, t: zeros, pipeline_mode=pl.Buffered(1))

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

        runs = begin < longest[pl.program_id(0), 0, 0]
        pl.when(runs)(lambda: jax.lax.fori_loop(0, self.block, body, None))
        pl.when(jnp.logical_not(runs))(clear)


def _trouble(eqn: JaxprEqn) -> str | None:
    name = eqn.primitive.name
    if name in _KNOWN and not (name == "dot_general" and is_batched(eqn)):
        return None
    return f"Pallas has no `{name}` of such arrays there"


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
