"""The arguments for which a program is made."""

import jax

from .._base.errors import describe


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
    """Raises ValueError for a size of `jax.export.symbolic_shape`."""
    for leaf in jax.tree.leaves(examples):
        if not all(isinstance(size, int) for size in leaf.shape):
            raise ValueError(
                f"{where}: `examples` must have fixed sizes, got {describe(leaf)}. "
                "`to_stablehlo` exports for any size."
            )
