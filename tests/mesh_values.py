"""The values of arguments in the sweep over meshes, and which go together."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers import drawn

from jaxrnn import (
    BasicRNNCell,
    FunctionCell,
    LSTMCell,
    MinGRUCell,
    TensorShape,
    lite,
)

BATCH, DEPTH, UNITS = 4, 3, 2


def count(params, inputs, state, key=None):
    """A step with a counter for each row, which runs step by step."""
    counts, total = state
    # JAX 0.12 cannot transpose a product of divided rows in a scan.
    product = jnp.sum(inputs[..., None] * params["w"][None], axis=1)
    total = jnp.tanh(total + product)
    return total, (counts + 1.0, total)


def init_count(key, inputs, dtype):
    return {"w": jnp.ones((inputs.shape[-1], UNITS), dtype)}


CELLS = {
    "affine": LSTMCell(UNITS),
    "scanned": FunctionCell(count, (TensorShape([]), UNITS), UNITS, init_count),
    "linear": MinGRUCell(UNITS),
    "basic": BasicRNNCell(UNITS),
    "lite_lstm": lite.TFLiteLSTMCell(UNITS),
    "lite_basic": lite.TfLiteRNNCell(UNITS),
}
SECOND = BasicRNNCell(UNITS)


# The values of arguments.


@dataclasses.dataclass(frozen=True)
class Context:
    """What the values of the arguments depend on.

    Attributes:
        cell: The cell.
        time: The number of steps.
        time_major: Whether time is the first axis.
    """

    cell: Any
    time: int
    time_major: bool

    def draw(self, *shape, seed=0):
        return np.random.default_rng([seed, *shape]).normal(size=shape)

    def booleans(self, seed, p):
        draws = np.random.default_rng(seed).random(size=(BATCH, self.time))
        return draws < p

    def state(self, cell, seed=1, rows=BATCH):
        draw = lambda x: self.draw(rows, *x.shape[1:], seed=seed)
        zeros = jax.eval_shape(lambda: cell.zero_state(rows, np.float64))
        return jax.tree.map(draw, zeros)

    def params(self, cell, depth=DEPTH):
        step = jax.ShapeDtypeStruct((BATCH, depth), np.float64)
        return drawn(cell, step, step.dtype)


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A nest of arrays, `make(context)`.

    Attributes:
        make: Returns the arrays.
        axes: "rows" for leaves `[batch, ...]`; "steps" for `[batch, time, ...]`, with
            the first two axes swapped if `time_major`; "time" for `[time, batch, ...]`;
            "copies" for arrays without rows.
    """

    make: Callable[[Context], Any]
    axes: str = "rows"

    def of(self, context):
        """The arrays, and the axis of their rows."""
        arrays = self.make(context)
        if self.axes == "steps" and context.time_major:
            return jax.tree.map(lambda x: np.swapaxes(x, 0, 1), arrays), 1
        return arrays, {"rows": 0, "steps": 0, "time": 1, "copies": None}[self.axes]


steps = functools.partial(Arrays, axes="steps")
copies = functools.partial(Arrays, axes="copies")


def lengths(context):
    return np.array([context.time, 0, 2, 1], np.int32)


def states(seed):
    """The states of the layers of a stack."""
    each = lambda c, cell, i: c.state(cell, seed + i)
    return Arrays(lambda c: [each(c, c.cell, 0), each(c, SECOND, 1)])


VALUES = {
    "initial_state": [Arrays(lambda c: c.state(c.cell, 1))],
    "initial_state_bw": [Arrays(lambda c: c.state(SECOND, 2))],
    "initial_state_fw": [Arrays(lambda c: c.state(c.cell, 1))],
    "initial_states_bw": [states(3)],
    "initial_states_fw": [states(1)],
    "implementation": ["xla"],
    "mask": [steps(lambda c: c.booleans(1, 0.6))],
    "parallel_iterations": [2],
    "reset_state": [Arrays(lambda c: c.state(c.cell, 4))],
    "resets": [steps(lambda c: c.booleans(2, 0.3))],
    "return_states": [True],
    "sequence_length": [Arrays(lengths)],
    "swap_memory": [True],
    "time_major": [True],
}

LEFT_OUT = {
    "dtype": "every case passes the dtype of the inputs",
    "name": "a name in profiles",
    "scope": "a name in profiles",
}

# Two arguments that exclude each other, and arguments that require another one.
EITHER = [{"mask", "sequence_length"}]
REQUIRES = {
    "reset_state": "resets",
    "sum_over_batch": "average_across_batch",
    "sum_over_timesteps": "average_across_timesteps",
}

# How a case is run, and what else its results depend on.
SURROUNDINGS = {
    # `jit` sees the mesh in the arrays, or in the context; or there is no `jit`.
    "mesh": ["of_arrays", "of_context", "without_jit"],
    # Where the arrays other than parameters and inputs are.
    "beside": ["divided", "copied", "host"],
}
