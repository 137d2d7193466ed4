"""Compiling a JAX function: how long it takes, and the program's memory."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .timing import timed

Options = Mapping[str, str]


def compiled(
    function: Callable[..., Any],
    *args: Any,
    donate: tuple[int, ...] = (),
    options: Mapping[str, Options] | None = None,
) -> Iterator[tuple[str, Callable[..., Any], dict[str, float]]]:
    """Compiles the function with each choice of compiler options, or the default.

    Yields the name of the choice, the program, and its facts: seconds and bytes. The
    program may overwrite the arguments at the positions in `donate`.
    """
    _warm_up()
    lowered, lower_s = timed(jax.jit(function, donate_argnums=donate).lower, *args)
    for name, chosen in (options or {"": {}}).items():
        program, compile_s = timed(lowered.compile, compiler_options=dict(chosen))
        times = {"lower_s": lower_s, "compile_s": compile_s}
        yield name, program, times | sizes(program)


def sizes(program: Any) -> dict[str, float]:
    """The memory that XLA plans for a compiled program, in bytes; NaN if unknown."""
    plan = program.memory_analysis()
    return {
        f"{kind}_bytes": getattr(plan, f"{kind}_size_in_bytes", float("nan"))
        for kind in ("temp", "host_temp", "argument", "output")
    }


@functools.cache
def _warm_up() -> None:
    """The first compilation of a process also sets up the compiler."""
    jax.jit(lambda x: jax.lax.scan(lambda a, b: (a @ b, a), x, x[None])).lower(
        jnp.ones((2, 2), jnp.float32)
    ).compile()
