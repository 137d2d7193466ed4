"""`tf.compat.v1.lite.experimental.nn`: the cells and the driver of TensorFlow Lite.

`dynamic_rnn`, `TFLiteLSTMCell` and `TfLiteRNNCell` compute the same results as
`dynamic_rnn`, `LSTMCell` and `BasicRNNCell` of `jaxrnn`. Only the layout of the
parameters differs: each gate has its own parameters, and the matrices are transposed,
as in TensorFlow Lite checkpoints.

    >>> import jax, jax.numpy as jnp, jaxrnn.lite
    >>> cell = jaxrnn.lite.TFLiteLSTMCell(5)
    >>> x = jnp.ones((7, 4, 3), jnp.float32)  # [time, batch, depth]
    >>> params = cell.init(jax.random.key(0), x[0])
    >>> params["input_to_forget_w"].shape, params["cell_to_forget_w"].shape
    ((5, 3), (5, 5))
    >>> outputs, _ = jaxrnn.lite.dynamic_rnn(cell.bind(params), x, dtype=jnp.float32)
    >>> outputs.shape
    (7, 4, 5)
"""

from .._base.boundary import export as _export
from ._cells import TFLiteLSTMCell as TFLiteLSTMCell, TfLiteRNNCell as TfLiteRNNCell
from ._dynamic_rnn import dynamic_rnn as dynamic_rnn

_export(globals())
