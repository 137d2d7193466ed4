"""Hints for arguments that a public function or class does not have."""

import difflib
import functools
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

# Each string lists the names of one argument in jaxrnn and in other libraries. The hint
# gives the name that the called function uses.
_SAME_MEANING = (
    "sequence_length seq_lengths lengths seq_length seq_len sequence_lengths",
    "num_units units hidden_size hidden_dim hidden_features features num_hidden",
    "initial_state initial_carry init_state hx h0 h_0 state",
    "parallel_iterations unroll",
    "merge merge_fn merge_mode",
    "reverse go_backwards",
    "return_carry return_state",
    "max_time max_len max_length maximum_iterations max_new_tokens",
    "activation nonlinearity",
    "initializer kernel_initializer kernel_init",
    "seq_axis seq_dim",
    "num_proj proj_size",
    "cell_fw forward_rnn",
    "cell_bw backward_rnn",
    "mask masks padding_mask key_padding_mask attention_mask",
    "resets reset is_first episode_starts",
    "g log_a log_decay log_f gk",
    "at scope prefix",
    "beta b",
    "num_beams beam_width beam_size",
    "eos_id eos_token_id end_token",
    "start_ids start_tokens decoder_start_token_id bos_token_id",
    "embed embedding",
    "project output_layer",
    "length_penalty length_penalty_weight",
    "ids input_ids sequences",
    "key rng prng_key",
)
# Hints for arguments that the called function does not have under any name.
_INSTEAD = {
    "sequence_length lengths seq_lengths": "`dynamic_rnn` accepts lengths.",
    "mask": "`dynamic_rnn` accepts masks; `mask.sum(-1)` gives lengths.",
    "axis_name": "Pass it to `dynamic_rnn`, or to a call of the module `RNN`.",
    "axis_names": "Pass it to the constructor of a module.",
    "resets reset reset_state": "`dynamic_rnn` and `RNN` accept `resets`.",
    "done dones": "`dynamic_rnn` and `RNN` accept "
    "`resets=jaxrnn.resets_of_done(done, last_done)`.",
    "segment_ids segment_id": "`dynamic_rnn` and `RNN` accept "
    "`resets=jaxrnn.resets_of_segments(segment_ids)`.",
    "starts": "`dynamic_rnn` and `RNN` accept `resets=starts`.",
    "positions segment_pos": "`dynamic_rnn` and `RNN` accept `resets=positions == 0`.",
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
    "bidirectional": "Pass one cell for each direction to `bidirectional_dynamic_rnn`.",
    "dropout rate": "Use `DropoutWrapper(cell, output_keep_prob=1 - rate)`.",
    "recurrent_dropout": "Use `DropoutWrapper(cell, state_keep_prob=1 - rate)`.",
    "forget_bias cell_clip proj_clip activation": "Pass it to the cell's constructor.",
    "memory memory_sequence_length initial_cell_state": "Pass it to "
    "`AttentionWrapper.initial_state`.",
    # Arguments of `generate` of `transformers`, for the functions of `jaxrnn.decode`.
    "max_length max_new_tokens": "`jaxrnn.decode.greedy`, `jaxrnn.decode.sample` and "
    "`jaxrnn.decode.beam_search` accept `max_length`.",
    "temperature top_k top_p": "Only `jaxrnn.decode.sample` accepts it.",
    "num_beams length_penalty": "Only `jaxrnn.decode.beam_search` accepts it.",
    "do_sample": "Omit it. Only `jaxrnn.decode.sample` draws ids.",
    "seed generator": "`jaxrnn.decode.sample` accepts `key=jax.random.key(seed)`.",
    "eos_id eos_token_id bos_token_id decoder_start_token_id": "It is a field of "
    "`jaxrnn.decode.Model`: `eos_id` or `start_ids`.",
    "pad_token_id": "Omit it: after the end, ids are `eos_id`; see `Decoded.lengths`.",
    "input_ids inputs_embeds decoder_input_ids": "Run `dynamic_rnn` over the prompt "
    "without its last id. Pass the state and the last id to `Model`.",
    "num_return_sequences": "`beam_search` returns all beams. For several samples, "
    "repeat the state and the start ids with `tile_beams`.",
    "early_stopping": "Omit it: the search ends when all beams are finished, and "
    "finished beams compete by score.",
    "num_beam_groups diversity_penalty": "`beam_search` has no groups of beams.",
    "coverage_penalty coverage_penalty_weight": "Use "
    "`jaxrnn.contrib.BeamSearchDecoder`.",
    "bad_words_ids suppress_tokens min_p typical_p epsilon_cutoff eta_cutoff "
    "logits_processor": "In `project`, set the logits of unwanted ids to -inf.",
    "repetition_penalty frequency_penalty no_repeat_ngram_size min_length "
    "min_new_tokens forced_bos_token_id forced_eos_token_id begin_suppress_tokens "
    "prefix_allowed_tokens_fn": "Store the ids in the cell's state, and change the "
    "logits in `project`, as in the guide on loops, 'Coming from generate'.",
    "streamer": "Call `jax.debug.callback` on the ids in `embed`.",
    "stopping_criteria": "Write a `jaxrnn.contrib.Helper`, and run it with "
    "`jaxrnn.contrib.dynamic_decode`.",
    "use_cache past_key_values cache_implementation": "Omit it: the cell's state is "
    "the cache.",
    "output_scores output_logits return_dict_in_generate": "`Decoded` has `ids`, "
    "`scores` and `lengths`.",
}


def with_hints(target: T) -> T:
    """Decorates a function or class: unknown arguments raise an error with a hint.

    If an argument has another library's name, such as `hidden_size`, the hint says
    which argument to use. For a class, the constructor is decorated.
    """
    function: Any = target
    if isinstance(function, type):
        function.__init__ = with_hints(function.__init__)
        return target

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> Any:
        check_names(function, args, kwargs)
        return function(*args, **kwargs)

    return call  # pyright: ignore[reportReturnType]


def check_names(function: Any, args: Sequence[object], names: Collection[str]) -> None:
    """Raises TypeError, with a hint, unless all names are arguments of the function.

    `args` are the positional arguments. If the function is a method, `args[0]` is the
    object.
    """
    known = _parameters(function)
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for name in names:
        if name not in known:
            is_method = function.__name__ in ("__init__", "__call__")
            of = type(args[0]).__name__ if is_method else function.__qualname__
            of = of.removesuffix(".__new__")
            text = f"`{name}` is not an argument of `{of}`. {_hint(name, known)}"
            raise TypeError(text.rstrip())


@functools.cache
def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _hint(name: str, known: Collection[str]) -> str:
    for names in map(str.split, _SAME_MEANING):
        ours = [n for n in names if n in known]
        if name in names and ours:
            return f"Use `{ours[0]}`."
    for names, fix in _INSTEAD.items():
        if name in names.split():
            return fix
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else ""
