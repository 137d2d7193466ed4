"""Write `dynamic_rnn` with `raw_rnn`: the example from TensorFlow's documentation.

    pip install -e . && python examples/raw_rnn_by_hand.py

Copyright the TensorFlow Authors, Apache-2.0; see NOTICE. Only the calls to TensorFlow
were replaced. Results and gradients equal those of `dynamic_rnn` up to rounding, even
if the padding holds NaN.
"""

from functools import partial

import jax
import jax.numpy as jnp

import jaxrnn


def by_hand(cell, inputs, sequence_length):
    """TensorFlow's example; returns outputs, final state and the number of steps."""
    max_time, batch_size, input_depth = inputs.shape
    inputs_ta = jaxrnn.TensorArray(dtype=jnp.float32, size=max_time)
    inputs_ta = inputs_ta.unstack(inputs)

    def loop_fn(time, cell_output, cell_state, loop_state):
        emit_output = cell_output  # == None for time == 0
        if cell_output is None:  # time == 0
            next_cell_state = cell.zero_state(batch_size, jnp.float32)
        else:
            next_cell_state = cell_state
        elements_finished = time >= sequence_length
        finished = jnp.all(elements_finished)
        next_input = jax.lax.cond(
            finished,
            lambda: jnp.zeros([batch_size, input_depth], dtype=jnp.float32),
            lambda: inputs_ta.read(time),
        )
        next_loop_state = None
        return (elements_finished, next_input, next_cell_state,
                emit_output, next_loop_state)  # fmt: skip

    # `max_time` is the only new argument, because array sizes are static under jit.
    outputs_ta, final_state, _ = jaxrnn.raw_rnn(cell, loop_fn, max_time=max_time)
    outputs = outputs_ta.stack()
    return outputs, final_state, outputs_ta.size()


def loss(cell, inputs, lengths, run):
    """A scalar to differentiate, and the results of `run`."""
    outputs, state, *steps = run(cell, inputs, lengths)
    return jnp.sum(outputs**2) + jnp.sum(state.c * state.h), (outputs, state, steps)


def largest_difference(a, b):
    """The largest difference between two nests of arrays; NaN if either holds NaN."""
    each = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), a, b))
    return float(jnp.max(jnp.asarray(each)))


def main():
    """Prints and returns the largest differences from `dynamic_rnn`."""
    x = jax.random.normal(jax.random.key(0), (12, 4, 3), jnp.float32)
    lengths = jnp.asarray([3, 9, 0, 5], jnp.int32)
    cell = jaxrnn.LSTMCell(8)
    cell = cell.bind(cell.init(jax.random.key(1), x[0], jnp.float32))
    padding = jnp.arange(12, dtype=jnp.int32)[:, None] >= lengths[None]
    compiled = jax.jit(jax.grad(loss, (0, 1), has_aux=True), static_argnums=3)
    by_driver = partial(jaxrnn.dynamic_rnn, dtype=jnp.float32, time_major=True)
    found = []
    for filler in (1.0, jnp.nan):
        padded = jnp.where(padding[..., None], jnp.full_like(x, filler), x)
        gradients, (*results, [n]) = compiled(cell, padded, lengths, by_hand)
        wanted_gradients, (*wanted, _) = compiled(cell, padded, lengths, by_driver)
        a = largest_difference(results, wanted)
        b = largest_difference(gradients, wanted_gradients)
        print(f"Padding of {filler}: {n} steps of 12. Largest differences from")
        print(f"    dynamic_rnn: results {a:.0e}, gradients {b:.0e}")
        found += [a, b]
    return found


if __name__ == "__main__":
    main()
