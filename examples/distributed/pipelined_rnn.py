"""Run the layers of a stack on several devices, as a pipeline over chunks of time.

Run the script from the folder `examples`:

    JAX_NUM_CPU_DEVICES=4 python -m distributed.pipelined_rnn

The script runs eight LSTM layers in four stages, and then in two stages that each
divide the rows between two devices. For both runs, the script prints the largest
difference from the same layers on one device. README.md explains the example.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P

import jaxrnn

SEQUENCES, STATES = P(None, "data"), P("stage", "data")
SPECS = P("stage"), SEQUENCES, P("data"), STATES
"""How a mesh divides the parameters, inputs, lengths and states."""


def pipelined_rnn(cell, params, inputs, lengths, state, *, mesh, chunk):
    """Runs a stack of equal layers, divided among the stages of a mesh.

    Args:
        cell: The unbound cell of all layers. Its outputs must have the depth and dtype
            of its inputs.
        params: The parameters of all layers, each leaf `[layers, ...]`.
        inputs: An array `[time, batch, depth]`.
        lengths: The number of valid steps of each row, `[batch]`.
        state: The initial states of all layers, each leaf `[layers, batch, ...]`.
        mesh: A mesh with the axis "stage", which divides the layers, and the axis
            "data", which divides the rows.
        chunk: The number of steps in a chunk.

    Returns:
        `(outputs, state)`: the outputs of the last layer, `[time, batch, depth]`, and
        the final states of all layers, each leaf `[layers, batch, ...]`.
    """
    run = jax.shard_map(
        functools.partial(run_stage, cell, chunk),
        mesh=mesh,
        in_specs=SPECS,
        out_specs=(SEQUENCES, STATES),
    )
    return run(params, inputs, lengths, state)


def run_stage(cell, chunk, params, inputs, lengths, states):
    """Runs the layers of one stage. At tick k, stage s runs chunk k - s."""
    stage, stages = jax.lax.axis_index("stage"), jax.lax.axis_size("stage")
    time, *row_shape = inputs.shape
    ticks = -(-time // chunk) + stages - 1

    # All devices of a stage have the same parameters, and all stages have the same
    # inputs. The backward pass sums the gradients of such arrays over devices or stages
    # at `pcast`, outside of the loop. Without `pcast`, it would sum at each tick.
    params = jax.tree.map(lambda p: jax.lax.pcast(p, "data", to="varying"), params)
    inputs = jax.lax.pcast(inputs, "stage", to="varying")
    chunks = jnp.pad(inputs, ((0, ticks * chunk - time), (0, 0), (0, 0)))
    chunks = chunks.reshape(ticks, chunk, *row_shape)

    def tick(carry, scanned):
        (received, states), (k, chunk_of_inputs) = carry, scanned
        start = (k - stage) * chunk
        # A stage has no valid steps before its first chunk and after its last chunk, so
        # `dynamic_rnn` then keeps the states.
        valid = jnp.where(start < 0, 0, jnp.clip(lengths - start, 0, chunk))
        xs = jnp.where(stage == 0, chunk_of_inputs, received)
        outputs, states = run_layers(cell, params, xs, valid, states)
        to_next = [(s, s + 1) for s in range(stages - 1)]
        received = jax.lax.ppermute(outputs, "stage", to_next)
        return (received, states), outputs

    ks = jnp.arange(ticks, dtype=jnp.int32)
    carry = jnp.zeros_like(chunks[0]), states
    (_, states), outputs = jax.lax.scan(tick, carry, (ks, chunks))
    outputs = outputs[stages - 1 :].reshape(-1, *row_shape)[:time]
    # Only the last stage has the outputs of the last layer. `psum` copies these outputs
    # to all stages.
    return jax.lax.psum(jnp.where(stage == stages - 1, outputs, 0), "stage"), states


def run_layers(cell, params, inputs, lengths, states):
    """Runs stacked layers one after another; returns `(outputs, states)`."""

    def run_layer(xs, layer):
        layer_params, state = layer
        bound = cell.bind(layer_params)
        return jaxrnn.dynamic_rnn(bound, xs, lengths, state, time_major=True)

    return jax.lax.scan(run_layer, inputs, (params, states))


def place(mesh, *arguments):
    """Divides the parameters, inputs, lengths and states among the devices."""
    return jax.device_put(arguments, tuple(NamedSharding(mesh, s) for s in SPECS))


def differentiate(run, params, inputs, lengths, state):
    """Gradients of parameters, inputs and initial state; then `(outputs, state)`."""

    def loss(params, inputs, state):
        results = run(params, inputs, lengths, state)
        means = [jnp.mean(jnp.sin(leaf)) for leaf in jax.tree.leaves(results)]
        return sum(means), results

    return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(params, inputs, state)


def make_data(cell, layers, time=50, rows=8, dtype=jnp.float32):
    """Arguments of `pipelined_rnn`; the padding of the inputs holds NaN."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(time, rows, cell.output_size)).astype(dtype)
    lengths = np.linspace(0, time, rows).astype(np.int32)
    inputs = np.where(np.arange(time)[:, None, None] < lengths[:, None], inputs, np.nan)
    keys = jax.random.split(jax.random.key(0), layers)
    params = jax.vmap(lambda key: cell.init(key, inputs[0]))(keys)
    zeros = cell.zero_state(rows, dtype)
    state = jax.tree.map(lambda z: jnp.stack([z] * layers), zeros)
    return params, inputs, lengths, state


def main():
    """Prints and returns the largest differences from one device."""
    cell = jaxrnn.LSTMCell(16)
    data = make_data(cell, layers=8)
    expected = differentiate(functools.partial(run_layers, cell), *data)
    found = []
    for stages, parts in [(4, 1), (2, 2)]:
        mesh = jax.make_mesh((stages, parts), ("stage", "data"))
        run = functools.partial(pipelined_rnn, cell, mesh=mesh, chunk=4)
        got = differentiate(run, *place(mesh, *data))
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
        difference = max(np.max(np.abs(a - b)) for a, b in pairs)
        print(f"stages: {stages}, devices in each: {parts}, differ by {difference:.0e}")
        found.append(difference)
    return found


if __name__ == "__main__":
    main()
