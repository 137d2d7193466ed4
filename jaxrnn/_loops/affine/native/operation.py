"""A JAX operation with one program for CPUs, another elsewhere, and a transpose.

No documented JAX function provides such an operation:

* `lax.platform_dependent` sees only the platform, not whether a program is exported. A
  program exported for CPUs would call a library that may be missing where the program
  runs, and `jax.export` rejects such a program.
* No function accepts a transpose and works in all modes: `jax.custom_jvp` accepts no
  transpose, `jax.custom_vjp` lacks forward mode, and `lax.custom_linear_solve` fails in
  reverse mode over forward mode. The undocumented `linear_call` lacks `vmap` and second
  derivatives.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...._base import jax_internals
from ...._base.derivatives import as_function_of, jvp_of_perturbed
from ...._base.errors import is_array
from ...._base.mesh import varying_like
from ...._base.typing import Array, PyTree
from .calls import NO_ROWS, after_first, are_rows, with_joined_axis


def native_or_xla(
    native: Callable,
    xla: Callable,
    *args: PyTree,
    transpose: Callable | None = None,
    refusal: str | None = None,
    rows: PyTree = NO_ROWS,
) -> PyTree:
    """Runs `native(*args)` on CPUs, and `xla(*args)` elsewhere.

    Exported programs also use `xla`, because they may run on a machine without the
    library that `native` calls. JAX differentiates `xla`, except that `transpose`, if
    given, replaces its transpose.

    If `vmap` maps only arrays with rows, the mapped axis joins the rows, and the same
    functions run on more rows. The gradient of an array without rows, such as a kernel,
    is then one sum over all rows. Otherwise, `vmap` maps the functions.

    Args:
        native: A function that closes over no arrays.
        xla: A function that closes over no arrays, with results of the same structure,
            shapes and dtypes.
        *args: The arguments of both functions, trees of arrays.
        transpose: The transpose with respect to the last argument, if both functions
            are linear in this argument. The transpose maps the other arguments and the
            cotangents of the results to the cotangent of the last argument. If None,
            JAX transposes `xla`.
        refusal: The message of a ValueError to raise instead of running `xla`. If None,
            `xla` runs.
        rows: The row axis of each array, or `NO_ROWS`, as a pytree prefix of `args` and
            the results. By default, no array has rows.
    """
    leaves, tree = jax.tree.flatten(args)
    others = jax.tree.structure(args[:-1] if transpose else args)
    count = others.num_leaves
    program, types = jax.make_jaxpr(native, return_shape=True)(*args)
    out = jax.tree.structure(types)
    of_args, of_results = jax.tree.broadcast(rows, (args, types))
    config: Any = jax.config
    precision = config.jax_default_matmul_precision

    def flat(fn: Callable, unflatten: Callable) -> Callable:
        def run(*leaves: object) -> list:
            # JAX traces this function later, when another precision may be set.
            with jax.default_matmul_precision(precision):
                return jax.tree.leaves(fn(*unflatten(leaves)))

        return run

    def with_cotangents(leaves: tuple) -> tuple:
        return *others.unflatten(leaves[:count]), out.unflatten(leaves[count:])

    programs = _Programs(
        native=flat(native, tree.unflatten),
        xla=flat(xla, tree.unflatten),
        transpose=flat(transpose, with_cotangents) if transpose else None,
        types=tuple(program.out_avals),
        count=count,
        refusal=refusal,
        rows=(jax.tree.leaves(of_args), jax.tree.leaves(of_results)),
    )
    return out.unflatten(_operation().bind(*leaves, programs=programs))


@dataclasses.dataclass(frozen=True, eq=False)
class _Programs:
    """The functions of one operation, which map leaves to lists of leaves.

    Attributes:
        native: The function that runs on CPUs.
        xla: The function that runs elsewhere.
        transpose: The transpose of `native` and `xla` with respect to the leaves after
            the first `count`. If None, JAX transposes `xla`.
        types: The types of the results.
        count: The number of leaves before the leaves of the linear argument; if there
            is no transpose, the number of all leaves.
        refusal: The message of an error to raise instead of running `xla`. If None,
            `xla` runs.
        rows: The row axis, or `NO_ROWS`, of each leaf and of each result.
    """

    native: Callable
    xla: Callable
    transpose: Callable | None
    types: tuple
    count: int
    refusal: str | None
    rows: tuple[list, list]


def _run(*leaves: object, programs: _Programs) -> list:
    """Runs the operation outside jit."""
    # Leaves that are not JAX arrays, such as numbers, are on no device.
    arrays = (x for x in leaves if isinstance(x, jax.Array))
    platforms = {device.platform for x in arrays for device in x.devices()}
    is_native = (platforms or {jax.default_backend()}) == {"cpu"}
    if not is_native and programs.refusal is not None:
        raise ValueError(programs.refusal)
    return (programs.native if is_native else programs.xla)(*leaves)


def _lower(ctx: Any, *leaves: object, programs: _Programs) -> Any:
    module = ctx.module_context
    is_on_cpu = tuple(ctx.platforms or module.platforms) == ("cpu",)
    is_native = is_on_cpu and not module.lowering_parameters.for_export
    if not is_native and programs.refusal is not None:
        raise ValueError(programs.refusal)
    run = programs.native if is_native else programs.xla
    return jax_internals.lower_fun(run, multiple_results=True)(ctx, *leaves)


def _push_forward(
    primals: Sequence, tangents: Sequence, *, programs: _Programs
) -> tuple[list, list]:
    """The JVP of the operation, which differentiates XLA's program."""
    _, d_outs = jvp_of_perturbed(programs.xla, primals, tangents)
    return _operation().bind(*primals, programs=programs), d_outs


def _pull_back(cts: Sequence, *leaves: Any, programs: _Programs) -> list:
    """The cotangents of the unknown linear leaves; None for all other leaves."""
    count = programs.count
    is_known = [is_array(x) or isinstance(x, int | float) for x in leaves]
    known = [x for x, is_one in zip(leaves, is_known, strict=True) if is_one]
    unknown = [i for i, is_one in enumerate(is_known) if not is_one]
    zeros = [jnp.zeros(x.shape, x.dtype) for x in programs.types]
    pairs = zip(cts, varying_like(known, zeros), strict=True)
    cts = [ct if is_array(ct) else zero for ct, zero in pairs]
    if programs.transpose is None:
        types = [leaves[i].aval for i in unknown]
        types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in types]
        of_unknown = as_function_of(programs.xla, leaves, unknown)
        pulled = jax.linear_transpose(of_unknown, *types)(cts)
        found = dict(zip(unknown, pulled, strict=True))
    else:
        found = dict(enumerate(programs.transpose(*leaves[:count], *cts), count))
    return [found[i] if i in unknown else None for i in range(len(leaves))]


def _batch(leaves: Any, dims: Any, *, programs: _Programs) -> tuple[list, list]:
    """Applies the operation to more rows or to mapped functions; see `native_or_xla`.

    The results are mapped along axis 0.
    """
    pairs = list(zip(leaves, dims, strict=True))
    size = next(x.shape[axis] for x, axis in pairs if axis is not None)
    leaves = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in pairs]
    is_mapped, (rows, of_results) = [axis is not None for axis in dims], programs.rows
    # If only tangents are mapped, as for a Jacobian, do not treat them as rows, because
    # all other arrays would be repeated for each of them. Do not treat a mapped axis of
    # size 0 as rows, because a native call needs at least one row.
    if size and any(is_mapped[: programs.count]) and are_rows(is_mapped, rows):
        bind = functools.partial(_bind, programs)
        results = with_joined_axis(bind, size, leaves, is_mapped, rows, of_results)
    else:
        results = _bind_mapped(programs, size, leaves, is_mapped)
    return results, [0] * len(results)


def _bind(programs: _Programs, *leaves: Array) -> list:
    """Applies the operation to leaves whose shapes may differ from `programs.types`."""
    types = tuple(jax.make_jaxpr(programs.native)(*leaves).out_avals)
    programs = dataclasses.replace(programs, types=types)
    return _operation().bind(*leaves, programs=programs)


def _bind_mapped(
    programs: _Programs, size: int, leaves: list, is_mapped: list[bool]
) -> list:
    """Applies an operation that maps the functions of `programs` with `vmap`."""
    count, (rows, of_results) = programs.count, programs.rows
    # Map all linear leaves, so that the results of the transpose are mapped too.
    for i in range(count, len(leaves)):
        if not is_mapped[i]:
            leaves[i] = jnp.broadcast_to(leaves[i], (size, *leaves[i].shape))
    axes = *(0 if x else None for x in is_mapped[:count]), *[0] * (len(leaves) - count)
    of_transpose = *axes[:count], *[0] * len(of_results)
    vmap = functools.partial(jax.vmap, axis_size=size)
    pairs = zip(rows, axes, strict=True)
    rows = [n if axis is None else after_first(n) for n, axis in pairs]
    changed = dataclasses.replace(
        programs,
        native=vmap(programs.native, axes),
        xla=vmap(programs.xla, axes),
        transpose=programs.transpose and vmap(programs.transpose, of_transpose),
        rows=(rows, list(map(after_first, of_results))),
    )
    return _bind(changed, *leaves)


@functools.cache
def _operation() -> Any:
    """The operation as a JAX primitive, with its transformation rules."""
    operation = jax_internals.Primitive("native")
    operation.multiple_results = True
    operation.def_impl(_run)
    operation.def_abstract_eval(lambda *_, programs: programs.types)
    jax_internals.register_lowering(operation, _lower)
    jax_internals.primitive_jvps[operation] = _push_forward
    jax_internals.primitive_transposes[operation] = _pull_back
    jax_internals.primitive_batchers[operation] = _batch
    return operation
