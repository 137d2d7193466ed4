"""`jax.experimental.rnn`: cuDNN's LSTM on an NVIDIA GPU, batch-major."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import rnn

import jaxrnn.convert

from ..built import Built, LeftOutError
from ..cases import Case
from ..data import Data
from . import _jax
from .jaxrnn import bound

USES = ("jax", "jaxlib")


def build(case: Case, data: Data) -> Built:
    """A net whose parameters are one array, as in cuDNN."""
    if case.cell != "lstm" or case.dtype != "float32":
        raise LeftOutError("jax.experimental.rnn has only an LSTM in float32")
    if jax.default_backend() != "gpu":
        raise LeftOutError("jax.experimental.rnn needs an NVIDIA GPU")
    return _jax.build(case, data, {"": make_net(case, data)})


def make_net(case: Case, data: Data) -> _jax.Net:
    """The network. All rows have T steps if the case has no lengths."""
    sizes = {"input_size": case.depth, "hidden_size": case.units}
    sizes |= {"num_layers": 1, "dropout": 0.0, "bidirectional": False}

    def layer(_, params, inputs, state, lengths):
        if lengths is None:
            lengths = np.full(case.batch, case.time, np.int32)
        c, h = (array[None] for array in state)
        y, h, c = rnn.lstm(inputs, h, c, params, lengths, **sizes)
        return y, (c[0], h[0])

    state = _jax.carry("c", "h")
    convert = functools.partial(_to_params, case)
    return _jax.layered_net(data, layer, convert, state, time_major=False)


def _to_params(case: Case, weights: dict[str, np.ndarray]) -> jax.Array:
    """The arrays of PyTorch's layer in one, in the same order."""
    arrays = jaxrnn.convert.to_torch(bound(case, weights)).values()
    return jnp.concatenate([jnp.ravel(array) for array in arrays])
