"""TensorFlow as the library that `hand_cells.py` and `hand_loops.py` call."""

from collections.abc import Callable
from typing import Any

from ..hand_cells import Library
from .graphs import tf, tf1


class HandCell:
    """A cell that is none of TensorFlow's classes, but keeps their protocol."""

    def __init__(self, spec: Any, step: Callable[..., Any], state: Any, output: Any):
        """Takes the case's cell, its step and its sizes, and makes its variables."""
        self.step, self.state_size, self.output_size = step, state, output
        with tf1.variable_scope(None, default_name="hand"):
            self.params = {  # In a stack, a name is a path.
                name.rpartition("/")[2]: tf1.get_variable(name, shape)
                for name, shape in spec["params"].items()
            }

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> tuple[Any, Any]:
        """One step."""
        return self.step(self.params, inputs, state)

    def zero_state(self, batch_size: int, dtype: Any) -> Any:
        """Zeros for each size of the state."""

        def zeros(size):
            return tf.zeros([batch_size, *tf.TensorShape(size).as_list()], dtype)

        return tf.nest.map_structure(zeros, self.state_size)


def layers(one: Callable[..., Any]) -> Callable[..., Any]:
    """What contrib's stacks do: each layer, by `one`, reads the joined outputs."""

    def run(
        cells_fw,
        cells_bw,
        inputs,
        initial_states_fw=None,
        initial_states_bw=None,
        **given,
    ):
        finals = []
        for i, pair in enumerate(zip(cells_fw, cells_bw, strict=True)):
            if initial_states_fw is not None:
                given["initial_state_fw"] = initial_states_fw[i]
                given["initial_state_bw"] = initial_states_bw[i]
            with tf1.variable_scope(f"layer_{i}"):
                inputs, *final = one(*pair, inputs, **given)
            finals.append(final)
        return inputs, *zip(*finals, strict=True)

    return run


def joined(*args: Any, **given: Any) -> Any:
    """One layer of `bidirectional_dynamic_rnn`."""
    outputs, states = tf1.nn.bidirectional_dynamic_rnn(*args, **given)
    return tf.concat(outputs, 2), *states


TENSORFLOW = Library(
    *(tf1.nn.rnn_cell, tf1.nn, tf),
    hand_cell=HandCell,
    extras=lambda spec: {},
    constant=tf.constant,
    asarray=tf.convert_to_tensor,
    astype=tf.cast,
    dtype=tf.as_dtype,
    all=tf.reduce_all,
    argmax=lambda array, axis: tf.argmax(array, axis, tf.int32),
    mean=tf.reduce_mean,
    permute_dims=tf.transpose,
    random={},
    sum=tf.reduce_sum,
    take=lambda array, indices, axis: tf.gather(array, indices, axis=axis),
    stack_bidirectional_rnn=layers(tf1.nn.static_bidirectional_rnn),
    stack_bidirectional_dynamic_rnn=layers(joined),
)
