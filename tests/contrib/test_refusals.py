"""What contrib's cells and wrappers refuse, by the name of the argument."""
# ruff: noqa: E501 (One refusal a row.)

import math
import unittest.mock
from functools import partial

import jax
import numpy as np
from helpers import drawn, refusals

import jaxrnn
from jaxrnn import GRUCell, contrib

KEY = jax.random.key(0)
GRU = GRUCell(3)
X = np.ones((4, 3), np.float32)
WIDE = np.ones((1, 4))
NESTED = jaxrnn.FunctionCell(lambda *args, key=None: None, (2, 3), (2, 3))


class AClass:
    """Called, it makes an object; it is no function of arrays."""


WINDOWS = {"feature_size": 3, "frequency_skip": 2}
HEADS = {"read_head_num": 1, "write_head_num": 1}
grid = partial(contrib.GridLSTMCell, 2, **WINDOWS)
both_ways = partial(contrib.BidirectionalGridLSTMCell, 2, **WINDOWS)
time_freq = partial(contrib.TimeFreqLSTMCell, 2, feature_size=2)
conv = partial(contrib.Conv1DLSTMCell, output_channels=2)
intersection = partial(contrib.IntersectionRNNCell, 2)
ntm = partial(contrib.NTMCell, GRU, memory_vector_dim=2, **HEADS)
attention_cell = contrib.AttentionCellWrapper


def step(cell, params=None, state=None):
    params = drawn(cell, X) if params is None else params
    state = cell.zero_state(4, X.dtype) if state is None else state
    return cell.apply(params, X, state)


def intersect(state=None, **options):
    return step(intersection(**options), state=state)


HIGHWAY, GROUPS = contrib.HighwayWrapper(GRU), contrib.GLSTMCell(6, number_of_groups=3)
FUSED, LSTM = contrib.FusedRNNCellAdaptor(GRU), contrib.LSTMBlockFusedCell(3)
UNHASHABLE = unittest.mock.MagicMock(__hash__=None)
IDS = contrib.EmbeddingWrapper(GRU, 2, 2)
SHARDED = contrib.CoupledInputForgetGateLSTMCell(2, num_unit_shards=9)
REFUSALS = [
    (ValueError, "`ratio_on`", lambda: contrib.PhasedLSTMCell(2, ratio_on=0.0)),
    (ValueError, "`period_init_max`", lambda: contrib.PhasedLSTMCell(2, period_init_max=math.inf)),
    (ValueError, "`period_init_min`", lambda: contrib.PhasedLSTMCell(2, period_init_min=2000)),
    (ValueError, "`inputs`", lambda: contrib.PhasedLSTMCell(2).init(KEY, WIDE)),
    (ValueError, "`kernel_shape.0.`", lambda: conv(input_shape=[3, 2], kernel_shape=[0])),
    (ValueError, "`kernel_shape`", lambda: conv(input_shape=[3, 2], kernel_shape=[1, 1])),
    (TypeError, "`kernel_shape`", lambda: conv(input_shape=[3, 2], kernel_shape=3)),
    (TypeError, "`input_shape.1.`", lambda: conv(input_shape=[3, 1.5], kernel_shape=[2])),
    (TypeError, "`cell_clip`", lambda: time_freq(cell_clip=True)),
    (ValueError, "`num_windows`", lambda: time_freq().init(KEY, WIDE)),
    (ValueError, "`cell_clip`", lambda: grid(num_frequency_blocks=[1], cell_clip=-1)),
    (ValueError, "`end_freqindex_list`", lambda: grid(num_frequency_blocks=[1], end_freqindex_list=np.array([1, 2]))),
    (ValueError, "`feature_size`", lambda: grid(num_frequency_blocks=[1], start_freqindex_list=[0], end_freqindex_list=[2])),
    (ValueError, "`num_frequency_blocks`", lambda: grid(num_frequency_blocks=[])),
    (ValueError, "`num_frequency_blocks.0.`", lambda: grid(num_frequency_blocks=[2]).init(KEY, WIDE)),
    (TypeError, "`backward_slice_offset`", lambda: both_ways(num_frequency_blocks=[1], backward_slice_offset=1.5)),
    (TypeError, "`attention_mechanism`", lambda: contrib.AttentionWrapper(GRU, GRU)),
    (TypeError, "`attention_mechanism`", lambda: contrib.AttentionWrapper(GRU, [])),
    (ValueError, "`y_activation`", lambda: intersection(y_activation="x")),
    (TypeError, "`y_activation`", lambda: intersection(y_activation=AClass)),
    (TypeError, "`initializer`", lambda: intersection(initializer=AClass)),
    (ValueError, "`num_units`.* got 3.*`num_in_proj=2`", intersect),
    (ValueError, "`inputs`", lambda: intersect(num_in_proj=0)),
    (ValueError, "`state`", lambda: intersect(X, num_in_proj=2)),
    (TypeError, "`state`", lambda: intersect(np.ones((4, 2), "float16"), num_in_proj=2)),
    (ValueError, "`units`", lambda: contrib.CFNCell(-1)),
    (ValueError, "`num_units`", lambda: contrib.GLSTMCell(5, number_of_groups=2)),
    (ValueError, "`num_proj`", lambda: contrib.GLSTMCell(4, num_proj=3, number_of_groups=2)),
    (ValueError, r"`inputs.shape\[-1\]`", lambda: step(contrib.GLSTMCell(4, number_of_groups=2))),
    (ValueError, r"bias_f'\]`", lambda: step(GROUPS, drawn(GROUPS, X) | {"bias_f": np.zeros(5)})),
    (ValueError, r"shards \(9\)", lambda: step(SHARDED)),
    (ValueError, "`num_units`", lambda: contrib.GRUBlockCellV2(None)),
    (ValueError, "`cell_size`", lambda: contrib.GRUBlockCellV2(4, cell_size=4)),
    (ValueError, "`output_dim`", lambda: ntm(memory_size=4, output_dim=0)),
    (ValueError, "`memory_size`", lambda: ntm(memory_size=2, output_dim=2)),
    (TypeError, "'w_list', 'M', and 'time'", lambda: step(ntm(memory_size=4, output_dim=2), state=(X, [X]))),
    (TypeError, "`cell`", lambda: contrib.HighwayWrapper(3)),
    (ValueError, "`inputs`", lambda: step(contrib.HighwayWrapper(GRUCell(2)))),
    (ValueError, "'gru_cell'", lambda: step(HIGHWAY, {"carry_w": 1})),
    (ValueError, "`params`", lambda: step(HIGHWAY, {"gru_cell": {}, "carry_w": np.ones(3)})),
    (TypeError, "`params`", lambda: step(HIGHWAY, 3)),
    (ValueError, "`cell`", lambda: contrib.OutputProjectionWrapper(NESTED, 2)),
    (ValueError, "`attn_length`", lambda: attention_cell(GRU, 0)),
    (ValueError, "`cell.state_size`", lambda: attention_cell(jaxrnn.LSTMCell(3), 2, state_is_tuple=False)),
    (ValueError, r"\(cell state, context, memory\)", lambda: step(attention_cell(GRU, 2), state=(1, 2))),
    (ValueError, r"`state\[1\]`", lambda: step(attention_cell(GRU, 2), state=(X, X, X))),
    (ValueError, r"int64\[4, 2\]", lambda: IDS.init(KEY, np.ones((4, 2), int))),
    (TypeError, r"float32\[4, 3\]", lambda: IDS.init(KEY, X)),
    (ValueError, "`inputs`", lambda: LSTM.init(KEY, X)),
    (TypeError, "^`state`.* LSTMStateTuple", lambda: LSTM.bind(drawn(LSTM, X[None]))(X[None], 3.0)),
    (ValueError, "`dtype`", lambda: FUSED.bind({})(X[None])),
    (ValueError, "`inputs`", lambda: FUSED.bind({})([])),
    (TypeError, "`cell`", lambda: contrib.FusedRNNCellAdaptor(FUSED)),
    (TypeError, "hashable", lambda: contrib.FusedRNNCellAdaptor(GRUCell(3, activation=UNHASHABLE)).bind({})),
    (TypeError, "`cell`", lambda: contrib.TimeReversedFusedRNN(GRU)),
]  # fmt: skip

test_refuses = refusals(REFUSALS)
