"""What the goldens of the loops cover: cases and refusals as plain data.

Neither TensorFlow nor JAX is imported here. `make_tf1_loops.py` reads `CASES` and
`REFUSALS` to record what TensorFlow does, `replay_loops.py` does the same with jaxrnn.
Cells and trees of sizes are as in `specs.py`, but the shapes here are whole, with the
batch and the time.

A case has these keys:

- `name`: unique; the prefix of its arrays.
- `family`: the `.npz` file that holds them.
- `function`: a driver, or `TensorArray`.
- `cells`: one cell, or dicts of cells: `{"fw": ..., "bw": ...}` for two directions,
  those in `{"layer_0": ..., "layer_1": ...}` for stacks. Parameters and states nest
  in the same way.
- `batch`, `dtype`, `initial_state`, `state`, `state_type`: as in `specs.py`.
- `arguments`: trees of sizes by name, drawn at random; gradients are taken of those
  that are floating-point.
- `values`: arrays that are not drawn: `{"values": [...], "dtype": ...}` by name.
- `options`: keyword arguments of the function, plain or as in `error_specs.py`;
  `skip` is a list of those that are not to be given at all.
- `loop`: for `raw_rnn` the parts that make up `loop_fn`, by name: `finished`, `input`,
  `state`, `emit` and `loop`. `tf1_loops.py` and `hand_loops.py` have a function for
  each.
- `script`: for `TensorArray` the calls `[target, source, method, *arguments]`. The
  source is a handle, `"ta"` at first; a target that starts with `ta` is a handle too,
  any other is a result, and one that starts with `_` is not recorded. An argument
  `"$x"` is the argument or the value `x`, `"$x.0"` its first element, `"@r"` a result.
- `tf_script`: what TensorFlow is given instead, where jaxrnn differs on purpose.
- `array_state`: whether the state starts with a TensorArray.
- `padding`: the value that stands in `inputs` beyond each length. Gradients are those
  of finite padding, as TensorFlow's own are NaN.
- `where`: `"both"`, or where jaxrnn runs the case: `"jit"` or `"eager"`. Values are
  compared in both, gradients under jit.
- `steps`: the number of steps, if nothing is emitted that shows it.
- `differs`: one sentence, where jaxrnn differs from TensorFlow on purpose.

A refusal is a case too, with `ours`: None, or `{"raises": class or None, "why":
sentence}`.
"""

from typing import Any

from .specs import (
    _CELLS,
    _COUNTER,
    _COUNTER_STATE,
    _DEEP,
    _DICT_INPUTS,
    _DICT_OUTPUTS,
    _GRID,
    _INT_COUNTER,
    _INT_COUNTER_STATE,
    _LIST_STATE,
    _LOOKUP,
    _MIXED,
    _MIXED_STATE,
    _PAIRS,
    _ROW_SUM,
    _SHORT,
    _SILENT,
    _cell,
    _custom,
    _dict,
    _lengths,
    _list,
    _shape,
    _tuple,
)

Spec = dict[str, Any]

_DEFAULTS: Spec = {
    "cells": None,
    "batch": 3,
    "dtype": "float64",
    "initial_state": "zero",
    "state": None,
    "state_type": None,
    "arguments": {},
    "values": {},
    "options": {},
    "loop": None,
    "script": None,
    "tf_script": None,
    "array_state": False,
    "padding": None,
    "where": "both",
    "steps": None,
    "differs": None,
}
_PARTS = {
    "finished": "lengths",
    "input": "read",
    "state": "keep",
    "emit": "output",
    "loop": "none",
}
_RAGGED = _lengths(4, 2, 3)
_UNIT = _custom("plus_one", _shape(1), _shape(1))
_RECORDER = _custom("recorder", _tuple(_shape(), _shape(3), _shape()), _shape(3))
_RECORDER_STATE = _tuple(_shape(3), _shape(batched=False, dtype="int32"))


def _case(name: str, family: str, function: str, **fields: Any) -> Spec:
    """One case; `fields` override the defaults."""
    unknown = set(fields) - set(_DEFAULTS) - {"ours"}
    if unknown:
        raise KeyError(f"{name}: no such fields: {sorted(unknown)}.")
    case = {"name": name, "family": family, "function": function}
    return case | _DEFAULTS | fields


def _raw(
    name: str,
    cell: Any = "gru",
    inputs: Any = None,
    lengths: Any = _RAGGED,
    arguments: Spec | None = None,
    values: Spec | None = None,
    **fields: Any,
) -> Spec:
    """One case of raw_rnn; fields that are parts of the loop function go there."""
    loop = _PARTS | {key: fields.pop(key) for key in _LOOP_ONLY & fields.keys()}
    loop["state"] = fields.pop("next_state", "keep")
    read = {"inputs": inputs or _shape(4, 3, 3)}
    batch = fields.get("batch", 3)
    if "batch" in fields and inputs is None:
        read = {"inputs": _shape(4, batch, 3)}
    if fields.get("dtype"):
        # Otherwise each operation would be compiled separately.
        fields = {"where": "jit"} | fields
    return _case(
        name,
        "raw_rnn",
        "raw_rnn",
        cells=_CELLS[cell] if isinstance(cell, str) else cell,
        arguments=(read if loop["input"] in _READING else {}) | (arguments or {}),
        values=({} if lengths is None else {"lengths": lengths}) | (values or {}),
        loop=loop,
        **fields,
    )


_LOOP_ONLY = {"finished", "input", "emit", "loop"}
_READING = {"read", "page", "history", "memory"}
_READING |= {"other_structure", "other_dtype", "other_shape", "other_batch"}
_NESTED_INPUTS = _dict(a=_shape(4, 3, 3), b=_shape(4, 3, 2))
_PAIR_INPUTS = _tuple(_shape(4, 3, 2), _shape(4, 3, 3))


def _page() -> list[Spec]:
    """The page's two examples: its pseudo-code, and dynamic_rnn by raw_rnn."""
    ones = {"input": "zeros", "loop": "times", "lengths": _lengths(1, 2, 3)}
    short = {"inputs": _shape(4, 2, 3), "lengths": _lengths(1, 3), "batch": 2}
    cells = ("basic_rnn", "basic_lstm", "lstm_all", "multi_mixed", "residual")
    return [
        _raw("pseudo_code-f32", _UNIT, dtype="float32", where="both", **ones),
        _raw("pseudo_code-f64", _UNIT, **ones),
        _raw("pseudo_code-given", _UNIT, initial_state="given", **ones),
        _raw("page-gru-short", "gru", input="page", **short),
        _raw("page-lstm-short-f32", "lstm", input="page", dtype="float32", **short),
        *(
            _raw(
                f"page-{cell}",
                cell,
                input="page",
                initial_state="given" if index % 2 else "zero",
                dtype="float32" if index % 3 == 2 else "float64",
                where="jit" if cell in ("lstm_all", "multi_mixed") else "both",
            )
            for index, cell in enumerate(cells)
        ),
        *(
            _raw(
                f"page-{cell}-{_SHORT[dtype]}",
                cell,
                input="page",
                dtype=dtype,
                where="jit",
            )
            for cell, dtype in (
                ("lstm", "float16"),
                ("gru", "bfloat16"),
                ("basic_rnn", "float16"),
            )
        ),
        _raw("page-whole", "lstm_peep", input="page", lengths=_lengths(4, 4, 4)),
        _raw(
            "options",
            "lstm",
            options={"parallel_iterations": 1, "swap_memory": True, "scope": "decoder"},
        ),
        _raw("options-zero", "gru", options={"parallel_iterations": 0}),
    ]


def _ends() -> list[Spec]:
    """When rows finish: flags of several shapes, none, all, and too late."""

    def flags(*rows):
        return {"flags": _lengths(*rows, dtype="bool")}

    no, yes = False, True
    wavering = flags(
        [no, no, no], [yes, no, no], [no, no, no], [no, yes, no], [no, no, yes]
    )
    column = flags(
        [[no], [no], [no]],
        [[no], [yes], [no]],
        [[yes], [no], [no]],
        [[no], [no], [yes]],
    )
    by_flags = {"finished": "flags", "lengths": None, "initial_state": "given"}
    return [
        _raw("sticky", "lstm", values=wavering, **by_flags),
        _raw(
            "sticky-altered", "gru", values=wavering, next_state="tripled", **by_flags
        ),
        _raw(
            "sticky-first",
            "basic_rnn",
            values=flags([yes, no, yes], [no, no, no], [no, no, no], [no, yes, no]),
            **by_flags,
        ),
        _raw("finished-scalar", "lstm", values=flags(no, no, no, yes), **by_flags),
        _raw(
            "finished-scalar-wavering",
            _COUNTER,
            values=flags(no, no, yes),
            state=_COUNTER_STATE,
            emit="state_sum",
            **by_flags,
        ),
        _raw(
            "finished-column",
            _UNIT,
            input="zeros",
            values=column,
            **by_flags,
        ),
        _raw(
            "finished-column-gru",
            _cell("GRUCell", 1),
            values=column,
            **by_flags,
        ),
        _raw("finished-python_bool", "gru", finished="python_bool"),
        _raw("finished-numpy", "gru", finished="numpy"),
        _raw("finished-by_loop_state", "gru", finished="budget", loop="budget"),
        _raw("all_finished", "lstm", initial_state="given", lengths=_lengths(0, 0, 0)),
        _raw(
            "all_finished-loop_state",
            "gru",
            initial_state="given",
            lengths=_lengths(0, -1, 0),
            loop="sum",
            arguments={"sum": _shape(3, 4)},
        ),
        _raw("all_finished-python_bool", "gru", finished="true", initial_state="given"),
        _raw(
            "all_finished-template",
            "gru",
            lengths=_lengths(0, 0, 0),
            emit="nest",
            loop="times",
        ),
        _raw(
            "some_at_start", "lstm", initial_state="given", lengths=_lengths(0, 3, -2)
        ),
        _raw("one_step", "gru", lengths=_lengths(1, 1, 1), loop="times"),
        _raw("one_row", "lstm", batch=1, lengths=_lengths(3)),
        _raw("no_rows", "gru", batch=0, lengths=_lengths()),
        _raw("longer_than_inputs", "basic_rnn", lengths=_lengths(5, 6, 1)),
    ]


def _states() -> list[Spec]:
    """Cells of many kinds, and states that the loop function alters."""
    return [
        _raw(
            "times_ten",
            _UNIT,
            input="zeros",
            next_state="times_ten",
            lengths=_lengths(1, 2, 3),
        ),
        _raw("tripled-lstm", "lstm", next_state="tripled", initial_state="given"),
        _raw(
            "scaled-gru",
            "gru",
            next_state="scaled",
            arguments={"factor": _shape(4)},
        ),
        _raw("reset-basic_rnn", "basic_rnn", next_state="reset", initial_state="given"),
        _raw("dict_inputs", _DICT_INPUTS, _NESTED_INPUTS),
        _raw("pairs", _PAIRS, _PAIR_INPUTS, initial_state="given"),
        _raw("pairs-f32", _PAIRS, _PAIR_INPUTS, dtype="float32", loop="times"),
        _raw("grid", _GRID, _shape(4, 3, 2, 3)),
        _raw("deep", _DEEP, _shape(4, 3, 2, 3, 2), initial_state="given"),
        _raw("row_sum", _ROW_SUM, initial_state="given"),
        _raw("dict_outputs", _DICT_OUTPUTS),
        _raw("list_state", _LIST_STATE, initial_state="given"),
        _raw("silent", _SILENT, steps=4),
        _raw("counter", _COUNTER, initial_state="given", state=_COUNTER_STATE),
        _raw(
            "counter-tripled",
            _COUNTER,
            initial_state="given",
            state=_COUNTER_STATE,
            next_state="tripled",
            lengths=_lengths(1, 2, 3),
        ),
        _raw(
            "int_counter",
            _INT_COUNTER,
            initial_state="given",
            state=_INT_COUNTER_STATE,
            emit="doubled",
        ),
        _raw(
            "mixed", _MIXED, initial_state="given", state=_MIXED_STATE, emit="doubled"
        ),
        _raw(
            "nested_stack", "multi_nested", loop="times", dtype="float32", where="jit"
        ),
        _raw("concat_stack", "multi_concat", initial_state="given", where="jit"),
    ]


def _emits() -> list[Spec]:
    """What the first `emit` requires."""
    weighted = {"w": _shape(4, 2)}
    return [
        _raw("emit-weighted", "gru", emit="weighted", arguments=weighted),
        _raw("emit-scalar", "lstm", emit="sums"),
        _raw("emit-nest", "lstm", emit="nest", initial_state="given"),
        _raw("emit-nest-f32", "basic_rnn", emit="nest", dtype="float32"),
        _raw("emit-list", "gru", emit="list"),
        _raw("emit-nothing", "gru", emit="nothing", steps=4, loop="times"),
        _raw("emit-int", "gru", emit="tokens"),
        _raw("emit-bool", "gru", emit="signs"),
        _raw("emit-narrower", "gru", emit="narrower"),
        _raw("emit-wider", "lstm", emit="wider", dtype="float32"),
        _raw("emit-rank_2", "gru", emit="outer", arguments={"w": _shape(2)}),
        _raw("emit-state", "lstm", emit="state", initial_state="given"),
        _raw("emit-time", "gru", emit="time"),
        _raw("emit-constant", "gru", emit="ones"),
        _raw(
            "emit-numpy_template",
            "gru",
            emit="numpy",
            differs="A NumPy array will do as a template.",
        ),
    ]


def _loop_states() -> list[Spec]:
    """Loop states of many kinds."""
    summed = {"sum": _shape(3, 4)}
    unseen = "A loop state of None stays None; TensorFlow shows its stand-in, 0."
    return [
        _raw("loop-none", "gru", loop="none_seen", differs=unseen),
        _raw("loop-sum", "gru", loop="sum", arguments=summed),
        _raw("loop-sum-f32", "lstm", loop="sum", arguments=summed, dtype="float32"),
        _raw("loop-nest", "gru", loop="nest", arguments=summed),
        _raw("loop-scalars", "gru", loop="scalars", arguments={"scale": _shape()}),
        _raw("loop-later_none", "gru", loop="later_none", arguments=summed),
        _raw("loop-times", "gru", loop="times"),
        _raw("loop-seen_states", "gru", loop="seen", initial_state="given"),
        _raw(
            "loop-seen_states-tripled",
            "basic_rnn",
            loop="seen",
            next_state="tripled",
        ),
        _raw("loop-outputs", "lstm", loop="outputs"),
        _raw("loop-outputs_growing", "lstm", loop="growing"),
        _raw("loop-growing_sum", "gru", loop="growing_nest", arguments=summed),
        _raw(
            "loop-history",
            _cell("GRUCell", 3),
            input="history",
            loop="history",
            initial_state="given",
        ),
        _raw(
            "loop-memory",
            "gru",
            input="memory",
            loop="memory",
            arguments={"memory": _shape(2, 3, 3)},
        ),
        _raw(
            "loop-memory-f32",
            "lstm",
            input="memory",
            loop="memory",
            arguments={"memory": _shape(2, 3, 3)},
            dtype="float32",
        ),
    ]


def _decoders() -> list[Spec]:
    """Inputs that the loop makes itself."""
    words = {"embedding": _shape(4, 3)}
    go = {"go": _lengths(1, 2, 0)}
    return [
        _raw(
            "feedback",
            _cell("GRUCell", 4),
            input="feedback",
            arguments={"go": _shape(3, 4)},
        ),
        _raw(
            "feedback-lstm-f32",
            _cell("LSTMCell", 4, num_proj=3),
            input="feedback",
            arguments={"go": _shape(3, 3)},
            dtype="float32",
            initial_state="given",
        ),
        _raw("decoder", "gru", input="embed", emit="words", arguments=words, values=go),
        _raw(
            "decoder-until_end",
            "lstm",
            input="embed",
            emit="words",
            finished="end_of_words",
            arguments=words,
            values=go,
            initial_state="given",
            lengths=_lengths(5, 4, 5),
        ),
        _raw(
            "decoder-tokens",
            _LOOKUP,
            input="tokens",
            values=go,
            emit="words",
            initial_state="given",
        ),
        _raw("input-from_state", _cell("GRUCell", 4), input="state", loop="times"),
        _raw(
            "input-numpy",
            "gru",
            input="numpy",
            differs="A NumPy array will do as an input.",
            initial_state="given",
        ),
    ]


def _padded() -> list[Spec]:
    """Padding that is not finite."""
    clean = "Padding that is not finite gives gradients of zero, not NaN."
    rows = (
        ("lstm_all", "nan", "zero", "page"),
        ("gru", "inf", "given", "page"),
        ("basic_rnn", "nan", "given", "read"),
        ("multi_mixed", "nan", "zero", "read"),
    )
    return [
        _raw(
            f"padding-{cell}-{value}",
            cell,
            padding=value,
            initial_state=state,
            input=reading,
            differs=clean,
        )
        for cell, value, state, reading in rows
    ]


def _steps(*shape: int, time: int = 4) -> Spec:
    """A list of `time` inputs."""
    return _list(*[_shape(*shape) for _ in range(time)])


def _static(name: str, cell: Any, lengths: Any = _RAGGED, **fields: Any) -> Spec:
    """One case of static_rnn, or of another `function`."""
    arguments = {"inputs": _steps(fields.get("batch", 3), 3)}
    values = {} if lengths is None else {"sequence_length": lengths}
    fields = {"arguments": arguments, "values": values} | fields
    function = fields.pop("function", "static_rnn")
    cells = _CELLS[cell] if isinstance(cell, str) else cell
    return _case(name, "static", function, cells=cells, **fields)


def _static_cases() -> list[Spec]:
    """static_rnn, and the one that saves its state."""
    cells = (
        ("basic_rnn", None, "float32"),
        ("basic_lstm", _lengths(3, 2, 3), "float64"),
        ("lstm_all", _RAGGED, "float64"),
        ("lstm", None, "float64"),
        ("gru", _lengths(2, 0, 4), "float32"),
        ("multi_mixed", _RAGGED, "float64"),
        ("residual", _lengths(4, 4, 4), "float64"),
        ("lstm_concat", _lengths(9, 1, -1), "float32"),
        ("gru", _RAGGED, "float16"),
        ("lstm", _RAGGED, "bfloat16"),
    )
    kinds = {
        "whole": None,
        "two_one": _lengths(2, 1, 2),
        "none": _lengths(0, 0, -1),
        "beyond": _lengths(9, 1, 2),
        "int64": _lengths(4, 1, 0, dtype="int64"),
    }
    counting = {"state": _COUNTER_STATE, "initial_state": "given"}
    clean = "Padding that is not finite gives gradients of zero, not NaN."
    recording = {
        "initial_state": "given",
        "state": _RECORDER_STATE,
        "array_state": True,
    }
    saving = {"function": "static_state_saving_rnn", "initial_state": "given"}
    return [
        *(
            _static(
                f"static-{cell}-{_SHORT[dtype]}-{index}",
                cell,
                lengths,
                dtype=dtype,
                initial_state="given" if index % 2 else "zero",
                where="both" if index % 4 == 0 else "jit",
            )
            for index, (cell, lengths, dtype) in enumerate(cells)
        ),
        *(
            _static(f"static-counter-{kind}", _COUNTER, lengths, **counting)
            for kind, lengths in kinds.items()
        ),
        _static(
            "static-int_counter",
            _INT_COUNTER,
            state=_INT_COUNTER_STATE,
            initial_state="given",
        ),
        _static(
            "static-pairs",
            _PAIRS,
            arguments={"inputs": _list(*[_tuple(_shape(3, 2), _shape(3, 3))] * 3)},
        ),
        _static(
            "static-dict_outputs",
            _DICT_OUTPUTS,
            arguments={"inputs": _tuple(_shape(3, 3), _shape(3, 3))},
        ),
        _static("static-grid", _GRID, arguments={"inputs": _steps(3, 2, 3)}),
        _static("static-silent", _SILENT),
        _static("static-row_sum", _ROW_SUM, _lengths(1, 3, 2)),
        _static("static-one_step", "gru", arguments={"inputs": _steps(3, 3, time=1)}),
        _static("static-array_in_state", _RECORDER, None, **recording),
        _static("static-array_in_state-ragged", _RECORDER, **recording),
        _case(
            "dynamic-array_in_state",
            "static",
            "dynamic_rnn",
            cells=_RECORDER,
            arguments={"inputs": _shape(4, 3, 3)},
            options={"time_major": True},
            **recording,
        ),
        _case(
            "dynamic-array_in_state-ragged",
            "static",
            "dynamic_rnn",
            cells=_RECORDER,
            arguments={"inputs": _shape(4, 3, 3)},
            values={"sequence_length": _lengths(3, 1, 0)},
            options={"time_major": True},
            **recording,
        ),
        *(
            _static(f"static-padding-{cell}", cell, padding="nan", differs=clean)
            for cell in ("lstm_all", "gru")
        ),
        _static("saving-gru", "gru", options={"state_name": "h"}, **saving),
        _static("saving-gru-whole", "gru", None, options={"state_name": "h"}, **saving),
        _static(
            "saving-lstm",
            "lstm",
            options={"state_name": {"tuple": ["c", "h"]}},
            **saving,
        ),
        _static(
            "saving-lstm_all-f32",
            "lstm_all",
            dtype="float32",
            options={"state_name": {"tuple": ["second", "first"]}},
            **saving,
        ),
        _static(
            "saving-flat_names",
            "multi_nested",
            _lengths(0, 4, 2),
            options={"state_name": {"tuple": ["a", "b", "c", "d"]}},
            **saving,
        ),
        _static(
            "saving-nested_names",
            "multi",
            options={"state_name": {"tuple": [{"tuple": ["c", "h"]}, "g"]}},
            **saving,
        ),
        _static(
            "saving-none",
            "lstm",
            _lengths(0, 0, 0),
            options={"state_name": {"tuple": ["c", "h"]}},
            **saving,
        ),
    ]


def _pair(fw: Any, bw: Any) -> Spec:
    """A forward and a backward cell."""
    return {
        "fw": _CELLS[fw] if isinstance(fw, str) else fw,
        "bw": _CELLS[bw] if isinstance(bw, str) else bw,
    }


def _layers(*pairs: tuple[Any, Any]) -> Spec:
    """A stack of pairs of cells."""
    return {f"layer_{index}": _pair(*pair) for index, pair in enumerate(pairs)}


def _bidirectional_cases() -> list[Spec]:
    """Two directions of static_rnn, and stacks of two directions."""
    clean = "Padding that is not finite gives gradients of zero, not NaN."
    steps = {"arguments": {"inputs": _steps(3, 3, time=3)}, "where": "jit"}
    two = {"function": "static_bidirectional_rnn", "where": "jit"}
    both = {"where": "both"}
    wide = (_cell("GRUCell", 3), _cell("BasicRNNCell", 2))
    deep = (("lstm", "gru"), wide)
    small = (("basic_rnn", "gru"), (_cell("BasicRNNCell", 3), _cell("GRUCell", 2)))
    static = {"function": "stack_bidirectional_rnn"} | steps
    dynamic = {
        "function": "stack_bidirectional_dynamic_rnn",
        "arguments": {"inputs": _shape(3, 3, 3)},
        "where": "jit",
    }
    short, three = _lengths(2, 0, 3), _lengths(3, 1, 2)
    return [
        _static("two_ways-gru-lstm", _pair("gru", "lstm"), **two | both),
        _static("two_ways-whole", _pair("lstm_all", "gru"), None, **two),
        _static(
            "two_ways-given-f32",
            _pair("basic_rnn", "multi"),
            dtype="float32",
            initial_state="given",
            **two,
        ),
        _static(
            "two_ways-zeros",
            _pair("gru", "gru"),
            _lengths(0, 0, 0),
            initial_state="given",
            **two,
        ),
        _static("two_ways-short", _pair("lstm", "lstm"), short, **two),
        _static("two_ways-f16", _pair("gru", "basic_rnn"), dtype="float16", **two),
        _static(
            "two_ways-dict_outputs",
            _pair(_DICT_OUTPUTS, _DICT_OUTPUTS),
            initial_state="given",
            **two,
        ),
        _static(
            "two_ways-rank_3",
            _pair(_GRID, _GRID),
            arguments={"inputs": _steps(3, 2, 3)},
            **two,
        ),
        _static(
            "two_ways-one_step",
            _pair("gru", "gru"),
            None,
            arguments={"inputs": _steps(3, 3, time=1)},
            **two,
        ),
        _static(
            "two_ways-padding",
            _pair("lstm_all", "gru"),
            padding="nan",
            differs=clean,
            **two,
        ),
        _static("stack-one", _layers(("gru", "lstm")), three, **static | both),
        _static("stack-two", _layers(*deep), three, **static),
        _static(
            "stack-two-whole-f32", _layers(*small), None, dtype="float32", **static
        ),
        _static(
            "stack-two-given", _layers(*small), three, initial_state="given", **static
        ),
        _static("stack-three", _layers(*small, wide), short, **static),
        _static(
            "stack-padding",
            _layers(*small),
            three,
            padding="nan",
            differs=clean,
            **static,
        ),
        _static("stack_dynamic-one", _layers(("gru", "lstm")), three, **dynamic | both),
        _static("stack_dynamic-two", _layers(*small), three, **dynamic),
        _static(
            "stack_dynamic-one-whole-f32",
            _layers(("gru", "basic_rnn")),
            None,
            dtype="float32",
            **dynamic,
        ),
        _static(
            "stack_dynamic-given",
            _layers(*small),
            three,
            initial_state="given",
            **dynamic,
        ),
        _static(
            "stack_dynamic-time_major",
            _layers(*small),
            short,
            where="jit",
            function="stack_bidirectional_dynamic_rnn",
            arguments={"inputs": _shape(3, 3, 3)},
            options={"time_major": True},
        ),
        _static(
            "stack_dynamic-padding",
            _layers(*small),
            three,
            padding="nan",
            differs=clean,
            **dynamic,
        ),
    ]


def _array(
    name: str, script: list[list[Any]], options: Spec | None = None, **fields: Any
) -> Spec:
    """One case of TensorArray with three elements."""
    values = {key: fields.pop(key) for key in ("i", "n") if key in fields}
    defaults = {"arguments": {"x": _shape(3, 2)}, "values": values}
    return _case(
        name,
        "tensor_array",
        "TensorArray",
        script=script,
        options={"size": 3} | (options or {}),
        **(defaults | fields),
    )


_FILL = [
    ["ta1", "ta", "write", 0, "$x.0"],
    ["ta2", "ta1", "write", 1, "$x.1"],
    ["ta3", "ta2", "write", 2, "$x.2"],
]
_UNSTACK = [["ta1", "ta", "unstack", "$x"]]
_SHAPED = {"element_shape": {"list": [2]}}
_GROWS = {"size": 0, "dynamic_size": True}


def _array_cases() -> list[Spec]:
    """TensorArray on its own."""
    stack = ["r", "ta3", "stack"]
    adds = "Duplicates in gather add their cotangents."
    last = "Of duplicates in scatter only the surviving write has the gradient."
    again = "A second write to one index is refused where the index is known."
    zeros = "A dynamic array that grows by scatter is filled with zeros."
    return [
        _array("write-stack", [*_FILL, stack, ["n", "ta3", "size"]]),
        _array("write-stack-f32", [*_FILL, stack], dtype="float32"),
        _array("write-stack-f16", [*_FILL, stack], dtype="float16"),
        _array("write-stack-bf16", [*_FILL, stack], dtype="bfloat16"),
        _array(
            "write-read", [*_FILL, ["a", "ta3", "read", 2], ["b", "ta3", "read", 0]]
        ),
        _array(
            "write-backwards",
            [
                *[_FILL[0]],
                ["ta2", "ta1", "write", 2, "$x.2"],
                ["ta3", "ta2", "write", 1, "$x.1"],
                stack,
            ],
        ),
        _array(
            "write-traced_index",
            [
                ["ta1", "ta", "write", "$i.0", "$x.0"],
                ["ta2", "ta1", "write", "$i.1", "$x.1"],
                ["r", "ta2", "stack"],
                ["a", "ta2", "read", "$i.1"],
            ],
            _SHAPED,
            i=_lengths(2, 0),
        ),
        _array(
            "unwritten-shape_given",
            [["r", "ta", "stack"], ["a", "ta", "read", 1], ["n", "ta", "size"]],
            _SHAPED,
        ),
        _array(
            "unwritten-shape_inferred",
            [_FILL[0], ["r", "ta1", "stack"], ["a", "ta1", "read", 2]],
        ),
        _array(
            "old_handle", [*_FILL[:2], ["r", "ta1", "stack"], ["s", "ta2", "stack"]]
        ),
        _array(
            "branches",
            [
                _FILL[0],
                ["ta2", "ta1", "write", 1, "$x.1"],
                ["ta3", "ta1", "write", 1, "$x.2"],
                ["r", "ta2", "stack"],
                ["s", "ta3", "stack"],
            ],
        ),
        _array(
            "read_twice", [*_FILL, ["a", "ta3", "read", 1], ["b", "ta3", "read", 1]]
        ),
        _array(
            "read_twice-keep",
            [*_FILL, ["a", "ta3", "read", 1], ["b", "ta3", "read", 1], stack],
            {"clear_after_read": False},
        ),
        _array(
            "read_twice-clear",
            [*_FILL, ["a", "ta3", "read", 1], ["b", "ta3", "read", 1]],
            {"clear_after_read": True},
        ),
        _array("unstack-stack", [*_UNSTACK, ["r", "ta1", "stack"]]),
        _array(
            "unstack-read",
            [*_UNSTACK, ["a", "ta1", "read", 2], ["n", "ta1", "size"]],
            dtype="float32",
        ),
        _array(
            "unstack-traced_read",
            [*_UNSTACK, ["a", "ta1", "read", "$i.0"]],
            i=_lengths(1),
        ),
        _array(
            "unstack-growing",
            [*_UNSTACK, ["r", "ta1", "stack"], ["n", "ta1", "size"]],
            _GROWS,
        ),
        _array(
            "unstack-scalars",
            [*_UNSTACK, ["r", "ta1", "stack"], ["a", "ta1", "read", 0]],
            arguments={"x": _shape(3)},
        ),
        _array(
            "unstack-rank_3",
            [*_UNSTACK, ["r", "ta1", "stack"], ["a", "ta1", "read", 1]],
            arguments={"x": _shape(3, 2, 2)},
        ),
        _array(
            "unstack-int",
            [*_UNSTACK, ["r", "ta1", "stack"]],
            {"dtype": "int32"},
            arguments={"x": _shape(3, 2, dtype="int32")},
        ),
        _array(
            "write-bool",
            [["ta1", "ta", "write", 1, "$i"], ["r", "ta1", "stack"]],
            {"dtype": "bool"},
            arguments={},
            i=_lengths(True, False, dtype="bool"),
        ),
        _array("gather", [*_UNSTACK, ["r", "ta1", "gather", "$i"]], i=_lengths(2, 0)),
        _array(
            "gather-all",
            [*_UNSTACK, ["r", "ta1", "gather", "$i"]],
            i=_lengths(2, 0, 1),
            dtype="float32",
        ),
        _array(
            "gather-unwritten",
            [["ta2", "ta", "write", 1, "$x.1"], ["r", "ta2", "gather", "$i"]],
            _SHAPED,
            i=_lengths(0, 1),
        ),
        _array(
            "gather-duplicates",
            [*_UNSTACK, ["r", "ta1", "gather", "$i"]],
            i=_lengths(0, 0, 2),
            differs=adds,
            tf_script=[
                *_UNSTACK,
                ["_a", "ta1", "read", 0],
                ["_b", "ta1", "read", 0],
                ["_c", "ta1", "read", 2],
                ["ta2", "ta", "write", 0, "@_a"],
                ["ta3", "ta2", "write", 1, "@_b"],
                ["ta4", "ta3", "write", 2, "@_c"],
                ["r", "ta4", "stack"],
            ],
        ),
        _array(
            "scatter",
            [["ta1", "ta", "scatter", "$i", "$x"], ["r", "ta1", "stack"]],
            i=_lengths(2, 0, 1),
        ),
        _array(
            "scatter-some",
            [
                ["ta1", "ta", "scatter", "$i", "$x"],
                ["r", "ta1", "stack"],
                ["n", "ta1", "size"],
            ],
            {"size": 5},
            i=_lengths(3, 0, 1),
        ),
        _array(
            "scatter-keeps",
            [
                ["ta1", "ta", "write", 1, "$y"],
                ["ta2", "ta1", "scatter", "$i", "$x"],
                ["r", "ta2", "stack"],
            ],
            {"size": 4},
            i=_lengths(3, 0, 2),
            arguments={"x": _shape(3, 2), "y": _shape(2)},
        ),
        _array(
            "scatter-duplicates",
            [["ta1", "ta", "scatter", "$i", "$x"], ["r", "ta1", "stack"]],
            i=_lengths(1, 1, 2),
            differs=last,
            tf_script=[
                ["ta1", "ta", "write", 1, "$x.1"],
                ["ta2", "ta1", "write", 2, "$x.2"],
                ["r", "ta2", "stack"],
            ],
        ),
        _array(
            "scatter-growing",
            [
                ["ta1", "ta", "scatter", "$i", "$x"],
                ["r", "ta1", "stack"],
                ["n", "ta1", "size"],
            ],
            _GROWS,
            i=_lengths(4, 0, 2),
            where="eager",
            differs=zeros,
            tf_script=[
                ["ta1", "ta", "write", 4, "$x.0"],
                ["ta2", "ta1", "write", 0, "$x.1"],
                ["ta3", "ta2", "write", 2, "$x.2"],
                ["r", "ta3", "stack"],
                ["n", "ta3", "size"],
            ],
        ),
        _array(
            "split",
            [
                ["ta1", "ta", "split", "$x", "$n"],
                ["r", "ta1", "concat"],
                ["n", "ta1", "size"],
            ],
            {"infer_shape": False},
            arguments={"x": _shape(4, 2)},
            n=_lengths(1, 2, 1),
            where="eager",
        ),
        _array(
            "split-read",
            [
                ["ta1", "ta", "split", "$x", "$n"],
                ["a", "ta1", "read", 1],
                ["b", "ta1", "read", 0],
            ],
            {"infer_shape": False},
            arguments={"x": _shape(5, 2)},
            n=_lengths(1, 3, 1),
            where="eager",
        ),
        _array(
            "split-equal",
            [
                ["ta1", "ta", "split", "$x", "$n"],
                ["r", "ta1", "stack"],
                ["s", "ta1", "concat"],
            ],
            arguments={"x": _shape(6, 2)},
            n=_lengths(2, 2, 2),
            where="eager",
        ),
        _array(
            "concat", [*_FILL, ["r", "ta3", "concat"]], arguments={"x": _shape(3, 2, 2)}
        ),
        _array(
            "concat-ragged",
            [
                ["ta1", "ta", "write", 0, "$x"],
                ["ta2", "ta1", "write", 1, "$y"],
                ["r", "ta2", "concat"],
                ["a", "ta2", "read", 1],
            ],
            {"size": 2, "infer_shape": False},
            arguments={"x": _shape(3, 2), "y": _shape(1, 2)},
        ),
        _array(
            "grow",
            [
                ["ta1", "ta", "write", 0, "$x.0"],
                ["ta2", "ta1", "write", 3, "$x.1"],
                ["r", "ta2", "stack"],
                ["n", "ta2", "size"],
                ["m", "ta1", "size"],
            ],
            _GROWS,
        ),
        _array(
            "grow-from_size",
            [
                ["ta1", "ta", "write", 4, "$x.0"],
                ["r", "ta1", "stack"],
                ["n", "ta1", "size"],
            ],
            {"dynamic_size": True},
            dtype="float32",
        ),
        _array(
            "empty", [["r", "ta", "stack"], ["n", "ta", "size"]], _SHAPED | {"size": 0}
        ),
        _array(
            "empty-growing",
            [["r", "ta", "stack"], ["n", "ta", "size"]],
            _SHAPED | _GROWS,
        ),
        _array(
            "identity",
            [
                *_FILL,
                ["ta4", "ta3", "identity"],
                ["r", "ta4", "stack"],
                ["n", "ta4", "size"],
            ],
        ),
        _array(
            "write_twice",
            [
                ["ta1", "ta", "write", "$i.0", "$x.0"],
                ["ta2", "ta1", "write", "$i.1", "$x.1"],
                ["r", "ta2", "stack"],
            ],
            _SHAPED,
            i=_lengths(1, 1),
            where="jit",
            differs=again,
        ),
        _array(
            "several_results",
            [
                *_FILL,
                stack,
                ["s", "ta3", "gather", "$i"],
                ["a", "ta3", "read", 1],
                ["b", "ta1", "stack"],
            ],
            i=_lengths(1),
        ),
    ]


CASES = [
    *_page(),
    *_ends(),
    *_states(),
    *_emits(),
    *_loop_states(),
    *_decoders(),
    *_padded(),
    *_static_cases(),
    *_bidirectional_cases(),
    *_array_cases(),
]


def _refused(case: Spec, raises: str | None = None, why: str | None = None) -> Spec:
    """A refusal; `raises` and `why` say what jaxrnn does on purpose."""
    ours = {"raises": raises, "why": why} if why else None
    return case | {"family": "refusals", "ours": ours}


def _bad_loops() -> list[Spec]:
    """Calls of raw_rnn that break its protocol."""
    given = {"initial_state": "given"}
    int_first = {**given, "state": _INT_COUNTER_STATE}
    wide = _shape(4, 3, 3)
    rows = (
        ("finished-int", {"finished": "int"}),
        ("finished-list", {"finished": "list"}),
        ("finished-wrong_batch", {"finished": "wrong_batch"}),
        ("finished-one", {"finished": "one"}),
        ("finished-column_for_wide_leaves", {"finished": "column"}),
        ("finished-rank_changes", {"finished": "rank_changes"}),
        ("finished-first_int", {"finished": "first_int"}),
        ("input-other_structure", {"input": "other_structure"}),
        ("input-other_dtype", {"input": "other_dtype"}),
        ("input-other_shape", {"input": "other_shape"}),
        ("input-other_batch", {"input": "other_batch"}),
        ("input-batches_differ", {"input": "batches_differ"}),
        ("input-scalar", {"input": "scalar"}),
        ("state-first_structure", {"next_state": "first_structure"}),
        ("state-other_structure", {"next_state": "other_structure"}),
        ("state-other_dtype", {"next_state": "other_dtype"}),
        ("state-other_shape", {"next_state": "other_shape"}),
        ("state-none", {"next_state": "none"}),
        ("emit-template_with_batch", {"emit": "template_with_batch"}),
        ("emit-later_none", {"emit": "later_none"}),
        ("emit-other_structure", {"emit": "other_structure"}),
        ("emit-list_for_tuple", {"emit": "list_for_tuple"}),
        ("emit-other_dtype", {"emit": "other_dtype"}),
        ("emit-other_shape", {"emit": "other_shape"}),
        ("emit-scalar", {"emit": "scalar"}),
        ("emit-wider_than_output_size", {"emit": "too_wide"}),
        ("loop-other_structure", {"loop": "other_structure"}),
        ("loop-other_dtype", {"loop": "other_dtype"}),
        ("loop-other_shape", {"loop": "other_shape"}),
        ("loop-python_int_to_float", {"loop": "int_to_float"}),
    )
    return [
        *(_refused(_raw(name, inputs=wide, **fields)) for name, fields in rows),
        _refused(
            _raw("emit-numpy_template_dtype", emit="numpy_int"),
        ),
        _refused(
            _raw("emit-python_template", emit="python_template"),
            "TypeError",
            "A Python number has no dtype to tell.",
        ),
        _refused(
            _raw("loop-none_then_int", loop="none_then_int"),
            "ValueError",
            "A loop state of None stays None.",
        ),
        _refused(
            _raw("loop-none_then_float", loop="none_then_float"),
            "ValueError",
            "A loop state of None stays None.",
        ),
        _refused(
            _raw("emit-int_state_first", _INT_COUNTER, **int_first),
        ),
        _refused(
            _raw("emit-int_state_first-dict", _MIXED, state=_MIXED_STATE, **given)
        ),
        _refused(
            _raw(
                "state-tensor_array",
                _RECORDER,
                initial_state="given",
                state=_RECORDER_STATE,
                array_state=True,
                emit="doubled",
            ),
            None,
            "TensorArrays in the state go through as they do in dynamic_rnn.",
        ),
        _refused(_raw("raw-not_a_cell", {"not_a_cell": 3})),
        _refused(_raw("raw-not_a_cell_none", {"not_a_cell": None})),
        _refused(_raw("raw-loop_fn_none", options={"loop_fn": None})),
        _refused(_raw("raw-loop_fn_text", options={"loop_fn": "loop_fn"})),
        _refused(_raw("raw-loop_fn_four_results", loop="four_results")),
        _refused(_raw("raw-loop_fn_six_results", loop="six_results")),
        _refused(
            _raw(
                "raw-parallel_iterations_negative", options={"parallel_iterations": -1}
            )
        ),
        _refused(
            _raw("raw-parallel_iterations_float", options={"parallel_iterations": 2.5}),
            "TypeError",
            "Iterations are counted, as in dynamic_rnn.",
        ),
        _refused(
            _raw("raw-parallel_iterations_text", options={"parallel_iterations": "2"})
        ),
    ]


def _bad_statics() -> list[Spec]:
    """Calls of the unrolled drivers."""
    inputs = {"list": [{"array": [3, 3], "dtype": "float32"}] * 4}
    whole = {"array": [4, 3, 3], "dtype": "float32"}
    differing = {
        "list": [
            {"array": [3, 3], "dtype": "float32"},
            {"array": [2, 3], "dtype": "float32"},
        ]
    }
    vector = {"list": [{"array": [3], "dtype": "float32"}]}
    state = {"array": [3, 4], "dtype": "float32"}
    early = "The number of lengths is checked up front."
    floats = "Lengths must be integers."

    def static(name, cell="gru", function="static_rnn", **options):
        cells = {"not_a_cell": 3} if cell is None else cell
        if function.startswith("static_bi"):
            cells = _pair(cells, cells)
        return _static(
            name,
            cells,
            None,
            function=function,
            arguments={},
            dtype="float32",
            options={"inputs": inputs, "dtype": "float32"} | options,
        )

    def saving(name, cell="gru", **options):
        fields = {"inputs": inputs} | options
        return _static(
            name,
            {"not_a_cell": 3} if cell is None else cell,
            None,
            function="static_state_saving_rnn",
            initial_state="zero" if cell is None else "given",
            arguments={},
            dtype="float32",
            options=fields,
        )

    def stacked(name, function="stack_bidirectional_rnn", **options):
        given = inputs if function == "stack_bidirectional_rnn" else whole
        return _static(
            name,
            _layers(("gru", "lstm"), ("gru", "gru")),
            None,
            function=function,
            arguments={},
            dtype="float32",
            options={"inputs": given, "dtype": "float32"} | options,
        )

    both_inputs = (
        ("array", whole),
        ("none", None),
        ("number", 3),
        ("empty", {"list": []}),
        ("batches_differ", differing),
        ("rank_1", vector),
    )
    two = "static_bidirectional_rnn"
    by_hand = "A driver of contrib, which this TensorFlow lacks."
    return [
        _refused(static("static-not_a_cell", None)),
        *(
            _refused(static(f"static-inputs_{kind}", inputs=value))
            for kind, value in both_inputs
        ),
        _refused(static("static-no_dtype", dtype=None)),
        _refused(static("static-inputs_dtype", dtype="float64")),
        _refused(static("static-integer_dtype", dtype="int32")),
        _refused(static("static-lengths_scalar", sequence_length=2)),
        _refused(
            static(
                "static-lengths_rank_2",
                sequence_length={"array": [3, 1], "dtype": "int32"},
            )
        ),
        _refused(
            static(
                "static-lengths_too_many",
                sequence_length={"values": [1, 2, 3, 4], "dtype": "int32"},
            ),
            "ValueError",
            early,
        ),
        _refused(
            static(
                "static-lengths_too_few",
                sequence_length={"values": [1, 2], "dtype": "int32"},
            ),
            "ValueError",
            early,
        ),
        _refused(
            static(
                "static-lengths_float",
                sequence_length={"values": [1.5, 2.0, 3.0], "dtype": "float32"},
            ),
            "TypeError",
            floats,
        ),
        _refused(static("static-state_array_for_lstm", "lstm", initial_state=state)),
        _refused(
            static("static-state_tuple_for_gru", initial_state={"tuple": [state]})
        ),
        _refused(
            static(
                "static-state_wrong_batch",
                initial_state={"array": [2, 4], "dtype": "float32"},
            )
        ),
        _refused(
            static(
                "static-state_wrong_width",
                initial_state={"array": [3, 5], "dtype": "float32"},
            )
        ),
        *(
            _refused(static(f"two_ways-inputs_{kind}", function=two, inputs=value))
            for kind, value in both_inputs
        ),
        _refused(static("two_ways-not_a_cell", None, function=two)),
        _refused(static("two_ways-no_dtype", function=two, dtype=None)),
        _refused(
            static("two_ways-only_fw", function=two, dtype=None, initial_state_fw=state)
        ),
        _refused(
            static(
                "two_ways-lengths_float",
                function=two,
                sequence_length={"values": [1.0, 2.0, 3.0], "dtype": "float32"},
            )
        ),
        _refused(
            static(
                "two_ways-lengths_beyond",
                function=two,
                sequence_length={"values": [9, 2, 3], "dtype": "int32"},
            ),
            None,
            "Lengths outside [0, T] are clamped, as in static_rnn.",
        ),
        _refused(
            saving("saving-not_a_cell", None, state_name="h"),
            "TypeError",
            "What is no cell is a TypeError in all drivers.",
        ),
        _refused(saving("saving-name_for_tuple", "lstm", state_name="h")),
        _refused(saving("saving-tuple_for_array", state_name={"tuple": ["h"]})),
        _refused(saving("saving-too_few", "lstm", state_name={"tuple": ["h"]})),
        _refused(
            saving("saving-too_many", "lstm", state_name={"tuple": ["a", "b", "c"]})
        ),
        _refused(saving("saving-inputs_empty", state_name="h", inputs={"list": []})),
        _refused(saving("saving-inputs_array", state_name="h", inputs=whole)),
        *(
            _refused(
                stacked(f"{function}-{kind}", function, **options), raises, by_hand
            )
            for function in (
                "stack_bidirectional_rnn",
                "stack_bidirectional_dynamic_rnn",
            )
            for kind, options, raises in (
                ("cells_fw_empty", {"cells_fw": {"list": []}}, "ValueError"),
                ("cells_bw_empty", {"cells_bw": {"list": []}}, "ValueError"),
                ("cells_fw_no_list", {"cells_fw": 3}, "ValueError"),
                ("cells_bw_none", {"cells_bw": None}, "ValueError"),
                (
                    "states_fw_no_list",
                    {"initial_states_fw": 3},
                    "ValueError",
                ),
                (
                    "states_bw_too_few",
                    {"initial_states_bw": {"list": [state]}},
                    "ValueError",
                ),
                ("no_dtype", {"dtype": None}, "ValueError"),
            )
        ),
    ]


def _bad_arrays() -> list[Spec]:
    """Calls of TensorArray."""
    late = "An operation's InvalidArgumentError is a ValueError."
    range_ = "Out of range is a ValueError that is also an IndexError."
    types = "A dtype that is not the array's is a TypeError."
    twice = "A second write to one index is refused, as in TensorFlow's version 1."
    wrong = "Unstacking a wrong number would leave `size()` lying."
    first = ["ta1", "ta", "write", 0, "$x.0"]

    def eager(name, script, options=None, raises="ValueError", why=late, **fields):
        """Refusals that depend on sizes and indices known outside of jit."""
        case = _array(name, script, options, dtype="float32", **fields)
        return _refused(case | {"where": "eager"}, raises, why)

    def always(name, script, options=None, raises=None, why=None, **fields):
        """Refusals that shapes and dtypes alone decide."""
        return _refused(
            _array(name, script, options, dtype="float32", **fields), raises, why
        )

    stack = ["r", "ta1", "stack"]
    return [
        eager("array-read_beyond", [*_FILL, ["r", "ta3", "read", 3]], why=range_),
        eager("array-read_negative", [*_FILL, ["r", "ta3", "read", -1]], why=range_),
        eager(
            "array-write_beyond", [["ta1", "ta", "write", 3, "$x.0"], stack], why=range_
        ),
        eager(
            "array-write_negative",
            [["ta1", "ta", "write", -1, "$x.0"], stack],
            why=range_,
        ),
        eager(
            "array-gather_beyond",
            [*_UNSTACK, ["r", "ta1", "gather", "$i"]],
            why=range_,
            i=_lengths(0, 3),
        ),
        eager(
            "array-gather_negative",
            [*_UNSTACK, ["r", "ta1", "gather", "$i"]],
            why=range_,
            i=_lengths(0, -1),
        ),
        eager(
            "array-scatter_beyond",
            [["ta1", "ta", "scatter", "$i", "$x"], stack],
            why=range_,
            i=_lengths(0, 1, 3),
        ),
        eager(
            "array-write_twice",
            [first, ["ta2", "ta1", "write", 0, "$x.1"], ["r", "ta2", "stack"]],
            why=twice,
        ),
        eager("array-read_unwritten_no_shape", [["r", "ta", "read", 0]]),
        eager("array-stack_no_shape", [["r", "ta", "stack"]]),
        eager("array-stack_empty_no_shape", [["r", "ta", "stack"]], {"size": 0}),
        eager(
            "array-split_sum",
            [["ta1", "ta", "split", "$x", "$n"], stack],
            {"infer_shape": False},
            n=_lengths(1, 1, 2),
        ),
        eager(
            "array-split_count",
            [["ta1", "ta", "split", "$x", "$n"], ["r", "ta1", "read", 0]],
            {"infer_shape": False},
            n=_lengths(1, 2),
            why=wrong,
        ),
        always(
            "array-write_dtype",
            [["ta1", "ta", "write", 0, "$y"], stack],
            raises="TypeError",
            why=types,
            arguments={"x": _shape(3, 2), "y": _shape(2, dtype="float64")},
        ),
        always(
            "array-write_int",
            [["ta1", "ta", "write", 0, "$i"], stack],
            raises="TypeError",
            why=types,
            i=_lengths(1, 2),
        ),
        always(
            "array-unstack_dtype",
            [["ta1", "ta", "unstack", "$i"], stack],
            raises="TypeError",
            why=types,
            i=_lengths(1, 2, 3),
        ),
        always(
            "array-write_element_shape",
            [first, stack],
            {"element_shape": {"list": [3]}},
        ),
        always(
            "array-write_first_shape",
            [first, ["ta2", "ta1", "write", 1, "$y"], ["r", "ta2", "stack"]],
            arguments={"x": _shape(3, 2), "y": _shape(3)},
        ),
        always(
            "array-unstack_too_many",
            [*_UNSTACK, stack],
            {"size": 2},
            "ValueError",
            wrong,
        ),
        always(
            "array-unstack_too_few",
            [*_UNSTACK, stack],
            {"size": 4},
            "ValueError",
            wrong,
        ),
        always(
            "array-unstack_rank_0",
            [["ta1", "ta", "unstack", "$x"], stack],
            raises="ValueError",
            why=late,
            arguments={"x": _shape()},
        ),
        always(
            "array-unstack_element_shape",
            [*_UNSTACK, stack],
            {"element_shape": {"list": [3]}},
        ),
        always(
            "array-concat_scalars",
            [*_UNSTACK, ["r", "ta1", "concat"]],
            raises="ValueError",
            why=late,
            arguments={"x": _shape(3)},
        ),
        always("array-no_size", [["n", "ta", "size"]], {"size": None}),
        always("array-grad", [["n", "ta", "grad", "source"]], _SHAPED),
        always(
            "array-ragged_stack",
            [first, ["ta2", "ta1", "write", 1, "$y"], ["r", "ta2", "stack"]],
            {"size": 2, "infer_shape": False},
            "ValueError",
            late,
            arguments={"x": _shape(3, 2), "y": _shape(3)},
        ),
        always(
            "array-scatter_too_few",
            [["ta1", "ta", "scatter", "$i", "$x"], stack],
            raises="ValueError",
            why=late,
            i=_lengths(0, 1),
        ),
    ]


REFUSALS = [*_bad_loops(), *_bad_statics(), *_bad_arrays()]
