"""Silero's network for speech detection: a spectrum, four convolutions and an LSTM."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx

import jaxrnn
from jaxrnn import convert

RATE, FRAME, CONTEXT, UNITS = 16_000, 512, 64, 128


def load(file):
    """The weights by name; the LSTM's are a bound cell."""
    model = onnx.load(file)
    arrays = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}
    weights = {name: x for name, x in arrays.items() if not name.startswith("onnx::")}
    return weights | {"lstm": convert.from_onnx(model)}


def as_frames(audio):
    """Frames `[frames, 512]` of a recording, padded with zeros at its end."""
    return np.pad(audio, (0, -len(audio) % FRAME)).reshape(-1, FRAME)


def convolve(x, kernel, stride, padding=0):
    """A convolution over the last axis of `[rows, channels, time]`."""
    return jax.lax.conv_general_dilated(x, kernel, [stride], [(padding, padding)])


def encode(weights, samples):
    """Features `[rows, 128]` of frames with the 64 samples before them."""
    x = jnp.pad(samples, [(0, 0), (0, CONTEXT)], mode="reflect")[:, None]
    x = convolve(x, weights["stft.forward_basis_buffer"], stride=128)
    real, imaginary = jnp.split(x, 2, axis=1)
    x = jnp.sqrt(real**2 + imaginary**2)
    for i, stride in enumerate([1, 2, 2, 1]):
        x = convolve(x, weights[f"encoder.{i}.weight"], stride, padding=1)
        x = jax.nn.relu(x + weights[f"encoder.{i}.bias"][:, None])
    return x[..., 0]


def probability(weights, outputs):
    """The probability of speech, `[..., 1]`, from the LSTM's outputs."""
    kernel = weights["output.weight"][:, :, 0].T
    return jax.nn.sigmoid(jax.nn.relu(outputs) @ kernel + weights["output.bias"])


def detect(weights, frames, lengths=None):
    """Probabilities `[recordings, frames, 1]`: all frames are encoded at once."""
    before = jnp.pad(frames[:, :-1, -CONTEXT:], [(0, 0), (1, 0), (0, 0)])
    samples = jnp.concatenate([before, frames], axis=-1)
    x = encode(weights, samples.reshape(-1, CONTEXT + FRAME))
    x = x.reshape(*frames.shape[:2], UNITS)
    outputs, _ = jaxrnn.dynamic_rnn(weights["lstm"], x, lengths, dtype=x.dtype)
    return probability(weights, outputs)


def step(weights, frame, state, key=None):
    """The same for one frame; the state also keeps the samples before the frame."""
    before, lstm_state = state
    x = encode(weights, jnp.concatenate([before, frame], axis=-1))
    output, lstm_state = weights["lstm"](x, lstm_state)
    return probability(weights, output), (frame[:, -CONTEXT:], lstm_state)


DETECTOR = jaxrnn.FunctionCell(
    step, state_size=(CONTEXT, jaxrnn.LSTMStateTuple(UNITS, UNITS)), output_size=1
)
