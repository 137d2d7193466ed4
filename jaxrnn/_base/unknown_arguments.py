"""Names of arguments that are not taken, and what other libraries mean by them."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_ONE_MASK = (
    "`DropoutWrapper(variational_recurrent=True)` has one mask for all steps, and so "
    "have the streams in `broadcast_rngs` of `as_cell`."
)
_SHARED = "A cell has parameters alone, which all steps share."
_RESETS = "Pass `resets`, true where an episode begins: at the step after its `done`."
_RESET_STATE = (
    "`dynamic_rnn` and a call of `RNN` have it; two directions are reset to zeros."
)
_HINTS_OF = {
    "mask": "Pass `sequence_length=mask.sum(-1)`, of a mask `[batch, time]`.",
    "seq_lengths": "It is `sequence_length` here.",
    "initial_carry": "It is `initial_state` here.",
    "reset done dones": _RESETS,
    "reset_state": _RESET_STATE,
    "init_key": "A run starts from zeros, or from `initial_state`.",
    "time_major": "It is an argument of the constructor of modules.",
    "reverse keep_order": "It is an argument of the constructor of `RNN`.",
    "unroll": "It is `parallel_iterations` here.",
    "merge_fn": "It is `merge` here.",
    "forward_rnn": "It is `cell_fw` here, a cell without an RNN around it.",
    "backward_rnn": "It is `cell_bw` here, a cell without an RNN around it.",
    "broadcast_rngs split_rngs": _ONE_MASK,
    "variable_axes variable_broadcast variable_carry state_axes": _SHARED,
}
_HINTS = {name: hint for names, hint in _HINTS_OF.items() for name in names.split()}


def check_unknown(
    caller: str, taker: str, given: Collection[str], known: Collection[str] = ()
) -> None:
    """Raises TypeError for names of arguments that `taker` does not take.

    Args:
        caller: The function or module, for messages.
        taker: "a call" or "the constructor".
        given: The names.
        known: Those that it takes.
    """
    for name in given:
        if name not in known:
            raise TypeError(
                f"{caller}: `{name}` is no argument of {taker}. "
                f"{_HINTS.get(name, '')}".rstrip()
            )


def hints_at_unknown_arguments(f: Callable[P, R]) -> Callable[P, R]:
    """The function; it refuses other names with a hint, which Python's error lacks."""
    known = inspect.signature(f).parameters

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        check_unknown(f.__name__, "a call", kwargs, known)
        return f(*args, **kwargs)

    return checked
