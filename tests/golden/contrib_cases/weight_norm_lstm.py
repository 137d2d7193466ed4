"""`WeightNormLSTMCell`."""

from ..contrib_specs import cell, each, half

_NAME = "WeightNormLSTMCell"
_ALL = {
    "use_peepholes": True,
    "cell_clip": 0.4,
    "num_proj": 2,
    "proj_clip": 0.15,
    "forget_bias": 0.5,
}
_CELLS = {
    "weight_norm": cell(_NAME, 4),
    "weight_norm_all": cell(_NAME, 4, **_ALL),
    "weight_norm_proj": cell(_NAME, 4, num_proj=3),
    "weight_norm_off": cell(_NAME, 4, norm=False, **_ALL),
}
CASES = each("weight_norm_lstm", _CELLS) + half(
    "weight_norm_lstm", {"weight_norm": _CELLS["weight_norm"]}
)
