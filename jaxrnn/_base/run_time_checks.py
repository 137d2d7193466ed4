"""Run-time checks of values with `checkify`."""

from collections.abc import Callable

from jax.experimental import checkify

from .typing import PyTree


def without_checks(f: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Returns the function without its run-time checks.

    Checks have effects, which exported files cannot represent.
    """
    checked = checkify.checkify(f, errors=frozenset())
    return lambda *arguments: checked(*arguments)[1]
