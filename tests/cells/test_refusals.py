"""Wrong fields, inputs, states and classes of cells, and what the errors name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, drawn, refusals
from jax.nn.initializers import zeros

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
from jaxrnn.initializers import chrono

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


def narrow(cell):
    x = jnp.ones((1, 3), F32)
    return cell.apply(drawn(cell, x), x, cell.zero_state(1, jnp.bfloat16))


def wide_inputs(cell):
    return jaxrnn.dynamic_rnn(bound(cell, 4), np.ones((1, 2, 5)), dtype=float)


VALUE, TYPE = ValueError, TypeError
REFUSALS = [
    # Fields.
    (TYPE, "`forget_bias`", lambda: jax.grad(lambda b: BasicLSTMCell(3, b))(1.0)),
    (VALUE, "`pooling`", lambda: jaxrnn.QRNNCell(3, "of")),
    (VALUE, "`max_radius`", lambda: LRUCell(4, max_radius=1.1)),
    (VALUE, "`min_radius`.*`max_", lambda: LRUCell(4, max_radius=0.5, min_radius=0.9)),
    (VALUE, "`num_key_heads`", lambda: DeltaMemoryCell(4, 3, 2, num_key_heads=3)),
    (VALUE, "`num_heads`", lambda: MLSTMCell(6, num_heads=0)),
    (VALUE, "`num_heads`", lambda: SLSTMCell(6, num_heads=4)),
    (VALUE, "`chunk_size`", lambda: MLSTMCell(6, chunk_size=0)),
    # Initializers. The last kernel has 4 + 8 rows, which divide into four.
    (VALUE, "`blocks`", lambda: chrono(9)(KEY, THREE, F32)),
    (VALUE, "a bias", lambda: initialized(UNIT, depth=4)),
    # Functions and recurrences.
    (TYPE, "`fn`.*`key`", lambda: like(lambda p, x, s: (x, s))),
    (TYPE, r"`state\[1\]`", lambda: like(keep, state=(H, 0.0))),
    (VALUE, r"`output\[1\]`.* leave None out", lambda: like(keep, inputs=(X, None))),
    (VALUE, "`a`", lambda: step_of((0.5, 0.5), 0.5, None)),
    (TYPE, "`a`", lambda: step_of(COMPLEX, 0.5, None)),
    (VALUE, "broadcasting", lambda: step_of(WIDE, 0.5, None)),
    # Inputs and states.
    (VALUE, "`num_units`", lambda: LRUCell(4).init(KEY, np.ones((1, 5)))),
    (VALUE, "`num_units`", lambda: wide_inputs(RGLRUCell(4))),
    (TYPE, "`state`", lambda: bound(MinGRUCell(2), 2)(ROWS, ROWS.astype(complex))),
    (TYPE, "state", lambda: narrow(MLSTMCell(4, 2))),
    (VALUE, "`inputs`", lambda: written(jaxrnn.MLSTMInputs(*STEP))),
    (VALUE, "`inputs.q`", lambda: written(q=STEP.v)),
    (TYPE, "`log_a`", lambda: DeltaInputs(q=0, k=0, v=0, log_a=0)),
]  # fmt: skip


test_refusals = refusals(REFUSALS)


def test_an_error_names_the_parameter_of_an_uncalled_initializer():
    with pytest.raises(TypeError) as caught:
        initialized(initializers.lecun_orthogonal)
    (note,) = caught.value.__notes__
    assert "the initializer of `params['kernel']`" in note


@pytest.mark.parametrize("kind", [LSTMCell, MinGRUCell, jaxrnn.BasicRNNCell])
def test_the_size_of_the_inputs_is_no_argument(kind):
    """As in PyTorch's `LSTMCell(8, 16)`; 0 and 1 are rather flags."""
    with pytest.raises((TypeError, ValueError), match="Omit the size of the inputs"):
        kind(8, 16)
    with pytest.raises((TypeError, ValueError)) as caught:
        kind(8, 1)
    assert "Omit the size" not in str(caught.value)
