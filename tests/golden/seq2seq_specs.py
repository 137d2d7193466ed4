"""What the goldens of `tf.contrib.seq2seq` cover: cases as plain data.

Neither TensorFlow nor JAX is imported here. `make_seq2seq.py` reads `CASES` to record
what TensorFlow does, `replay_seq2seq.py` does the same with jaxrnn. Cells and trees of
sizes are as in `specs.py`, but the shapes here are whole.

A case has these keys:

- `name`, `family`, `batch`, `dtype`, `cells`, `initial_state`, `state`, `state_type`,
  `arguments`, `values`, `padding`: as in `loop_specs.py`.
- `function`: `decode`, `sequence_loss` or `gather_tree`.
- `options`: keyword arguments of `dynamic_decode`, or of the function.
- `helper`: the class of the helper; None for a beam search.
- `helper_options`: keyword arguments of the helper, or of the BeamSearchDecoder.
- `functions`: the names of functions among these arguments, `{argument: name}`; each
  script has them.
- `attention`: None, or `mechanism`, a class, its `options`, and `layer`, the size of
  the attention layer; the memory is an argument, `memory_lengths` may be a value.
- `rtol`: the relative tolerance, where TensorFlow computes in less than the dtype.
- `differs`: one sentence, where jaxrnn differs from TensorFlow on purpose.

What is drawn is named as it is used: `inputs`, `table` (the embedding), `kernel` (of
the output layer, with the value `bias`), `start` (the start tokens), `lengths`.
"""

from typing import Any

Spec = dict[str, Any]
END, VOCAB, DEPTH, UNITS, TIME, BATCH = 1, 6, 3, 4, 5, 3
MEMORY = 2  # The depth of a memory.

_DEFAULTS: Spec = {
    "cells": None,
    "batch": BATCH,
    "dtype": "float64",
    "initial_state": "given",
    "state": None,
    "state_type": None,
    "arguments": {},
    "values": {},
    "options": {},
    "helper": None,
    "helper_options": {},
    "functions": {},
    "attention": None,
    "padding": None,
    "rtol": None,
    "differs": None,
}
_LSTM = {"class": "LSTMCell", "kwargs": {"num_units": UNITS}}
_GRU = {"class": "GRUCell", "kwargs": {"num_units": UNITS}}
_STACK = {"class": "MultiRNNCell", "cells": [_GRU, _LSTM], "kwargs": {}}
# Its outputs are as wide as the inputs.
_NARROW = {"class": "GRUCell", "kwargs": {"num_units": DEPTH}}
# Its outputs are the logits.
_WIDE = {"class": "GRUCell", "kwargs": {"num_units": VOCAB}}


def _case(name: str, family: str, function: str, **fields: Any) -> Spec:
    unknown = set(fields) - set(_DEFAULTS)
    if unknown:
        raise KeyError(f"{name}: no such fields: {sorted(unknown)}.")
    case = {"name": name, "family": family, "function": function}
    return case | _DEFAULTS | fields


def _shape(*sizes: int) -> Spec:
    return {"shape": list(sizes)}


def _ints(*values: int) -> Spec:
    return {"values": list(values), "dtype": "int32"}


def _layer(dtype: str, end: float, units: int = UNITS) -> tuple[Spec, Spec]:
    """The output layer: its kernel, which is drawn, and its bias for the end token."""
    bias = [float(end) if i == END else 0.0 for i in range(VOCAB)]
    kernel = {"kernel": _shape(units, VOCAB)}
    return kernel, {"bias": {"values": bias, "dtype": dtype}}


def _training(
    name: str,
    cells: Spec = _LSTM,
    lengths: tuple[int, ...] = (5, 2, 0),
    layer: bool = True,
    helper: str = "TrainingHelper",
    arguments: Spec | None = None,
    values: Spec | None = None,
    **fields: Any,
) -> Spec:
    """Given inputs."""
    dtype = fields.get("dtype", "float64")
    time_major = fields.get("helper_options", {}).get("time_major", False)
    axes = (TIME, BATCH) if time_major else (BATCH, TIME)
    kernel, bias = _layer(dtype, 0) if layer else ({}, {})
    return _case(
        name,
        "training",
        "decode",
        cells=cells,
        helper=helper,
        arguments={"inputs": _shape(*axes, DEPTH), **kernel, **(arguments or {})},
        values={"lengths": _ints(*lengths), **bias, **(values or {})},
        **fields,
    )


def _feeding(
    name: str,
    cells: Spec = _LSTM,
    end: float = 0,
    helper: str = "GreedyEmbeddingHelper",
    start: tuple[int, ...] = (2, 0, 5),
    layer: bool = True,
    steps: int | None = 6,
    family: str = "inference",
    options: Spec | None = None,
    **fields: Any,
) -> Spec:
    """Embeddings of what was chosen."""
    dtype = fields.get("dtype", "float64")
    kernel, bias = _layer(dtype, end) if layer else ({}, {})
    limit = {} if steps is None else {"maximum_iterations": steps}
    return _case(
        name,
        family,
        "decode",
        cells=cells,
        helper=helper,
        batch=len(start),
        arguments={"table": _shape(VOCAB, DEPTH), **kernel},
        values={"start": _ints(*start), **bias},
        options=limit | (options or {}),
        **fields,
    )


def _trainings() -> list[Spec]:
    impute = {"impute_finished": True}
    return [
        _training("training-f32", dtype="float32"),
        _training("training"),
        _training("training-impute-f32", options=impute, dtype="float32"),
        _training("training-impute", options=impute),
        _training("training-gru", _GRU, (1, 4, 3)),
        _training("training-stack", _STACK, (3, 3, 3)),
        _training("training-stack-impute", _STACK, (0, 3, 5), options=impute),
        _training("training-no_layer", layer=False),
        _training("training-no_layer-impute", layer=False, options=impute),
        _training("training-none", lengths=(0, 0, 0)),
        _training("training-time_major", helper_options={"time_major": True}),
        _training(
            "training-all_time_major",
            helper_options={"time_major": True},
            options={"output_time_major": True, **impute},
        ),
        _training("training-cut", options={"maximum_iterations": 3}),
        _training("training-cut-impute", options={"maximum_iterations": 2, **impute}),
        _training("training-no_steps", options={"maximum_iterations": 0}),
        *_scheduled(),
    ]


def _scheduled() -> list[Spec]:
    """Scheduled sampling that always or never samples; certain draws."""
    embedding = {"helper": "ScheduledEmbeddingTrainingHelper"}
    embedding["arguments"] = {"table": _shape(VOCAB, DEPTH)}
    output = {"helper": "ScheduledOutputTrainingHelper", "layer": False}
    functions = {"next_inputs_fn": "narrow"}
    always, never = {"sampling_probability": 1.0}, {"sampling_probability": 0.0}
    return [
        _training("scheduled_embedding-never", helper_options=never, **embedding),
        _training(
            "scheduled_embedding-always",
            helper_options=always,
            functions={"embedding": "lookup", "layer": "certain"},
            **embedding,
        ),
        _training("scheduled_output-never", _NARROW, helper_options=never, **output),
        _training("scheduled_output-always", _NARROW, helper_options=always, **output),
        _training(
            "scheduled_output-function",
            _LSTM,
            helper_options=always,
            functions=functions,
            options={"impute_finished": True},
            **output,
        ),
        _training(
            "scheduled_output-auxiliary",
            _NARROW,
            helper_options=always,
            arguments={"auxiliary": _shape(BATCH, TIME, 2)},
            **output,
        ),
        _training(
            "scheduled_output-auxiliary-function-f32",
            _LSTM,
            helper_options={**always, "time_major": True},
            functions=functions,
            arguments={"auxiliary": _shape(TIME, BATCH, 2)},
            dtype="float32",
            **output,
        ),
    ]


def _inferences() -> list[Spec]:
    impute = {"impute_finished": True}
    cold = {"softmax_temperature": 1e-4}
    return [
        _feeding("greedy-f32", dtype="float32"),
        _feeding("greedy", end=1),
        _feeding("greedy-impute", end=1, options=impute),
        _feeding("greedy-impute-f32", _GRU, 1, options=impute, dtype="float32"),
        _feeding("greedy-never", end=-50),
        _feeding("greedy-at_once", end=50, steps=None),
        _feeding("greedy-all_end", _GRU, end=2, steps=None),
        _feeding("greedy-stack", _STACK, 0.5, options=impute),
        _feeding("greedy-function", functions={"embedding": "lookup"}),
        _feeding("greedy-no_layer", _WIDE, layer=False),
        _feeding("greedy-time_major", options={"output_time_major": True}),
        _feeding("greedy-no_steps", steps=0),
        _feeding("greedy-one_row", start=(3,)),
        _feeding(
            "sample-cold", helper="SampleEmbeddingHelper", helper_options=cold, end=1
        ),
        _feeding(
            "sample-certain-impute",
            helper="SampleEmbeddingHelper",
            functions={"layer": "certain"},
            options=impute,
        ),
        _feeding("custom", _GRU, helper="CustomHelper", options=impute),
        _feeding("custom-f32", helper="CustomHelper", dtype="float32"),
        _case(
            "inference-samples",
            "inference",
            "decode",
            cells=_NARROW,
            helper="InferenceHelper",
            arguments={"first": _shape(BATCH, DEPTH)},
            options={"maximum_iterations": 6, **impute},
        ),
        _case(
            "inference-function",
            "inference",
            "decode",
            cells=_LSTM,
            helper="InferenceHelper",
            arguments={"first": _shape(BATCH, DEPTH)},
            functions={"next_inputs_fn": "narrow"},
            options={"maximum_iterations": 6},
        ),
    ]


def _beam(name: str, width: int, penalty: float = 0.0, **fields: Any) -> Spec:
    options = {"beam_width": width, "length_penalty_weight": penalty}
    if penalty and "dtype" not in fields:  # TensorFlow computes it in float32.
        fields["rtol"] = 1e-6
    return _feeding(
        f"beam-{width}-{name}",
        helper=None,
        family="beam",
        helper_options=options | fields.pop("helper_options", {}),
        **fields,
    )


def _beams() -> list[Spec]:
    return [
        _beam("f32", 1, dtype="float32"),
        _beam("gru", 1, cells=_GRU, end=1),
        _beam("f32", 3, dtype="float32", end=1),
        _beam("f64", 3, end=1),
        _beam("penalty-f32", 3, 0.6, dtype="float32", end=1),
        _beam("penalty", 3, 0.6, end=1),
        _beam("strong_penalty", 3, 2.0, end=1.5),
        _beam("negative_penalty", 3, -1.0, end=1),
        _beam("stack", 3, 0.6, cells=_STACK, end=1),
        _beam("early", 3, end=4, steps=None),
        _beam("early-penalty", 5, 1.0, end=4, steps=None),
        _beam("at_once", 3, end=50, steps=12),
        _beam("never", 3, 0.6, end=-50),
        _beam("no_layer", 3, cells=_WIDE, layer=False),
        _beam("function", 3, functions={"embedding": "lookup"}, end=1),
        _beam("time_major", 3, options={"output_time_major": True}, end=1),
        _beam("one_step", 3, steps=1),
        _beam("no_steps", 3, steps=0),
        _beam("one_row", 5, start=(4,), end=1),
        _beam("f32", 5, dtype="float32", end=2),
        _beam("gru-penalty", 5, 0.6, cells=_GRU, end=1),
        _beam("long", 5, 1.0, end=0.5, steps=15),
        _beam("wider_than_vocab", 8, end=1, steps=2),
        _beam("wider_than_all", 8, end=1, steps=1),
        _beam("wider-at_once", 8, end=50, steps=4),
    ]


def _attentions() -> list[Spec]:
    """All ways of decoding with attention; contrib's coverage is for float32."""

    def attending(mechanism, layer=UNITS, lengths=(7, 4, 1), **options):
        names = {"mechanism": mechanism, "options": options, "layer": layer}
        values = {"memory_lengths": _ints(*lengths)} if lengths else {}
        return names, values

    def given(case, mechanism, **facts):
        names, values = attending(mechanism, **facts)
        memory = {"memory": _shape(case["batch"], 7, MEMORY)}
        return case | {
            "name": f"attention-{case['name']}",
            "family": "attention",
            "attention": names,
            "arguments": case["arguments"] | memory,
            "values": case["values"] | values,
        }

    impute = {"options": {"impute_finished": True}}
    f32 = {"dtype": "float32", "end": 1}
    coverage = {"helper_options": {"coverage_penalty_weight": 0.4}, **f32}
    differs = "The sequences are in the order of the scores."
    luong, bahdanau = "LuongAttention", "BahdanauAttention"
    return [
        given(_training("training", **impute), luong, scale=True),
        given(_training("training-gru", _GRU), bahdanau, normalize=True),
        given(_feeding("greedy", end=1), bahdanau, lengths=()),
        given(_feeding("greedy-f32", options={"impute_finished": True}, **f32), luong),
        given(_beam("luong", 3, end=1), luong),
        given(_beam("penalty-f32", 3, 0.6, **f32), bahdanau, lengths=()),
        given(_beam("coverage", 3, differs=differs, **coverage), luong, scale=True),
        given(_beam("coverage-whole", 3, 0.8, **coverage), bahdanau, lengths=()),
        given(_beam("coverage-early", 5, 1.0, **{**coverage, "end": 4}), luong),
        given(_beam("coverage-gru", 5, cells=_GRU, **coverage), bahdanau),
    ]


def _losses() -> list[Spec]:
    names = ("average_across_timesteps", "average_across_batch")
    names += ("sum_over_timesteps", "sum_over_batch")
    settings = [
        flags
        for flags in (
            {name: bool(number >> i & 1) for i, name in enumerate(names)}
            for number in range(16)
        )
        if not (flags[names[0]] and flags[names[2]])
        and not (flags[names[1]] and flags[names[3]])
    ]
    weights = {
        "ones": [[1.0] * 4, [1.0] * 4, [1.0] * 4],
        "ragged": [[1.0, 0.5, 0.0, 2.0], [1.0, 1.0, 0.0, 0.0], [0.0] * 4],
        "zeros": [[0.0] * 4] * 3,
    }
    runs = [("ragged", "float64", flags, None) for flags in settings]
    runs += [(kind, "float32", {}, None) for kind in weights]
    runs += [("ragged", "float64", {}, "squares"), ("ones", "float64", {}, "squares")]
    return [
        _case(
            f"loss-{number:02d}-{kind}-{dtype}",
            "loss",
            "sequence_loss",
            dtype=dtype,
            arguments={
                "logits": _shape(3, 4, VOCAB),
                "targets": {"shape": [3, 4], "dtype": "int32"},
            },
            values={"weights": {"values": weights[kind], "dtype": dtype}},
            options=flags,
            functions={"softmax_loss_function": function} if function else {},
        )
        for number, (kind, dtype, flags, function) in enumerate(runs)
    ]


def _trees() -> list[Spec]:
    """The operation itself, with sequences that end early or not at all."""
    ids = [[[2, 3, 4], [5, 1, 2]], [[1, 2, 5], [3, 3, 3]], [[4, 1, 2], [2, 5, 1]]]
    parents = [[[0, 0, 0], [0, 0, 0]], [[0, 1, 1], [2, 0, 1]], [[2, 1, 0], [0, 0, 2]]]

    def tree(name, lengths):
        values = {"step_ids": ids, "parent_ids": parents}
        values = {k: {"values": v, "dtype": "int32"} for k, v in values.items()}
        values["max_sequence_lengths"] = _ints(*lengths)
        values["end_token"] = {"values": END, "dtype": "int32"}
        return _case(f"tree-{name}", "trees", "gather_tree", values=values)

    return [tree("whole", (3, 3)), tree("ragged", (2, 1)), tree("none", (0, 9))]


CASES = [*_trainings(), *_inferences(), *_beams(), *_attentions()]
CASES += [*_losses(), *_trees()]
