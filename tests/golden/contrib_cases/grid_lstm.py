"""`GridLSTMCell` and `BidirectionalGridLSTMCell`."""

from ..contrib_specs import cell, each, half, shape

_ONE = {"feature_size": 3, "frequency_skip": 2, "num_frequency_blocks": [3]}
_TWO = {
    "feature_size": 3,
    "frequency_skip": 1,
    "num_frequency_blocks": [2, 3],
    "start_freqindex_list": [0, 2],
    "end_freqindex_list": [4, 7],
}
_ALL = {"use_peepholes": True, "cell_clip": 0.4, "forget_bias": 0.5}
_CELLS = {
    "grid": cell("GridLSTMCell", 2, **_ONE),
    "grid_peep_clip": cell("GridLSTMCell", 2, **_ONE, **_ALL),
    "grid_shared_coupled": cell(
        "GridLSTMCell",
        2,
        True,
        True,
        **_TWO,
        couple_input_forget_gates=True,
        num_unit_shards=2,
    ),
    "grid_blocks": cell("GridLSTMCell", 2, **_TWO),
    "grid_concat": cell("GridLSTMCell", 2, **_ONE, state_is_tuple=False),
    "bidirectional_grid": cell("BidirectionalGridLSTMCell", 2, **_TWO, **_ALL),
    "bidirectional_grid_offset": cell(
        "BidirectionalGridLSTMCell", 2, **_ONE, backward_slice_offset=1
    ),
    "bidirectional_grid_before": cell(
        "BidirectionalGridLSTMCell",
        2,
        share_time_frequency_weights=True,
        **_ONE,
        backward_slice_offset=-2,
    ),
}
CASES = each("grid_lstm", _CELLS, inputs=shape(7)) + half(
    "grid_lstm",
    {"grid_peep_clip": _CELLS["grid_peep_clip"]},
    ["float16"],
    inputs=shape(7),
)
