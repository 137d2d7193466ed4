"""Learn whether the sum of a sequence is positive, for sequences of different lengths.

Run this script with `pip install -e . optax && python examples/quickstart.py`.
"""

import jax
import jax.numpy as jnp
import optax

import jaxrnn

CELL = jaxrnn.LSTMCell(16)  # Has no parameters; `CELL.init` creates parameters.
OPTIMIZER = optax.adam(1e-2)


def make_data(key, rows, max_time=20):
    """Inputs `[rows, max_time, 1]`, lengths `[rows]` and labels `[rows]`, 0 or 1."""
    length_key, number_key = jax.random.split(key)
    lengths = jax.random.randint(length_key, rows, 1, max_time + 1)
    numbers = jax.random.normal(number_key, (rows, max_time))
    valid = jnp.arange(max_time) < lengths[:, None]
    labels = jnp.sum(numbers, axis=1, where=valid) > 0
    padded = jnp.where(valid, numbers, 0)
    return padded[..., None], lengths, labels.astype(jnp.int32)


def compute_loss(params, inputs, lengths, labels):
    """The mean cross-entropy and the accuracy of a batch, both scalars."""
    cell = CELL.bind(params["cell"])
    _, state = jaxrnn.dynamic_rnn(cell, inputs, lengths, dtype=jnp.float32)
    logits = state.h @ params["head"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), jnp.mean(jnp.argmax(logits, axis=-1) == labels)


@jax.jit
def update(params, opt_state, key):
    """Returns the parameters and the optimizer state after one random batch."""
    gradient, _ = jax.grad(compute_loss, has_aux=True)(params, *make_data(key, 64))
    updates, opt_state = OPTIMIZER.update(gradient, opt_state)
    return optax.apply_updates(params, updates), opt_state


def main(steps=400):
    """Trains the model, and prints its test accuracy at every 100th step."""
    init_key, test_key, train_key = jax.random.split(jax.random.key(0), 3)
    test = make_data(test_key, 1000)
    params = {"cell": CELL.init(init_key, test[0][:, 0]), "head": jnp.zeros((16, 2))}
    opt_state = OPTIMIZER.init(params)
    for step, key in enumerate(jax.random.split(train_key, steps + 1)):
        if step % 100 == 0 or step == steps:
            loss, accuracy = compute_loss(params, *test)
            print(f"step {step:3}: loss {loss:.3f}, test accuracy {accuracy:.1%}")
        params, opt_state = update(params, opt_state, key)


if __name__ == "__main__":
    main()
