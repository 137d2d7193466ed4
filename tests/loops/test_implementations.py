"""Implementations selected by name, and the cells that they decline."""

import dataclasses
import re

import cases
import jax
import jax.numpy as jnp
import pytest
from helpers import drawn

import jaxrnn
from jaxrnn import BasicLSTMCell, GRUCell, LSTMCell, contrib
from jaxrnn._cells.affine import cudnn

F32, BF16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
BOTH = "native", "cudnn"
# Cells that no implementation can run, with the reason in the message.
DECLINED = {
    "residual_fn": "`residual_fn` is a function of one step",
    "dropout": "DropoutWrapper drops the state at every step",
    "device": "DeviceWrapper has no `apply_sequence`",
    "layer_norm_basic_lstm_dropout": "LayerNormBasicLSTMCell draws a dropout mask",
    "attention_cell": "Wrapper has no `apply_sequence`",
    "grid": "has no `apply_sequence`",
    "ntm": "NTMCell has no `apply_sequence`",
    **dict.fromkeys(
        ("lru", "min_gru", "mlstm", "rg_lru"), "Cell is not an `AffineCell`"
    ),
}


def run(cell, implementation, dtype=F32, depth=2, key=None, **kwargs):
    x = jnp.ones((2, 3, depth), dtype)
    bound = cell.bind(drawn(cell, x[:, 0]), key)
    kwargs = {"dtype": dtype, "implementation": implementation} | kwargs
    return jaxrnn.dynamic_rnn(bound, x, **kwargs)


@pytest.mark.fast("device", "dropout", "residual_fn", "grid", "lru")
@pytest.mark.parametrize("name", DECLINED)
def test_cells_that_decline_say_why(name):
    case = cases.CASES[name]
    depth = jax.tree.leaves(case.inputs)[0].shape[-1]
    for implementation in BOTH:
        message = f"`implementation` '{implementation}' cannot run.*{DECLINED[name]}"
        with pytest.raises(ValueError, match=f"^{message}"):
            run(case.cell, implementation, depth=depth, key=case.key)


class Derived(LSTMCell):
    """A subclass of `LSTMCell`, whose functions may differ."""


def retanh(x):
    return jnp.tanh(x)


def with_a_wide_memory(name):
    state = jaxrnn.LSTMStateTuple(jnp.zeros((2, 3), F32), jnp.zeros((2, 3), BF16))
    return run(LSTMCell(3), name, BF16, initial_state=state)


def of_shape(shape):
    cell = LSTMCell(3)
    bound, x = cell.bind(drawn(cell, jnp.ones((1, 2), F32))), shape
    call = lambda x, name: jaxrnn.dynamic_rnn(bound, x, dtype=F32, implementation=name)
    x = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), F32)
    return lambda name: jax.eval_shape(lambda x: call(x, name), x)


def of(cell, dtype=F32):
    return lambda name: run(cell, name, dtype)


NATIVE = "the native loops support only LSTMs, GRUs and basic RNNs"
CUDNN = "cuDNN's loop supports only plain LSTMs with tanh"
WITH_TANH = f"{NATIVE} with tanh, relu or sigmoid, not "
NORMED = contrib.LayerNormLSTMCell(3, layer_norm=True, use_peepholes=True)
REFUSED = [
    (of(LSTMCell(3), "float64"), BOTH, "only float32 is supported, got float64"),
    (with_a_wide_memory, BOTH, "only float32 is supported, got bfloat16, float32"),
    (of(LSTMCell(0)), BOTH, "an array is empty, float32["),
    (of_shape("b, 3, 2"), BOTH, "the number of rows is symbolic"),
    (of_shape("2, t, 2"), BOTH, "the number of steps is symbolic"),
    (of(Derived(3)), ["native"], f"{NATIVE}, not Derived"),
    (of(contrib.IndyLSTMCell(3)), ["native"], f"{NATIVE}, not IndyLSTMCell"),
    (of(contrib.IndyLSTMCell(3)), ["cudnn"], f"{CUDNN}, not IndyLSTMCell"),
    (of(GRUCell(3, activation="softsign")), ["native"], f"{WITH_TANH}soft_sign"),
    (of(BasicLSTMCell(3, activation=retanh)), ["native"], f"{WITH_TANH}retanh"),
    (of(NORMED), ["native"], "an LSTM with layer normalization and peepholes"),
    (of(Derived(3)), ["cudnn"], f"{CUDNN}, not Derived"),
    (of(GRUCell(3)), ["cudnn"], f"{CUDNN}, not GRUCell"),
    (
        of(LSTMCell(3, activation="relu")),
        ["cudnn"],
        f"{CUDNN}, but this cell uses relu",
    ),
    (of(LSTMCell(3, True)), ["cudnn"], f"{CUDNN}, but this cell has peepholes"),
    (of(LSTMCell(3, cell_clip=1)), ["cudnn"], "but this cell has a `cell_clip`"),
    (of(LSTMCell(3, num_proj=2)), ["cudnn"], "but this cell has a projection"),
    (
        of_shape("1, 65536, 2"),
        ["cudnn"],
        "cuDNN's loop supports at most 65535 steps, got 65536",
    ),
    (of_shape("1, 65535, 2"), ["cudnn"], "finds no NVIDIA GPU here"),
]


@pytest.mark.parametrize(("call", "names", "reason"), REFUSED)
def test_refusals(call, names, reason, monkeypatch):
    monkeypatch.setattr(cudnn, "why_not_here", lambda: "finds no NVIDIA GPU here")
    reason = re.escape(reason) + r".*\. Omit `implementation` to use XLA's loop"
    for name in names:
        message = f"`implementation` '{name}' cannot run this cell on these sequences"
        with pytest.raises(ValueError, match=f"{message}: .*{reason}"):
            call(name)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="This machine has a GPU.")
def test_without_a_gpu():
    assert "finds no NVIDIA GPU here" in cudnn.why_not_here()


@pytest.mark.parametrize(("name", "error"), [("triton", ValueError), (3, TypeError)])
def test_unknown_names(name, error):
    known = "`implementation` must be None or one of xla, native, cudnn"
    with pytest.raises(error, match=rf"^{known}, got {name!r}\."):
        run(LSTMCell(3), name)


@pytest.mark.parametrize("name", ["xla", "native", "cudnn", None])
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2)])
def test_any_name_runs_no_rows_and_no_steps(shape, name):
    """There is nothing to run, so no implementation needs to support the cell."""
    for cell in (LSTMCell(3), jaxrnn.MinGRUCell(3)):
        bound = cell.bind(drawn(cell, jnp.ones((1, 2), F32)))
        outputs, state = jaxrnn.dynamic_rnn(
            bound, jnp.ones(shape, F32), dtype=F32, implementation=name
        )
        assert outputs.shape == (*shape[:2], 3)
        assert jax.tree.leaves(state)[0].shape == (shape[0], 3)


# The fields of a cell that the native loops or cuDNN read, or that select a loop.
READ = (
    "num_units cell_size activation forget_bias use_peephole use_peepholes cell_clip "
    "num_proj proj_clip layer_norm"
)
# The fields that change no step: names, dtypes, initial values, unused arguments of
# TensorFlow, and dropout (with active dropout, neither the native loops nor cuDNN run).
NO_PART_OF_A_STEP = (
    "name dtype reuse input_size state_is_tuple num_unit_shards num_proj_shards "
    "initializer kernel_initializer bias_initializer norm_gain norm_shift "
    "dropout_keep_prob dropout_prob_seed"
)


def subclasses(cls):
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)


def test_the_loops_know_every_field():
    """A cell with a `library_kind` has no other fields, which a loop would ignore."""
    cells = [c for c in subclasses(jaxrnn.AffineCell) if "library_kind" in vars(c)]
    assert {LSTMCell, GRUCell, contrib.LSTMBlockCell} <= set(cells)
    known = {*READ.split(), *NO_PART_OF_A_STEP.split()}
    for cell in cells:
        assert {field.name for field in dataclasses.fields(cell)} <= known
