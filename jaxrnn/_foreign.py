"""What cells of other libraries need to be cells here."""

from typing import Any

import jax

from ._errors import describe
from ._tensor_shape import TensorShape
from ._typing import PyTree, Size


def as_features(where: str, in_features: Any) -> tuple[int, ...]:
    """The shape of one row's inputs.

    Raises:
        TypeError: If it is neither an int nor a tuple of ints.
    """
    shape = (in_features,) if isinstance(in_features, int) else in_features
    if not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape):
        raise TypeError(
            f"{where}: `in_features` must be an int or a tuple of ints, got "
            f"{describe(in_features)}."
        )
    return shape


def sizes_of(tree: PyTree) -> Size:
    """The sizes of leaves `[batch, ...]`, without the batch axis."""
    return jax.tree.map(lambda x: TensorShape(x.shape[1:]), tree)
