"""Records `convert/keras.npz` from live Keras 3 on JAX, in float64.

It needs Keras 3.15 and JAX:

    python -m tests.golden.record.convert_keras

Two runs on one machine write the same arrays. A case is one or two layers, one on the
other. The keys are a case's name and then

- `weights/<layer>/<place>`: what `get_weights()` gives, in its order;
- `x`, and for each layer `h0/<layer>`, of an LSTM `c0/<layer>`: what it is given; with
  two directions each is `[2, batch, units]`, else `[batch, units]`;
- `outputs`, and `h/<layer>`, `c/<layer>`: what it gives;
- `grads/<layer>/<place>`, `grads/x`: gradients of the sum of the squares of all that it
  gives.
"""

import os
import pathlib

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_enable_x64", True)

import keras  # noqa: E402
import numpy as np  # noqa: E402

BATCH, TIME, DEPTH, UNITS = 2, 4, 3, 4


@keras.saving.register_keras_serializable()
def tanh(x):
    """The usual activation: Keras's own makes float32 of float64."""
    return jax.numpy.tanh(x)


LSTM, GRU, RNN = keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN
BEFORE = {"reset_after": False}
# The class, its options, the layers, the directions.
CASES = {
    "lstm": (LSTM, {}, 1, 1),
    "lstm_no_bias": (LSTM, {"use_bias": False}, 1, 1),
    "lstm_softsign": (LSTM, {"activation": "softsign"}, 2, 1),
    "lstm_both": (LSTM, {}, 2, 2),
    "gru_after": (GRU, {}, 1, 1),
    "gru_after_no_bias": (GRU, {"use_bias": False}, 1, 1),
    "gru_after_both": (GRU, {}, 1, 2),
    "gru_before": (GRU, BEFORE, 1, 1),
    "gru_before_no_bias": (GRU, BEFORE | {"use_bias": False}, 1, 1),
    "gru_before_both": (GRU, BEFORE, 1, 2),
    "rnn_both": (RNN, {}, 1, 2),
    "rnn_relu": (RNN, {"activation": "relu"}, 1, 1),
}


def run(seed, kind, options, depth, directions) -> dict[str, np.ndarray]:
    """One case, without its name."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(size=shape) * 0.7
    of_direction = 2 if kind is LSTM else 1
    x, layers, states, size = draw((BATCH, TIME, DEPTH)), [], [], DEPTH
    for _ in range(depth):
        layer = kind(
            UNITS,
            return_sequences=True,
            return_state=True,
            **{"activation": tanh, **options},
        )
        if directions == 2:
            layer = keras.layers.Bidirectional(layer)
        layer.build((BATCH, TIME, size))
        layer.set_weights([draw(w.shape) for w in layer.get_weights()])
        layers.append(layer)
        count = of_direction * directions
        states.append([draw((BATCH, UNITS)) for _ in range(count)])
        size = directions * UNITS

    def loss(weights, x):
        finals = []
        for layer, own, state in zip(layers, weights, states, strict=True):
            others = [v.value for v in layer.non_trainable_variables]  # Random seeds.
            (x, *final), _ = layer.stateless_call(own, others, x, initial_state=state)
            finals.append(final)
        made = x, finals
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(made)), made

    weights = [layer.get_weights() for layer in layers]
    variables = [[v.path for v in layer.trainable_variables] for layer in layers]
    assert [len(own) for own in weights] == [len(own) for own in variables]
    slopes, (outputs, finals) = jax.grad(loss, (0, 1), has_aux=True)(weights, x)
    arrays = {"x": x, "outputs": outputs, "grads/x": slopes[1]}
    for i in range(depth):
        for k, (weight, slope) in enumerate(zip(weights[i], slopes[0][i], strict=True)):
            arrays |= {f"weights/{i}/{k}": weight, f"grads/{i}/{k}": slope}
        for suffix, state in (("0", states[i]), ("", finals[i])):
            for k, name in enumerate("hc"[:of_direction]):
                own = np.stack(state[k::of_direction])
                arrays[f"{name}{suffix}/{i}"] = own if directions == 2 else own[0]
    return arrays


def main() -> None:
    """Write the file."""
    keras.backend.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    arrays = {
        f"{name}/{key}": np.asarray(array)
        for seed, (name, case) in enumerate(CASES.items())
        for key, array in run(seed, *case).items()
    }
    assert all(array.dtype == np.float64 for array in arrays.values())
    path = pathlib.Path(__file__).resolve().parents[1] / "convert" / "keras.npz"
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
