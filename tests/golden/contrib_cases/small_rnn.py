"""`UGRNNCell`, `IntersectionRNNCell`, `SRUCell`, `MinimalRNNCell` and `CFNCell`."""

from ..contrib_specs import cell, each, function, half

_CELLS = {
    "ugrnn": cell("UGRNNCell", 4),
    "ugrnn_relu": cell("UGRNNCell", 4, forget_bias=-0.5, activation=function("relu")),
    "intersection": cell("IntersectionRNNCell", 3),
    "intersection_proj": cell("IntersectionRNNCell", 4, 4, forget_bias=0.25),
    "intersection_tanh": cell(
        "IntersectionRNNCell", 3, 2, y_activation=function("tanh")
    ),
    "sru": cell("SRUCell", 4),
    "sru_sigmoid": cell("SRUCell", 4, activation=function("sigmoid")),
    "minimal": cell("MinimalRNNCell", 4),
    "minimal_linear": cell("MinimalRNNCell", 4, None),
    "cfn": cell("CFNCell", 4),
    "cfn_relu": cell("CFNCell", 4, "relu"),
}
_HALF = ("ugrnn", "intersection_proj", "sru", "minimal", "cfn")
CASES = each("small_rnn", _CELLS) + half("small_rnn", {n: _CELLS[n] for n in _HALF})
