"""What contrib's cells and wrappers refuse, by the name of the argument."""

import math
import re
import unittest.mock
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn, refusals

import jaxrnn
from jaxrnn import GRUCell, contrib

KEY = jax.random.key(0)
ARRAY = np.array([1, 2])
GRU = GRUCell(3)
X = jnp.ones((4, 3), jnp.float32)
NESTED = jaxrnn.FunctionCell(lambda *args, key=None: None, (2, 3), (2, 3))


class AClass:
    """Called, it makes an object; it is no function of arrays."""


WINDOWS = {"feature_size": 3, "frequency_skip": 2}
BLOCKS = WINDOWS | {"num_frequency_blocks": [1]}
attend_to = partial(contrib.AttentionWrapper, GRU)
attention_cell = partial(contrib.AttentionCellWrapper, GRU)
both_ways = partial(contrib.BidirectionalGridLSTMCell, 2, **BLOCKS)
conv = partial(
    contrib.Conv1DLSTMCell, output_channels=2, input_shape=[3, 2], kernel_shape=[2]
)
embedding = partial(contrib.EmbeddingWrapper, GRU, embedding_size=2)
glstm = partial(contrib.GLSTMCell, number_of_groups=2, num_units=4)
grid = partial(contrib.GridLSTMCell, 2, **BLOCKS)
intersection = partial(contrib.IntersectionRNNCell, 2)
HEADS = {"read_head_num": 1, "write_head_num": 1, "output_dim": 2}
ntm = partial(contrib.NTMCell, GRU, memory_size=4, memory_vector_dim=2, **HEADS)
phased = partial(contrib.PhasedLSTMCell, 2)
project_outputs = partial(contrib.OutputProjectionWrapper, output_size=2, cell=GRU)
time_freq = partial(contrib.TimeFreqLSTMCell, 2, **WINDOWS)

# The cell, its argument, the value, the error and what follows the argument's name.
FIELDS = [
    (phased, "ratio_on", 0.0, ValueError, "must be in [1e-30, 1], got 0.0"),
    (phased, "period_init_max", math.inf, ValueError, "must be in"),
    (phased, "period_init_min", 2000, ValueError, "must not exceed `period_init_max`"),
    (conv, "kernel_shape", [0], ValueError, "must be at least 1, got 0"),
    (conv, "kernel_shape", [1, 1], ValueError, "must have length 1 if `conv_ndims` is"),
    (conv, "kernel_shape", 3, TypeError, "must be a list of integers, got 3"),
    (conv, "input_shape", [3, 1.5], TypeError, "must be an integer, got 1.5"),
    (time_freq, "cell_clip", True, TypeError, "must be a number, got True"),
    (grid, "cell_clip", -1, ValueError, "must be in [0, inf], got -1.0"),
    (grid, "end_freqindex_list", ARRAY, ValueError, "must have length 1, with"),
    (grid, "num_frequency_blocks", [], ValueError, "must hold the number of windows"),
    (both_ways, "backward_slice_offset", 1.5, TypeError, "must be an integer, got 1.5"),
    (attend_to, "attention_mechanism", GRU, TypeError, "must be an AttentionMechanism"),
    (attend_to, "attention_mechanism", [], TypeError, "must be an AttentionMechanism"),
    (intersection, "y_activation", "x", ValueError, "must be one of elu"),
    (intersection, "y_activation", AClass, TypeError, "must be None, a name or"),
    (intersection, "initializer", AClass, TypeError, "must be a function"),
    (contrib.CFNCell, "units", -1, ValueError, "must be at least 0"),
    (glstm, "num_units", 5, ValueError, "must be divisible"),
    (glstm, "num_proj", 3, ValueError, "must be divisible"),
    (contrib.GRUBlockCellV2, "num_units", None, ValueError, "must be given unless"),
    (ntm, "output_dim", 0, ValueError, "must be at least 1, got 0. Pass the depth of"),
    (ntm, "memory_size", 2, ValueError, "must be at least 3"),
    (contrib.HighwayWrapper, "cell", 3, TypeError, "must be an RNNCell"),
    (project_outputs, "cell", NESTED, ValueError, "must output one vector, got"),
    (attention_cell, "attn_length", 0, ValueError, "must be at least 1"),
]


@pytest.mark.parametrize(("make", "name", "value", "error", "words"), FIELDS)
def test_refuses_a_field(make, name, value, error, words):
    message = rf"`{name}(\[\d\])?` {re.escape(words)}"
    with pytest.raises(error, match=message):
        make(**{name: value})


def step(cell, params=None, state=None):
    params = drawn(cell, X) if params is None else params
    state = cell.zero_state(4, X.dtype) if state is None else state
    return cell.apply(params, X, state)


def with_a_wrong_bias():
    cell = contrib.GLSTMCell(6, number_of_groups=3)
    return step(cell, drawn(cell, X) | {"bias_f": jnp.zeros(5)})


def attend(state):
    return lambda: step(attention_cell(2), state=state)


def intersect(state=None, **options):
    return lambda: step(intersection(**options), state=state)


HIGHWAY, JOINED = contrib.HighwayWrapper(GRU), {"state_is_tuple": False}
WIDE, WIDE_GRID = jnp.ones((1, 4)), grid(num_frequency_blocks=[2])
FUSED, LSTM = contrib.FusedRNNCellAdaptor(GRU), contrib.LSTMBlockFusedCell(3)
UNHASHABLE = contrib.FusedRNNCellAdaptor(
    GRUCell(3, activation=unittest.mock.MagicMock(__hash__=None))
)
IDS = embedding(embedding_classes=2)
SHARDED = contrib.CoupledInputForgetGateLSTMCell(2, num_unit_shards=9)
VALUES = {
    r"`inputs` must be \[batch, 2\] like the cell's output, got": (
        lambda: step(contrib.HighwayWrapper(GRUCell(2)))
    ),
    "must have the key 'gru_cell', .* got .'carry_w'.. Pass the dict that `init` ret": (
        lambda: step(HIGHWAY, {"carry_w": 1})
    ),
    "`params` must have the structure .*carry_b": (
        lambda: step(HIGHWAY, {"gru_cell": {}, "carry_w": np.ones(3)})
    ),
    r"must be \[batch, 1\] or \[batch\], got int64\[4, 2\]": (
        lambda: IDS.init(KEY, np.ones((4, 2), int))
    ),
    "`cell.state_size` must be one vector if `state_is_tuple` is False": (
        lambda: contrib.AttentionCellWrapper(jaxrnn.LSTMCell(3), 2, **JOINED)
    ),
    r"must be \(cell state, context, memory\), got \(1, 2\)": attend((1, 2)),
    r"`state\[1\]` must have shape \[4, 6\]": attend((X, X, X)),
    r"must have depth `num_units` \(2\), got 3. .*pass `num_in_proj=2`": intersect(),
    "`inputs` must have depth": intersect(num_in_proj=0),
    r"`state` must have shape \[4, 2\]": intersect(X, num_in_proj=2),
    r"`num_frequency_blocks\[0\]` must be 1": lambda: WIDE_GRID.init(KEY, WIDE),
    r"`num_windows` must be 3 \(the number of windows in inputs of size 4\)": (
        lambda: contrib.TimeFreqLSTMCell(2, feature_size=2).init(KEY, WIDE)
    ),
    r"`feature_size` must not exceed the number of inputs \(2\), got 3": (
        lambda: grid(start_freqindex_list=[0], end_freqindex_list=[2])
    ),
    "`inputs` must be a pair": lambda: phased().init(KEY, WIDE),
    r"`inputs.shape\[-1\]` must be divisible": lambda: step(glstm()),
    r"bias_f'\]` must have shape \[6\]": with_a_wrong_bias,
    r"as many rows as shards \(9\), got 5": lambda: step(SHARDED),
    "unless `cell_size`": lambda: contrib.GRUBlockCellV2(4, cell_size=4),
    "`inputs` must hold all": lambda: LSTM.init(KEY, X),
    "`dtype` must be given": lambda: FUSED.bind({})(X[None]),
    r"`inputs` must hold at least one array, got \[\]": lambda: FUSED.bind({})([]),
}
TYPES = {
    "`params` must be a dict of arrays, got 3": lambda: step(HIGHWAY, 3),
    r"must be an array of integers, got float32\[4, 3\]": lambda: IDS.init(KEY, X),
    "`state` must have dtype float32 or a wider one, got float16": (
        intersect(np.ones((4, 2), "float16"), num_in_proj=2)
    ),
    "missing 3 required positional arguments: 'w_list', 'M', and 'time'": (
        lambda: step(ntm(), state=(X, [X]))
    ),
    "`cell` must be an RNNCell": lambda: contrib.FusedRNNCellAdaptor(FUSED),
    "`cell` must be a FusedRNNCell": lambda: contrib.TimeReversedFusedRNN(GRU),
    "hyperparameters must be hashable": lambda: UNHASHABLE.bind({}),
    "^`state` must have the structure LSTMStateTuple": (
        lambda: LSTM.bind(drawn(LSTM, X[None]))(X[None], 3.0)
    ),
}
CALLS = [(ValueError, *row) for row in VALUES.items()]
CALLS += [(TypeError, *row) for row in TYPES.items()]


test_refuses_a_call = refusals(CALLS)
