"""A recurrent loop as one GPU kernel: the matrices stay in shared memory.

The grid is (tiles of rows, 1): a block of threads runs all steps of its tile. The
matrices are read once, ahead of the loop, and the state is carried in registers.

It has been compiled for an H100 and interpreted, but not measured, so it runs only if
it is requested by name.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from .._affine.programs import inlined, shape_of
from .._autodiff.jax_internals import JaxprEqn
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .blocks import Tiles, call, read_rows
from .kernel import BackwardInputs, ForwardInputs, Kernel
from .kernel_loop import run_kernel, work_for
from .machines import KIB
from .operations import SUPPORTED, is_batched, why_not_operations
from .padded_sizes import (
    SMALLEST,
    TRITON_ELEMENTWISE,
    padded,
    run_padded,
    why_not_padded,
)
from .step import backward_step, forward_step, in_float32
from .work import Work

# So many columns fill a quarter of the registers; with twice as many the compiler did
# not finish within minutes.
WIDEST = 1024


@dataclasses.dataclass(frozen=True)
class PallasTriton(Kernel):
    """The kernels, and how they are cut.

    Products of float32 are rounded to TF32, JAX's default precision on a GPU, as they
    are in XLA's loop; `jax.default_matmul_precision("highest")` keeps them exact.

    Attributes:
        machine: The kind of GPU whose shared memory they must fit; None for that of the
            first device, or "h100" if that is no GPU.
        warps: The warps of a block of threads.
    """

    name: ClassVar[str] = "pallas_triton"
    platform: ClassVar[str] = "cuda"
    warps: int = 8

    def why_not(self, work: Work) -> str | None:
        """Why it cannot run that work, or None."""
        if self.interpret:  # The limits are those of the compiler.
            return None
        wide = padded(work)
        return (
            _why_not_sizes(work, wide)
            or _why_not_memory(work, wide, self._memory)
            or _why_not_width(wide)
            or why_not_operations(wide, SMALLEST, _why_not_operation)
        )

    def how(self, work: Work) -> str:
        """How it would run that work."""
        work = padded(work)
        return (
            f"at most {_shared(work) // KIB} of {self._memory // KIB} KiB of shared "
            f"memory, matrices {work.matrix_bytes // KIB}; tiles of {SMALLEST} rows"
        )

    def run_sequences(
        self, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
    ) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps; see `Implementation`."""
        work = work_for(self, cell, params, xs, state, steps)
        run = functools.partial(run_kernel, self, cell)
        # The interpreter takes any sizes; `work_for` has refused those that the
        # compiler does not take.
        if self.interpret and why_not_padded(work):
            return run(params, xs, state, steps)
        return run_padded(run, cell, params, xs, state, steps)

    def tiles(self, work: Work, reverse: bool) -> Tiles:
        """The grid, of one block of all steps; see `Kernel`."""
        del reverse
        return Tiles(work.time, work.batch, SMALLEST, work.time)

    def call(self, work: Work, tiles: Tiles, kernel_inputs: Any, outs: list) -> tuple:
        """The results of the forward or the backward kernel; see `Kernel`."""
        is_forward = isinstance(kernel_inputs, ForwardInputs)
        return call(
            functools.partial(_forward if is_forward else _backward, work.cell, tiles),
            kernel_inputs._replace(lengths=tiles.column(kernel_inputs.lengths)),
            tiles.specs(kernel_inputs, _whole, _whole),
            outs,
            grid=tiles.grid,
            compiler_params=plt.CompilerParams(num_warps=self.warps, num_stages=1),
            interpret=self.interpret,
            name="recurrence" if is_forward else "recurrence_backward",
        )


def _forward(cell: Any, tiles: Tiles, *refs: Any) -> None:
    """The kernel of the forward loop."""
    kernel_inputs, (results, final) = ForwardInputs(*refs[:6]), refs[6:]
    in_batch, lengths = _in_batch(tiles), kernel_inputs.lengths[...]
    weights = _read(kernel_inputs.matrices)
    biases, elementwise = read_rows((kernel_inputs.biases, kernel_inputs.elementwise))

    def step(t: Array, before: PyTree) -> PyTree:
        output, after, zs = inlined(
            functools.partial(forward_step, cell),
            t < lengths,
            weights,
            biases,
            elementwise,
            _load(in_batch, kernel_inputs.input_products, t),
            before,
        )
        _store(in_batch, results, (output, (zs, before) if results[1] else ()), t)
        return after

    first = in_float32(_load(in_batch, kernel_inputs.state))
    _store(in_batch, final, _each_step(tiles, step, first))


def _backward(cell: Any, tiles: Tiles, *refs: Any) -> None:
    """The kernel of the backward loop."""
    kernel_inputs, (c_zs, c_first, c_elementwise) = BackwardInputs(*refs[:6]), refs[6:]
    in_batch, lengths = _in_batch(tiles), kernel_inputs.lengths[...]
    transposed = _read(kernel_inputs.matrices)
    elementwise = read_rows(kernel_inputs.elementwise)

    def step(i: Array, carry: tuple[PyTree, Params]) -> tuple[PyTree, Params]:
        c_state, c_total = carry
        t = tiles.time - 1 - i
        values = _load(in_batch, (*kernel_inputs.saved, kernel_inputs.c_outputs), t)
        c_z, c_state, c_params = inlined(
            functools.partial(backward_step, cell),
            t < lengths,
            transposed,
            elementwise,
            *in_float32(values),
            c_state,
        )
        _store(in_batch, c_zs, c_z, t)
        return c_state, jax.tree.map(jnp.add, c_total, c_params)

    c_last = in_float32(_load(in_batch, kernel_inputs.c_state))
    zeros = jax.tree.map(jnp.zeros_like, elementwise)
    c_before, c_total = _each_step(tiles, step, (c_last, zeros))
    _store(in_batch, c_first, c_before)
    for name, value in c_total.items():
        c_elementwise[name][0, 0] = value


def _whole(x: Any) -> pl.BlockSpec:
    """All of an array."""
    zeros = (0,) * x.ndim
    return pl.BlockSpec(x.shape, lambda b, t: zeros)


def _in_batch(tiles: Tiles) -> Array:
    """`[rows, 1]`, whether a row of the tile exists: the last tile may be partial."""
    row = jax.lax.broadcasted_iota(jnp.int32, (tiles.rows, 1), 0)
    return pl.program_id(0) * tiles.rows + row < tiles.batch


def _each_step(tiles: Tiles, step: Callable, carry: PyTree) -> PyTree:
    """Carries `carry = step(i, carry)` over all steps."""
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(tiles.time), step, carry)


def _read(refs: PyTree) -> PyTree:
    return jax.tree.map(lambda r: r[...], refs)


def _load(in_batch: Array, refs: PyTree, *index: Array) -> PyTree:
    """The refs' values, zeros in rows beyond the batch."""

    def get(ref: Any) -> Array:
        mask = jnp.broadcast_to(in_batch, (in_batch.shape[0], ref.shape[-1]))
        return plt.load(ref.at[index] if index else ref, mask=mask, other=0)

    return jax.tree.map(get, refs)


def _store(in_batch: Array, refs: PyTree, values: PyTree, *index: Array) -> None:
    """Writes all rows but those beyond the batch."""

    def put(ref: Any, value: Array) -> None:
        mask = jnp.broadcast_to(in_batch, value.shape)
        at = ref.at[index] if index else ref
        plt.store(at, value.astype(ref.dtype), mask=mask)

    jax.tree.map(put, refs, values)


def _shared(work: Work) -> int:
    """The maximum number of bytes of shared memory that a kernel takes.

    As observed in programs compiled for an H100, these are all matrices, and the
    operand and the result of a product, which threads exchange.
    """
    exchanged = max(rows + columns for rows, columns in work.matrices)
    return work.matrix_bytes + SMALLEST * 4 * exchanged


def _why_not_sizes(work: Work, wide: Work) -> str | None:
    reason = why_not_padded(work)
    if reason is None:
        return None
    sizes = {n for matrix in work.matrices for n in matrix if n}
    others = sizes - {n for matrix in wide.matrices for n in matrix}
    return (
        f"its sizes must be powers of two from {SMALLEST} on, got "
        f"{', '.join(map(str, sorted(others)))}, and cannot be padded: {reason}"
    )


def _why_not_memory(work: Work, wide: Work, memory: int) -> str | None:
    needed = _shared(wide)
    if needed <= memory:
        return None
    size = f"{wide.matrix_bytes // KIB} KiB"
    if wide != work:
        size = f"padded to {size}"
    return (
        f"the matrices, {size}, and the operands of a step need {needed // KIB} KiB of "
        f"shared memory; a block of threads has {memory // KIB}"
    )


def _why_not_width(work: Work) -> str | None:
    widest = max(n for matrix in work.matrices for n in matrix)
    if widest <= WIDEST:
        return None
    return f"its matrices must have sizes up to {WIDEST}, got {widest}"


def _why_not_operation(eqn: JaxprEqn) -> str | None:
    name = eqn.primitive.name
    sizes = {n for x in (*eqn.invars, *eqn.outvars) for n in shape_of(x)}
    others = sorted(n for n in sizes if n & (n - 1))
    if others:
        return f"its sizes must be powers of two, got {', '.join(map(str, others))}"
    if name == "concatenate" and shape_of(eqn.outvars[0])[-1] == 2:
        return None  # What older versions of JAX stack with.
    if name == "split" and len(set(eqn.params["sizes"])) > 1:
        sizes = ", ".join(map(str, eqn.params["sizes"]))
        return f"Triton splits in equal parts, got {sizes}"
    if name == "dot_general" and is_batched(eqn):
        return "Triton has no batched products"
    supported = name in SUPPORTED | TRITON_ELEMENTWISE
    return None if supported else f"Triton has no `{name}`"
