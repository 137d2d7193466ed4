"""Embeddings of ids as the inputs of a cell."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp

from .._base.arguments import as_count, check_functions
from .._base.cell_keys import apply_cell, apply_cell_sequence
from .._base.errors import describe
from .._base.gathers import read_at
from .._base.typing import Array, DType, Initializer, Key, Params, PyTree, Shaped
from .._cells.hyperparameters import set_field
from .._cells.initializers import ParamSpec
from .._time.steps import Steps
from .._wrappers.own_params import ParamsWrapper


def _unit_variance(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    """Uniform numbers of variance 1."""
    limit = math.sqrt(3)
    return jax.random.uniform(key, shape, dtype, -limit, limit)


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class EmbeddingWrapper(ParamsWrapper):
    """Gives a cell the embeddings of ids: `cell(embedding[x])`.

    Shapes: inputs `[batch, 1]` or `[batch]`, integers in `[0, embedding_classes)`;
    `embedding` `[embedding_classes, embedding_size]`. The embedding of another id is
    NaN; TensorFlow raises an error on a CPU and has zeros on a GPU. State and output
    are those of the wrapped cell, whose parameters are under its scope, such as
    `gru_cell`.

    Attributes:
        cell: The wrapped cell.
        embedding_classes: The number of ids.
        embedding_size: The size of an embedding.
        initializer: For the embeddings; None for uniform numbers of variance 1.
        reuse: Accepted for compatibility with TensorFlow; not used.

    Raises:
        TypeError: If `cell` is not an RNNCell, or a field is of the wrong kind.
        ValueError: If `embedding_classes` or `embedding_size` is not positive.

    Source: `tf.contrib.rnn.EmbeddingWrapper`.
    """

    embedding_classes: int
    embedding_size: int
    initializer: Initializer | None = None
    reuse: Any = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = "EmbeddingWrapper"
        for field in ("embedding_classes", "embedding_size"):
            count = as_count(name, field, getattr(self, field), fix="")
            set_field(self, **{field: count})
        if self.initializer is not None:
            check_functions(name, initializer=self.initializer)

    def own_specs(self, depth: int) -> dict[str, Any]:
        """The embeddings."""
        del depth
        shape = (self.embedding_classes, self.embedding_size)
        return {"embedding": ParamSpec(shape, self.initializer or _unit_variance)}

    def init(self, key: Key, inputs: Shaped | PyTree, dtype: DType = None) -> Params:
        """Fresh parameters; see `RNNCell.init`.

        Without a `dtype`, theirs is that of the wrapped cell, or float32.

        Raises:
            ValueError: If `inputs` are not `[batch, 1]` or `[batch]`.
            TypeError: If they are not integers, or `key` is not a random key.
        """
        _check_ids(inputs)
        shape = (inputs.shape[0], self.embedding_size)
        embedded = jax.ShapeDtypeStruct(shape, dtype or jnp.float32)
        return self._init(key, 0, embedded, dtype)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`.

        Raises:
            ValueError: If `inputs` are not `[batch, 1]` or `[batch]`, or a parameter is
                missing.
            TypeError: If they are not integers.
        """
        _check_ids(inputs)
        own, _ = self.split_params(params)
        embedded = self._embed(own, inputs)
        _, inner = self._checked(params, embedded, key)
        return apply_cell(self.cell, inner, embedded, state, key)

    def apply_sequence(
        self,
        params: Params,
        inputs: PyTree,
        state: PyTree,
        steps: Steps,
        keys: Callable[[Array], Any] | None = None,
        implementation: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """All embeddings, then the cell's sequences; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the cell declines.
        """
        own, inner = self.split_params(params)
        inputs = self._embed(own, inputs, axes=2)
        steps = steps.with_stand_in(inputs, state)
        return apply_cell_sequence(
            self.cell, inner, inputs, state, steps, keys, implementation
        )

    def _embed(self, params: Params, ids: Array, axes: int = 1) -> Array:
        """The embeddings of ids with so many axes, or with one of size 1 besides."""
        if "embedding" not in params:
            raise ValueError(
                "EmbeddingWrapper: `params` must hold `embedding`, got "
                f"{', '.join(params) or 'nothing'}."
            )
        ids = ids.reshape(ids.shape[:axes]).astype(jnp.int32)
        last = self.embedding_classes - 1
        embedded = read_at(params["embedding"], jnp.clip(ids, 0, last))
        is_known = jnp.expand_dims((ids >= 0) & (ids <= last), axes)
        return jnp.where(is_known, embedded, jnp.nan)


def _check_ids(inputs: Any) -> None:
    shape, dtype = getattr(inputs, "shape", None), getattr(inputs, "dtype", None)
    if shape is None or dtype is None or not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(
            "EmbeddingWrapper: `inputs` must be an array of integers, got "
            f"{describe(inputs)}."
        )
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise ValueError(
            "EmbeddingWrapper: `inputs` of one step must be [batch, 1] or [batch], got "
            f"{describe(inputs)}. Pass ids[:, 0] of ids [batch, time] to `init`, and "
            "`ids[..., None]` to a driver; embed several ids a step beforehand."
        )
