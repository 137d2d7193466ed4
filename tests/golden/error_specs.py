"""Calls that TensorFlow or jaxrnn refuses, as plain data.

`make_tf1.py` records the class that TensorFlow raises, or null, and the test holds
jaxrnn to the same class, unless `ours` says what jaxrnn does on purpose.

An error has these keys:

- `name`: unique.
- `function`: a driver, `cell` for one call of the cell, `zero_state`, or `build` where
  making the cell is the call.
- `cell`, `cell_bw`: as in `specs.py`, or `{"not_a_cell": value}`.
- `arguments`: the function's arguments by name. `{"array": shape, "dtype": ...}` is an
  array of zeros, `{"values": [...], "dtype": ...}` an array, `{"tuple": [...]}`,
  `{"list": [...]}`, `{"dict": {...}}` and `{"LSTMStateTuple": [...]}` nest, and
  anything else stands for itself.
- `step`: the tree of sizes of one step for which the cell's parameters are made.
- `early`: whether jaxrnn may refuse as soon as the cell is made or initialized.
- `ours`: None, or `{"raises": class or None, "why": sentence}`.
"""

from typing import Any

_SIZE = {"shape": [3]}
_GRU = {"class": "GRUCell", "args": [4], "kwargs": {}}
_RNN = {"class": "BasicRNNCell", "args": [4], "kwargs": {}}
_LSTM = {"class": "LSTMCell", "args": [4], "kwargs": {}}
_BASIC_LSTM = {"class": "BasicLSTMCell", "args": [4], "kwargs": {}}
_MULTI = {"class": "MultiRNNCell", "cells": [_GRU, _RNN], "kwargs": {}}


def _array(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"array": list(shape), "dtype": dtype}


def _values(*values: Any, dtype: str = "int32") -> dict[str, Any]:
    return {"values": list(values), "dtype": dtype}


def _tuple(*parts: Any) -> dict[str, Any]:
    return {"tuple": list(parts)}


def _ours(raises: str | None, why: str) -> dict[str, Any]:
    return {"raises": raises, "why": why}


_X = _array(3, 5, 3)
_OWN = ("step", "early", "ours")
_LATE = "What TensorFlow finds when it runs is found when the step is traced."
_TWO = "bidirectional_dynamic_rnn"


def _error(
    name: str,
    function: str,
    cell: dict[str, Any],
    arguments: dict[str, Any],
    **fields: Any,
) -> dict[str, Any]:
    """One error; the drivers are given sound inputs and a dtype by default."""
    if function == _TWO:
        arguments = {"inputs": _X, "dtype": "float32"} | arguments
        fields = {"cell_bw": _GRU} | fields
    elif function == "dynamic_rnn":
        arguments = {"inputs": _X, "dtype": "float32"} | arguments
    defaults = {"cell_bw": None, "step": _SIZE, "early": False, "ours": None}
    error = {"name": name, "function": function, "cell": cell, "arguments": arguments}
    return error | defaults | fields


def _dynamic(name: str, cell: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """One error of dynamic_rnn; fields that are not an error's own are arguments."""
    own = {key: fields.pop(key) for key in _OWN if key in fields}
    return _error(name, "dynamic_rnn", cell, fields, **own)


def _hand(custom: str, state_size: Any = None, **fields: Any) -> dict[str, Any]:
    """A cell by hand that breaks the protocol."""
    spec = {
        "custom": custom,
        "state_size": state_size or _SIZE,
        "output_size": _SIZE,
        "params": {},
        "protocol": False,
    }
    return spec | fields


_PAIR = _hand("extra_output")
_LENGTH = "Lengths must be integers."
_CLAMP = "Lengths outside [0, T] are clamped, as in dynamic_rnn."
_NARROW = "Any integers will do, as in dynamic_rnn."

_INPUTS = [
    _dynamic("not_a_cell-number", {"not_a_cell": 3}),
    _dynamic("not_a_cell-text", {"not_a_cell": "LSTMCell"}),
    _dynamic("not_a_cell-none", {"not_a_cell": None}),
    _dynamic("no_state_no_dtype", _GRU, dtype=None),
    _dynamic("inputs-none", _GRU, inputs=None),
    _dynamic(
        "inputs-empty_list",
        _GRU,
        inputs={"list": []},
        ours=_ours("ValueError", "As TensorFlow's page promises."),
    ),
    _dynamic("inputs-rank_0", _GRU, inputs=_array()),
    _dynamic("inputs-rank_1", _GRU, inputs=_array(3)),
    _dynamic("inputs-rank_2", _GRU, inputs=_array(3, 5)),
    _dynamic("inputs-rank_4", _GRU, inputs=_array(3, 5, 3, 2)),
    _dynamic("inputs-nest_of_numbers", _GRU, inputs={"list": [{"list": [0.5, 1.5]}]}),
    _dynamic("inputs-times_differ", _PAIR, inputs=_tuple(_X, _array(3, 4, 3))),
    _dynamic("inputs-batches_differ", _PAIR, inputs=_tuple(_X, _array(2, 5, 3))),
    _dynamic("inputs-tuple_for_an_array", _GRU, inputs=_tuple(_X, _X)),
    _dynamic("inputs-integer", _GRU, inputs=_array(3, 5, 3, dtype="int32")),
    _dynamic("dtype-integer", _GRU, dtype="int32"),
    _dynamic("dtype-not_the_inputs", _GRU, dtype="float64"),
    _dynamic("inputs-not_the_dtype", _GRU, inputs=_array(3, 5, 3, dtype="float64")),
    _dynamic("inputs-half", _LSTM, inputs=_array(3, 5, 3, dtype="float16")),
    _dynamic("parallel_iterations-negative", _GRU, parallel_iterations=-1),
    _dynamic("parallel_iterations-float", _GRU, parallel_iterations=2.5),
    _dynamic("parallel_iterations-text", _GRU, parallel_iterations="2"),
    _dynamic("parallel_iterations-zero", _GRU, parallel_iterations=0),
]

_LENGTHS = [
    _dynamic("lengths-scalar", _GRU, sequence_length=2),
    _dynamic("lengths-rank_2", _GRU, sequence_length=_array(3, 1, dtype="int32")),
    _dynamic("lengths-too_many", _GRU, sequence_length=_values(1, 2, 3, 4)),
    _dynamic("lengths-too_few", _GRU, sequence_length=_values(1, 2)),
    _dynamic("lengths-one_for_all", _GRU, sequence_length=_values(2)),
    _dynamic("lengths-list", _GRU, sequence_length={"list": [1, 2, 3]}),
    _dynamic(
        "lengths-float",
        _GRU,
        sequence_length=_values(1.5, 2.0, 3.0, dtype="float32"),
        ours=_ours("TypeError", _LENGTH),
    ),
]

_STATES = [
    _dynamic("state-wrong_batch", _GRU, initial_state=_array(4, 4)),
    _dynamic("state-batch_of_one", _GRU, initial_state=_array(1, 4)),
    _dynamic("state-wrong_width", _GRU, initial_state=_array(3, 5)),
    _dynamic("state-wrong_rank", _GRU, initial_state=_array(4)),
    _dynamic("state-wrong_dtype", _GRU, initial_state=_array(3, 4, dtype="float64")),
    _dynamic(
        "state-lstm_wrong_width",
        _LSTM,
        initial_state={"LSTMStateTuple": [_array(3, 4), _array(3, 5)]},
    ),
    _dynamic("state-array_for_lstm", _LSTM, initial_state=_array(3, 8)),
    _dynamic("state-array_for_basic_lstm", _BASIC_LSTM, initial_state=_array(3, 8)),
    _dynamic("state-tuple_for_rnn", _RNN, initial_state=_tuple(_array(3, 4))),
    _dynamic(
        "state-pair_for_rnn", _RNN, initial_state=_tuple(_array(3, 4), _array(3, 4))
    ),
    _dynamic(
        "state-plain_tuple_for_lstm_with_lengths",
        _LSTM,
        initial_state=_tuple(_array(3, 4), _array(3, 4)),
        sequence_length=_values(5, 2, 3),
    ),
    _dynamic("state-array_for_multi", _MULTI, initial_state=_array(3, 8)),
    _dynamic(
        "state-too_many_for_multi",
        _MULTI,
        initial_state=_tuple(_array(3, 4), _array(3, 4), _array(3, 4)),
    ),
    _dynamic("state-too_few_for_multi", _MULTI, initial_state=_tuple(_array(3, 4))),
    _dynamic(
        "state-dtypes_differ_no_dtype",
        _hand("copy", _tuple(_SIZE, _SIZE)),
        initial_state=_tuple(_array(3, 3, dtype="int32"), _array(3, 3)),
        dtype=None,
    ),
]


def _both_ways(name: str, cell: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """One error without and with lengths; TensorFlow checks less without."""
    ours, ours_ragged = fields.pop("ours", None), fields.pop("ours_ragged", None)
    return [
        _dynamic(f"{name}-whole", cell, ours=ours, **fields),
        _dynamic(
            f"{name}-ragged",
            cell,
            sequence_length=_values(5, 2, 3),
            ours=ours_ragged,
            **fields,
        ),
    ]


_STEPS = [
    *_both_ways("cell-other_structure", _hand("other_structure")),
    *_both_ways("cell-other_dtype", _hand("other_dtype")),
    *_both_ways("cell-other_shape", _hand("other_shape")),
    *_both_ways(
        "cell-output_dtype", _hand("output_dtype"), ours=_ours("TypeError", _LATE)
    ),
    *_both_ways(
        "cell-extra_output",
        _hand("extra_output"),
        ours=_ours("ValueError", "Structures are checked without lengths too."),
    ),
    *_both_ways(
        "cell-output_size_none",
        _hand("copy", output_size={"shape": [None]}),
        early=True,
    ),
]

_TWO_WAYS = [
    _error("two_ways-fw_not_a_cell", _TWO, {"not_a_cell": 3}, {}),
    _error("two_ways-bw_not_a_cell", _TWO, _GRU, {}, cell_bw={"not_a_cell": 3}),
    _error("two_ways-no_dtype", _TWO, _GRU, {"dtype": None}),
    _error(
        "two_ways-only_fw_state",
        _TWO,
        _GRU,
        {"dtype": None, "initial_state_fw": _array(3, 4)},
    ),
    _error(
        "two_ways-only_bw_state",
        _TWO,
        _GRU,
        {"dtype": None, "initial_state_bw": _array(3, 4)},
    ),
    _error(
        "two_ways-float_lengths",
        _TWO,
        _GRU,
        {"sequence_length": _values(1.0, 2.0, 3.0, dtype="float32")},
    ),
    _error(
        "two_ways-uint8_lengths",
        _TWO,
        _GRU,
        {"sequence_length": _values(1, 2, 3, dtype="uint8")},
        ours=_ours(None, _NARROW),
    ),
    _error(
        "two_ways-bool_lengths",
        _TWO,
        _GRU,
        {"sequence_length": _values(True, True, False, dtype="bool")},
    ),
    _error(
        "two_ways-lengths_beyond",
        _TWO,
        _GRU,
        {"sequence_length": _values(6, 2, 3)},
        ours=_ours(None, _CLAMP),
    ),
    _error(
        "two_ways-lengths_negative",
        _TWO,
        _GRU,
        {"sequence_length": _values(-1, 2, 3)},
        ours=_ours(None, _CLAMP),
    ),
    _error(
        "two_ways-lengths_rank_2",
        _TWO,
        _GRU,
        {"sequence_length": _array(3, 1, dtype="int32")},
    ),
    _error("two_ways-lengths_too_few", _TWO, _GRU, {"sequence_length": _values(1, 2)}),
    _error("two_ways-inputs_none", _TWO, _GRU, {"inputs": None}),
    _error("two_ways-inputs_rank_2", _TWO, _GRU, {"inputs": _array(3, 5)}),
]


def _build(name: str, cell: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return _error(name, "build", cell, {}, **fields)


def _spec(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"class": name, "args": list(args), "kwargs": kwargs}


def _around(name: str, cell: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    return _spec(name, **kwargs) | {"cell": cell}


def _of(cells: Any, **kwargs: Any) -> dict[str, Any]:
    return _spec("MultiRNNCell", **kwargs) | {"cells": cells}


def _call(name: str, cell: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """One error of a cell's call; fields that are not its own are arguments."""
    own = {key: fields.pop(key) for key in _OWN if key in fields}
    arguments = {"inputs": _array(3, 3), "state": _array(3, 4)} | fields
    return _error(name, "cell", cell, arguments, **own)


_ZERO_KEEP = _around("DropoutWrapper", _GRU, output_keep_prob=0.0)
_CELLS = [
    *(
        _build(f"{name}-activation_unknown", _spec(name, 4, activation="no_such"))
        for name in ("BasicRNNCell", "BasicLSTMCell", "LSTMCell", "GRUCell")
    ),
    *(
        _build(f"{name}-dtype_integer", _spec(name, 4, dtype="int32"))
        for name in ("BasicRNNCell", "BasicLSTMCell", "LSTMCell", "GRUCell")
    ),
    *(
        _call(f"{spec['class']}-inputs_rank_{rank}", spec, inputs=inputs)
        for spec in (_RNN, _GRU)
        for rank, inputs in ((1, _array(3)), (3, _array(3, 2, 3)))
    ),
    *(
        _call(
            f"{spec['class']}-inputs_rank_{rank}",
            spec,
            inputs=inputs,
            state={"LSTMStateTuple": [_array(3, 4), _array(3, 4)]},
        )
        for spec in (_LSTM, _BASIC_LSTM)
        for rank, inputs in ((1, _array(3)), (3, _array(3, 2, 3)))
    ),
    _call(
        "GRUCell-float32_given_float64",
        _spec("GRUCell", 4, dtype="float32"),
        inputs=_array(3, 3, dtype="float64"),
        state=_array(3, 4, dtype="float64"),
    ),
    _call("GRUCell-state_float64", _GRU, state=_array(3, 4, dtype="float64")),
    _call("LSTMCell-state_array", _LSTM, state=_array(3, 8)),
    _call(
        "LSTMCell-num_proj_zero",
        _spec("LSTMCell", 4, num_proj=0),
        early=True,
        state={"LSTMStateTuple": [_array(3, 4), _array(3, 4)]},
    ),
    _build(
        "LSTMCell-cell_clip_negative",
        _spec("LSTMCell", 4, cell_clip=-1.0),
        ours=_ours("ValueError", "A clip to a negative bound is a mistake."),
    ),
    _build("MultiRNNCell-empty", _of([])),
    _build("MultiRNNCell-one_cell", _of(_GRU)),
    _build(
        "MultiRNNCell-not_cells",
        _of([{"not_a_cell": 3}]),
        ours=_ours("TypeError", "What is stacked is checked when it is stacked."),
    ),
    _build("MultiRNNCell-concat_of_nested", _of([_LSTM], state_is_tuple=False)),
    _call("MultiRNNCell-state_array", _MULTI),
    _call("MultiRNNCell-state_list", _MULTI, state={"list": [_array(3, 4)] * 2}),
    *(
        _build(f"{name}-not_a_cell", _around(name, {"not_a_cell": 3}, **kwargs))
        for name, kwargs in (
            ("DropoutWrapper", {}),
            ("ResidualWrapper", {}),
            ("DeviceWrapper", {"device": "/cpu:0"}),
        )
    ),
    *(
        _build(
            f"DropoutWrapper-{where}_keep_{kind}",
            _around("DropoutWrapper", _GRU, **{f"{where}_keep_prob": keep}),
        )
        for where in ("input", "output", "state")
        for kind, keep in (("above_one", 1.5), ("negative", -0.5))
    ),
    _build(
        "DropoutWrapper-variational_without_dtype",
        _around("DropoutWrapper", _GRU, variational_recurrent=True),
    ),
    _build(
        "DropoutWrapper-variational_without_input_size",
        _around(
            "DropoutWrapper",
            _GRU,
            input_keep_prob=0.5,
            variational_recurrent=True,
            dtype="float32",
        ),
    ),
    _build(
        "DropoutWrapper-visitor_not_callable",
        _around("DropoutWrapper", _GRU, dropout_state_filter_visitor=True),
    ),
    _call("DropoutWrapper-keep_zero", _ZERO_KEEP, ours=_ours(None, "All is dropped.")),
    _call("ResidualWrapper-shapes_differ", _around("ResidualWrapper", _GRU)),
    _dynamic("ResidualWrapper-shapes_differ-driver", _around("ResidualWrapper", _GRU)),
    _dynamic(
        "ResidualWrapper-fn_widens",
        _around("ResidualWrapper", _GRU, residual_fn="widening"),
    ),
    _dynamic(
        "ResidualWrapper-fn_widens-ragged",
        _around("ResidualWrapper", _GRU, residual_fn="widening"),
        sequence_length=_values(5, 2, 3),
    ),
    *(
        _error(
            f"{spec['class']}-zero_state_{kind}",
            "zero_state",
            spec,
            {"batch_size": batch, "dtype": "float32"},
        )
        for spec in (_GRU, _LSTM, _MULTI)
        for kind, batch in (("float", 2.5), ("text", "two"), ("none", None))
    ),
]

ERRORS = [*_INPUTS, *_LENGTHS, *_STATES, *_STEPS, *_TWO_WAYS, *_CELLS]
