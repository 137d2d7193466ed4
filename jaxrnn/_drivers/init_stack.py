"""Parameters for the layers of a bidirectional stack."""

from collections.abc import Sequence
from typing import Any

import jax

from .._base.arguments import check_both_lists
from .._base.cell_keys import check_key, fold
from .._base.errors import InvalidType, describe, error_note
from .._base.one_step import output_of
from .._base.typing import DType, Key, Params, PyTree, Shaped
from .bidirectional import joined


def init_stack_bidirectional(
    cells_fw: Sequence[Any],
    cells_bw: Sequence[Any],
    key: Key,
    inputs: Shaped | PyTree,
    dtype: DType | None = None,
) -> tuple[list[Params], list[Params]]:
    """Creates parameters for the cells of `stack_bidirectional_dynamic_rnn`.

    The cells of the lowest layer receive `inputs`. The cells of each other layer
    receive both outputs of the layer below, concatenated.

    Args:
        cells_fw: A sequence of unbound cells, one for each layer.
        cells_bw: The unbound cells of the backward direction, one for each layer.
        key: A random key.
        inputs: One step of inputs, `[batch, depth]` or a nest, as arrays or as
            `jax.ShapeDtypeStruct`s; only shapes and dtypes are used.
        dtype: The dtype of the parameters; by default the `dtype` of each cell or, if
            that is None, the dtype of the inputs.

    Returns:
        `(params_fw, params_bw)`: two lists with the parameters of each layer, as
        returned by the `init` method of its cell.

    Raises:
        TypeError: If `key` is not a random key, or if a cell has no `init`.
        ValueError: If `cells_fw` and `cells_bw` are not lists of the same length, or if
            the outputs of a layer cannot be concatenated.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> cells = [jaxrnn.GRUCell(5), jaxrnn.GRUCell(2)]
        >>> step = jax.ShapeDtypeStruct((4, 3), jnp.float32)
        >>> params_fw, params_bw = jaxrnn.init_stack_bidirectional(
        ...     cells, cells, jax.random.key(0), step
        ... )
        >>> [p["gates"]["kernel"].shape for p in params_fw]  # Rows: inputs and state.
        [(8, 10), (12, 4)]
    """
    check_both_lists(cells_fw, cells_bw)
    check_key(key)
    params: tuple[list[Params], list[Params]] = [], []
    for i, cells in enumerate(zip(cells_fw, cells_bw, strict=True)):
        outputs = []
        with error_note(f"Raised by layer {i}."):
            for n, (layers, cell) in enumerate(zip(params, cells, strict=True)):
                _check_has_init(f"{('cells_fw', 'cells_bw')[n]}[{i}]", cell)
                layers.append(cell.init(fold(key, 2 * i + n), inputs, dtype))
                outputs.append(output_of(cell, layers[i], inputs, dtype))
            inputs = jax.eval_shape(lambda *o: joined(*o, axis=1), *outputs)
    return params


def _check_has_init(name: str, cell: Any) -> None:
    if isinstance(cell, type) or not hasattr(cell, "init"):
        raise InvalidType(
            f"`{name}` must be a cell with `init`, such as "
            f"`jaxrnn.LSTMCell(64)`, got {describe(cell)}. Pass unbound cells."
        )
