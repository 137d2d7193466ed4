"""`PhasedLSTMCell`, which contrib runs in float32 alone."""

from ..contrib_specs import cell, each, shape, tuple_of

_CELLS = {
    "phased": cell("PhasedLSTMCell", 4),
    "phased_peep": cell("PhasedLSTMCell", 4, use_peepholes=True, leak=0.2),
}
CASES = each(
    "phased_lstm",
    _CELLS,
    ("float32", "float32"),
    inputs=tuple_of(shape(1), shape(3)),
    ranges={"period": [1.0, 5.0], "ratio_on": [0.2, 0.9]},
)
