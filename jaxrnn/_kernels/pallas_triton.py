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

from .._autodiff.jax_internals import JaxprEqn
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .blocks import Tiles, call, read_rows
from .kernel import BackwardOperands, ForwardOperands, Kernel
from .kernel_loop import check, run_kernel
from .machines import KIB
from .operations import SUPPORTED, inlined, is_batched, shape_of, why_unsupported
from .padding import SMALLEST, TRITON_ELEMENTWISE, padded, run_padded, why_not_padded
from .step import backward_step, forward_step, in_float32
from .work import Work

# So many columns fill a quarter of the registers; with twice as many the compiler did
# not finish within minutes.
WIDEST = 1024


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
        if self.interpret:  # The limits are those of the compiler.
            return None
        wide = padded(work)
        return (
            _why_not_sizes(work, wide)
            or _why_not_memory(work, wide, self._memory)
            or _why_not_width(wide)
            or why_unsupported(wide, SMALLEST, _why_not_operation)
        )

    def describe(self, work: Work) -> str:
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
        work = check(self, cell, params, xs, state, steps)
        run = functools.partial(run_kernel, self, cell)
        # The interpreter takes any sizes; what is compiled has passed `check`.
        if self.interpret and why_not_padded(work):
            return run(params, xs, state, steps)
        return run_padded(run, cell, params, xs, state, steps)

    def tiles(self, work: Work, reverse: bool) -> Tiles:
        """The grid, of one block of all steps; see `Kernel`."""
        del reverse
        return Tiles(work.time, work.batch, SMALLEST, work.time)

    def call(self, work: Work, tiles: Tiles, operands: Any, outs: list) -> tuple:
        """The results of the kernel that takes such operands; see `Kernel`."""
        is_forward = isinstance(operands, ForwardOperands)
        return call(
            functools.partial(_forward if is_forward else _backward, work.cell, tiles),
            operands._replace(lengths=tiles.column(operands.lengths)),
            tiles.specs(operands, _whole, _whole),
            outs,
            grid=tiles.grid,
            compiler_params=plt.CompilerParams(num_warps=self.warps, num_stages=1),
            interpret=self.interpret,
            name="recurrence" if is_forward else "recurrence_backward",
        )


def _forward(cell: Any, tiles: Tiles, *refs: Any) -> None:
    """The kernel of the loop forward."""
    operands, (results, final) = ForwardOperands(*refs[:6]), refs[6:]
    here, lengths = _here(tiles), operands.lengths[...]
    weights = _read(operands.matrices)
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
        _store(here, results, (output, (zs, before) if results[1] else ()), t)
        return after

    first = in_float32(_load(here, operands.state))
    _store(here, final, _each_step(tiles, step, first))


def _backward(cell: Any, tiles: Tiles, *refs: Any) -> None:
    """The kernel of the loop backward."""
    operands, (c_zs, c_first, c_elementwise) = BackwardOperands(*refs[:6]), refs[6:]
    here, lengths = _here(tiles), operands.lengths[...]
    transposed, elementwise = _read(operands.matrices), read_rows(operands.elementwise)

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


def _shared(work: Work) -> int:
    """The most bytes of shared memory that a kernel takes.

    As observed in programs compiled for an H100: all matrices, and the operand and the
    result of a product, which threads exchange.
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
