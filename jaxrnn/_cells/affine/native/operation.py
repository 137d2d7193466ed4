"""An operation with a program for CPUs, one for other platforms, and a transpose.

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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...._base import jax_internals
from ...._base.errors import is_array
from ...._base.sharding import as_varying_as
from ...._base.typing import Array, PyTree


def native_or_xla(
    native: Callable,
    xla: Callable,
    *args: PyTree,
    transpose: Callable | None = None,
    refusal: str | None = None,
) -> PyTree:
    """Runs `native(*args)` on CPUs, and `xla(*args)` elsewhere.

    Exported programs also use `xla`, because they may run on a machine without the
    library that `native` calls. Derivatives are computed from `xla`, except for a given
    `transpose`.

    Args:
        native: A function that closes over no arrays.
        xla: A function that closes over no arrays, with results of the same structure,
            shapes and dtypes.
        *args: The arguments of both functions, trees of arrays.
        transpose: The transpose with respect to the last argument, if both functions
            are linear in this argument. The transpose maps the other arguments and the
            cotangents of the results to the cotangent of the last argument. If None,
            JAX transposes `xla`.
        refusal: The message of a ValueError to raise instead of running `xla`; None to
            run `xla`.
    """
    leaves, tree = jax.tree.flatten(args)
    others = jax.tree.structure(args[:-1] if transpose else args)
    count = others.num_leaves
    program, types = jax.make_jaxpr(native, return_shape=True)(*args)
    out = jax.tree.structure(types)
    config: Any = jax.config
    precision = config.jax_default_matmul_precision

    def flat(fn: Callable) -> Callable:
        def run(*leaves: Any) -> list:
            # JAX traces this function later, when another precision may be set.
            with jax.default_matmul_precision(precision):
                return jax.tree.leaves(fn(*tree.unflatten(leaves)))

        return run

    def flat_transpose(transpose: Callable, *leaves: Any) -> list:
        fixed = others.unflatten(leaves[:count])
        cts = out.unflatten(leaves[count:])
        return jax.tree.leaves(transpose(*fixed, cts))

    pull = functools.partial(flat_transpose, transpose) if transpose else None
    programs = _Programs(
        native=flat(native),
        xla=flat(xla),
        transpose=pull,
        types=tuple(program.out_avals),
        count=count,
        refusal=refusal,
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
        refusal: The message of an error to raise instead of running `xla`; None to run
            `xla`.
    """

    native: Callable
    xla: Callable
    transpose: Callable | None
    types: tuple
    count: int
    refusal: str | None


def _run(*leaves: Any, programs: _Programs) -> list:
    """Runs the operation outside jit."""
    # Skip leaves that are not JAX arrays, because such leaves are on no device.
    arrays = (x for x in leaves if isinstance(x, jax.Array))
    platforms = {device.platform for x in arrays for device in x.devices()}
    is_native = (platforms or {jax.default_backend()}) == {"cpu"}
    return (programs.native if is_native else programs.xla)(*leaves)


def _lower(ctx: Any, *leaves: Any, programs: _Programs) -> Any:
    module = ctx.module_context
    is_on_cpu = tuple(ctx.platforms or module.platforms) == ("cpu",)
    is_native = is_on_cpu and not module.lowering_parameters.for_export
    if not is_native and programs.refusal is not None:
        raise ValueError(programs.refusal)
    run = programs.native if is_native else programs.xla
    return jax_internals.lower_fun(run, multiple_results=True)(ctx, *leaves)


def _push_forward(
    primals: Any, tangents: Any, *, programs: _Programs
) -> tuple[list, list]:
    """The JVP of the operation, which differentiates XLA's program."""
    is_perturbed = [isinstance(d, jax.Array) for d in tangents]

    def of_perturbed(*perturbed: Any) -> list:
        rest = iter(perturbed)
        pairs = zip(primals, is_perturbed, strict=True)
        return programs.xla(*(next(rest) if mark else x for x, mark in pairs))

    perturbed = [x for x, mark in zip(primals, is_perturbed, strict=True) if mark]
    d_perturbed = [d for d in tangents if isinstance(d, jax.Array)]
    _, d_outs = jax.jvp(of_perturbed, perturbed, d_perturbed)
    return _operation().bind(*primals, programs=programs), d_outs


def _pull_back(cts: Any, *leaves: Any, programs: _Programs) -> list:
    """The cotangents of the unknown linear leaves; None for all other leaves."""
    count = programs.count
    if programs.transpose is None:
        return _pull_back_xla(cts, leaves, programs.xla)
    zeros = [jnp.zeros(x.shape, x.dtype) for x in programs.types]
    pairs = zip(cts, as_varying_as(leaves[:count], zeros), strict=True)
    cts = [ct if isinstance(ct, jax.Array) else zero for ct, zero in pairs]
    found = zip(leaves[count:], programs.transpose(*leaves[:count], *cts), strict=True)
    linear = [None if isinstance(x, jax.Array) else ct for x, ct in found]
    return [None] * count + linear


def _pull_back_xla(cts: Any, leaves: tuple, xla: Callable) -> list:
    """Like `_pull_back`, but transposes XLA's program."""
    is_known = [is_array(x) or isinstance(x, int | float) for x in leaves]
    unknown = [i for i, known in enumerate(is_known) if not known]

    def of_unknown(*given: Any) -> list:
        replaced = dict(zip(unknown, given, strict=True))
        return xla(*(replaced.get(i, x) for i, x in enumerate(leaves)))

    types = [leaves[i].aval for i in unknown]
    types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in types]
    results = jax.eval_shape(of_unknown, *types)
    pairs = zip(cts, results, strict=True)
    cts = [ct if is_array(ct) else jnp.zeros(x.shape, x.dtype) for ct, x in pairs]
    found = iter(jax.linear_transpose(of_unknown, *types)(cts))
    return [None if known else next(found) for known in is_known]


def _batch(leaves: Any, dims: Any, *, programs: _Programs) -> tuple[list, list]:
    """Applies the operation to mapped functions, with results mapped along axis 0."""
    pairs = list(zip(leaves, dims, strict=True))
    count = programs.count
    size = next(x.shape[axis] for x, axis in pairs if axis is not None)

    def mapped_first(x: Array, axis: int | None) -> Array:
        if axis is None:
            return jnp.broadcast_to(x, (size, *x.shape))
        return jnp.moveaxis(x, axis, 0)

    # Map all linear leaves, so that the results of the transpose are mapped too.
    leaves = [*leaves[:count], *(mapped_first(x, axis) for x, axis in pairs[count:])]

    def mapped(fn: Callable) -> Callable:
        def run(*leaves: Any) -> list:
            axes = (*dims[:count], *[0] * (len(leaves) - count))
            return jax.vmap(fn, axes, axis_size=size)(*leaves)

        return run

    names = "native", "xla", "transpose"
    given = {n: fn for n in names if (fn := getattr(programs, n)) is not None}
    fields = {n: mapped(fn) for n, fn in given.items()}
    types = tuple(jax.make_jaxpr(fields["native"])(*leaves).out_avals)
    programs = dataclasses.replace(programs, types=types, **fields)
    return _operation().bind(*leaves, programs=programs), [0] * len(types)


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
