"""`GLSTMCell`."""

from ..contrib_specs import cell, each, function, half, shape

_CELLS = {
    "glstm_one": cell("GLSTMCell", 4),
    "glstm_two": cell("GLSTMCell", 4, number_of_groups=2),
    "glstm_proj": cell("GLSTMCell", 6, num_proj=4, number_of_groups=2, forget_bias=0.5),
    "glstm_relu": cell("GLSTMCell", 6, number_of_groups=3, activation=function("relu")),
}
CASES = each("glstm", _CELLS, inputs=shape(6)) + half(
    "glstm", {"glstm_two": _CELLS["glstm_two"]}, inputs=shape(6)
)
