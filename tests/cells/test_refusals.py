"""Wrong fields, inputs, states and classes of cells, and what the errors name."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, drawn, refusals
from jax.nn.initializers import orthogonal, zeros

import jaxrnn
from jaxrnn import (
    BasicLSTMCell,
    DeltaInputs,
    DeltaMemoryCell,
    FunctionCell,
    LRUCell,
    LSTMCell,
    MinGRUCell,
    MLSTMCell,
    ParamSpec,
    RGLRUCell,
    SLSTMCell,
    initializers,
)
from jaxrnn.initializers import by_gate, by_part, chrono

F32, KEY = jnp.float32, jax.random.key(0)
X, H = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
ROWS, WIDE, COMPLEX = jnp.ones((3, 2)), jnp.ones((1, 3)), jnp.ones((1, 2), complex)
THREE = ParamSpec((12,), zeros, blocks=3)
UNIT = initializers.unit_forget_bias()
like = functools.partial(FunctionCell.like, inputs=X, state=H)
keep = lambda params, inputs, state, key=None: (inputs, state)


def initialized(initializer, depth=3):
    x = jax.ShapeDtypeStruct((2, depth), F32)
    return LSTMCell(8, initializer=initializer).init(KEY, x)


class Plain(jaxrnn.RNNCell):
    """A cell that is not a dataclass."""

    state_size = output_size = 3
    init = apply = None

    def __init__(self, scale):
        self.scale = scale


class Recurrence(jaxrnn.LinearRecurrenceCell):
    """A recurrence with given coefficients."""

    state_size = output_size = 2
    param_specs = lambda self, depth: {"w": ParamSpec((depth,), zeros)}
    coefficients = lambda self, params, inputs: self.result

    def __init__(self, *result):
        self.result = result


def step_of(*result):
    return Recurrence(*result).apply({"w": jnp.zeros(2)}, ROWS, ROWS)


MEMORY = DeltaMemoryCell(4, 3, 2, num_key_heads=2)
STEP = DeltaInputs(*(np.ones((3, *size)) for size in MEMORY.input_sizes))


def written(step=STEP, **leaves):
    step = step._replace(**leaves) if leaves else step
    return MEMORY.bind({})(step, MEMORY.zero_state(3, float))


S6 = jaxrnn.S6MemoryCell(4, 2)
S6_STEP = jaxrnn.S6Inputs(*(np.ones((3, *size)) for size in S6.input_sizes))


def scanned(**leaves):
    params = S6.init(KEY, S6_STEP)
    return S6.bind(params)(S6_STEP._replace(**leaves), S6.zero_state(3, float))


def narrow(cell):
    x = jnp.ones((1, 3), F32)
    return cell.apply(drawn(cell, x), x, cell.zero_state(1, jnp.bfloat16))


def wide_inputs(cell):
    return jaxrnn.dynamic_rnn(bound(cell, 4), np.ones((1, 2, 5)), dtype=float)


VALUE, TYPE = ValueError, TypeError
REFUSALS = [
    # Fields.
    (TYPE, "hashable", lambda: Plain(np.ones(3)).bind({})),
    (TYPE, "`forget_bias`", lambda: jax.grad(lambda b: BasicLSTMCell(3, b))(1.0)),
    (VALUE, "`pooling`", lambda: jaxrnn.QRNNCell(3, "of")),
    (VALUE, "`num_units`", lambda: MinGRUCell(-1)),
    (VALUE, "`num_states`", lambda: LRUCell(4, -1)),
    (VALUE, "`max_radius`", lambda: LRUCell(4, max_radius=1.1)),
    (VALUE, "`min_radius`.*`max_", lambda: LRUCell(4, max_radius=0.5, min_radius=0.9)),
    (VALUE, "`num_heads`", lambda: RGLRUCell(4, 3)),
    (VALUE, "`num_key_heads`", lambda: DeltaMemoryCell(4, 3, 2, num_key_heads=3)),
    *((VALUE, "`num_heads`", lambda make=make, heads=heads: make(6, num_heads=heads))
      for make in (MLSTMCell, SLSTMCell) for heads in (0, 4)),
    (VALUE, "`key_size`", lambda: MLSTMCell(6, key_size=0)),
    (VALUE, "`chunk_size`", lambda: MLSTMCell(6, chunk_size=0)),
    # Initializers. The last kernel has 4 + 8 rows, which divide into four.
    (TYPE, "`inputs`", lambda: by_part(3, zeros)),
    (VALUE, "`max_time`", lambda: chrono(1)),
    (VALUE, "`blocks`", lambda: by_gate(zeros)(KEY, (3, 4), F32)),
    (VALUE, "`blocks`", lambda: chrono(9)(KEY, THREE, F32)),
    (VALUE, "a bias", lambda: initialized(UNIT, depth=4)),
    # Functions and recurrences.
    (VALUE, "`fn`", lambda: like(lambda p, x, s, key=None: x)),
    (TYPE, "`fn`", lambda: like(3)),
    (TYPE, "`fn`.*`key`", lambda: like(lambda p, x, s: (x, s))),
    (TYPE, r"`state\[1\]`", lambda: like(keep, state=(H, 0.0))),
    (VALUE, "`state`", lambda: like(keep, state=np.zeros(()))),
    (VALUE, r"`output\[1\]`.* leave None out", lambda: like(keep, inputs=(X, None))),
    (TYPE, r"`inputs\[1\]`", lambda: like(keep, inputs=[X, 1])),
    (TYPE, "`rows_interact`", lambda: like(keep, rows_interact=1)),
    (VALUE, "unpack", lambda: step_of(0.5, 0.5)),
    (VALUE, "`a`", lambda: step_of((0.5, 0.5), 0.5, None)),
    (TYPE, "`a`", lambda: step_of(COMPLEX, 0.5, None)),
    (VALUE, "broadcasting", lambda: step_of(WIDE, 0.5, None)),
    # Inputs and states.
    *((VALUE, "`num_units`", lambda of=of: of(4).init(KEY, np.ones((1, 5))))
      for of in (LRUCell, RGLRUCell)),
    *((VALUE, "`num_units`", lambda of=of: wide_inputs(of(4)))
      for of in (LRUCell, RGLRUCell)),
    (TYPE, "`state`", lambda: bound(MinGRUCell(2), 2)(ROWS, ROWS.astype(complex))),
    (TYPE, "state", lambda: narrow(MLSTMCell(4, 2))),
    (TYPE, "state", lambda: narrow(SLSTMCell(4, 2))),
    (VALUE, "`inputs`", lambda: written(STEP[:4])),
    (VALUE, "`inputs`", lambda: written(jaxrnn.MLSTMInputs(*STEP))),
    (VALUE, "`inputs.q`", lambda: written(q=STEP.v)),
    (VALUE, "`inputs.beta`", lambda: written(beta=STEP.beta[..., None])),
    (VALUE, "`inputs.v`", lambda: written(v=STEP.v[:1])),
    (VALUE, "`inputs.g`", lambda: written(g=STEP.beta > 0)),
    (VALUE, "`inputs.k`", lambda: written(k=STEP.k + 1j)),
    (VALUE, r"`inputs.b`.*\[batch, 2\]", lambda: scanned(b=S6_STEP.x)),
    (VALUE, "`inputs.dt`.*floating", lambda: scanned(dt=np.ones((3, 4), int))),
    (TYPE, "`bind", lambda: MEMORY.bind(None)(STEP, MEMORY.zero_state(3, float))),
    *((TYPE, f"`{old}`", lambda old=old: DeltaInputs(q=0, k=0, v=0, **{old: 0}))
      for old in ("log_a", "b")),
]  # fmt: skip


test_refusals = refusals(REFUSALS)


UNCALLED = initializers.lecun_orthogonal, by_gate(orthogonal)


@pytest.mark.parametrize("uncalled", UNCALLED)
def test_an_error_names_the_parameter_of_an_uncalled_initializer(uncalled):
    with pytest.raises(TypeError) as caught:
        initialized(uncalled)
    (note,) = caught.value.__notes__
    assert "the initializer of `params['kernel']`" in note


NO_NUMBERS = {"activation", "initializer", "norm", "pooling", "use_peepholes"}
CELLS = [getattr(jaxrnn, name) for name in jaxrnn.__all__]
CELLS += [getattr(jaxrnn.contrib, name) for name in jaxrnn.contrib.__all__]
CELLS = [c for c in CELLS if inspect.isclass(c) and issubclass(c, jaxrnn.RNNCell)]
OF_UNITS = [
    c for c in CELLS if NO_NUMBERS & {f.name for f in dataclasses.fields(c)[1:2]}
]


@pytest.mark.parametrize("kind", OF_UNITS)
def test_the_size_of_the_inputs_is_no_argument(kind):
    """As in PyTorch's `LSTMCell(8, 16)`; 0 and 1 are rather flags."""
    with pytest.raises((TypeError, ValueError), match="no size of the inputs"):
        kind(8, 16)
    for flag in (0, 1):
        with pytest.raises((TypeError, ValueError)) as caught:
            kind(8, flag)
        assert "no size of the inputs" not in str(caught.value)
