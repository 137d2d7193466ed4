"""Reads weights, checks their names, shapes and dtypes, and joins and splits them.

Weights are NumPy arrays, except traced weights, which stay JAX arrays. `on_device`
copies weights to the device as the parameters of a cell.
"""

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._base.arguments import check_instance, check_shape
from .._base.errors import Verbatim, check_not_masked, counted, expect
from .._base.math import in_native_order, is_traced
from .._base.typing import DType, Params, PyTree

Weight: TypeAlias = Any
"""A NumPy array, or a traced JAX array."""
Weights: TypeAlias = Mapping[Any, Any]
"""Weights by name, or nested dicts of weights."""
Names: TypeAlias = str | Sequence[str] | None
"""One name, or several; None for all names."""


@dataclasses.dataclass
class Reader:
    """Reads the weights of one layer.

    All weights must have the same dtype, because NumPy silently promotes dtypes when it
    concatenates arrays.

    Attributes:
        weights: The weights by key: arrays or PyTorch tensors.
        prefix: The text before the key in a weight's name, for messages.
        suffix: The text after the key.
        first: The name and the dtype of the first weight that was read.
    """

    weights: Weights
    prefix: str = ""
    suffix: str = ""
    first: tuple[str, DType] | None = None

    def name(self, key: object) -> str:
        """The name of a weight in messages."""
        return f"{self.prefix}{key}{self.suffix}"

    def __call__(self, key: object, *shape: int | None) -> Weight:
        """Checks the weight `key` and returns it. None in `shape` allows any size.

        Raises:
            TypeError: If the weight is not a floating-point array, or its dtype differs
                from the dtype of the first weight.
            ValueError: If the weight is missing or empty, or its shape is not `shape`.
        """
        name = self.name(key)
        if key not in self.weights:
            raise _missing(name, map(self.name, self.weights))
        array = as_weight(name, self.weights[key], shape)
        expect(array.size, name, "not be empty", array)
        self.first = self.first or (name, array.dtype)
        other, dtype = self.first
        fix = "Cast all weights of a layer to one dtype."
        must = f"be {dtype} like `{other}`"
        expect(array.dtype == dtype, name, must, array, fix, error=TypeError)
        return array


def as_weight(name: str, value: object, shape: tuple[int | None, ...]) -> Weight:
    """Converts a value to a floating-point array. None in `shape` allows any size.

    Raises:
        TypeError: If the value is not a floating-point array.
        ValueError: If the shape differs.
    """
    value = from_tensor(name, value)
    kinds = list | tuple | Mapping | str | None
    expect(not isinstance(value, kinds), name, "be an array", value, error=TypeError)
    must = "be an array, not a variable of nnx"
    expect(not hasattr(value, "get_value"), name, must, value, error=TypeError)
    array: Any = value if is_traced(value) else np.asarray(value)
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    expect(is_float, name, "be floating-point", array, error=TypeError)
    check_shape(name, array, shape)
    return array


def from_tensor(name: str, value: Any) -> Weight:
    """Converts a PyTorch tensor to a NumPy array; returns other values unchanged.

    Raises:
        TypeError: If the value is a masked NumPy array.
    """
    check_not_masked(name, value)
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    if str(value.dtype) == "torch.bfloat16":  # NumPy has no bfloat16.
        return np.asarray(value.float()).astype(jnp.bfloat16)
    return np.asarray(value)


def as_names(at: str | Sequence[str]) -> list[str]:
    """Returns the name or names in `at` as a list, without final slashes."""
    names = [at] if isinstance(at, str) else at
    fits = isinstance(names, Sequence) and all(isinstance(each, str) for each in names)
    expect(fits and names, "at", "be a name or a list of names", at, error=TypeError)
    return [name.removesuffix("/") for name in names]


def on_device(weights: PyTree) -> PyTree:
    """Copies weights to the device once, because JAX copies NumPy arrays in each call.

    Without x64, a float64 weight stays a NumPy array. Functions such as `to_torch` then
    return the original values.
    """

    def put(weight: Weight) -> Weight:
        keeps_dtype = weight.dtype == jax.dtypes.canonicalize_dtype(weight.dtype)
        return jnp.array(weight) if keeps_dtype and not is_traced(weight) else weight

    # Under jit, arrays would become tracers, but `to_nnx` needs values of weights.
    with jax.ensure_compile_time_eval():
        return jax.tree.map(put, in_native_order(weights))


def joined(weights: Sequence[Weight], axis: int = 0) -> Weight:
    """Concatenates weights; the result is traced if any weight is traced."""
    numpy = jnp if any(map(is_traced, weights)) else np
    return numpy.concatenate(weights, axis)


def blocks(weight: Weight, number: int) -> list[Weight]:
    """Splits the last axis into blocks of equal size."""
    size = weight.shape[-1] // number
    return [weight[..., i * size : (i + 1) * size] for i in range(number)]


def pick(weights: Weights, key: object, fix: str = "") -> Weight:
    """Returns the weight stored under `key`; raises ValueError if it is missing."""
    if key not in weights:
        raise _missing(key, weights, fix)
    return weights[key]


def _missing(name: object, found: Iterable[object], fix: str = "") -> ValueError:
    fix = f"{fix} " if fix else ""  # The hint precedes the list, which may be long.
    return ValueError(f"`{name}` is missing. {fix}Found: {listed(found)}.")


def prefixes_of_torch(names: Iterable[object]) -> list[str]:
    """The prefixes of PyTorch's recurrent modules whose weights have these names."""
    ends = [re.fullmatch(r"((?:.*\.)?)weight_ih(_l0)?", str(name)) for name in names]
    return [match[1] for match in ends if match]


def flattened(tree: object, name: str = "") -> Params:
    """Flattens nested dicts; joins the names with slashes."""
    if not isinstance(tree, Mapping):
        return {name: tree}
    flat: Params = {}
    for key, value in tree.items():
        own = flattened(value, f"{name}/{key}" if name else str(key))
        twice = own.keys() & flat.keys()
        expect(not twice, "weights", "have one value for each name", listed(twice))
        flat |= own
    return flat


def nested(flat: Weights) -> Params:
    """The inverse of `flattened`."""
    tree: Params = {}
    for name, value in flat.items():
        *outer, key = name.split("/")
        inner = tree
        for each in outer:
            inner = inner.setdefault(each, {})
        inner[key] = value
    return tree


def as_mapping(name: str, value: Any, fix: str = "") -> Weights:
    """Returns `value`; raises TypeError unless it is a mapping."""
    return check_instance(name, value, Mapping, "a dict of weights", fix)


def listed(names: Iterable[object]) -> Verbatim:
    """Joins names with commas for messages; shows at most 40 names."""
    texts = [
        each if len(each) <= 120 else f"{each[:100]}..." for each in map(str, names)
    ]
    more = len(texts) - 40
    rest = [f"and {counted(more, 'other')}"] if more > 0 else []
    return Verbatim(", ".join(texts[:40] + rest) or "nothing")


def check_names(
    name: str,
    found: Collection[object],
    wanted: Collection[object],
    what: str = "",
    fix: str = "",
) -> None:
    """Raises ValueError unless the names of the weights are exactly `wanted`."""
    others = [f"no {each}" for each in wanted if each not in found]
    others += [f"unknown {each}" for each in found if each not in wanted]
    must = f"hold {what or listed(wanted)}"
    expect(not others, name, must, listed(others), fix)


def check_directions(
    name: str, found: int, bidirectional: bool | None, fix: str = ""
) -> None:
    """Raises an error unless `bidirectional` is None or fits the directions found."""
    kinds = bool | np.bool_ | None
    check_instance("bidirectional", bidirectional, kinds, "True, False or None")
    has = "two directions" if found == 2 else "one direction"
    must = f"be None or {found == 2}, because `{name}` has {has}"
    fits = bidirectional in (None, found == 2)
    expect(fits, "bidirectional", must, bidirectional, fix)


def as_prefix(name: str, place: str, mark: str) -> str:
    """Ends `place` with exactly one `mark`, e.g. "encoder" with "encoder."."""
    text = check_instance(name, place, str, "a string").removesuffix(mark)
    return f"{text}{mark}" if text else ""
