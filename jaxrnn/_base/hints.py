"""Hints for names of arguments that other libraries use."""

import difflib
import functools
import inspect
from collections.abc import Collection
from typing import Any, TypeVar

T = TypeVar("T")

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
    "num_proj proj_size",
    "cell_fw forward_rnn",
    "cell_bw backward_rnn",
    "mask masks padding_mask key_padding_mask attention_mask",
    "resets reset done dones",
    "segment chunk",
)
# Hints for arguments that the called function does not have under any name.
_INSTEAD = {
    "sequence_length lengths seq_lengths": "`dynamic_rnn` accepts lengths.",
    "mask": "`dynamic_rnn` accepts masks; `mask.sum(-1)` gives lengths.",
    "resets reset done dones reset_state": "`dynamic_rnn` and `RNN` accept `resets`.",
    "params": "Bind the parameters to the cell with `cell.bind(params)`.",
    "key rng rngs": "Pass it to `cell.init(key, inputs)` or `cell.bind(params, key)`.",
    "training train deterministic": "For dropout, use `cell.bind(params, key)`.",
    "batch_first": "Inputs are `[batch, time, ...]` unless `time_major` is True.",
    "return_sequences return_state": "All outputs and the last state are returned.",
    "go_backwards reverse keep_order": "Use `reverse_sequence`, or pass `reverse` to "
    "the module `RNN`.",
    "bias use_bias": "The bias is always a parameter; set it to zeros for no bias.",
    "reset_after": "Use `CudnnCompatibleGRUCell`.",
    "param_dtype": "Pass the dtype to `cell.init(key, inputs, dtype)`.",
    "input_size input_dim in_features": "`init` reads the depth from the inputs.",
    "num_layers": "Stack cells with `MultiRNNCell([cell, ...])`.",
    "bidirectional": "Run two cells with `bidirectional_dynamic_rnn`.",
    "dropout rate": "Use `DropoutWrapper(cell, output_keep_prob=1 - rate)`.",
    "recurrent_dropout": "Use `DropoutWrapper(cell, state_keep_prob=1 - rate)`.",
    "keep_prob": "Use `input_keep_prob`, `output_keep_prob` or `state_keep_prob`.",
    "forget_bias cell_clip proj_clip activation": "Pass it to the cell's constructor.",
    "memory memory_sequence_length initial_cell_state": "Pass it to "
    "`AttentionWrapper.initial_state`.",
}
# What to do with lengths in functions that do not accept them.
_LENGTHS = {
    "packed_rnn": "Pass the lengths to `pack_sequences`.",
    "raw_rnn": "Return `time >= sequence_length` as `finished`.",
}


def with_hints(target: T) -> T:
    """Decorates a function or class, to explain arguments that it does not have.

    The error for an argument under another library's name, such as `hidden_size`, says
    which argument to use. For a class, the constructor is decorated.
    """
    if isinstance(target, type):
        init: Any = target
        init.__init__ = _checked(target.__init__)
        return target
    return _checked(target)


def _checked(function: Any) -> Any:
    known = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known and not takes_all:
                is_method = function.__name__ in ("__init__", "__call__")
                of = type(args[0]).__name__ if is_method else function.__name__
                text = (
                    f"`{name}` is not an argument of `{of}`. {_hint(of, name, known)}"
                )
                raise TypeError(text.rstrip())
        return function(*args, **kwargs)

    return call


def _hint(of: str, name: str, known: Collection[str]) -> str:
    for names in map(str.split, _SAME_MEANING):
        ours = [n for n in names if n in known]
        if name in names and ours:
            return f"Use `{ours[0]}`."
    for names, fix in _INSTEAD.items():
        if name in names.split():
            return _LENGTHS.get(of, fix) if "lengths" in names else fix
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else ""
