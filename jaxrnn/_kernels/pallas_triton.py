"""A recurrent loop as one GPU kernel: the matrices stay in shared memory.

The grid is (tiles of rows, 1): a block of threads runs all steps of its tile. The
matrices are read once, ahead of the loop, and the state is carried in registers.

It has been compiled for an H100 and interpreted, but not measured: it runs where it is
named.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .blocks import Tiles, as_rows, c_zs_types, call, read_rows, total
from .kernel import Kernel
from .kernel_loop import check, run_kernel
from .machines import KIB
from .operands import BackwardOperands, ForwardOperands
from .operations import inlined
from .padding import SMALLEST, padded, run_padded, why_not_padded
from .step import backward_step, forward_step, in_float32
from .triton_limits import shared, why_not
from .work import Work


@dataclasses.dataclass(frozen=True)
class PallasTriton(Kernel):
    """The kernels, and how they are cut.

    Products in float32 are rounded to TF32 as JAX's default precision has it on a GPU,
    in XLA's loop, too; `jax.default_matmul_precision("highest")` keeps them exact.

    Attributes:
        machine: The kind of GPU whose shared memory they must fit; None for that of the
            first device, or "h100" where it is another.
        warps: The warps of a block of threads.
    """

    name: ClassVar[str] = "pallas_triton"
    platform: ClassVar[str] = "cuda"
    warps: int = 8

    def why_not(self, work: Work) -> str | None:
        """Why it cannot run that work, or None."""
        # The limits are those of the compiler; the interpreter has none.
        return None if self.interpret else why_not(work, self._memory)

    def describe(self, work: Work) -> str:
        """How it would run that work."""
        work = padded(work)
        return (
            f"at most {shared(work) // KIB} of {self._memory // KIB} KiB of shared "
            f"memory, matrices {work.matrix_bytes // KIB}; tiles of {SMALLEST} rows"
        )

    def run_sequences(
        self, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps; see `Implementation`."""
        work = check(self, cell, params, xs, state, steps)
        run = functools.partial(run_kernel, self, cell)
        # The interpreter takes any sizes; what is compiled has passed `check`.
        if self.interpret and why_not_padded(work):
            return run(params, xs, state, steps)
        return run_padded(run, cell, params, xs, state, steps)

    def forward(self, work: Work, operands: ForwardOperands, types: PyTree) -> PyTree:
        """The loop forward; see `Kernel`."""
        tiles = Tiles(work.time, work.batch, SMALLEST, work.time)
        column = tiles.column(operands.lengths)
        biases, elementwise = as_rows((operands.biases, operands.elementwise))
        by_rows, by_steps = tiles.by_rows, tiles.by_steps
        return call(
            functools.partial(_forward, work.cell, tiles),
            operands._replace(lengths=column, biases=biases, elementwise=elementwise),
            (by_rows, _whole, _whole, _whole, by_steps, by_rows),
            (tiles.over_time(types), operands.state),
            (by_steps, by_rows),
            name="recurrence",
            **self._options(tiles),
        )

    def backward(
        self, work: Work, operands: BackwardOperands
    ) -> tuple[list[Array], PyTree, Params]:
        """The loop backward; see `Kernel`."""
        tiles = Tiles(work.time, work.batch, SMALLEST, work.time)
        column, elementwise = (
            tiles.column(operands.lengths),
            as_rows(operands.elementwise),
        )
        by_rows, by_steps = tiles.by_rows, tiles.by_steps
        c_zs, c_state, c_elementwise = call(
            functools.partial(_backward, work.cell, tiles),
            operands._replace(lengths=column, elementwise=elementwise),
            (by_rows, _whole, _whole, by_steps, by_steps, by_rows),
            (
                c_zs_types(operands),
                operands.c_state,
                tiles.per_tile(operands.elementwise),
            ),
            (by_steps, by_rows, tiles.by_tile),
            name="recurrence_backward",
            **self._options(tiles),
        )
        return c_zs, c_state, total(c_elementwise, operands.elementwise)

    def _options(self, tiles: Tiles) -> dict[str, Any]:
        """How Pallas runs a kernel."""
        return {
            "grid": tiles.grid,
            "compiler_params": plt.CompilerParams(num_warps=self.warps, num_stages=1),
            "interpret": self.interpret,
        }


def _forward(cell: Any, tiles: Tiles, *refs: Any) -> None:
    """The kernel of the loop forward."""
    operands, (results, final) = ForwardOperands(*refs[:6]), refs[6:]
    here, lengths = _here(tiles), operands.lengths[...]
    weights = _read(operands.weights)
    biases, elementwise = read_rows((operands.biases, operands.elementwise))

    def step(t: Array, before: PyTree) -> PyTree:
        output, after, zs = inlined(
            functools.partial(forward_step, cell),
            t < lengths,
            weights,
            biases,
            elementwise,
            _load(here, operands.input_products, t),
            before,
        )
        outputs, saved = results
        _store(here, outputs, output, t)
        if saved:
            _store(here, saved, (zs, before), t)
        return after

    first = in_float32(_load(here, operands.state))
    _store(here, final, _each_step(tiles, step, first))


def _backward(cell: Any, tiles: Tiles, *refs: Any) -> None:
    """The kernel of the loop backward."""
    operands, (c_zs, c_first, c_elementwise) = BackwardOperands(*refs[:6]), refs[6:]
    here, lengths = _here(tiles), operands.lengths[...]
    transposed, elementwise = (
        _read(operands.transposed),
        read_rows(operands.elementwise),
    )

    def step(i: Array, carry: tuple[PyTree, Params]) -> tuple[PyTree, Params]:
        c_state, c_total = carry
        t = tiles.time - 1 - i
        values = _load(here, (*operands.saved, operands.c_outputs), t)
        c_z, c_state, c_params = inlined(
            functools.partial(backward_step, cell),
            t < lengths,
            transposed,
            elementwise,
            *in_float32(values),
            c_state,
        )
        _store(here, c_zs, c_z, t)
        return c_state, jax.tree.map(jnp.add, c_total, c_params)

    c_last = in_float32(_load(here, operands.c_state))
    zeros = jax.tree.map(jnp.zeros_like, elementwise)
    c_before, c_total = _each_step(tiles, step, (c_last, zeros))
    _store(here, c_first, c_before)
    for name, value in c_total.items():
        c_elementwise[name][0, 0] = value


def _whole(x: Any) -> pl.BlockSpec:
    """All of an array."""
    zeros = (0,) * x.ndim
    return pl.BlockSpec(x.shape, lambda b, t: zeros)


def _here(tiles: Tiles) -> Array:
    """`[rows, 1]`, whether there is such a row: the last tile may be short."""
    row = jax.lax.broadcasted_iota(jnp.int32, (tiles.rows, 1), 0)
    return pl.program_id(0) * tiles.rows + row < tiles.batch


def _each_step(tiles: Tiles, step: Callable, carry: PyTree) -> PyTree:
    """Carries `carry = step(i, carry)` over all steps."""
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(tiles.time), step, carry)


def _read(refs: PyTree) -> PyTree:
    return jax.tree.map(lambda r: r[...], refs)


def _load(here: Array, refs: PyTree, *index: Array) -> PyTree:
    """The rows that there are, and zeros."""

    def get(ref: Any) -> Array:
        mask = jnp.broadcast_to(here, (here.shape[0], ref.shape[-1]))
        return plt.load(ref.at[index] if index else ref, mask=mask, other=0)

    return jax.tree.map(get, refs)


def _store(here: Array, refs: PyTree, values: PyTree, *index: Array) -> None:
    """Writes the rows that there are."""

    def put(ref: Any, value: Array) -> None:
        mask = jnp.broadcast_to(here, value.shape)
        at = ref.at[index] if index else ref
        plt.store(at, value.astype(ref.dtype), mask=mask)

    jax.tree.map(put, refs, values)
