"""What the Triton kernel can run: sizes, shared memory and operations."""

from .._autodiff.jax_internals import JaxprEqn
from .machines import KIB
from .operations import SUPPORTED, is_batched, shape_of, why_unsupported
from .padding import SMALLEST, TRITON_ELEMENTWISE, padded, why_not_padded
from .work import Work

# So many columns fill a quarter of the registers; with twice as many the compiler did
# not finish within minutes.
WIDEST = 1024


def why_not(work: Work, memory: int) -> str | None:
    """Why the compiler would not take that work, or None.

    Args:
        work: The cell and the sizes.
        memory: The bytes of shared memory that a block of threads has.
    """
    return (
        _why_not_sizes(work)
        or _why_not_memory(work, memory)
        or _why_not_width(padded(work))
        or why_unsupported(padded(work), SMALLEST, _why_not_operation)
    )


def shared(work: Work) -> int:
    """The most bytes of shared memory that a kernel takes.

    As observed in programs compiled for an H100: all matrices, and the operand and the
    result of a product, which threads exchange.
    """
    exchanged = max(rows + columns for rows, columns in work.matrices)
    return work.matrix_bytes + SMALLEST * 4 * exchanged


def _why_not_sizes(work: Work) -> str | None:
    reason = why_not_padded(work)
    if reason is None:
        return None
    sizes = {n for matrix in work.matrices for n in matrix if n}
    others = sizes - {n for matrix in padded(work).matrices for n in matrix}
    return (
        f"its sizes must be powers of two from {SMALLEST} on, got "
        f"{', '.join(map(str, sorted(others)))}, and cannot be padded: {reason}"
    )


def _why_not_memory(work: Work, memory: int) -> str | None:
    wide = padded(work)
    needed = shared(wide)
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
