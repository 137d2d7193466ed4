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

from .._errors import describe
from .._typing import Array, Params, PyTree
from ._step import backward_step, forward_step, in_float32


@dataclasses.dataclass(frozen=True)
class PallasMosaicTPU:
    """The kernels, and how they are cut.

    Attributes:
        rows: The rows of a tile.
        block: The steps of a block.
        vmem: The bytes of VMEM that a kernel may use; None for the compiler's default.
        interpret: Whether they are run by Pallas's interpreter, on any device.
    """

    rows: int = 128
    block: int = 8
    vmem: int | None = None
    interpret: Any = False

    def declines(self, cell: Any, shape: tuple, state: PyTree) -> str | None:
        """Why it cannot run such a cell, if it cannot.

        Args:
            cell: An `AffineCell`.
            shape: That of the inputs, `[time, batch, depth]` or batch-major.
            state: The initial state.
        """
        del cell, shape
        for leaf in jax.tree.leaves(state):
            if leaf.ndim != 2:
                return f"the state must be [batch, size], got {describe(leaf)}"
            if leaf.dtype not in (jnp.float32, jnp.bfloat16):
                return f"it computes in float32 and bfloat16, got {describe(leaf)}"
        return None

    def forward(
        self,
        cell: Any,
        lengths: Array,
        weights: list[Array],
        small: Params,
        shares: list[Array | None],
        state: PyTree,
        types: PyTree,
    ) -> PyTree:
        """The loop forward.

        Args:
            cell: An `AffineCell`.
            lengths: `[batch]`, int32.
            weights: As of `forward_step`.
            small: As of `forward_step`.
            shares: As of `forward_step`, `[time, batch, columns]`.
            state: The initial state, each leaf `[batch, size]`.
            types: Of what is put out at each step, `(output, kept)`, as arrays
                `[batch, size]`; `kept` is `(zs, state)`, or `()`.

        Returns:
            `(output, kept)` of all steps, `[time, batch, size]`, and the final state.
        """
        tiling = self._tiling(shares)

        def kernel(
            lengths: Any,
            weights: Any,
            small: Any,
            shares: Any,
            state: Any,
            made: Any,
            final: Any,
            carry: Any,
        ) -> None:
            small = _read_small(small)
            tiling.at_first(lambda: _write(carry, in_float32(_read(state))))

            def step(i: Array, t: Array) -> None:
                before = _read(carry)
                output, after, zs = forward_step(
                    cell,
                    t < lengths[...],
                    _read(weights),
                    small,
                    _read(shares, i),
                    before,
                )
                _write(carry, after)
                outputs, kept = made
                _write(outputs, output, i)
                if kept:
                    _write(kept, (zs, before), i)

            tiling.each_step(step)
            tiling.at_last(lambda: _write(final, _read(carry)))

        by_rows, by_steps, whole = tiling.by_rows, tiling.by_steps, tiling.whole
        return self._call(
            kernel,
            tiling,
            (lengths[:, None], weights, _as_rows(small), shares, state),
            (by_rows, whole, whole, by_steps, by_rows),
            (tiling.over_time(types), state),
            (by_steps, by_rows),
            state,
        )

    def backward(
        self,
        cell: Any,
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
            lengths: `[batch]`, int32.
            turned: As of `backward_step`.
            small: As of `backward_step`.
            kept: `(zs, states)`, `[time, batch, size]` each.
            c_outputs: The cotangents of what was put out, likewise.
            c_state: The cotangent of the final state, each leaf `[batch, size]`.
        """
        zs, _ = kept
        tiling = dataclasses.replace(self._tiling(zs), reverse=True)

        def kernel(
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
                _write(c_small, jax.tree.map(lambda r: jnp.zeros_like(r[...]), c_small))

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

            tiling.each_step(step)
            tiling.at_last(lambda: _write(c_first, _read(carry)))

        dtype = jax.tree.leaves(turned)[0].dtype
        c_zs = [jax.ShapeDtypeStruct(z.shape, dtype) for z in zs]
        by_rows, by_steps, whole = tiling.by_rows, tiling.by_steps, tiling.whole
        c_zs, c_state, c_small = self._call(
            kernel,
            tiling,
            (lengths[:, None], turned, _as_rows(small), kept, c_outputs, c_state),
            (by_rows, whole, whole, by_steps, by_steps, by_rows),
            (c_zs, c_state, tiling.one_each(small)),
            (by_steps, by_rows, tiling.by_tile),
            c_state,
        )
        total = lambda c, x: jnp.sum(c, (0, 1)).astype(x.dtype)
        return c_zs, c_state, jax.tree.map(total, c_small, small)

    def _tiling(self, sequences: list[Array | None]) -> "_Tiling":
        time, batch, _ = next(x for x in sequences if x is not None).shape
        rows = batch if batch <= self.rows else self.rows
        return _Tiling(time, batch, min(self.block, time), rows)

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
        typed = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(
            kernel,
            out_shape=jax.tree.map(typed, outs),
            grid=tiling.grid,
            in_specs=each(in_specs, args),
            out_specs=each(out_specs, outs),
            scratch_shapes=[tiling.carries(state)],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "arbitrary"),
                vmem_limit_bytes=self.vmem,
            ),
            interpret=self.interpret,
            name="recurrence_backward" if tiling.reverse else "recurrence",
        )(*args)


@dataclasses.dataclass(frozen=True)
class _Tiling:
    """How arrays are cut into blocks.

    Attributes:
        time: The number of steps.
        batch: The number of rows.
        block: The steps of a block.
        rows: The rows of a tile.
        reverse: Whether the last block comes first.
    """

    time: int
    batch: int
    block: int
    rows: int
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

    def whole(self, x: Any) -> pl.BlockSpec:
        """All of an array, brought once."""
        zeros = (0,) * x.ndim
        return pl.BlockSpec(x.shape, lambda b, t: zeros, pipeline_mode=pl.Buffered(1))

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

    def each_step(self, step: Callable[[Array, Array], None]) -> None:
        """Calls `step(i, t)` for the steps of a block in turn; i is t's place in it."""
        turn = pl.program_id(1)
        begin = (self.grid[1] - 1 - turn if self.reverse else turn) * self.block

        def body(i: Array, _: None) -> None:
            i = self.block - 1 - i if self.reverse else i
            step(i, begin + i)

        jax.lax.fori_loop(0, self.block, body, None)


def _read(refs: PyTree, *index: Array) -> PyTree:
    return jax.tree.map(lambda r: r[index] if index else r[...], refs)


def _write(refs: PyTree, values: PyTree, *index: Array) -> None:
    def put(ref: Any, value: Array) -> None:
        ref[index or ...] = value.astype(ref.dtype)

    jax.tree.map(put, refs, values)


def _as_rows(small: Params) -> Params:
    return jax.tree.map(lambda x: x[None, :], small)


def _read_small(small: Params) -> Params:
    return in_float32(jax.tree.map(lambda r: r[0], small))
