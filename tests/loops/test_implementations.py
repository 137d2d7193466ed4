"""Implementations selected by name, and the cells that they decline."""

import dataclasses

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn

import jaxrnn
from jaxrnn import BasicLSTMCell, BasicRNNCell, GRUCell, LSTMCell, contrib
from jaxrnn._loops.library_cells import native_kind

F32 = jnp.dtype(jnp.float32)
# Cells that no implementation can run, with the reason in the message.
DECLINED = {
    "residual_fn": "`residual_fn` is a function of one step",
    "dropout": "DropoutWrapper drops the state at every step",
    "dropout_filter": "DropoutWrapper drops the state at every step",
    "dropout_variational": "DropoutWrapper drops the state at every step",
    "device": "DeviceWrapper has no `apply_sequence`",
    "layer_norm_basic_lstm_dropout": "LayerNormBasicLSTMCell draws a dropout mask",
    **dict.fromkeys(
        ("attention_cell", "attention_joined"), "Wrapper has no `apply_sequence`"
    ),
    **dict.fromkeys(
        ("grid", "grid_bidirectional", "grid_joined"), "has no `apply_sequence`"
    ),
    "ntm": "NTMCell has no `apply_sequence`",
    **dict.fromkeys(
        ("lru", "min_gru", "mlstm", "rg_lru"), "no matrix product uses the state"
    ),
}


def run(cell, implementation, dtype=F32, inputs=None, key=None):
    x = jnp.ones((2, 3, 2), dtype) if inputs is None else inputs
    step = jax.tree.map(lambda leaf: leaf[:, 0], x)
    params = drawn(cell, step)
    return jaxrnn.dynamic_rnn(
        cell.bind(params, key), x, dtype=dtype, implementation=implementation
    )


@pytest.mark.fast("device", "dropout", "dropout_filter", "residual_fn", "grid", "lru")
@pytest.mark.parametrize("name", DECLINED)
def test_cells_that_decline_say_why(name):
    case = cases.CASES[name]
    depth = jax.tree.leaves(case.inputs)[0].shape[-1]
    x = jnp.ones((2, 3, depth), F32)
    for implementation in ("native", "cudnn"):
        message = f"`implementation` '{implementation}' cannot run.*{DECLINED[name]}"
        message = f"^dynamic_rnn: {message}"
        with pytest.raises(ValueError, match=message):
            run(case.cell, implementation, inputs=x, key=case.key)


def keep(params, inputs, state, key=None):
    return state, state


REFUSED = {
    "unknown": (
        ValueError,
        r"dynamic_rnn: `implementation` must be None or one of xla, native, cudnn, got "
        r"'triton'\.",
        lambda: run(LSTMCell(3), "triton"),
    ),
    "of_another_kind": (
        TypeError,
        "must be None or one of xla, native, cudnn, got 3",
        lambda: run(LSTMCell(3), 3),
    ),
    "no_affine_cell": (
        ValueError,
        "FunctionCell has no `apply_sequence`. Leave it out for XLA's loop",
        lambda: run(jaxrnn.FunctionCell(keep, 2, 2), "native"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    error, message, call = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["xla", None])
def test_xlas_loop_runs_what_libraries_do_not(name):
    assert run(LSTMCell(3), name, np.dtype("float64"))[0].dtype == np.float64


@pytest.mark.parametrize("name", ["xla", "native", "cudnn", None])
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2)])
@pytest.mark.parametrize("cell", [LSTMCell(3), jaxrnn.MinGRUCell(3)])
def test_any_name_runs_no_rows_and_no_steps(cell, shape, name):
    """There is nothing to run, so no implementation needs to support the cell."""
    bound = cell.bind(drawn(cell, jnp.ones((1, 2), F32)))
    outputs, state = jaxrnn.dynamic_rnn(
        bound, jnp.ones(shape, F32), dtype=F32, implementation=name
    )
    assert outputs.shape == (*shape[:2], 3)
    assert jax.tree.leaves(state)[0].shape == (shape[0], 3)


# Cells that libraries also implement.


def test_cells_of_the_native_loops():
    for cell, kind in (
        (BasicLSTMCell(3), "lstm"),
        (LSTMCell(3, activation="tanh"), "lstm"),
        (contrib.LSTMBlockCell(3), "lstm"),
        (GRUCell(3), "gru"),
        (contrib.GRUBlockCellV2(3), "gru"),
        (BasicRNNCell(3), "rnn"),
        (LSTMCell(3, use_peepholes=True), "peephole_lstm"),
        (contrib.LSTMBlockCell(3, use_peephole=True), "peephole_lstm"),
        (LSTMCell(3, cell_clip=1), "peephole_lstm"),
        (LSTMCell(3, num_proj=2), "projected_lstm"),
        (jaxrnn.CudnnCompatibleGRUCell(3), "cudnn_gru"),
        (contrib.LayerNormBasicLSTMCell(3), "normed_lstm"),
        (contrib.LayerNormLSTMCell(3), "lstm"),
        (BasicRNNCell(3, activation="relu"), "rnn"),
    ):
        assert native_kind(cell) == kind
    others = (
        GRUCell(3, activation="elu"),
        contrib.IndyLSTMCell(3),
        contrib.UGRNNCell(3),
    )
    for cell in others:
        with pytest.raises(jaxrnn.DeclinedError):
            native_kind(cell)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Scaled(LSTMCell):
    """An LSTM with a new option that no loop of a library knows."""

    scale: float = 1.0
    library_kind = "lstm"

    def _gates(self, params, z, state):
        return super()._gates(params, self.scale * z, state)


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ScaledGRU(GRUCell):
    scale: float = 1.0
    library_kind = "gru"


@pytest.mark.parametrize("of", [Scaled, ScaledGRU])
def test_a_field_that_no_loop_knows_must_have_its_default(of):
    assert native_kind(of(3)) == of.library_kind
    message = "cannot run .* only the default of the field `scale`, got 2.0. Leave"
    with pytest.raises(ValueError, match=message):
        run(of(3, scale=2.0), "native")
    if of is Scaled:
        with pytest.raises(ValueError, match=message):
            run(of(3, scale=2.0), "cudnn")


@pytest.mark.parametrize(
    "of",
    [
        LSTMCell,
        BasicLSTMCell,
        GRUCell,
        BasicRNNCell,
        contrib.LSTMBlockCell,
        contrib.GRUBlockCellV2,
    ],
    ids=lambda of: of.__name__,
)
def test_a_subclass_is_no_plain_cell(of):
    """A subclass may override the computation."""

    class Derived(of):
        def enter(self, state):
            operand, carry = super().enter(state)
            return 0.5 * operand, carry

    cell = Derived(3)
    with pytest.raises(ValueError, match="cannot run this cell"):
        run(cell, "native")
    got, want = run(cell, None)[0], run(of(3), None)[0]
    assert not np.allclose(got, want)
