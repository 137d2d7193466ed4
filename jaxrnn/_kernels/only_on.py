"""Programs that raise an error if they are compiled for another platform."""

from typing import Any

import jax

from .._autodiff.jax_internals import Primitive, defvectorized, register_lowering
from .._base.typing import Array


def only_on(platform: str, name: str, x: Array) -> Array:
    """x, in a program that can be compiled for one platform alone.

    While a program is traced its platform is unknown: it may be that of this process,
    that of a machine elsewhere, or several.

    Args:
        platform: "tpu" or "cuda", as JAX calls it.
        name: The implementation that requires it.
        x: Returned as it is.

    Raises:
        ValueError: If the program is compiled for another platform; when it is.
    """
    return _only_on_p.bind(x, platform=platform, name=name)


def _lower(ctx: Any, x: Any, *, platform: str, name: str) -> list:
    for other in ctx.platforms or ctx.module_context.platforms:
        if other != platform:
            raise ValueError(
                f"`implementation` {name!r} runs on {platform}, and this is compiled "
                f"for {other}. Leave it out for XLA's loop, which runs everywhere."
            )
    return [x]


_only_on_p = Primitive("only_on")
_compiled = jax.jit(_only_on_p.bind, static_argnames=("platform", "name"))


@_only_on_p.def_impl
def _(x: Array, **of: str) -> Array:
    with jax.disable_jit(False):  # Otherwise it would call itself.
        return _compiled(x, **of)


_only_on_p.def_abstract_eval(lambda x, **_: x)
register_lowering(_only_on_p, _lower)
defvectorized(_only_on_p)
