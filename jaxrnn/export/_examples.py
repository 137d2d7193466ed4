"""The function and the arguments of which a program is made."""

from collections.abc import Callable

import jax
from jax.experimental import checkify

from .._base.errors import describe
from .._base.typing import PyTree


def without_checks(f: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The function without its checks of values at run time.

    They have effects, which no file can hold.
    """
    checked = checkify.checkify(f, errors=frozenset())
    return lambda *arguments: checked(*arguments)[1]


def check_examples(where: str, examples: tuple) -> None:
    """Raises TypeError unless all leaves have a shape and a dtype."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(examples)
    for path, leaf in leaves:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            name = jax.tree_util.keystr(path[:1]) + jax.tree_util.keystr(path[1:])
            raise TypeError(
                f"{where}: `examples{name}` must be an array or a "
                f"`jax.ShapeDtypeStruct`, got {describe(leaf)}."
            )


def check_fixed_sizes(where: str, examples: tuple) -> None:
    """Raises ValueError for a size of 0, or one of `jax.export.symbolic_shape`."""
    for leaf in jax.tree.leaves(examples):
        if not all(isinstance(size, int) and size for size in leaf.shape):
            raise ValueError(
                f"{where}: `examples` must have fixed sizes above 0, got "
                f"{describe(leaf)}. `to_stablehlo` takes any."
            )
