"""`short_conv` against a loop in NumPy, and against a sum of shifted inputs."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_near, differentiated, draw, refusals

import jaxrnn

ROWS, TIME, CHANNELS, WIDTH = 4, 9, 3, 4
LENGTHS = np.array([9, 0, 4, 7])
MASK = np.arange(TIME) < LENGTHS[:, None]
RESETS = np.zeros((ROWS, TIME), bool)
RESETS[[0, 0, 2, 3, 3], [3, 8, 1, 0, 2]] = True
GAPS = np.random.default_rng(1).random((ROWS, TIME)) > 0.3


def in_a_loop(inputs, kernel, bias, initial_state, reset_state, resets, mask):
    """Outputs and last inputs, one row and step after another."""
    outputs, states = np.zeros_like(inputs), []
    for row in range(ROWS):
        window, waits = list(initial_state[row]), False
        for t in range(TIME):
            waits |= resets[row, t]
            if not mask[row, t]:
                continue
            if waits:
                window, waits = list(reset_state[row]), False
            taps = [*window, inputs[row, t]]
            outputs[row, t] = bias + sum(w * x for w, x in zip(kernel, taps))  # noqa: B905
            window = taps[1:]
        states.append(window)
    return outputs, np.array(states)


def arrays():
    past = ROWS, WIDTH - 1, CHANNELS
    return {
        "inputs": draw(ROWS, TIME, CHANNELS),
        "kernel": draw(WIDTH, CHANNELS),
        "bias": draw(CHANNELS),
        "initial_state": draw(*past),
        "reset_state": draw(*past) + 1,
    }


@pytest.mark.fast("False-sequence_length", "True-mask")
@pytest.mark.parametrize("mark", ["sequence_length", "mask"])
@pytest.mark.parametrize("time_major", [False, True])
def test_equals_a_loop(mark, time_major):
    given, valid = arrays(), GAPS if mark == "mask" else MASK
    want = in_a_loop(**given, resets=RESETS, mask=valid)
    marks = {mark: LENGTHS if mark == "sequence_length" else valid, "resets": RESETS}
    if time_major:
        given["inputs"] = np.swapaxes(given["inputs"], 0, 1)
        marks = {k: v if k == "sequence_length" else v.T for k, v in marks.items()}
    outputs, state = jaxrnn.short_conv(**given, **marks, time_major=time_major)
    outputs = np.swapaxes(outputs, 0, 1) if time_major else outputs
    assert_near((outputs, state), want, tolerance=1e-14)


def test_gradients_are_those_of_a_sum_of_shifted_inputs():
    given = {name: arrays()[name] for name in ("inputs", "kernel", "bias")}

    def shifted(given):
        x = jnp.pad(given["inputs"], [(0, 0), (WIDTH - 1, 0), (0, 0)])
        taps = (
            x[:, i : i + TIME] * given["kernel"][i][None, None] for i in range(WIDTH)
        )
        return sum(taps) + given["bias"][None, None], x[:, TIME:]

    got = differentiated(lambda given: jaxrnn.short_conv(**given), given)
    assert_near(got, differentiated(shifted, given), tolerance=1e-12)


def test_nan_in_padding_has_no_effect():
    given = arrays()
    run = functools.partial(jaxrnn.short_conv, resets=RESETS, sequence_length=LENGTHS)
    want = differentiated(lambda given: run(**given), given)
    inputs = np.where(MASK[..., None], given["inputs"], np.nan)
    got = differentiated(lambda given: run(**given), given | {"inputs": inputs})
    assert_near(got, want, tolerance=0)


def test_narrow_inputs_are_summed_in_float32():
    x = jnp.asarray(arrays()["inputs"], "bfloat16")
    kernel = jnp.asarray(arrays()["kernel"], "bfloat16")
    outputs, state = jaxrnn.short_conv(x, kernel)
    want, _ = jaxrnn.short_conv(x.astype("float32"), kernel.astype("float32"))
    assert outputs.dtype == state.dtype == jnp.bfloat16
    assert_near(outputs, want.astype("bfloat16"), tolerance=0)


X = np.ones((2, 5, 3))


def refused(**options):
    given = {"inputs": X, "kernel": X[0], **options}
    return lambda: jaxrnn.short_conv(**given)


test_refuses = refusals(
    [
        (ValueError, r"`kernel`.*\[width, 3\].*at least 2", refused(kernel=X[0, :1])),
        (ValueError, "`kernel`.*Transpose", refused(kernel=np.ones((3, 1, 4)))),
        (TypeError, "`kernel`.*inputs, float64", refused(kernel=X[0].astype("f4"))),
        (ValueError, r"`bias`.*\[3\]", refused(bias=X[0, 0, :2])),
        (ValueError, r"`inputs`.*\[batch, time, channels\]", refused(inputs=X[0])),
        (ValueError, r"`initial_state`.*\[2, 4, 3\]", refused(initial_state=X[:, :3])),
    ]
)
