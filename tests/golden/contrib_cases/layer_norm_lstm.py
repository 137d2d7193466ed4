"""`LayerNormBasicLSTMCell` and `LayerNormLSTMCell`."""

from ..contrib_specs import cell, each, function, half

_BASIC, _LSTM = "LayerNormBasicLSTMCell", "LayerNormLSTMCell"
_ALL = {
    "use_peepholes": True,
    "cell_clip": 0.6,
    "num_proj": 2,
    "proj_clip": 0.15,
    "forget_bias": 0.5,
}
_CELLS = {
    "ln_basic": cell(_BASIC, 4),
    "ln_basic_relu": cell(_BASIC, 4, -0.5, activation=function("relu")),
    "ln_basic_off": cell(_BASIC, 4, layer_norm=False),
    "ln_lstm": cell(_LSTM, 4, layer_norm=True),
    "ln_lstm_all": cell(_LSTM, 4, layer_norm=True, **_ALL),
    "ln_lstm_off": cell(_LSTM, 4, activation=function("sigmoid"), **_ALL),
}
CASES = each("layer_norm_lstm", _CELLS) + half(
    "layer_norm_lstm", {key: _CELLS[key] for key in ("ln_basic", "ln_lstm_all")}
)
