"""`IndRNNCell`, `IndyGRUCell` and `IndyLSTMCell`."""

from ..contrib_specs import cell, each, function, half

_CELLS = {
    "ind_rnn": cell("IndRNNCell", 4),
    "ind_rnn_relu": cell("IndRNNCell", 4, activation=function("relu")),
    "indy_gru": cell("IndyGRUCell", 4),
    "indy_gru_sigmoid": cell("IndyGRUCell", 4, activation=function("sigmoid")),
    "indy_lstm": cell("IndyLSTMCell", 4),
    "indy_lstm_relu": cell("IndyLSTMCell", 4, -0.5, activation=function("relu")),
}
_HALF = ("ind_rnn", "indy_gru", "indy_lstm")
CASES = each("independent", _CELLS) + half(
    "independent", {name: _CELLS[name] for name in _HALF}
)
