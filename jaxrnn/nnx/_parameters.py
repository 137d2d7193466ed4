"""An nnx module that holds a layer's parameters and random stream."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .._base.arguments import as_count, check_instance
from .._base.errors import InvalidType, InvalidValue, describe, error_note
from .._base.hints import unknown_argument
from .._base.math import is_traced
from .._base.trees import named_leaves, with_structure
from .._base.typing import ArrayLike, DType, Key, Params, PyTree
from .._layers.checks import AxisNames, check_axis_names, check_options, name_axes
from .._layers.layer import BoundCells, Layer, in_dtype

Rngs = nnx.Rngs | nnx.RngStream | jax.Array
# The Flax release for the oldest supported JAX calls this function `nnx.pure`.
as_pure = getattr(nnx, "as_pure", None) or nnx.pure


def as_step(in_features: int | PyTree, dtype: DType) -> PyTree:
    """The shapes and dtypes of one step of inputs, from a size or an example.

    Raises:
        TypeError: If `in_features` is neither a size nor an example.
        ValueError: If the size is below 1.
    """
    if isinstance(in_features, int | np.integer):
        size = as_count("in_features", in_features, fix="It is the size of the inputs.")
        return jax.ShapeDtypeStruct((1, size), dtype)
    leaves = jax.tree.leaves(in_features)
    if not leaves or not all(hasattr(leaf, "dtype") for leaf in leaves):
        raise InvalidType(
            "`in_features` must be an int, or one step of inputs as arrays or "
            f"jax.ShapeDtypeStructs, got {describe(in_features)}."
        )
    return jax.eval_shape(lambda tree: in_dtype(dtype, tree), in_features)


def make_params(
    layer: Layer,
    in_features: int | PyTree,
    rngs: nnx.Rngs,
    dtype: DType,
    axis_names: AxisNames | None = None,
) -> tuple[Params, PyTree]:
    """The `nnx.Param`s of a layer, and the types of one step of inputs.

    Raises:
        TypeError: If `rngs` is not `nnx.Rngs`; also as in `as_step`.
        ValueError: If `axis_names` does not match the parameters; also as in `as_step`.
    """
    check_instance("rngs", rngs, nnx.Rngs, "nnx.Rngs", "Create them: `nnx.Rngs(0)`.")
    step = as_step(in_features, dtype)
    params = layer.init(rngs.params(), step, dtype)
    check_axis_names(axis_names, params)
    boxed = name_axes(axis_names, params, lambda x, n: nnx.Param(x, out_sharding=n))
    return nnx.data(jax.tree.map(_as_param, boxed, is_leaf=_is_variable)), step


def _is_variable(leaf: object) -> bool:
    return isinstance(leaf, nnx.Variable)


def _as_param(leaf: Any) -> nnx.Variable:
    return leaf if _is_variable(leaf) else nnx.Param(leaf)


def check_same_shapes(own: Params, params: Params) -> None:
    """Raises ValueError unless `params` have the names and shapes of `own`."""
    known = dict(named_leaves("params", own))
    given = dict(named_leaves("params", params))
    for name in known | given:
        old = known.get(name)
        new = given.get(name)
        if old is None or new is None or old.shape != jnp.shape(new):
            raise InvalidValue(
                f"`{name}` must match the module's parameter ({describe(old)}), got "
                f"{describe(new)}. `in_features` must be the size of the cell's inputs."
            )


def _in_place_of(old: jax.Array, new: ArrayLike) -> jax.Array:
    """The new array, with the dtype and the sharding of the old array."""
    array = jnp.asarray(new).astype(old.dtype)
    if is_traced(old) or len(old.sharding.device_set) == 1:
        return array
    return jax.device_put(array, old.sharding)


def draw_key(rngs: Rngs | None, stream: str) -> Key:
    """The next key of the stream, or `rngs` itself if it is a key.

    Raises:
        TypeError: If `rngs` is not `nnx.Rngs`, a stream or a key.
    """
    if isinstance(rngs, nnx.Rngs):
        return rngs[stream]()
    if isinstance(rngs, nnx.RngStream):
        return rngs()
    if isinstance(rngs, jax.Array):
        return rngs
    raise InvalidType(
        f"`rngs` must be nnx.Rngs, a stream or a key, got {describe(rngs)}."
    )


class HoldsLayer(nnx.Module):
    """A module with a layer's parameters, and a random stream if a cell needs one.

    Raises:
        TypeError: If an option is unknown or has the wrong type.
        ValueError: If `axis_names` does not match the parameters, or if a dtype is not
            floating-point.
    """

    # The options of the constructor, with their defaults.
    defaults: ClassVar[dict[str, Any]] = {
        "param_dtype": jnp.float32,
        "axis_names": None,
        "deterministic": False,
        "rng_collection": "dropout",
    }
    deterministic: bool
    rng_collection: str

    def __init__(
        self,
        layer: Layer,
        in_features: int | PyTree,
        *,
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        for name in options:
            if name not in self.defaults:
                raise unknown_argument(type(self).__name__, name, self.defaults)
        options = self.defaults | options
        check_options(**options)
        dtype = options.pop("param_dtype")
        axis_names = options.pop("axis_names")
        for name, value in options.items():
            setattr(self, name, value)
        self.layer = layer
        self.params, step = make_params(layer, in_features, rngs, dtype, axis_names)
        self.is_random = layer.draws_random_numbers(as_pure(self.params), step, dtype)
        self.rngs = nnx.data(None)
        if self.is_random:
            source = f"from the stream {self.rng_collection!r}"
            with error_note(f"The cell draws random numbers {source}."):
                self.rngs = rngs[self.rng_collection].fork()

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets whether calls are deterministic by default; called by `nnx.view`."""
        if deterministic is not None:
            self.deterministic = deterministic

    def set_cells(self, *cells: BoundCells) -> None:
        """Copies the parameters of bound cells into the module.

        Args:
            *cells: A bound cell, or forward cells and backward cells, as a converter
                returns them.

        Raises:
            TypeError: If an argument is not a bound cell.
            ValueError: If a bound cell is not one of this module's cells, or has inputs
                of a different size.
        """
        own = as_pure(self.params)
        params = self.layer.params_of(*cells)
        check_same_shapes(own, params)
        arrays = jax.tree.map(_in_place_of, own, params)
        # `nnx.update` expects dicts instead of lists. The conversion keeps the order of
        # the leaves.
        names = nnx.to_pure_dict(nnx.state(self.params))
        nnx.update(self.params, with_structure(names, arrays))

    def get_cells(self) -> BoundCells:
        """The module's bound cells, in the form that `set_cells` accepts."""
        return self.layer.bind(as_pure(self.params))

    def _draw_key(self, deterministic: bool | None, rngs: Rngs | None) -> Key | None:
        """The key for one call, or None if the call is deterministic.

        Raises:
            TypeError: If `deterministic` is not a bool, or if `rngs` is not `nnx.Rngs`,
                a stream or a key.
        """
        check_options(deterministic=deterministic)
        if deterministic is None:
            deterministic = self.deterministic
        if deterministic or not self.is_random:
            return None
        rngs = self.rngs if rngs is None else rngs
        return draw_key(rngs, self.rng_collection)
