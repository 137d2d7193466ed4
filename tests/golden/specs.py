"""What the TensorFlow goldens cover: cases as plain data.

Neither TensorFlow nor JAX is imported here. `make_tf1.py` reads `CASES` and `ERRORS`
to record what TensorFlow does, `replay.py` builds the same calls with jaxrnn.

A tree of sizes is a mapping with one key: `{"shape": [...]}` is a leaf, the size of
one example's one step, and `{"tuple": [...]}`, `{"list": [...]}`, `{"dict": {...}}`
nest. A leaf of a state may add `"batched": False` (no batch axis) and any leaf may
add a `"dtype"` of its own.

A case has these keys:

- `name`: unique; the prefix of its arrays.
- `family`: the `.npz` file that holds them.
- `function`: `dynamic_rnn`, `bidirectional_dynamic_rnn` or `cell`, one call of the
  cell alone.
- `cell`, `cell_bw`: see `_cell`, `_wrap`, `_multi` and `_custom`.
- `batch`, `time`, `inputs`: the sizes; `inputs` is a tree of sizes.
- `dtype`: of parameters, inputs and states; `pass_dtype` says whether the driver
  is given it.
- `lengths`: None or `{"values": [...], "dtype": ...}`.
- `tf_lengths`: what TensorFlow is given instead, where jaxrnn differs on purpose.
- `initial_state`: `"zero"`, `"given"`, or for two directions `"fw"`, `"bw"`, the
  given ones; `state_type` turns a given state to a plain `"tuple"` or `"list"`.
- `state`: a tree of sizes, where the state to give is not the one that the cell's
  zero state tells; `"zero"` to give the zero state itself, whose leaves may be
  unlike those in jaxrnn.
- `time_major`: as the driver's argument.
- `padding`: None, or the value (`"nan"`, `"inf"`, `"-inf"`) that stands in the inputs
  beyond each length. Gradients are then recorded with finite padding, as TensorFlow's
  own are NaN.
- `by_parts`: the two directions are run one by one by `dynamic_rnn` in TensorFlow.
- `differs`: one sentence, where jaxrnn differs from TensorFlow on purpose.
"""

import itertools

_DEFAULTS = {
    "cell_bw": None,
    "batch": 3,
    "time": 5,
    "inputs": {"shape": [3]},
    "dtype": "float64",
    "pass_dtype": True,
    "lengths": None,
    "tf_lengths": None,
    "initial_state": "zero",
    "state_type": None,
    "state": None,
    "time_major": False,
    "padding": None,
    "by_parts": False,
    "differs": None,
}


def _case(name, family, function, cell, **fields):
    """Returns one case; `fields` override the defaults."""
    unknown = set(fields) - set(_DEFAULTS)
    if unknown:
        raise KeyError(f"{name}: no such fields: {sorted(unknown)}.")
    case = {"name": name, "family": family, "function": function, "cell": cell}
    return case | _DEFAULTS | fields


def _cell(name, *args, **kwargs):
    """Returns a built-in cell: its class, positional and keyword arguments."""
    return {"class": name, "args": list(args), "kwargs": kwargs}


def _wrap(name, cell, *args, **kwargs):
    """Returns a wrapper around `cell`."""
    return {"class": name, "cell": cell, "args": list(args), "kwargs": kwargs}


def _multi(*cells, **kwargs):
    """Returns a stack; the same specification twice is one object used twice."""
    return {"class": "MultiRNNCell", "cells": list(cells), "kwargs": kwargs}


def _custom(name, state_size, output_size, params=None, protocol=False):
    """Returns a cell that both sides write by hand, with its parameters' shapes.

    With `protocol` the jaxrnn side is a bare object that keeps the protocol, not a
    `FunctionCell`.
    """
    return {
        "custom": name,
        "state_size": state_size,
        "output_size": output_size,
        "params": params or {},
        "protocol": protocol,
    }


def _shape(*sizes, **fields):
    return {"shape": list(sizes)} | fields


def _tuple(*parts):
    return {"tuple": list(parts)}


def _list(*parts):
    return {"list": list(parts)}


def _dict(**parts):
    return {"dict": parts}


def _lengths(*values, dtype="int32"):
    return {"values": list(values), "dtype": dtype}


_RAGGED = _lengths(5, 2, 3)
_SHORT = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}

_LSTM_ALL = {
    "use_peepholes": True,
    "cell_clip": 0.4,
    "num_proj": 3,
    "proj_clip": 0.2,
    "forget_bias": 0.5,
}

_SAME = _cell("GRUCell", 3)

# Each cell is given inputs of size 3. Sizes differ from one another where they can, so
# that a swap of axes shows.
_CELLS = {
    "basic_rnn": _cell("BasicRNNCell", 4),
    "basic_rnn_relu": _cell("BasicRNNCell", 4, activation="relu"),
    "basic_rnn_sigmoid": _cell("BasicRNNCell", 4, "sigmoid"),
    "basic_lstm": _cell("BasicLSTMCell", 4),
    "basic_lstm_forget": _cell("BasicLSTMCell", 4, -0.5),
    "basic_lstm_concat": _cell("BasicLSTMCell", 4, state_is_tuple=False),
    "basic_lstm_relu": _cell("BasicLSTMCell", 4, activation="relu"),
    "lstm": _cell("LSTMCell", 4),
    "lstm_forget": _cell("LSTMCell", 4, forget_bias=0.0),
    "lstm_concat": _cell("LSTMCell", 4, state_is_tuple=False),
    "lstm_relu": _cell("LSTMCell", 4, activation="relu"),
    "lstm_softsign": _cell("LSTMCell", 4, use_peepholes=True, activation="softsign"),
    "lstm_peep": _cell("LSTMCell", 4, True),
    "lstm_clip": _cell("LSTMCell", 4, cell_clip=0.3),
    "lstm_clip_far": _cell("LSTMCell", 4, cell_clip=50.0),
    "lstm_clip_zero": _cell("LSTMCell", 4, cell_clip=0.0),
    "lstm_peep_clip": _cell("LSTMCell", 4, use_peepholes=True, cell_clip=0.3),
    "lstm_proj": _cell("LSTMCell", 4, num_proj=2),
    "lstm_proj_wide": _cell("LSTMCell", 4, num_proj=6),
    "lstm_proj_clip": _cell("LSTMCell", 4, num_proj=2, proj_clip=0.15),
    "lstm_proj_clip_unused": _cell("LSTMCell", 4, proj_clip=0.05),
    "lstm_all": _cell("LSTMCell", 4, **_LSTM_ALL),
    "lstm_all_concat": _cell("LSTMCell", 4, state_is_tuple=False, **_LSTM_ALL),
    "gru": _cell("GRUCell", 4),
    "gru_relu": _cell("GRUCell", 4, activation="relu"),
    "multi_one": _multi(_cell("GRUCell", 4)),
    "multi": _multi(_cell("LSTMCell", 4), _cell("GRUCell", 2)),
    "multi_mixed": _multi(
        _cell("BasicRNNCell", 3), _cell("LSTMCell", 4, num_proj=2), _cell("GRUCell", 3)
    ),
    "multi_same": _multi(_SAME, _SAME),
    "multi_concat": _multi(
        _cell("GRUCell", 2),
        _cell("LSTMCell", 4, num_proj=3, state_is_tuple=False),
        _cell("BasicRNNCell", 3),
        state_is_tuple=False,
    ),
    "multi_nested": _multi(
        _multi(_cell("BasicRNNCell", 2), _cell("GRUCell", 3)), _cell("LSTMCell", 2)
    ),
    "residual": _wrap("ResidualWrapper", _cell("GRUCell", 3)),
    "residual_fn": _wrap(
        "ResidualWrapper", _cell("LSTMCell", 3), residual_fn="gated_difference"
    ),
    "residual_multi": _multi(
        _wrap("ResidualWrapper", _cell("LSTMCell", 3)), _cell("BasicRNNCell", 2)
    ),
    "dropout_keep": _wrap("DropoutWrapper", _cell("LSTMCell", 4), 1.0, 1.0, 1.0),
    "device": _wrap("DeviceWrapper", _cell("GRUCell", 4), "/cpu:0"),
}


def _family(cell):
    """Returns the file for a cell of `_CELLS`."""
    for prefix in ("basic_rnn", "basic_lstm", "lstm", "gru", "multi"):
        if cell.startswith(prefix):
            return prefix
    return "wrapper"


def _each_cell():
    """Every cell over ragged rows in float64, and whole rows in float32."""
    for index, (name, cell) in enumerate(_CELLS.items()):
        yield _case(
            f"{name}-ragged-f64",
            _family(name),
            "dynamic_rnn",
            cell,
            lengths=_RAGGED,
            time_major=index % 2 == 1,
            initial_state="given" if index % 3 == 2 else "zero",
        )
        yield _case(
            f"{name}-whole-f32",
            _family(name),
            "dynamic_rnn",
            cell,
            dtype="float32",
            pass_dtype=index % 2 == 1,
            initial_state="given",
            time_major=index % 4 > 1,
        )


_LENGTHS = {
    "full": _lengths(5, 5, 5),
    "some_zero": _lengths(0, 3, 5),
    "all_zero": _lengths(0, 0, 0),
    "short": _lengths(2, 1, 2),
    "negative": _lengths(-1, 4, -7),
    "all_negative": _lengths(-1, -2, -3),
    "beyond": _lengths(9, 3, 6),
    "int64": _lengths(1, 5, 4, dtype="int64"),
    "uint8": _lengths(3, 255, 2, dtype="uint8"),
    "bool": _lengths(True, False, True, dtype="bool"),
}


def _each_length():
    """Kinds of lengths over a few cells."""
    cells = ("basic_rnn", "lstm_all", "multi")
    pairs = itertools.product(cells, _LENGTHS.items())
    for index, (name, (kind, lengths)) in enumerate(pairs):
        yield _case(
            f"{name}-lengths_{kind}",
            "lengths",
            "dynamic_rnn",
            _CELLS[name],
            lengths=lengths,
            dtype="float32" if index % 2 else "float64",
            initial_state="given" if index % 3 else "zero",
            time_major=index % 4 == 3,
        )


# Batch, time, depth, units, lengths.
_SHAPES = (
    (0, 3, 2, 3, None),
    (0, 3, 2, 3, []),
    (1, 1, 1, 1, None),
    (1, 1, 1, 1, [1]),
    (3, 0, 2, 3, None),
    (3, 0, 2, 3, [0, 2, -1]),
    (3, 4, 0, 2, [4, 0, 2]),
    (2, 3, 2, 0, [1, 3]),
    (5, 2, 1, 3, [2, 1, 0, 2, 1]),
    (4, 7, 3, 2, None),
    (1, 6, 3, 5, [4]),
)


def _each_shape():
    """Small and empty axes."""
    for index, (batch, time, depth, units, values) in enumerate(_SHAPES):
        for name in ("LSTMCell", "GRUCell"):
            lengths = None if values is None else _lengths(*values)
            kind = "whole" if values is None else "lengths"
            yield _case(
                f"{name}-b{batch}t{time}d{depth}h{units}-{kind}",
                "shapes",
                "dynamic_rnn",
                _cell(name, units),
                batch=batch,
                time=time,
                inputs=_shape(depth),
                lengths=lengths,
                initial_state="given" if (index + (name == "GRUCell")) % 2 else "zero",
                time_major=index % 3 == 1,
                dtype="float32" if index % 2 else "float64",
            )


def _each_half():
    """Half precision: each operation rounds."""
    cells = ("basic_rnn", "basic_lstm", "lstm_all", "gru", "multi_mixed", "residual")
    for index, (name, dtype) in enumerate(
        itertools.product(cells, ("float16", "bfloat16"))
    ):
        yield _case(
            f"{name}-{_SHORT[dtype]}",
            "half",
            "dynamic_rnn",
            _CELLS[name],
            dtype=dtype,
            lengths=None if index % 4 == 3 else _RAGGED,
            initial_state="given" if index % 4 > 1 else "zero",
        )


def _each_padding():
    """NaN and infinities beyond the lengths."""
    rows = (
        ("basic_rnn", "nan", _RAGGED),
        ("basic_rnn_relu", "inf", _RAGGED),
        ("basic_lstm", "nan", _lengths(0, 1, 4)),
        ("lstm", "-inf", _RAGGED),
        ("lstm_all", "nan", _RAGGED),
        ("gru", "nan", _RAGGED),
        ("gru", "inf", _lengths(3, 0, 2)),
        ("multi_mixed", "nan", _RAGGED),
        ("residual", "nan", _RAGGED),
        ("lstm_peep", "nan", _lengths(0, 0, 0)),
    )
    for index, (name, padding, lengths) in enumerate(rows):
        yield _case(
            f"{name}-padding_{padding}-{index}",
            "padding",
            "dynamic_rnn",
            _CELLS[name],
            lengths=lengths,
            padding=padding,
            initial_state="given" if index % 2 else "zero",
            time_major=index % 3 == 2,
            dtype="float32" if index % 2 else "float64",
        )
    for padding in ("nan", "inf"):
        yield _case(
            f"two_ways-padding_{padding}",
            "padding",
            "bidirectional_dynamic_rnn",
            _CELLS["lstm_all"],
            cell_bw=_CELLS["gru"],
            lengths=_RAGGED,
            padding=padding,
        )


def _each_pair():
    """Two directions."""
    pairs = (
        ("basic_rnn", "basic_rnn_relu"),
        ("lstm", "lstm"),
        ("gru", "lstm_all"),
        ("multi", "basic_lstm_concat"),
        ("residual", "residual_fn"),
    )
    kinds = {
        "whole": None,
        "ragged": _RAGGED,
        "some_zero": _lengths(4, 0, 1, dtype="int64"),
        "all_zero": _lengths(0, 0, 0),
    }
    given = ("zero", "given", "fw", "given", "bw", "zero", "given")
    triples = itertools.product(pairs, kinds.items())
    for index, ((cell, cell_bw), (kind, lengths)) in enumerate(triples):
        state = given[index % len(given)]
        yield _case(
            f"{cell}-{cell_bw}-{kind}",
            "bidirectional",
            "bidirectional_dynamic_rnn",
            _CELLS[cell],
            cell_bw=_CELLS[cell_bw],
            lengths=lengths,
            dtype="float32" if index % 2 else "float64",
            initial_state=state,
            pass_dtype=state != "given" or index % 2 == 0,
            time_major=index % 3 == 1,
        )
    for batch, time, values in ((2, 0, None), (0, 3, None), (1, 1, [1]), (4, 7, None)):
        yield _case(
            f"gru-lstm-b{batch}t{time}",
            "bidirectional",
            "bidirectional_dynamic_rnn",
            _CELLS["gru"],
            cell_bw=_CELLS["lstm"],
            batch=batch,
            time=time,
            lengths=values and _lengths(*values),
        )
    for dtype in ("float16", "bfloat16"):
        yield _case(
            f"gru-basic_rnn-{_SHORT[dtype]}",
            "bidirectional",
            "bidirectional_dynamic_rnn",
            _CELLS["gru"],
            cell_bw=_CELLS["basic_rnn"],
            dtype=dtype,
            lengths=_RAGGED,
            initial_state="given",
        )
    yield _case(
        "dict_inputs-ragged",
        "bidirectional",
        "bidirectional_dynamic_rnn",
        _DICT_INPUTS,
        cell_bw=_DICT_INPUTS,
        inputs=_DICT_INPUT_SIZES,
        lengths=_RAGGED,
        initial_state="bw",
    )


def _each_call():
    """One call of a cell, with no driver around it."""
    names = (
        "basic_rnn",
        "basic_rnn_sigmoid",
        "basic_lstm",
        "basic_lstm_concat",
        "lstm_peep",
        "lstm_clip",
        "lstm_proj_clip",
        "lstm_all",
        "lstm_all_concat",
        "gru",
        "multi_mixed",
        "multi_same",
        "multi_concat",
        "residual",
        "dropout_keep",
    )
    for index, name in enumerate(names):
        yield _case(
            f"{name}-call",
            "call",
            "cell",
            _CELLS[name],
            dtype="float32" if index % 3 == 2 else "float64",
            initial_state="given",
            pass_dtype=False,
        )
    for name, dtype in (("lstm_all", "float16"), ("gru", "bfloat16")):
        yield _case(
            f"{name}-call-{_SHORT[dtype]}",
            "call",
            "cell",
            _CELLS[name],
            dtype=dtype,
            initial_state="given",
            pass_dtype=False,
        )


_DICT_INPUT_SIZES = _dict(a=_shape(3), b=_shape(2))
_DICT_INPUTS = _custom(
    "dict_inputs", _shape(4), _shape(4), {"w_a": [3, 4], "w_b": [2, 4]}
)
_PAIRS = _custom(
    "pairs", _tuple(_shape(2), _shape(3)), _tuple(_shape(3), _shape(2)), {"w": [2, 3]}
)
_PAIR_SIZES = _tuple(_shape(2), _shape(3))
_GRID = _custom("grid", _shape(2, 3), _shape(3, 2))
_DEEP = _custom("deep", _shape(2), _shape(2, 3))
_COUNTER = _custom("counter", _tuple(_shape(), _shape(3)), _shape(3), protocol=True)
_COUNTER_STATE = _tuple(_shape(batched=False), _shape(3))
_INT_COUNTER = _custom("int_counter", _tuple(_shape(), _shape(3)), _shape(3))
_INT_COUNTER_STATE = _tuple(_shape(batched=False, dtype="int32"), _shape(3))
_ROW_SUM = _custom("row_sum", _shape(), _shape(), protocol=True)
_MIXED = _custom("mixed", _dict(n=_shape(2), s=_shape(3)), _shape(3))
_MIXED_STATE = _dict(n=_shape(2, dtype="int32"), s=_shape(3))
_SILENT = _custom("silent", _shape(3), _tuple())
_DICT_OUTPUTS = _custom("dict_outputs", _shape(3), _dict(y=_shape(3), z=_shape(3, 1)))
_LIST_STATE = _custom("list_state", _list(_shape(3), _shape(3)), _shape(3))
_LOOKUP = _custom("lookup", _shape(4), _shape(4), {"table": [5, 4]})


def _each_custom():
    """Cells written by hand: nests, ranks and dtypes that built-in cells lack."""
    ragged, short, zero = _RAGGED, _lengths(2, 1, 2), _lengths(0, 0, 0)
    rows = (
        ("dict_inputs", _DICT_INPUTS, {"inputs": _DICT_INPUT_SIZES}, (None, ragged)),
        (
            "pairs",
            _PAIRS,
            {"inputs": _PAIR_SIZES, "initial_state": "given"},
            (None, ragged),
        ),
        ("grid", _GRID, {"inputs": _shape(2, 3)}, (None, ragged)),
        ("deep", _DEEP, {"inputs": _shape(2, 3, 2)}, (ragged,)),
        (
            "counter",
            _COUNTER,
            {"state": _COUNTER_STATE, "initial_state": "given"},
            (None, ragged, short, zero, _lengths(9, 1, -1)),
        ),
        (
            "int_counter",
            _INT_COUNTER,
            {"state": _INT_COUNTER_STATE, "initial_state": "given"},
            (None, short, zero),
        ),
        ("row_sum", _ROW_SUM, {}, (None, ragged)),
        ("row_sum-given", _ROW_SUM, {"initial_state": "given"}, (short,)),
        (
            "mixed",
            _MIXED,
            {"state": _MIXED_STATE, "initial_state": "given"},
            (None, ragged, zero),
        ),
        ("silent", _SILENT, {}, (None, ragged)),
        ("dict_outputs", _DICT_OUTPUTS, {}, (None, ragged)),
        ("list_state", _LIST_STATE, {}, (None, ragged)),
        ("list_state-given", _LIST_STATE, {"initial_state": "given"}, (ragged,)),
        ("lookup", _LOOKUP, {"inputs": _shape(1, dtype="int32")}, (None, ragged)),
        (
            "counter-no_rows",
            _COUNTER,
            {"state": _COUNTER_STATE, "initial_state": "given", "batch": 0},
            (None, _lengths()),
        ),
        (
            "counter-no_time",
            _COUNTER,
            {"state": _COUNTER_STATE, "initial_state": "given", "time": 0},
            (None, zero),
        ),
    )
    index = 0
    for name, cell, fields, kinds in rows:
        for lengths in kinds:
            values = (
                "whole"
                if lengths is None
                else "_".join(str(value) for value in lengths["values"])
            )
            yield _case(
                f"{name}-{values or 'none'}",
                "custom",
                "dynamic_rnn",
                cell,
                lengths=lengths,
                time_major=index % 3 == 1,
                dtype="float32" if index % 2 else "float64",
                **fields,
            )
            index += 1
    for state_type in ("tuple", "list"):
        yield _case(
            f"plain_{state_type}_state",
            "custom",
            "dynamic_rnn",
            _CELLS["lstm"],
            initial_state="given",
            state_type=state_type,
        )


def _each_difference():
    """Where jaxrnn does on purpose what TensorFlow does not."""
    clamped = "Lengths outside [0, T] are clamped, as in dynamic_rnn."
    for name, values, inside in (
        ("beyond", [9, 2, 6], [5, 2, 5]),
        ("negative", [-2, 5, 3], [0, 5, 3]),
        ("both", [7, -1, 0], [5, 0, 0]),
    ):
        yield _case(
            f"two_ways-{name}",
            "differences",
            "bidirectional_dynamic_rnn",
            _CELLS["gru"],
            cell_bw=_CELLS["basic_rnn"],
            lengths=_lengths(*values),
            tf_lengths=_lengths(*inside),
            differs=clamped,
        )
    for name, values, inside in (
        ("wraps_to_one", [2**32 + 1, 2, 3], [5, 2, 3]),
        ("wraps_to_negative", [2**31, 1, 4], [5, 1, 4]),
        ("wraps_to_positive", [-(2**32) + 3, 1, 4], [0, 1, 4]),
    ):
        yield _case(
            f"int64-{name}",
            "differences",
            "dynamic_rnn",
            _CELLS["lstm"],
            lengths=_lengths(*values, dtype="int64"),
            tf_lengths=_lengths(*inside),
            differs="Lengths are clamped before they are narrowed, so none wraps.",
        )
    for kind, lengths in (("whole", None), ("ragged", _RAGGED)):
        yield _case(
            f"two_ways-nested_outputs-{kind}",
            "differences",
            "bidirectional_dynamic_rnn",
            _PAIRS,
            cell_bw=_PAIRS,
            inputs=_PAIR_SIZES,
            lengths=lengths,
            by_parts=True,
            differs="Nested outputs are reversed leaf by leaf.",
        )


CASES = [
    *_each_cell(),
    *_each_length(),
    *_each_shape(),
    *_each_half(),
    *_each_padding(),
    *_each_pair(),
    *_each_call(),
    *_each_custom(),
    *_each_difference(),
]
