"""`NTMCell`, which contrib runs in float32 alone.

Its zero state is given, as contrib counts the steps of all rows by one integer.
"""

from ..contrib_specs import case, cell, lengths, multi, wrap

_LSTM, _GRU = cell("LSTMCell", 4), cell("GRUCell", 3)
_ONE = wrap("NTMCell", _LSTM, 5, 3, 1, 1, output_dim=2)
_MORE = wrap("NTMCell", _GRU, 6, 2, 2, 2, shift_range=2, output_dim=4, clip_value=0.7)
_STACK = wrap("NTMCell", multi(_GRU, _LSTM), 4, 3, 2, 1, output_dim=2)


def _case(name, made, **fields):
    given = {"dtype": "float32", "initial_state": "given", "state": "zero"}
    return case(f"{name}-f32", "ntm", made, **given | fields)


CASES = [
    _case("ntm-whole", _ONE),
    _case("ntm-ragged", _ONE, lengths=lengths(5, 2, 3)),
    _case("ntm_heads-whole", _MORE, time_major=True),
    _case("ntm_heads-ragged", _MORE, lengths=lengths(4, 1, 5)),
    _case("ntm_stack-whole", _STACK),
]
