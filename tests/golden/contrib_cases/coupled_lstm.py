"""`CoupledInputForgetGateLSTMCell`."""

from ..contrib_specs import cell, each, function, half

_NAME = "CoupledInputForgetGateLSTMCell"
_ALL = {
    "use_peepholes": True,
    "num_proj": 2,
    "proj_clip": 0.15,
    "num_unit_shards": 3,
    "num_proj_shards": 2,
    "forget_bias": 0.5,
}
_CELLS = {
    "coupled": cell(_NAME, 4),
    "coupled_all": cell(_NAME, 4, activation=function("relu"), **_ALL),
    "coupled_concat": cell(_NAME, 4, num_proj=2, state_is_tuple=False),
    "coupled_norm": cell(_NAME, 4, layer_norm=True),
    "coupled_norm_all": cell(_NAME, 4, layer_norm=True, **_ALL),
}
CASES = each("coupled_lstm", _CELLS) + half(
    "coupled_lstm", {"coupled": _CELLS["coupled"]}
)
