"""Hints for argument names of other libraries, which jaxrnn does not have."""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping

# Names with one meaning, in any library; ours is the one that the function has.
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
# What to do instead, where no argument has the meaning.
_INSTEAD = {
    "sequence_length lengths seq_lengths": "`pack_sequences` stores lengths in a pack; "
    "`loop_fn` of `raw_rnn` returns `finished`: `time >= sequence_length`. A "
    "`Streamer` advances all rows; rows without a frame have length 0 in "
    "`dynamic_rnn`.",
    "mask": "`dynamic_rnn` and its modules accept masks; the lengths of a mask without "
    "gaps are `mask.sum(-1)`.",
    "resets reset done dones reset_state": "`dynamic_rnn` and `RNN` accept `resets`.",
    "params": "Bind them to the cell: `cell.bind(params)`.",
    "key rng rngs": "Keys go to `cell.init(key, inputs)` and, for random numbers in "
    "steps, to `cell.bind(params, key)`.",
    "training train deterministic": "Nothing is dropped without a key.",
    "batch_first": "Inputs are `[batch, time, ...]` unless `time_major` is True.",
    "return_sequences return_state": "All outputs are returned, and a driver also "
    "returns the last state.",
    "go_backwards reverse keep_order": "The constructor of `RNN`, a module, has "
    "`reverse`; `reverse_sequence` reverses inputs and outputs.",
    "bias use_bias": "A cell always has its bias; zeros act as none.",
    "reset_after": "`CudnnCompatibleGRUCell` resets after the product.",
    "param_dtype": "`cell.init(key, inputs, dtype)` has the dtype of the parameters.",
    "input_size input_dim in_features": "`init` reads the depth from the inputs.",
    "num_layers": "`MultiRNNCell([cell, ...])` stacks several cells.",
    "bidirectional": "Use `bidirectional_dynamic_rnn`.",
    "dropout rate": "Use `DropoutWrapper(cell, output_keep_prob=1 - rate)`.",
    "recurrent_dropout": "`DropoutWrapper` has `state_keep_prob=1 - rate`.",
    "keep_prob": "Use `input_keep_prob`, `output_keep_prob` or `state_keep_prob`.",
    "memory memory_sequence_length initial_cell_state": "It is an argument of "
    "`AttentionWrapper.initial_state`.",
}
# Where a missing argument comes from.
_MISSING = {
    "params": "`cell.init(key, inputs)` creates them.",
    "in_features": "It is the size of the inputs.",
    "rngs": "Create them with `nnx.Rngs(0)`.",
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
        f"{label}: `{name}` is not an argument. {_hint(name, known)}".rstrip()
    )


def _hint(name: str, known: Collection[str]) -> str:
    for names in map(str.split, _SAME_MEANING):
        ours = [n for n in names if n in known]
        if name in names and ours:
            return f"It is `{ours[0]}` here."
    for names, fix in _INSTEAD.items():
        if name in names.split():
            return fix
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else ""
