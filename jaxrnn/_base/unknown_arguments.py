"""Hints for argument names of other libraries, which jaxrnn does not have."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_LENGTHS = (
    "lengths seq_length seq_lengths seq_len seq_lens sequence_lengths input_lengths"
)
_UNITS = (
    "hidden_size hidden_dim hidden_features features num_features num_hidden "
    "num_units units"
)
_KEYS = (
    "Keys go to `cell.init(key, inputs)` and, for random numbers in steps, to "
    "`cell.bind(params, key)`."
)
_ONE_MASK = (
    "For one mask at all steps, use `DropoutWrapper(variational_recurrent=True)`, or "
    "`broadcast_rngs` of `as_cell`."
)
_SHARED = "A cell has only parameters, which all steps share."
_RESETS = "Pass `resets`, true where an episode begins: at the step after its `done`."
_RESET_STATE = (
    "Only `dynamic_rnn` and calls of `RNN` have it; bidirectional runs reset to zeros."
)
# Hints for calls and for constructors.
_HINTS_OF = {
    "mask": (
        "`dynamic_rnn` accepts masks; for a mask without gaps, pass "
        "`sequence_length=mask.sum(-1)`."
    ),
    "masks padding_mask key_padding_mask attention_mask": (
        "It is `mask` of `dynamic_rnn`, true at the valid steps."
    ),
    _LENGTHS: "It is `sequence_length` here.",
    "initial_carry init_state hx h0 h_0": "It is `initial_state` here.",
    "reset done dones": _RESETS,
    "reset_state": _RESET_STATE,
    "init_key": "A run starts from zeros, or from `initial_state`.",
    "params": "Bind them to the cell: `cell.bind(params)`.",
    "key rng rngs": _KEYS,
    "training train deterministic": (
        "Nothing is dropped without a key: `cell.bind(params)`."
    ),
    "batch_first": "Inputs are `[batch, time, ...]` unless `time_major` is True.",
    "return_sequences return_state return_all_states": (
        "A driver returns all outputs and the last state; a module also returns the "
        "last state with `return_carry=True`. `return_states=True` adds the states "
        "after all steps."
    ),
    "return_states": (
        "Use it with `dynamic_rnn`, `bidirectional_dynamic_rnn`, `static_rnn`, "
        "`packed_rnn` or a module."
    ),
    "time_major": "It is an argument of the constructor of modules.",
    "go_backwards": "Use `reverse_sequence`, or `reverse=True` of the module `RNN`.",
    "reverse keep_order": "It is an argument of the constructor of `RNN`, a module.",
    "unroll": "It is `parallel_iterations` here.",
    "merge_fn": "It is `merge` here.",
    "forward_rnn": "It is `cell_fw` here, a cell without an RNN around it.",
    "backward_rnn": "It is `cell_bw` here, a cell without an RNN around it.",
    "broadcast_rngs split_rngs": _ONE_MASK,
    "variable_axes variable_broadcast variable_carry state_axes": _SHARED,
    "input_size input_dim in_features": (
        "The depth of the inputs is not an argument: `init` reads it from them."
    ),
    _UNITS: "It is `num_units` of a cell.",
    "num_layers": "A cell is one layer: `MultiRNNCell([cell, ...])` stacks several.",
    "bidirectional": (
        "Pass a cell for each direction to `bidirectional_dynamic_rnn` or to the "
        "module `Bidirectional`."
    ),
    "dropout dropout_rate rate": (
        "`DropoutWrapper(cell, output_keep_prob=1 - rate)` drops entries of outputs."
    ),
    "recurrent_dropout": (
        "`DropoutWrapper(cell, state_keep_prob=1 - rate, variational_recurrent=True, "
        "mask_per_row=True, dtype=dtype)` drops entries of h, the same at all steps."
    ),
    "keep_prob": "Use `input_keep_prob`, `output_keep_prob` or `state_keep_prob`.",
    "nonlinearity": "It is `activation` here.",
    "proj_size": "It is `num_proj` here.",
}
# Hints for constructors only.
_ARGUMENTS_OF_CALLS = "mask resets reset_state sequence_length initial_state"
# Hints for individual functions that offer a replacement for the argument.
_STEPS = "Each entry of `inputs` is one step, `[batch, ...]`."
_HINTS_IN = {
    "packed_rnn": {
        f"sequence_length {_LENGTHS}": "Pass it to `pack_sequences`, which stores it.",
        "mask": (
            "`pack_sequences(inputs, mask.sum(-1))` leaves out the padding of a mask "
            "without gaps."
        ),
        "time_major": "Pass it to `pack_sequences`.",
        "resets": (
            "Each sequence starts from its initial state, so pack each episode as a "
            "separate sequence."
        ),
    },
    "raw_rnn": {
        f"sequence_length {_LENGTHS}": (
            "`loop_fn` returns `finished`: `time >= sequence_length`."
        ),
        "mask": "`loop_fn` returns `finished`: `time >= mask.sum(-1)`.",
        "inputs": "`loop_fn` returns the inputs of each step, `next_input`.",
        "initial_state": "`loop_fn` returns it at time 0, as `next_cell_state`.",
        "resets": (
            "`loop_fn` returns the state of the next step: "
            "`jnp.where(resets[:, time, None], 0, cell_state)`."
        ),
    },
    "reverse_sequence": {
        "inputs": "It is `input` here.",
        f"sequence_length {_LENGTHS}": "It is `seq_lengths` here.",
        "seq_dim": "It is `seq_axis` here.",
        "batch_dim": "It is `batch_axis` here.",
        "time_major": "For `[time, batch, ...]`, pass `seq_axis=0, batch_axis=1`.",
    },
    "static_rnn static_state_saving_rnn": {
        "resets": "Use `dynamic_rnn` with `jnp.stack(inputs)` and `time_major=True`.",
        "time_major": _STEPS,
    },
    "static_bidirectional_rnn stack_bidirectional_rnn": {
        "resets": "Use a driver with `dynamic` in its name.",
        "time_major": _STEPS,
    },
}


def _by_name(hints: dict[str, str]) -> dict[str, str]:
    return {name: hint for names, hint in hints.items() for name in names.split()}


_HINTS = _by_name(_HINTS_OF)
_HINTS_OF_CALLER = {
    caller: _by_name(hints)
    for callers, hints in _HINTS_IN.items()
    for caller in callers.split()
}


def check_unknown(
    caller: str, taker: str, given: Collection[str], known: Collection[str] = ()
) -> None:
    """Raises TypeError for argument names that `taker` does not have.

    Args:
        caller: The function or module, for messages.
        taker: What takes the arguments: the function, "a call" or "the constructor".
        given: The names that were passed.
        known: The names that `taker` has.
    """
    for name in given:
        if name not in known:
            hints = _HINTS | _HINTS_OF_CALLER.get(caller, {})
            hint = hints.get(name, "")
            if name in _UNITS.split() and "units" in known:
                hint = "It is `units` here."
            if taker == "the constructor" and name in _ARGUMENTS_OF_CALLS.split():
                hint = "Pass it to the call."
            raise TypeError(
                f"{caller}: `{name}` is not an argument of {taker}. {hint}".rstrip()
            )


def hints_at_unknown_arguments(f: Callable[P, R]) -> Callable[P, R]:
    """Wraps a function, to add a hint to the error for an unknown argument name."""
    known = inspect.signature(f).parameters

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        check_unknown(f.__name__, f"`{f.__name__}`", kwargs, known)
        return f(*args, **kwargs)

    return checked
