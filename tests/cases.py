"""The table of cells to test against the laws, with one row per setting.

To test a new cell, add a row; a test fails if an exported cell has none. A row lists
the laws to test, and which of them belong to the fast run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
import jaxrnn.contrib as contrib
from jaxrnn import (
    BasicLSTMCell,
    BasicRNNCell,
    CudnnCompatibleGRUCell,
    DeltaNetCell,
    DeviceWrapper,
    DropoutWrapper,
    FunctionCell,
    GatedDeltaNetCell,
    GRUCell,
    LRUCell,
    LSTMCell,
    MLSTMCell,
    MultiRNNCell,
    PastInputsWrapper,
    ResidualWrapper,
    RGLRUCell,
    SLSTMCell,
    SLSTMState,
    TemporalConvWrapper,
    TensorShape,
)
from jaxrnn.testing import LAWS, _laws

BATCH, DEPTH = 4, 3


def step(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """One step of inputs."""
    return jax.ShapeDtypeStruct((BATCH, *shape), dtype)


def softened(inputs, outputs):
    """A custom residual connection, which is not a plain sum."""
    return inputs * 0.5 + jnp.tanh(outputs)


def all_of_it(substate):
    """A filter that allows dropout on everything, including an LSTM's memory."""
    return True


def nested_step(params, inputs, state, key=None):
    """A step with nested arrays of several axes, and a scalar counter in the state."""
    matrix, (count, totals) = state["matrix"], state["pair"]
    pooled = jnp.tanh(jnp.einsum("bij,jk->bik", matrix, params["w"]))
    matrix = pooled + inputs["picture"]
    totals = totals + jnp.sum(inputs["vector"], axis=-1)
    state = {"matrix": matrix, "pair": [count + 1, totals]}
    return (matrix * 2, [totals]), state


def nested_init(key, inputs, dtype):
    """Initial parameters for `nested_step`."""
    return {"w": jax.random.normal(key, (2, 2), dtype)}


NESTED_SIZE = {
    "matrix": TensorShape([2, 2]),
    "pair": [TensorShape([]), TensorShape([])],
}
NESTED_STATE = {
    "matrix": np.full((BATCH, 2, 2), 0.25),
    "pair": [np.int32(0), np.zeros(BATCH)],
}


def embed(params, inputs, state, key=None):
    """A step with integer inputs."""
    state = jnp.tanh(params["table"][inputs[:, 0]] + state)
    return state, state


def embed_init(key, inputs, dtype):
    """Initial parameters for `embed`."""
    return {"table": jax.random.normal(key, (2, 3), dtype)}


ATTENTION = contrib.AttentionWrapper(GRUCell(4), contrib.BahdanauAttention(3, 3), 5)


def turing_state(memory_size: int, vector_dim: int, units: int):
    """A state of an `NTMCell` with an LSTM and two heads; addresses are weights."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.1, 1, (2, BATCH, memory_size))
    weights /= weights.sum(-1, keepdims=True)
    pair = rng.normal(size=(2, BATCH, units)) * 0.5
    return contrib.NTMControllerState(
        jaxrnn.LSTMStateTuple(*pair),
        [rng.normal(size=(BATCH, vector_dim))],
        list(weights),
        rng.normal(size=(BATCH, memory_size, vector_dim)),
        np.array([0.0, 2.0, 0.0, 1.0]),
    )


EVERY_LAW = frozenset(LAWS)
# Laws of derivative rules and memory strategies, which cells share. Test them on one
# row for each rule, and on cells with unusual steps, inputs or states.
MOST_LAWS = EVERY_LAW - {
    _laws.differentiates_twice,
    _laws.runs_in_little_memory,
    _laws.starts_again_at_resets,
    _laws.returns_all_states,
}
# These laws compile almost nothing, so they are fast for all rows.
CHEAP = frozenset({_laws.is_a_value, _laws.has_its_sizes})
# For rows that run the same code as other rows, with other axes, states or stages:
# compare the forward and the backward direction with the oracle.
FEW_LAWS = CHEAP | {
    _laws.inits_from_shapes,
    _laws.runs_as_a_loop,
    _laws.runs_backwards_as_a_loop,
    _laws.runs_a_subclass,
    _laws.ignores_padding,
    _laws.spreads_nan_only_forward,
}
# Laws of loops and derivatives, for which the fast run needs one cell, a cheap one.
IN_ANY_CELL = frozenset(
    {
        _laws.runs_backwards_as_a_loop,
        _laws.runs_in_raw_rnn,
        _laws.runs_unrolled,
        _laws.runs_in_little_memory,
        _laws.maps_over_an_axis,
        _laws.differentiates_twice,
        _laws.compiles_to_the_same,
        _laws.returns_all_states,
        _laws.spreads_nan_only_forward,
    }
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        cell: The cell.
        inputs: One step of its inputs.
        seed: The seed of its key, if it draws random numbers.
        state: The initial state; None for a random one.
        laws: The laws to test.
        fast: The laws to test in the fast run.
    """

    cell: jaxrnn.RNNCell
    inputs: Any = dataclasses.field(default_factory=lambda: step(DEPTH))
    seed: int | None = None
    state: Any = None
    laws: frozenset[Callable] = MOST_LAWS
    fast: frozenset[Callable] = CHEAP

    @property
    def key(self) -> Any:
        return None if self.seed is None else jax.random.key(self.seed)


CASES = {
    "basic_rnn": Case(BasicRNNCell(4), laws=EVERY_LAW, fast=CHEAP | IN_ANY_CELL),
    "basic_rnn_relu": Case(BasicRNNCell(4, activation="relu"), laws=FEW_LAWS),
    "basic_lstm": Case(BasicLSTMCell(4, forget_bias=0.5)),
    "basic_lstm_joined": Case(BasicLSTMCell(4, state_is_tuple=False), laws=FEW_LAWS),
    "lstm": Case(LSTMCell(4)),
    "lstm_peepholes_clip": Case(LSTMCell(4, use_peepholes=True, cell_clip=0.4)),
    "lstm_projection": Case(
        LSTMCell(4, use_peepholes=True, num_proj=2, proj_clip=0.3, forget_bias=0.0),
        laws=EVERY_LAW,
        fast=EVERY_LAW - IN_ANY_CELL,
    ),
    "lstm_joined": Case(
        LSTMCell(4, num_proj=3, activation="softsign", state_is_tuple=False),
        laws=FEW_LAWS,
    ),
    "gru": Case(GRUCell(4)),
    "gru_sigmoid": Case(GRUCell(4, activation=jax.nn.sigmoid), laws=FEW_LAWS),
    "gru_cudnn": Case(CudnnCompatibleGRUCell(4), laws=EVERY_LAW),
    # The chunks of the laws' sequences, which have few steps, are not full.
    "mlstm": Case(MLSTMCell(4, 2, chunk_size=2), laws=EVERY_LAW),
    "delta_net": Case(DeltaNetCell(4, 2, chunk_size=2), laws=FEW_LAWS),
    "gated_delta_net": Case(
        GatedDeltaNetCell(4, 2, key_size=3, allow_neg_eigval=True, chunk_size=2),
        laws=EVERY_LAW,
    ),
    "slstm": Case(
        SLSTMCell(4, 2),
        state=SLSTMState(*np.random.default_rng(0).uniform(0.5, 1, (4, BATCH, 4))),
        laws=EVERY_LAW,
    ),
    "lru": Case(LRUCell(DEPTH, num_states=4), laws=EVERY_LAW),
    "rg_lru": Case(RGLRUCell(4, num_heads=2), step(4), laws=EVERY_LAW),
    "multi": Case(
        MultiRNNCell([LSTMCell(4, num_proj=2), GRUCell(3)]),
        laws=EVERY_LAW,
        fast=CHEAP | {_laws.inits_from_shapes, _laws.runs_as_a_loop},
    ),
    "multi_joined": Case(
        MultiRNNCell([BasicRNNCell(2), GRUCell(3)], state_is_tuple=False),
        laws=FEW_LAWS,
    ),
    "multi_shared": Case(MultiRNNCell([GRUCell(DEPTH)] * 2)),
    "residual": Case(ResidualWrapper(GRUCell(DEPTH))),
    "residual_fn": Case(ResidualWrapper(LSTMCell(DEPTH), softened), laws=FEW_LAWS),
    "device": Case(DeviceWrapper(LSTMCell(4), "/cpu:0")),
    "past_inputs": Case(PastInputsWrapper(GRUCell(4), DEPTH), laws=FEW_LAWS),
    "min_gru": Case(jaxrnn.MinGRUCell(4), laws=EVERY_LAW),
    "min_lstm": Case(jaxrnn.MinLSTMCell(4), laws=FEW_LAWS),
    "qrnn": Case(jaxrnn.QRNNCell(4), laws=FEW_LAWS),
    "qrnn_ifo": Case(jaxrnn.QRNNCell(4, "ifo", activation="linear"), laws=FEW_LAWS),
    "temporal_conv": Case(
        TemporalConvWrapper(GRUCell(4), DEPTH),
        laws=EVERY_LAW,
    ),
    "dropout": Case(
        DropoutWrapper(LSTMCell(4), 0.7, 0.6, 0.8),
        seed=1,
        laws=EVERY_LAW,
        fast=CHEAP | {_laws.inits_from_shapes, _laws.runs_as_a_loop},
    ),
    "dropout_filter": Case(
        DropoutWrapper(
            MultiRNNCell([LSTMCell(4), GRUCell(3)]),
            state_keep_prob=0.5,
            dropout_state_filter_visitor=all_of_it,
        ),
        seed=2,
    ),
    "dropout_variational": Case(
        DropoutWrapper(GRUCell(4), 0.7, 0.6, 0.8, True, DEPTH, jnp.float32), seed=3
    ),
    "dropout_per_row": Case(
        DropoutWrapper(
            LSTMCell(4), 0.7, 0.6, 0.8, True, DEPTH, jnp.float32, mask_per_row=True
        ),
        seed=3,
        laws=FEW_LAWS,
    ),
    "dropout_off": Case(DropoutWrapper(LSTMCell(4), 0.5, 0.5, 0.5), laws=FEW_LAWS),
    "deep": Case(
        MultiRNNCell(
            [
                DropoutWrapper(LSTMCell(DEPTH), 0.5, seed=1),
                ResidualWrapper(DropoutWrapper(GRUCell(DEPTH), 1.0, 0.5, seed=2)),
            ]
        ),
        seed=4,
    ),
    "coupled_lstm": Case(
        contrib.CoupledInputForgetGateLSTMCell(
            4, True, num_proj=2, num_unit_shards=3, num_proj_shards=2, layer_norm=True
        )
    ),
    "glstm": Case(contrib.GLSTMCell(6, number_of_groups=3)),
    "glstm_projection": Case(
        contrib.GLSTMCell(6, num_proj=3, number_of_groups=3), laws=FEW_LAWS
    ),
    "gru_block": Case(contrib.GRUBlockCellV2(4), laws=FEW_LAWS),
    "layer_norm_basic_lstm": Case(contrib.LayerNormBasicLSTMCell(4)),
    "layer_norm_basic_lstm_dropout": Case(
        contrib.LayerNormBasicLSTMCell(4, layer_norm=False, dropout_keep_prob=0.6),
        seed=5,
        laws=FEW_LAWS,
    ),
    "layer_norm_lstm": Case(
        contrib.LayerNormLSTMCell(4, True, 0.5, num_proj=2, layer_norm=True),
        laws=EVERY_LAW,
    ),
    "lstm_block": Case(
        contrib.LSTMBlockCell(4, cell_clip=0.4, use_peephole=True), laws=FEW_LAWS
    ),
    "conv1d": Case(
        contrib.Conv1DLSTMCell(
            input_shape=[3, 2], output_channels=2, kernel_shape=[2], use_bias=False
        ),
        step(3, 2),
        laws=FEW_LAWS,
    ),
    "conv2d": Case(
        contrib.Conv2DLSTMCell(
            input_shape=[3, 2, 2],
            output_channels=2,
            kernel_shape=[2, 3],
            skip_connection=True,
        ),
        step(3, 2, 2),
        laws=EVERY_LAW,
    ),
    "conv3d": Case(
        contrib.Conv3DLSTMCell(
            input_shape=[2, 2, 1, 1], output_channels=1, kernel_shape=[2, 1, 1]
        ),
        step(2, 2, 1, 1),
        laws=FEW_LAWS,
    ),
    "conv": Case(
        contrib.ConvLSTMCell(1, [3, 2], 1, [1], forget_bias=0.0),
        step(3, 2),
        laws=FEW_LAWS,
    ),
    "time_freq": Case(
        contrib.TimeFreqLSTMCell(
            2,
            True,
            0.4,
            num_unit_shards=2,
            feature_size=3,
            frequency_skip=2,
            num_windows=2,
        ),
        step(6),
    ),
    "grid": Case(
        contrib.GridLSTMCell(
            2,
            True,
            cell_clip=0.4,
            num_unit_shards=2,
            feature_size=3,
            frequency_skip=2,
            num_frequency_blocks=[2],
        ),
        step(5),
    ),
    "grid_joined": Case(
        contrib.GridLSTMCell(
            2,
            share_time_frequency_weights=True,
            feature_size=2,
            frequency_skip=1,
            num_frequency_blocks=[1, 1],
            start_freqindex_list=[0, 1],
            end_freqindex_list=[2, 3],
            couple_input_forget_gates=True,
            state_is_tuple=False,
        ),
        laws=FEW_LAWS,
    ),
    "grid_bidirectional": Case(
        contrib.BidirectionalGridLSTMCell(
            2,
            feature_size=3,
            frequency_skip=2,
            num_frequency_blocks=[1],
            backward_slice_offset=-1,
        )
    ),
    "phased": Case(
        contrib.PhasedLSTMCell(4, True), (step(1), step(DEPTH)), laws=EVERY_LAW
    ),
    "phased_fixed": Case(
        contrib.PhasedLSTMCell(4, trainable_ratio_on=False),
        (step(1), step(DEPTH)),
        laws=FEW_LAWS,
    ),
    "ntm": Case(
        contrib.NTMCell(LSTMCell(4), 4, 3, 1, 1, output_dim=2),
        state=turing_state(4, 3, 4),
    ),
    "nas": Case(contrib.NASCell(4, 2, use_bias=True)),
    "weight_norm_lstm": Case(contrib.WeightNormLSTMCell(4, num_proj=2)),
    "attention": Case(
        ATTENTION,
        state=ATTENTION.initial_state(
            np.arange(72.0).reshape(4, 6, 3) / 36, [6, 0, 2, 5]
        ),
        laws=EVERY_LAW,
    ),
    "attention_cell": Case(contrib.AttentionCellWrapper(LSTMCell(4), 2)),
    "attention_joined": Case(
        contrib.AttentionCellWrapper(GRUCell(4), 2, 3, state_is_tuple=False),
        laws=FEW_LAWS,
    ),
    "cfn": Case(contrib.CFNCell(4)),
    "embedding": Case(
        contrib.EmbeddingWrapper(GRUCell(4), 2, 3),
        step(1, dtype=jnp.int32),
        laws=EVERY_LAW,
    ),
    "highway": Case(contrib.HighwayWrapper(LSTMCell(DEPTH), False)),
    "ind_rnn": Case(contrib.IndRNNCell(4)),
    "indy_gru": Case(contrib.IndyGRUCell(4)),
    "indy_lstm": Case(contrib.IndyLSTMCell(4, forget_bias=0.5)),
    "input_projection": Case(
        contrib.InputProjectionWrapper(LSTMCell(4), 2, activation="tanh")
    ),
    "intersection_rnn": Case(contrib.IntersectionRNNCell(4, 4)),
    "minimal_rnn": Case(contrib.MinimalRNNCell(4)),
    "output_projection": Case(contrib.OutputProjectionWrapper(GRUCell(4), 2)),
    "sru": Case(contrib.SRUCell(4), laws=FEW_LAWS),
    "ugrnn": Case(contrib.UGRNNCell(4)),
    "function_nested": Case(
        FunctionCell(
            nested_step,
            NESTED_SIZE,
            (TensorShape([2, 2]), [TensorShape([])]),
            nested_init,
        ),
        {"picture": step(2, 2), "vector": step(5)},
        state=NESTED_STATE,
        laws=EVERY_LAW,
        fast=CHEAP | {_laws.inits_from_shapes, _laws.runs_as_a_loop},
    ),
    "function_integers": Case(
        FunctionCell(embed, 3, 3, embed_init), step(1, dtype=jnp.int32)
    ),
}
