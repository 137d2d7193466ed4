"""The table of cells to test against the laws, with one row per setting.

To test a new cell, add a row; a test fails if an exported cell has none. A row lists
the laws to test, and which of them belong to the fast run.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import DropoutWrapper, GRUCell, LSTMCell, MultiRNNCell, TensorShape, contrib
from jaxrnn.testing import LAWS, _laws

BATCH, DEPTH = 4, 3


def step(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """One step of inputs."""
    return jax.ShapeDtypeStruct((BATCH, *shape), dtype)


def softened(inputs, outputs):
    """A custom residual connection, which is not a plain sum."""
    return inputs * 0.5 + jnp.tanh(outputs)


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


NESTED_SIZE = {"matrix": TensorShape([2, 2]), "pair": [TensorShape([])] * 2}
NESTED_OUTPUT = TensorShape([2, 2]), [TensorShape([])]
NESTED_PAIR = [np.int32(0), np.zeros(BATCH)]
NESTED_STATE = {"matrix": np.full((BATCH, 2, 2), 0.25), "pair": NESTED_PAIR}


def embed(params, inputs, state, key=None):
    """A step with integer inputs."""
    state = jnp.tanh(params["table"][inputs[:, 0]] + state)
    return state, state


def embed_init(key, inputs, dtype):
    """Initial parameters for `embed`."""
    return {"table": jax.random.normal(key, (2, 3), dtype)}


VARIATIONAL = 0.7, 0.6, 0.8, True, DEPTH, jnp.float32
SCALED_STATES = 1.0, 1.0, 0.8, True, 12, jnp.float32
TIMED = step(1), step(DEPTH)  # The times of the steps, and their inputs.
POSITIVE = np.random.default_rng(0).uniform(0.5, 1, (4, BATCH, 4))
MEMORY = np.arange(72.0).reshape(4, 6, 3) / 36
ATTENTION = contrib.AttentionWrapper(GRUCell(4), contrib.BahdanauAttention(3, 3), 5)


def conv(cell, shape, channels, kernel, **options):
    """A convolutional cell, which has only keyword arguments."""
    options |= {"output_channels": channels, "kernel_shape": kernel}
    return cell(input_shape=shape, **options)


def turing_state():
    """A state of an `NTMCell` with an LSTM and two heads; addresses are weights."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.1, 1, (2, BATCH, 4))
    weights /= weights.sum(-1, keepdims=True)
    controller = jaxrnn.LSTMStateTuple(*rng.normal(size=(2, BATCH, 4)) * 0.5)
    reads, memory = [rng.normal(size=(BATCH, 3))], rng.normal(size=(BATCH, 4, 3))
    time = np.array([0.0, 2.0, 0.0, 1.0])
    return contrib.NTMControllerState(controller, reads, list(weights), memory, time)


def laws(names: str) -> frozenset[Callable]:
    """Laws by their names."""
    return frozenset(getattr(_laws, name) for name in names.split())


EVERY_LAW = frozenset(LAWS)
# These laws compile almost nothing, so they are fast for all rows.
CHEAP = laws("is_a_value has_its_sizes")
OF_A_STEP = CHEAP | laws("inits_from_shapes ignores_padding")
# For rows that run the same code as other rows, with other axes, states or stages:
# compare the forward and the backward direction with the oracle.
BOTH_WAYS = OF_A_STEP | laws(
    "runs_as_a_loop runs_backwards_as_a_loop spreads_nan_only_forward"
)
# Rows of other kinds test every law of the loop of these cells, and goldens, some of
# which are TensorFlow's own cells' (`tests/tf1`), compare the values of each cell.
BESIDE_GOLDENS = CHEAP | laws("inits_from_shapes spreads_nan_only_forward")
FORWARD = OF_A_STEP | laws("runs_as_a_loop")
OF_CHUNKS = BOTH_WAYS | laws(
    "starts_again_at_resets returns_all_states differentiates_twice"
)
# Laws of loops and derivatives, for which the fast run needs one cell, a cheap one.
# Fast tests of loops, of memory and of drivers hold the other laws.
IN_ANY_CELL = laws("differentiates_twice compiles_to_the_same spreads_nan_only_forward")


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
    laws: frozenset[Callable] = BOTH_WAYS
    fast: frozenset[Callable] = CHEAP

    @property
    def key(self) -> Any:
        return None if self.seed is None else jax.random.key(self.seed)


@jax.custom_vjp
def clipped(x):
    """An activation with a rule for its gradient, which is not the derivative."""
    return jnp.tanh(x)


def _clip(x, ct):
    return (jnp.clip(ct, -0.5, 0.5) * (2 + x),)


clipped.defvjp(lambda x: (jnp.tanh(x), x), _clip)


@jax.custom_jvp
def by_rule(x):
    """An activation with a rule for its tangent, and a converted function."""
    fn, constants = jax.closure_convert(lambda x: jnp.tanh(x), x)
    return fn(x, *constants)


def _push(x, d_x):
    y = jnp.tanh(*x)
    return y, (1 - y * y) * d_x[0]


by_rule.defjvp(_push)


both_ways = Case
every_law = functools.partial(Case, laws=EVERY_LAW)
forward = functools.partial(Case, laws=FORWARD)
in_goldens = functools.partial(Case, laws=BESIDE_GOLDENS)
# Every driver scans the steps of contrib's cells that have no loop of their own; their
# values are compared with contrib's goldens.
one_step = functools.partial(Case, laws=OF_A_STEP)


def memory(make, heads, **options):
    """A matrix memory without projections."""
    cell = make(heads, 3, 2, chunk_size=2, **options)
    inputs = jax.tree.map(lambda size: step(*size), cell.input_sizes)
    # The loop over chunks, which memories share, has every law in `KINDS`.
    is_kind = make is jaxrnn.MLSTMMemoryCell
    return Case(cell, inputs, laws=EVERY_LAW if is_kind else OF_CHUNKS)


# Options of the cells that read bands of frequencies.
BANDS = {"feature_size": 3, "frequency_skip": 2}
GRID = {"feature_size": 2, "frequency_skip": 1, "num_frequency_blocks": [1, 1]}
GRID |= {"start_freqindex_list": [0, 1], "end_freqindex_list": [2, 3]}
GRID |= {"share_time_frequency_weights": True, "couple_input_forget_gates": True}
CASES = {
    "basic_rnn": every_law(jaxrnn.BasicRNNCell(4), fast=CHEAP | IN_ANY_CELL),
    "basic_lstm": in_goldens(jaxrnn.BasicLSTMCell(4, forget_bias=0.5)),
    "lstm": in_goldens(LSTMCell(4)),
    "lstm_projection": every_law(
        LSTMCell(4, use_peepholes=True, num_proj=2, proj_clip=0.3, forget_bias=0.0),
        fast=FORWARD | laws("keeps_rows_apart resumes"),
    ),
    "gru": in_goldens(GRUCell(4)),
    "gru_sigmoid": in_goldens(GRUCell(4, activation=jax.nn.sigmoid)),
    "gru_cudnn": forward(jaxrnn.CudnnCompatibleGRUCell(4)),
    "layer_norm_gru": forward(jaxrnn.LayerNormGRUCell(4)),
    # The chunks of the laws' sequences, which have few steps, are not full.
    "mlstm": every_law(jaxrnn.MLSTMCell(4, 2, chunk_size=2)),
    "mlstm_memory": memory(jaxrnn.MLSTMMemoryCell, 4, num_key_heads=2),
    "delta_memory": memory(jaxrnn.DeltaMemoryCell, 2, num_key_heads=1),
    "delta_memory_key_decay": memory(
        jaxrnn.DeltaMemoryCell, 2, num_key_heads=1, key_decay=True, scale=0.5
    ),
    "linear_attention": memory(jaxrnn.LinearAttentionMemoryCell, 4, num_key_heads=2),
    "linear_attention_key_decay": memory(
        jaxrnn.LinearAttentionMemoryCell, 2, key_decay=True
    ),
    "dplr_memory": memory(jaxrnn.DPLRMemoryCell, 2),
    "rwkv6_memory": memory(jaxrnn.RWKV6MemoryCell, 4, num_key_heads=2),
    "slstm": every_law(jaxrnn.SLSTMCell(4, 2), state=jaxrnn.SLSTMState(*POSITIVE)),
    "slstm_added": both_ways(
        jaxrnn.SLSTMCell(4, 2, project_inputs=False),
        step(16),
        state=jaxrnn.SLSTMState(*POSITIVE),
    ),
    "gru_added": Case(
        DropoutWrapper(GRUCell(4, project_inputs=False), *SCALED_STATES),
        step(12),
        seed=3,
        laws=BOTH_WAYS | laws("differentiates_twice starts_again_at_resets"),
        fast=CHEAP | laws("runs_as_a_loop"),
    ),
    "lru": every_law(jaxrnn.LRUCell(DEPTH, num_states=4)),
    "rg_lru": every_law(jaxrnn.RGLRUCell(4, num_heads=2), step(4)),
    "short_conv": every_law(jaxrnn.ShortConvCell(DEPTH)),
    "s6": every_law(
        jaxrnn.S6MemoryCell(3, 2), jaxrnn.S6Inputs(step(3), step(3), step(2), step(2))
    ),
    "multi": every_law(MultiRNNCell([LSTMCell(4, num_proj=2), GRUCell(3)])),
    "multi_joined": in_goldens(
        MultiRNNCell([jaxrnn.BasicRNNCell(2), GRUCell(3)], state_is_tuple=False)
    ),
    "residual": in_goldens(jaxrnn.ResidualWrapper(GRUCell(DEPTH))),
    "residual_fn": both_ways(jaxrnn.ResidualWrapper(LSTMCell(DEPTH), softened)),
    "device": forward(jaxrnn.DeviceWrapper(LSTMCell(4), "/cpu:0")),
    "min_gru": every_law(jaxrnn.MinGRUCell(4)),
    "min_lstm": both_ways(jaxrnn.MinLSTMCell(4)),
    "qrnn": both_ways(jaxrnn.QRNNCell(4)),
    "qrnn_ifo": both_ways(jaxrnn.QRNNCell(4, "ifo", activation="linear")),
    "dropout": every_law(
        DropoutWrapper(LSTMCell(4), 0.7, 0.6, 0.8),
        seed=1,
        fast=CHEAP | laws("inits_from_shapes runs_backwards_as_a_loop"),
    ),
    "dropout_variational": Case(
        DropoutWrapper(GRUCell(4), *VARIATIONAL),
        seed=3,
        laws=BOTH_WAYS | laws("resumes starts_again_at_resets"),
    ),
    "dropout_per_row": both_ways(
        DropoutWrapper(LSTMCell(4), *VARIATIONAL, mask_per_row=True), seed=3
    ),
    "coupled_lstm": forward(
        contrib.CoupledInputForgetGateLSTMCell(
            4, True, num_proj=2, num_unit_shards=3, num_proj_shards=2, layer_norm=True
        )
    ),
    "glstm": one_step(contrib.GLSTMCell(6, number_of_groups=3)),
    "gru_block": both_ways(contrib.GRUBlockCellV2(4)),
    "layer_norm_basic_lstm": forward(contrib.LayerNormBasicLSTMCell(4)),
    "layer_norm_basic_lstm_dropout": both_ways(
        contrib.LayerNormBasicLSTMCell(4, layer_norm=False, dropout_keep_prob=0.6),
        seed=5,
    ),
    "layer_norm_lstm": both_ways(
        contrib.LayerNormLSTMCell(4, True, 0.5, num_proj=2, layer_norm=True)
    ),
    "lstm_block": both_ways(contrib.LSTMBlockCell(4, cell_clip=0.4, use_peephole=True)),
    "conv1d": one_step(
        conv(contrib.Conv1DLSTMCell, [3, 2], 2, [2], use_bias=False), step(3, 2)
    ),
    "conv2d": one_step(
        conv(contrib.Conv2DLSTMCell, [3, 2, 2], 2, [2, 3], skip_connection=True),
        step(3, 2, 2),
    ),
    "conv3d": one_step(
        conv(contrib.Conv3DLSTMCell, [2, 2, 1, 1], 1, [2, 1, 1]), step(2, 2, 1, 1)
    ),
    "conv": one_step(
        contrib.ConvLSTMCell(1, [3, 2], 1, [1], forget_bias=0.0), step(3, 2)
    ),
    "time_freq": one_step(
        contrib.TimeFreqLSTMCell(
            2, True, 0.4, num_unit_shards=2, num_windows=2, **BANDS
        ),
        step(6),
    ),
    "grid": one_step(
        contrib.GridLSTMCell(
            2, True, cell_clip=0.4, num_unit_shards=2, num_frequency_blocks=[2], **BANDS
        ),
        step(5),
    ),
    "grid_joined": one_step(contrib.GridLSTMCell(2, **GRID, state_is_tuple=False)),
    "grid_bidirectional": one_step(
        contrib.BidirectionalGridLSTMCell(
            2, num_frequency_blocks=[1], backward_slice_offset=-1, **BANDS
        )
    ),
    "phased": one_step(contrib.PhasedLSTMCell(4, True), TIMED),
    "ntm": one_step(
        contrib.NTMCell(LSTMCell(4), 4, 3, 1, 1, output_dim=2), state=turing_state()
    ),
    "nas": forward(contrib.NASCell(4, 2, use_bias=True)),
    "weight_norm_lstm": forward(contrib.WeightNormLSTMCell(4, num_proj=2)),
    "attention": every_law(
        ATTENTION,
        state=ATTENTION.initial_state(MEMORY, [6, 0, 2, 5]),
    ),
    "attention_cell": one_step(contrib.AttentionCellWrapper(LSTMCell(4), 2)),
    "cfn": forward(contrib.CFNCell(4)),
    "embedding": one_step(
        contrib.EmbeddingWrapper(GRUCell(4), 2, 3), step(1, dtype=jnp.int32)
    ),
    "highway": one_step(contrib.HighwayWrapper(LSTMCell(DEPTH), False)),
    "ind_rnn": forward(contrib.IndRNNCell(4)),
    "indy_gru": forward(contrib.IndyGRUCell(4)),
    "indy_lstm": forward(contrib.IndyLSTMCell(4, forget_bias=0.5)),
    "input_projection": one_step(
        contrib.InputProjectionWrapper(LSTMCell(4), 2, activation="tanh")
    ),
    "intersection_rnn": one_step(contrib.IntersectionRNNCell(4, 4)),
    "minimal_rnn": forward(contrib.MinimalRNNCell(4)),
    "output_projection": one_step(contrib.OutputProjectionWrapper(GRUCell(4), 2)),
    "sru": both_ways(contrib.SRUCell(4)),
    "ugrnn": forward(contrib.UGRNNCell(4)),
    "function_nested": every_law(
        jaxrnn.FunctionCell(nested_step, NESTED_SIZE, NESTED_OUTPUT, nested_init),
        {"picture": step(2, 2), "vector": step(5)},
        state=NESTED_STATE,
        fast=CHEAP | laws("inits_from_shapes runs_as_a_loop"),
    ),
    "function_integers": both_ways(
        jaxrnn.FunctionCell(embed, 3, 3, embed_init), step(1, dtype=jnp.int32)
    ),
}
# One row for each kind of cell, which has every law.
KINDS = {
    "affine": "lstm_projection",
    "linear recurrence": "min_gru",
    "complex": "lru",
    "matrix memory": "mlstm",
    "memory without parameters": "mlstm_memory",
    "wrapper": "multi",
    "random": "dropout",
    "nested": "function_nested",
}

# Cells with a custom rule for the derivative of a function. Python's loop, the oracle,
# follows the same rule.
IN_REVERSE = laws(
    "runs_as_a_loop runs_in_raw_rnn runs_in_little_memory starts_again_at_resets "
    "maps_over_an_axis compiles_to_the_same"
)
PEEPHOLES = LSTMCell(4, True, activation=clipped)
RUNS = laws("runs_as_a_loop")
RULES = {
    "rule_basic": Case(
        jaxrnn.BasicRNNCell(4, activation=clipped), laws=RUNS, fast=RUNS
    ),
    "rule_peepholes": Case(PEEPHOLES, laws=IN_REVERSE, fast=frozenset()),
    "rule_forward": Case(
        LSTMCell(4, True, activation=by_rule),
        laws=IN_REVERSE | laws("differentiates_twice"),
        fast=frozenset(),
    ),
}
