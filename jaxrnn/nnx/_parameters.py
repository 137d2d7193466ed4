"""Parameters and random streams of nnx modules."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .._base.arguments import as_count, check_instance
from .._base.errors import describe, describe_leaves
from .._base.expect import expect
from .._base.math import is_traced
from .._base.trees import named_leaves
from .._base.typing import Array, ArrayLike, DType, Key, Params, PyTree
from .._cells.base import check_rnn_cell
from .._cells.bound import BoundCell
from .._layers.cells import AxisNames, HoldsCells, check_axis_names, name_axes

Rngs = nnx.Rngs | nnx.RngStream | jax.Array
# Flax 0.12.6 and older call this function `nnx.pure`.
as_pure = getattr(nnx, "as_pure", None) or nnx.pure


class _Signature:
    """The signature of a class's constructor, which nnx's metaclass hides."""

    def __get__(self, instance: object | None, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError  # `inspect` then reads the signature of `__call__`.
        signature = inspect.signature(functools.partial(owner.__init__, None))
        parameters = signature.parameters.values()
        return signature.replace(parameters=[_without_initvar(p) for p in parameters])


def _without_initvar(parameter: inspect.Parameter) -> inspect.Parameter:
    kind = parameter.annotation
    return parameter.replace(annotation=getattr(kind, "type", kind))


class FieldsModule(nnx.Module):
    """An nnx module that is a dataclass."""

    __signature__ = _Signature()

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, list):  # nnx hashes attributes, but lists have no hash.
            value = tuple(value)
        for cell in value if isinstance(value, tuple) else [value]:
            # nnx would reject the arrays of a bound cell with a less clear error.
            if isinstance(cell, BoundCell):
                check_rnn_cell(name, cell)
        super().__setattr__(name, value)


def make_params(
    module: HoldsCells,
    in_features: int | PyTree,
    rngs: nnx.Rngs,
    dtype: DType,
    axis_names: AxisNames | None = None,
) -> Params:
    """The `nnx.Param`s of a module's cells.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `axis_names` does not match the parameters, or if a size is below
            1.
    """
    check_instance(
        "rngs", rngs, nnx.Rngs, "nnx.Rngs", "For example, pass `nnx.Rngs(0)`."
    )
    step = _as_step(in_features)
    names = module._cells()
    keys = jax.random.split(rngs.params(), len(names))
    params = {
        name: module._init_part(name, key, step, dtype)
        for name, key in zip(names, keys, strict=True)
    }
    boxed = name_axes(axis_names, params, _as_param)
    check_axis_names(axis_names, params)
    return nnx.data(boxed)


def _as_param(array: Array, names: tuple[str | None, ...]) -> nnx.Param:
    return nnx.Param(array, out_sharding=names) if names else nnx.Param(array)


def _as_step(in_features: int | PyTree) -> PyTree:
    """The types of one step of inputs, from a size or an example.

    Raises:
        TypeError: If `in_features` is neither a size nor an example.
        ValueError: If the size is below 1.
    """
    if isinstance(in_features, int | np.integer):
        size = as_count("in_features", in_features, fix="Pass the size of the inputs.")
        return jax.ShapeDtypeStruct((1, size), jnp.float32)
    leaves = jax.tree.leaves(in_features)
    if not leaves or not all(hasattr(leaf, "dtype") for leaf in leaves):
        raise TypeError(
            "`in_features` must be an int, or one step of inputs as arrays or "
            f"jax.ShapeDtypeStructs, got {describe_leaves(in_features)}."
        )
    return in_features


def check_fits(own: Params, params: Params) -> None:
    """Raises ValueError unless `params` have the names and shapes of `own`.

    Raises TypeError for complex parameters in place of real ones.
    """
    known = dict(named_leaves("params", own))
    given = dict(named_leaves("params", params))
    missing = [name for name in known if given.get(name) is None]
    unknown = [name for name in given if name not in known]
    fix = "Bind each cell to parameters from its `init` or from a converter."
    if missing:
        names = ", ".join(missing)
        raise ValueError(
            "the bound cells must have all parameters of the module, got cells "
            f"without {names}. {fix}"
        )
    if unknown:
        names = ", ".join(unknown)
        raise ValueError(
            "the bound cells must have only the module's parameters, got the unknown "
            f"{names}. {fix}"
        )
    for name, old in known.items():
        if old.shape != jnp.shape(given[name]):
            raise ValueError(
                f"`{name}` must have the shape of the module's parameter "
                f"({describe(old)}), got {describe(given[name])}. Check that "
                "`in_features` is the size of the inputs."
            )
        dtype = jnp.result_type(given[name])
        is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
        must = f"be real like the module's parameter ({describe(old)})"
        fix = f"Create the module with `param_dtype=jnp.{dtype}`."
        fits = jnp.iscomplexobj(old) or not is_complex
        expect(fits, name, must, given[name], fix, error=TypeError)


def in_place_of(old: Array, new: ArrayLike) -> Array:
    """The new array, with the dtype and the sharding of the old array."""
    array = jnp.asarray(new).astype(old.dtype)
    if is_traced(old) or not old.committed:
        return array
    return jax.device_put(array, old.sharding)


def draw_key(rngs: Rngs | None, stream: str) -> Key:
    """The next key of the stream, or `rngs` itself if it is a key.

    Raises:
        TypeError: If `rngs` is neither `nnx.Rngs`, nor a stream, nor a key.
    """
    if isinstance(rngs, nnx.Rngs):
        return rngs[stream]()
    if isinstance(rngs, nnx.RngStream):
        return rngs()
    if isinstance(rngs, jax.Array):
        return rngs
    raise TypeError(
        f"`rngs` must be nnx.Rngs, a stream or a key, got {describe(rngs)}."
    )
