"""`LSTMBlockCell` and `GRUBlockCellV2`, whose operations have no float64."""

from ..contrib_specs import cell, each, half

_LSTM = {
    "lstm_block": cell("LSTMBlockCell", 4),
    "lstm_block_peep": cell("LSTMBlockCell", 4, 0.5, use_peephole=True),
}
_GRU = {
    "gru_block": cell("GRUBlockCellV2", 4),
    "gru_block_size": cell("GRUBlockCellV2", cell_size=2),
}
_CLIP = {"lstm_block_clip": cell("LSTMBlockCell", 4, cell_clip=0.3)}
_FLOATS = ("float32", "float32")
CASES = [
    *each("block_cells", _LSTM | _GRU, _FLOATS),
    *each("block_cells", _CLIP, _FLOATS, differs="The clip has its own gradient."),
    *half("block_cells", {"lstm_block": _LSTM["lstm_block"]}, ("float16",)),
]
