"""Cells of whole sequences; the operation of the block cells has no float64."""

from ..contrib_specs import case, cell, lengths, shape, tuple_of, wrap

_RAGGED = lengths(5, 2, 3)
_BLOCK = {
    "lstm_fused": cell("LSTMBlockFusedCell", 4),
    "lstm_fused_peep": cell("LSTMBlockFusedCell", 4, 0.5, use_peephole=True),
    "lstm_fused_reversed": wrap(
        "TimeReversedFusedRNN", cell("LSTMBlockFusedCell", 4, use_peephole=True)
    ),
}
_DYNAMIC = wrap("FusedRNNCellAdaptor", cell("LSTMCell", 4, num_proj=2), True)
_STATIC = wrap("FusedRNNCellAdaptor", cell("GRUCell", 4))
_ADAPTED = {
    "adaptor_dynamic": (_DYNAMIC, tuple_of(shape(4), shape(2))),
    "adaptor_static": (_STATIC, shape(4)),
    "adaptor_reversed": (wrap("TimeReversedFusedRNN", _STATIC), shape(4)),
    "adaptor_reversed_dynamic": (
        wrap("TimeReversedFusedRNN", _DYNAMIC),
        tuple_of(shape(4), shape(2)),
    ),
}


def _fused(name, made, **fields):
    return case(name, "fused", made, "fused", time_major=True, **fields)


def _both(name, made, state, ragged="float64"):
    """Whole rows from a given state, and ragged ones from zeros."""
    given = {"dtype": "float32", "state": state, "initial_state": "given"}
    return [
        _fused(f"{name}-whole-f32", made, **given),
        _fused(f"{name}-ragged-{ragged}", made, dtype=ragged, lengths=_RAGGED),
    ]


CASES = [
    *(
        row
        for name, made in _BLOCK.items()
        for row in _both(name, made, tuple_of(shape(4), shape(4)), "float32")
    ),
    *(
        row
        for name, (made, state) in _ADAPTED.items()
        for row in _both(name, made, state)
    ),
    _fused("lstm_fused-f16", _BLOCK["lstm_fused"], dtype="float16", lengths=_RAGGED),
]
