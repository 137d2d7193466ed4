"""Detect speech with the trained network of silero-vad; README.md shows the results.

pip install -e '..[examples,export]' && pip install --no-deps silero-vad
python -m speech_detection.detect                  # synthesized speech
python -m speech_detection.detect --recording speech.wav
"""

import functools
import timeit
from pathlib import Path

import jax
import numpy as np
import package_files
import scipy
import tyro
from matplotlib.figure import Figure

import jaxrnn.export
from speech_detection.model import DETECTOR, FRAME, RATE, as_frames, detect, load

FORMANTS = [(730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410)]
PICTURE = "speech.png"


package_file = functools.partial(
    package_files.package_file,
    "silero-vad",
    "silero_vad/data/silero_vad_16k_sequence.onnx",
)


def synthesize(syllables=12):
    """Vowels of a voice, in words of four syllables, with pauses of a second."""
    rng, parts, t = (
        np.random.default_rng(0),
        [np.zeros(RATE)],
        np.arange(0, 0.18, 1 / RATE),
    )
    for i in range(1, syllables + 1):
        pitch = rng.uniform(100, 140) * (1.1 - 1.5 * t)
        x = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0)  # A pulse a period.
        for formant in FORMANTS[rng.integers(len(FORMANTS))]:
            pole = 0.98 * np.exp(2j * np.pi * formant / RATE)
            x = scipy.signal.lfilter([1.0], np.poly([pole, pole.conj()]).real, x)
        x *= np.hanning(len(x)) / np.abs(x).max()
        parts += [0.4 * x, np.zeros(RATE // (20 if i % 4 else 1))]
    audio = np.concatenate(parts)
    return np.float32(audio + 0.001 * rng.normal(size=len(audio)))


def read(recording):
    """The samples of a WAV file, from -1 to 1."""
    rate, audio = scipy.io.wavfile.read(recording)
    if rate != RATE or audio.ndim > 1 or audio.dtype != np.int16:
        raise SystemExit(f"{recording} must have one channel of {RATE} Hz and 16 bits.")
    return np.float32(audio / 2**15)


def timed(name, run, frames):
    """The results of `run`; prints the microseconds a frame in the fastest of runs."""
    wait = lambda: jax.block_until_ready(run())
    seconds = min(timeit.repeat(wait, number=1, repeat=5))  # The first run compiles.
    print(f"{name:36} {1e6 * seconds / len(frames):6.1f} us a frame", flush=True)
    return np.concatenate(run()).reshape(-1)


def draw(frames, probabilities):
    """Draws the signal, and the probability at the end of each frame."""
    figure = Figure(figsize=(9, 4), dpi=80, layout="constrained")
    wave, curve = figure.subplots(2, sharex=True)
    wave.plot(np.arange(frames.size) / RATE, frames.reshape(-1), linewidth=0.3)
    wave.set(ylabel="signal")
    ends = np.arange(1, len(frames) + 1) * FRAME / RATE
    curve.step(ends, probabilities, where="pre", color="tab:red")
    curve.set(ylabel="probability of speech", xlabel="seconds", ylim=(-0.02, 1.02))
    figure.savefig(PICTURE)


def main(recording: Path | None = None):
    """Runs the network on a whole file and frame by frame, and draws its output.

    Args:
        recording: A WAV file with one channel of 16 kHz and 16 bits, instead of
            synthesized speech.
    """
    weights = jax.device_put(load(package_file()))
    frames = as_frames(synthesize() if recording is None else read(recording))
    whole, cell = jax.jit(detect), DETECTOR.bind(weights)
    stream = jaxrnn.export.Streamer(cell)
    step = jax.jit(lambda frame, state: cell(frame, state))  # Closes over the weights.

    def streamed():
        stream.reset()
        return [stream(frame[None]) for frame in frames]

    def stepped():
        outputs, state = [], cell.zero_state(1, frames.dtype)
        for frame in frames:
            output, state = step(frame[None], state)
            outputs.append(output)
        return outputs

    found = [
        timed("the file in one call", lambda: whole(weights, frames[None]), frames),
        timed("Streamer: the weights are arguments", streamed, frames),
        timed("jit that closes over the weights", stepped, frames),
    ]
    draw(frames, found[0])
    print(f"Largest difference: {np.ptp(found, axis=0).max():.1e}. Written: {PICTURE}")
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
