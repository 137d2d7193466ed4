"""Dataclass fields that declare and check the hyperparameters of a cell.

    @fields.dataclass
    class LeakyCell(AffineCell):
        num_units: int = fields.size()
        leak: float = fields.number(0.1, low=0, high=1)

When an object is created, the base class `Hyperparameters` runs the checks in the order
of the fields, and stores the values that the checks return. To check several fields
together, a class defines `__post_init__`, and calls `super().__post_init__()` first.
Objects are compared, shown and pickled by value.
"""

import copy
import dataclasses
import functools
import math
import numbers
import re
import sys
import types
import typing
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .._base import arguments
from .._base.arguments import check_function, check_instance
from .._base.errors import Verbatim, describe, expect, is_array, name_of
from .._base.hints import with_hints
from .._base.math import is_traced
from .._base.trees import TensorShape, size_shapes
from .._base.typing import Activation, Array, DType, Initializer, PyTree, Size
from .step_checks import check_floating

T = TypeVar("T")

Check: TypeAlias = Callable[[str, Any], Any]
"""`check(name, value)` returns the value that a field stores, or raises."""

ActivationLike: TypeAlias = Any
"""None, the name of a Keras activation, or a function; stored as the function."""

Unused: TypeAlias = Any
"""The value of an argument that has no effect."""


# Each function below returns a field, but is annotated with the type of the field's
# value, as `dataclasses.field` is. Fields of the functions in `field_specifiers` have a
# default only if the call has `default=`, which type checkers read. Fields of the other
# functions, such as `number`, always have a default.
def checked(check: Check, *, default: object = dataclasses.MISSING) -> Any:
    """Declares a field that stores the value that `check(name, value)` returns.

    If `default` is None, the field also accepts None, without a check.
    """
    if default is None:
        check = optional(check)
    return dataclasses.field(default=default, metadata={"check": check})


def size(*, default: Any = dataclasses.MISSING) -> int:
    """Declares a field for a size, an integer of at least 0.

    As in TensorFlow, a cell may have 0 units. Without `default`, the field is a
    required argument.
    """
    return count(default=default, least=0)


def count(
    *,
    default: object = dataclasses.MISSING,
    least: int = 1,
    most: int = arguments.INT32_MAX,
    fix: str = "",
) -> int:
    """Declares a field for an integer in `[least, most]`.

    The error for other values ends with `fix`. Without `default`, the field is a
    required argument.
    """
    check = functools.partial(arguments.as_count, least=least, most=most, fix=fix)
    return checked(check, default=default)


def fix_of_size(value: object) -> str:
    """Returns advice if an int is in the place of a field of another type, else "".

    Users of PyTorch's `LSTM(8, 16)` pass the size of the inputs and the size of the
    state. jaxrnn's cells would take the second number for another field.
    """
    is_size = type(value) is int and value > 1
    text = "Omit the size of the inputs, which `init` reads from the inputs."
    return text if is_size else ""


def function(*, default: object = dataclasses.MISSING) -> Any:
    """Declares a field for a function."""
    return checked(check_function, default=default)


def number(
    default: float | None, low: float = -math.inf, high: float = math.inf
) -> float:
    """Declares a field for a number in `[low, high]`, with the default `default`.

    The field stores a float.
    """
    check = functools.partial(check_number, low=low, high=high)
    return checked(check, default=default)


def flag(default: bool) -> bool:
    """Declares a field for a bool, with the default `default`."""

    def check(name: str, value: Any) -> bool:
        return arguments.as_bool(name, value, fix_of_size(value))

    return checked(check, default=default)


def activation(
    default: Activation | str | None = None, none: Activation | str = jnp.tanh
) -> Any:
    """Declares a field for an activation, stored as a function.

    The value may be a function, the name of a Keras activation or None, which selects
    the activation `none`. If the value is missing, `default` replaces it.
    """

    def check(name: str, value: Any) -> Activation:
        return resolve_activation(none if value is None else value, name)

    return dataclasses.field(default=default, metadata={"check": check})


def initializer() -> Initializer | None:
    """Declares a field for an initializer `(key, shape, dtype) -> array`, or None."""
    what = "a function (key, shape, dtype) or None"

    def check(name: str, value: Any) -> Initializer:
        return check_function(name, value, what, fix_of_size(value))

    metadata = {"check": optional(check), "is_read_by_steps": False}
    return dataclasses.field(default=None, metadata=metadata)


def sizes(*, default: object = dataclasses.MISSING) -> Size:
    """Declares a field for the sizes of a state, an output or inputs.

    The value is a nest of ints and shapes.
    """

    def check(name: str, value: Size) -> Size:
        size_shapes(value, name)
        # Copy the nest, which the caller may modify later.
        return jax.tree.map(lambda n: n, value)

    return checked(check, default=default)


def name(default: str | None = None) -> str | None:
    """Declares a field for a step's name in profiles, with the default `default`."""
    what = "a string or None"
    check = functools.partial(check_instance, kinds=str | None, what=what)
    return checked(check, default=default)


def dtype() -> DType | None:
    """Declares a field for a floating-point dtype, or None."""
    return checked(as_floating, default=None)


def unused() -> Unused:
    """Declares a field for a TensorFlow argument that cells and comparisons ignore."""
    return dataclasses.field(default=None, compare=False)


@typing.dataclass_transform(
    eq_default=False,
    frozen_default=True,
    field_specifiers=(dataclasses.field, checked, size, sizes, count, function),
)
def dataclass(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen dataclass with the comparison and repr of its base class."""
    return with_hints(dataclasses.dataclass(frozen=True, repr=False, eq=False)(cls))


def set_field(values: object, name: str, value: object) -> None:
    """Sets a field of a frozen dataclass; only for `__post_init__`."""
    object.__setattr__(values, name, value)


def check_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> float:
    """The number `value` as a float.

    Raises:
        TypeError: If `value` is not a number. Arrays with axes and traced arrays are
            rejected, because they cannot become a hashable float.
        ValueError: If `value` is not in `[low, high]`.
    """
    is_scalar = is_array(value) and not (value.ndim or is_traced(value))
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    fix, got = "Use a Python number.", value
    if is_traced(value):
        got = Verbatim(f"a traced {describe(value)}")
        fix = "Use a Python number, or an array that `jit` or `vmap` does not trace."
        if name == "forget_bias":
            fix += " Or pass `forget_bias=0`, and add the traced value to the bias of "
            fix += "the forget gate in the parameters."
        if name.endswith("keep_prob"):
            fix += " To turn dropout off, bind the cell without a key."
    expect(is_scalar or is_real, name, "be a number", got, fix, error=TypeError)
    number = float(value)
    expect(low <= number <= high, name, f"be in [{low}, {high}]", number)
    return number


def optional(check: Check) -> Check:
    """Returns `check`, extended to accept None."""

    def check_unless_none(name: str, value: object) -> Any:
        return None if value is None else check(name, value)

    return check_unless_none


def as_floating(name: str, value: DType) -> DType:
    """The dtype that `value` names; raises unless it is floating-point."""
    dtype = arguments.as_dtype(value, name)
    check_floating(name, dtype)
    return dtype


def gelu(x: Array) -> Array:
    """GELU without the approximation by tanh."""
    return jax.nn.gelu(x, approximate=False)


def hard_sigmoid(x: Array) -> Array:
    """Keras 2's hard sigmoid, with slope 0.2; `jax.nn.hard_sigmoid` has slope 1/6."""
    return jnp.clip(0.2 * x + 0.5, 0.0, 1.0)


def leaky_relu(x: Array) -> Array:
    """Keras's leaky ReLU, with slope 0.2; `jax.nn.leaky_relu` has slope 0.01."""
    return jax.nn.leaky_relu(x, 0.2)


def linear(x: Array) -> Array:
    """The identity."""
    return x


ACTIVATIONS: dict[str, Activation] = {
    "elu": jax.nn.elu,
    "exponential": jnp.exp,
    "gelu": gelu,
    "hard_sigmoid": hard_sigmoid,
    "leaky_relu": leaky_relu,
    "linear": linear,
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softmax": jax.nn.softmax,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def resolve_activation(
    activation: Activation | str | None, name: str = "activation"
) -> Activation:
    """The activation function: tanh for None, the Keras activation for a name.

    Error messages refer to the argument as `name`.

    Raises:
        ValueError: If no activation has that name.
        TypeError: If `activation` is neither None, a string nor a function. A class is
            rejected, because calling it creates an object.
    """
    if activation is None:
        return jnp.tanh
    if isinstance(activation, str):
        must = f"be one of {', '.join(map(repr, ACTIVATIONS))}, or a function"
        expect(activation in ACTIVATIONS, name, must, activation)
        return ACTIVATIONS[activation]
    what = "None, a name or a function"
    return check_function(name, activation, what, fix_of_size(activation))


def run_checks(values: Any, assign: Callable[[Any, str, Any], None]) -> None:
    """Checks each field of a dataclass; assigns the value that the check returns."""
    for field in dataclasses.fields(values):
        if check := field.metadata.get("check"):
            value = getattr(values, field.name)
            assign(values, field.name, check(field.name, value))


@dataclass
class Hyperparameters:
    """A dataclass compared by class and value, as static arguments of jit must be.

    A subclass need not be a dataclass: all attributes of an object are compared.
    """

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Raises TypeError if a subclass declares fields, but is not a dataclass."""
        for each in cls.__mro__:
            # The decorator replaces `Field` objects, so a class that still has one was
            # not decorated.
            if any(isinstance(x, dataclasses.Field) for x in vars(each).values()):
                name = each.__name__
                text = "Decorate the class with `@fields.dataclass`."
                raise TypeError(f"{name} declares fields, but is no dataclass. {text}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Checks the fields; a subclass adds checks of several fields together."""
        run_checks(self, set_field)

    def __eq__(self, other: object) -> bool:
        """Compares classes and values.

        1 and True are unequal, because they may lead to different programs.
        """
        if not isinstance(other, Hyperparameters) or type(self) is not type(other):
            return False
        return self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        """Lists the values that differ from their defaults, with functions by name."""
        parts = []
        for name, field in self._attributes().items():
            value = getattr(self, name)
            if field is not None:
                # Types are compared too, because NumPy's dtype float64 equals None.
                is_default = as_typed(value) == as_typed(field.default)
                if is_default or not (field.repr and field.compare):
                    continue
            parts.append(f"{name}={name_of(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            """Raises TypeError for `weak_type`, an attribute of arrays.

            `jax.jit` treats an object with a `dtype` as an array: it reads `weak_type`,
            and replaces the object with a tracer, which has no `bind`. If reading
            `weak_type` raises a TypeError, the error of `jax.jit` names the argument,
            and suggests `static_argnames`.
            """
            if name == "weak_type":
                text = "Bind the cell, or name the argument in `static_argnames`."
                raise TypeError(f"a cell is not an array, got {self!r}. {text}")
            # If a property of this name raised an AttributeError, raise it again.
            object.__getattribute__(self, name)

    def __deepcopy__(self, memo: dict) -> "Hyperparameters":
        # A copy of a callable object, such as `jax.nn.relu`, would not equal the
        # original, so a copy of the dataclass shares all values.
        twin = copy.copy(self)
        memo[id(self)] = twin
        return twin

    # A pickle stores `(name, None)` for a Keras activation, and `(None, value)` for any
    # other value. Activations are stored by name because pickle cannot find JAX's
    # wrapped functions, and because functions of this private module may move.
    def __getstate__(self) -> dict[str, tuple]:
        names = {id(function): name for name, function in ACTIVATIONS.items()}
        named = {field: names.get(id(value)) for field, value in vars(self).items()}
        return {k: (n, None if n else getattr(self, k)) for k, n in named.items()}

    def __setstate__(self, state: dict[str, tuple]) -> None:
        for field, (name, value) in state.items():
            vars(self)[field] = ACTIVATIONS[name] if name else value

    def _value(self) -> tuple:
        attributes = self._attributes().items()
        names = [name for name, field in attributes if field is None or field.compare]
        return tuple((name, as_typed(getattr(self, name))) for name in names)

    def _attributes(self) -> dict[str, dataclasses.Field | None]:
        """Maps each hyperparameter's name to its dataclass field, or to None."""
        attributes: dict[str, Any] = {f.name: f for f in dataclasses.fields(self)}
        for name in getattr(self, "__dict__", {}):
            if name == "__orig_class__":  # Python sets this for `OwnCell[int](...)`.
                continue
            if not isinstance(getattr(type(self), name, None), cached_property):
                attributes.setdefault(name, None)
        return attributes


def as_typed(tree: PyTree) -> tuple:
    """Returns a hashable form of `tree` that compares types as well as values.

    A tuple differs from a named tuple, 1 from True, and -0.0 from 0.0, because programs
    with these constants may differ. NaN equals NaN.
    """
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: x is None)
    return treedef, tuple(zip(map(type, leaves), map(_as_value, leaves), strict=True))


def _as_value(leaf: Any) -> Any:
    """Returns the leaf or, for a closure of JAX, its code and the values that it reads.

    `jax.nn.initializers.glorot_uniform()` returns a new function in each call. Cells
    with two such functions must be equal, because equal cells share programs. A closure
    of the user is compared by identity, because the variables that it reads may change.
    """
    if isinstance(leaf, float | complex | np.floating):
        return repr(leaf)
    if isinstance(leaf, types.FunctionType) and leaf.__closure__:
        module = leaf.__globals__.get("__name__", "")
        if module.partition(".")[0] == "jax" and not vars(leaf):
            cells = tuple(cell.cell_contents for cell in leaf.__closure__)
            read = cells, leaf.__defaults__, leaf.__kwdefaults__
            return (
                (module, leaf.__code__, as_typed(read)) if is_constant(read) else leaf
            )
    return leaf


# Values of these types cannot change.
_CONSTANTS = {bool, int, float, complex, str, bytes, types.NoneType, TensorShape}
_CONSTANTS |= {np.float32, np.float64}


def is_constant(value: object) -> bool:
    """Whether a value can never change, so that equal cells may share a program.

    Only built-in cells and the functions of JAX, NumPy and this package are constant.
    Other objects may change, and other functions may read globals or a closure.
    """
    # An object of a subclass, such as a float with attributes, may change.
    if type(value) in _CONSTANTS or isinstance(value, np.dtype):
        return True
    if type(value) is tuple:
        return all(map(is_constant, value))
    if isinstance(value, Hyperparameters):
        read = vars(value).copy()
        for field in dataclasses.fields(value):
            if not field.metadata.get("is_read_by_steps", True):
                del read[field.name]
        return _is_built_in(type(value)) and all(map(is_constant, read.values()))
    return _is_built_in(value)


def _is_built_in(value: object) -> bool:
    """Whether the class or function is a global of JAX, NumPy or this package."""
    name = getattr(value, "__qualname__", "")
    module = getattr(value, "__module__", None) or ""
    is_own = module.partition(".")[0] in ("jax", "numpy", __name__.partition(".")[0])
    return is_own and getattr(sys.modules.get(module), name, None) is value


def snake_case(name: str) -> str:
    """Converts `BasicLSTMCell` to `basic_lstm_cell`, as TensorFlow names layers."""
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    return f"private{words}" if words.startswith("_") else words
