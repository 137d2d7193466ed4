"""What the Triton kernel can run: sizes, shared memory and operations."""

from typing import Any

from .._autodiff.jax_internals import JaxprEqn
from .filling import ALIKE, LEAST, filled, why_unfilled
from .machines import KIB
from .operations import is_batched, why_unknown
from .work import Work

# So many columns fill a quarter of the registers; with twice as many compilation was
# given up after minutes.
WIDEST = 1024
# What Pallas lowers for Triton of what the elementwise work of cells is made of.
_KNOWN = ALIKE | frozenset(
    """
    add_any dot_general reduce_max reduce_min reduce_sum reshape squeeze stack transpose
    """.split()
)


def why_not(work: Work, memory: int) -> str | None:
    """Why the compiler would not take that work, if it would not.

    Args:
        work: The cell and the sizes.
        memory: The bytes of shared memory that a block of threads has.
    """
    return (
        _why_not_sizes(work)
        or _why_not_memory(work, memory)
        or _why_not_width(filled(work))
        or why_unknown(filled(work), LEAST, _trouble)
    )


def shared(work: Work) -> int:
    """The most bytes of shared memory that a kernel takes.

    What the compiler has been seen to take: all matrices, and what goes into a product
    and comes of it, which change hands between threads.
    """
    moving = max(rows + columns for rows, columns in work.matrices)
    return work.matrix_bytes + LEAST * 4 * moving


def _why_not_sizes(work: Work) -> str | None:
    reason, wide = why_unfilled(work), filled(work)
    if reason:
        sizes = {n for matrix in work.matrices for n in matrix if n}
        odd = sorted(sizes - {n for matrix in wide.matrices for n in matrix})
        return (
            f"its sizes must be powers of two from {LEAST} on, got "
            f"{', '.join(map(str, odd))}, and cannot be filled up: {reason}"
        )
    return None


def _why_not_memory(work: Work, memory: int) -> str | None:
    wide = filled(work)
    least = shared(wide)
    if least <= memory:
        return None
    size = f"{wide.matrix_bytes // KIB} KiB"
    if wide != work:
        size = f"filled up to {size}"
    return (
        f"the matrices, {size}, and what a step computes with need {least // KIB} KiB "
        f"of shared memory, of which a block of threads has {memory // KIB}"
    )


def _why_not_width(work: Work) -> str | None:
    widest = max(n for matrix in work.matrices for n in matrix)
    if widest <= WIDEST:
        return None
    return f"its matrices must have sizes up to {WIDEST}, got {widest}"


def _trouble(eqn: JaxprEqn) -> str | None:
    name = eqn.primitive.name
    sizes = {n for x in (*eqn.invars, *eqn.outvars) for n in _shape(x)}
    odd = sorted(n for n in sizes if n & (n - 1))
    if odd:
        return f"its sizes must be powers of two, got {', '.join(map(str, odd))}"
    if name == "concatenate" and _shape(eqn.outvars[0])[-1] == 2:
        return None  # What older versions of JAX stack with.
    if name == "split" and len(set(eqn.params["sizes"])) > 1:
        sizes = ", ".join(map(str, eqn.params["sizes"]))
        return f"Triton splits in equal parts, got {sizes}"
    if name == "dot_general" and is_batched(eqn):
        return "Triton multiplies matrices alone"
    return None if name in _KNOWN else f"Triton has no `{name}`"


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape
