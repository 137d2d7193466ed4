"""The boundary of the package: public names on errors, and hints for unknown names.

Checks inside the package do not know which public function the user called. Checks
raise a subclass of `InvalidArgument`, such as `InvalidValue`. The boundary replaces
this error with a standard error, for example a ValueError, whose message begins with
the name of the public function. Errors of users' functions, and errors that an inner
boundary has already named, pass unchanged.

`export` puts the functions and classes of a public module at the boundary. Functions of
the package call each other without passing the boundary; calls of methods always pass
it. The errors for an unknown argument, an unknown name in a module, and a missing
package contain hints.
"""

import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar

from .errors import InvalidArgument, MissingPackage

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_SPECIAL_METHODS = "__init__ __post_init__ __call__ __iter__ __next__ __array__".split()


def export(namespace: dict[str, Any], names_errors: bool = True) -> None:
    """Puts the functions and classes of a public module at the boundary.

    Pickles refer to classes and functions by module and name. This function sets their
    `__module__` to the public module, so pickles survive a move of private files.
    If the module has no `__all__`, the function adds one without lazily loaded modules,
    so that `from jaxrnn import *` does not shadow Flax's `nnx`. `dir` then lists the
    names in `__all__`.

    Args:
        namespace: `globals()` of the public module.
        names_errors: Whether errors begin with the names of this module's functions.
            Pass False for functions that custom cells call. The errors of these
            functions then begin with the name of the function or class that the user
            called.
    """
    module = namespace["__name__"]
    names = [name for name in namespace if not name.startswith("_")]
    public = namespace.setdefault("__all__", names)
    namespace.setdefault("__dir__", public.copy)
    for name in public:
        value = namespace[name]
        home = getattr(value, "__module__", "")
        is_private = home.startswith("jaxrnn.") and "._" in home
        if home != module and not is_private:
            # Skip constants, and functions and classes that another public module or
            # package exports.
            continue
        if inspect.isfunction(value):
            exported = at_boundary(value) if names_errors else value
            namespace[name] = exported
            exported.__module__ = module
            exported.__name__ = exported.__qualname__ = name
        elif inspect.isclass(value):
            value.__module__ = module
            class_at_boundary(value)


def at_boundary(function: Callable[P, R]) -> Callable[P, R]:
    """Puts the function's name before errors of checks; adds hints about arguments."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InvalidArgument as error:
            raise error.named(_name(call, args)) from error.__cause__
        except TypeError as error:
            if _fits(function, args, kwargs):
                raise
            label = _name(call, args)
            if not function.__name__.startswith("__") and "." in call.__qualname__:
                label = f"{label}.{function.__name__}"
            raise mismatch(label, function, kwargs, error) from None

    vars(call)["is_at_boundary"] = True
    return call


def inside(function: Callable[P, R]) -> Callable[P, R]:
    """A public function without its boundary, for another public function to call.

    Errors then begin with the name of the function that the user called.
    """
    return inspect.unwrap(function)


def _fits(function: Callable, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether the arguments fit the signature of the function."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def class_at_boundary(cls: C) -> C:
    """Puts the methods of a class, and of its bases in the package, at the boundary.

    A private class whose instances users call is decorated with this function.
    """
    for base in cls.__mro__:
        if not base.__module__.startswith("jaxrnn"):
            continue
        for name, value in list(vars(base).items()):
            if name.startswith("_") and name not in _SPECIAL_METHODS:
                continue
            if isinstance(value, property) and inspect.isfunction(value.fget):
                setattr(base, name, value.getter(_once(value.fget)))
            elif inspect.isfunction(value):
                setattr(base, name, _once(value))
    return cls


def _once(function: Callable[P, R]) -> Callable[P, R]:
    """Puts the function at the boundary, unless it is already there."""
    is_there = hasattr(function, "is_at_boundary")
    return function if is_there else at_boundary(function)


def _name(function: Any, args: tuple) -> str:
    """The public name: `decode.greedy_loop`, or `LSTMCell` for a method."""
    owner, _, name = function.__qualname__.rpartition(".")
    if owner:
        cls = type(args[0]) if args else object
        is_method = owner in [base.__name__ for base in cls.__mro__]
        return cls.__name__ if is_method else owner
    module = function.__module__.removeprefix("jaxrnn").removeprefix(".")
    return f"{module}.{name}".removeprefix(".")


# Each string lists the names of one argument in jaxrnn and in other libraries. The hint
# gives the name that the called function uses.
_SAME_MEANING = (
    "sequence_length seq_lengths lengths seq_length seq_len sequence_lengths",
    "num_units units hidden_size hidden_dim hidden_features features num_hidden",
    "initial_state initial_carry init_state hx h0 h_0",
    "parallel_iterations unroll",
    "merge merge_fn merge_mode",
    "reverse go_backwards",
    "return_carry return_state",
    "max_time max_len max_length maximum_iterations",
    "activation nonlinearity",
    "initializer kernel_initializer kernel_init",
    "seq_axis seq_dim",
    "end_id eos_id",
    "initial_state_fw initial_state",
    "num_proj proj_size",
    "cell_fw forward_rnn",
    "cell_bw backward_rnn",
    "mask masks padding_mask key_padding_mask attention_mask",
    "attention_layer_size attention_layer",
    "resets reset done dones",
    "input inputs",
)
# Hints for arguments that the called function does not have under any name.
_INSTEAD = {
    "sequence_length lengths seq_lengths": "`dynamic_rnn` accepts lengths.",
    "mask": "`dynamic_rnn` and the modules `RNN` and `Bidirectional` accept masks. If "
    "a mask [batch, time] masks only the ends of rows, `mask.sum(-1)` gives the "
    "lengths.",
    "resets reset done dones reset_state": "`dynamic_rnn` and `RNN` accept `resets`.",
    "params": "Bind the parameters to the cell with `cell.bind(params)`.",
    "key rng rngs": "Pass a key to `cell.init(key, inputs)`, or to "
    "`cell.bind(params, key)` for random numbers in steps.",
    "training train deterministic": "For training, bind the cell with a key, "
    "`cell.bind(params, key)`. Without a key, there is no dropout.",
    "batch_first": "Inputs are `[batch, time, ...]` unless `time_major` is True.",
    "return_sequences return_state": "Omit this argument, because the outputs of all "
    "steps and the last state are always returned.",
    "go_backwards reverse keep_order": "Use `reverse_sequence`, or pass `reverse` to "
    "the module `RNN`.",
    "bias use_bias": "The bias is always a parameter; set it to zeros for no bias.",
    "reset_after": "Use `CudnnCompatibleGRUCell`, which applies the reset gate after "
    "the product.",
    "param_dtype": "Pass the dtype of the parameters to "
    "`cell.init(key, inputs, dtype)`.",
    "input_size input_dim in_features": "Omit this argument, because `init` reads the "
    "depth from the inputs.",
    "num_layers": "Stack cells with `MultiRNNCell([cell, ...])`. Converters find the "
    "layers in the weights.",
    "bidirectional": "Run two cells with `bidirectional_dynamic_rnn`. To convert "
    "weights, load the weights of each direction separately.",
    "dropout rate": "Use `DropoutWrapper(cell, output_keep_prob=1 - rate)`.",
    "recurrent_dropout": "Use `DropoutWrapper(cell, state_keep_prob=1 - rate)`.",
    "keep_prob": "Use `input_keep_prob`, `output_keep_prob` or `state_keep_prob`.",
    "memory memory_sequence_length initial_cell_state": "Pass this argument to "
    "`AttentionWrapper.initial_state`.",
}
# What to do with lengths in functions that do not accept them.
_LENGTHS = {
    "packed_rnn": "Pass the lengths to `pack_sequences`.",
    "raw_rnn": "Return `time >= sequence_length` as `finished`.",
    "Streamer": "For rows without a frame, run `dynamic_rnn` with length 0.",
}
# Hints for missing arguments.
_MISSING = {
    "params": "Create parameters with `cell.init(key, inputs)`.",
    "in_features": "Pass the size of the inputs.",
    "rngs": "Pass random streams, such as `nnx.Rngs(0)`.",
}


def mismatch(
    label: str, function: Callable, kwargs: Mapping, error: TypeError
) -> TypeError:
    """The error for a call whose arguments do not fit the function's signature.

    Args:
        label: The public name of the function.
        function: The function.
        kwargs: The keyword arguments of the call.
        error: Python's error.
    """
    known = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for name in () if takes_all else kwargs:
        if name not in known:
            return unknown_argument(label, name, known)
    _, _, text = str(error).partition(") ")
    hints = [hint for name, hint in _MISSING.items() if f"'{name}'" in text]
    return TypeError(" ".join([f"{label}: {text}.", *hints]))


def unknown_argument(label: str, name: str, known: Collection[str]) -> TypeError:
    """The error for an argument that is not among the known arguments."""
    return TypeError(
        f"{label}: `{name}` is not an argument. {_hint(label, name, known)}".rstrip()
    )


def _hint(label: str, name: str, known: Collection[str]) -> str:
    for names in map(str.split, _SAME_MEANING):
        ours = [n for n in names if n in known]
        if name in names and ours:
            return f"Use `{ours[0]}`."
    for names, fix in _INSTEAD.items():
        if name in names.split():
            return _LENGTHS.get(label, fix) if "lengths" in names else fix
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else ""


def import_optional(module: str, install: str = "") -> Any:
    """Imports a module; if this fails, raises an ImportError with an install command.

    Args:
        module: The module.
        install: What to install; by default the package that contains the module.
    """
    package = install or module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"the package `{package}` is required, but cannot be imported: {error}. "
            f"Run `pip install {package}`."
        ) from error


def missing_name(module: str, name: str, hints: Mapping[str, str]) -> Exception:
    """The error for a module's `__getattr__` to raise.

    The error is an AttributeError, except for the statement `from module import name`
    with a name that has a hint. For this statement, Python would replace an
    AttributeError with an ImportError that lacks the hint, so the function returns an
    ImportError, which Python does not replace. The function recognizes the statement by
    the frame that calls `__getattr__`, so `__getattr__` must call the function
    directly.

    Args:
        module: The name of the module.
        name: The missing name.
        hints: A dict that maps some missing names to advice on what to use instead.
    """
    text = f"module {module!r} has no attribute {name!r}"
    if name not in hints:
        return AttributeError(text, name=name, obj=sys.modules[module])
    text += f". {hints[name]}"
    caller = sys._getframe(2).f_globals.get("__name__")
    is_import = caller == "importlib._bootstrap"
    return ImportError(text) if is_import else AttributeError(text)
