"""Highway connections, attention over the last outputs, embeddings, projections."""

from ..contrib_specs import cell, each, function, half, multi, shape, wrap

_GRU, _LSTM, _SAME = cell("GRUCell", 4), cell("LSTMCell", 4), cell("GRUCell", 3)
_CELLS = {
    "highway": wrap("HighwayWrapper", _SAME),
    "highway_apart": wrap("HighwayWrapper", cell("LSTMCell", 3), False, -0.5),
    "highway_bare": wrap("HighwayWrapper", wrap("ResidualWrapper", _SAME)),
    "highway_stack": multi(wrap("HighwayWrapper", cell("BasicRNNCell", 3)), _LSTM),
    "highway_over": wrap("HighwayWrapper", multi(_GRU, _SAME)),
    "attention": wrap("AttentionCellWrapper", _LSTM, 3),
    "attention_sizes": wrap("AttentionCellWrapper", _GRU, 2, 3, 5, 6),
    "attention_joined": wrap("AttentionCellWrapper", _GRU, 3, state_is_tuple=False),
    "input": wrap("InputProjectionWrapper", _GRU, 5),
    "input_tanh": wrap("InputProjectionWrapper", _LSTM, 2, activation=function("tanh")),
    "output": wrap("OutputProjectionWrapper", _GRU, 5),
    "output_relu": wrap(
        "OutputProjectionWrapper", _LSTM, 2, activation=function("relu")
    ),
    "both": wrap("OutputProjectionWrapper", wrap("InputProjectionWrapper", _GRU, 5), 2),
}
_EMBEDDINGS = {
    "embedding": wrap("EmbeddingWrapper", _LSTM, 5, 3),
    "embedding_gru": wrap("EmbeddingWrapper", _GRU, 6, 2),
}
_HALF = ("highway_apart", "attention", "input_tanh", "output")
CASES = [
    *each("wrappers", _CELLS),
    *each("wrappers", _EMBEDDINGS, inputs=shape(1, dtype="int32"), pass_dtype=True),
    *half("wrappers", {name: _CELLS[name] for name in _HALF}),
]
