"""Error messages for argument names of other libraries."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import jaxrnn

X = np.ones((4, 5, 3), np.float32)
GRU = bound(jaxrnn.GRUCell(2), dtype="float32")
FUNCTIONS = {
    "dynamic_rnn": (GRU, X),
    "bidirectional_dynamic_rnn": (GRU, GRU, X),
    "stack_bidirectional_dynamic_rnn": ([GRU], [GRU], X),
    "static_rnn": (GRU, list(X)),
    "static_bidirectional_rnn": (GRU, GRU, list(X)),
    "stack_bidirectional_rnn": ([GRU], [GRU], list(X)),
    "static_state_saving_rnn": (GRU, list(X), None, "state"),
    "packed_rnn": (GRU, jaxrnn.pack_sequences(X, [5, 2, 0, 1])),
    "raw_rnn": (GRU, lambda *args: None),
}
HINTS = {
    "dynamic_rnn": {
        "lengths": "It is `sequence_length` here",
        "seq_lengths": "It is `sequence_length` here",
        "hx": "It is `initial_state` here",
        "initial_carry": "It is `initial_state` here",
        "batch_first": r"Inputs are `\[batch, time, \.\.\.\]` unless `time_major` is",
        "params": r"Bind them to the cell: `cell\.bind\(params\)`",
        "key": r"Keys go to `cell\.init\(key, inputs\)` and, for .* `cell\.bind\(",
        "training": r"Nothing is dropped without a key",
    },
    "bidirectional_dynamic_rnn": {"lengths": "It is `sequence_length` here"},
    "stack_bidirectional_dynamic_rnn": {"lengths": "It is `sequence_length` here"},
    "static_rnn": {
        "lengths": "It is `sequence_length` here",
        "resets": r"Use `dynamic_rnn` with `jnp\.stack\(inputs\)` and `time_major=",
        "time_major": r"Each entry of `inputs` is one step",
    },
    "static_bidirectional_rnn": {"resets": "Use a driver with `dynamic` in its name"},
    "stack_bidirectional_rnn": {"seq_lengths": "It is `sequence_length` here"},
    "static_state_saving_rnn": {"resets": "Use `dynamic_rnn` with"},
    "packed_rnn": {
        "sequence_length": "Pass it to `pack_sequences`, which stores it",
        "lengths": "Pass it to `pack_sequences`, which stores it",
        "mask": r"`pack_sequences\(inputs, mask\.sum\(-1\)\)` leaves out the padding",
        "resets": "pack each episode as a separate sequence",
    },
    "raw_rnn": {
        "sequence_length": "`loop_fn` returns `finished`: `time >= sequence_length`",
        "seq_lengths": "`loop_fn` returns `finished`: `time >= sequence_length`",
        "mask": r"`loop_fn` returns `finished`: `time >= mask\.sum\(-1\)`",
        "initial_state": "returns it at time 0, as `next_cell_state`",
        "resets": r"`jnp\.where\(resets\[:, time, None\], 0, cell_state\)`",
    },
}
ROWS = [(name, argument) for name in HINTS for argument in HINTS[name]]


@pytest.mark.parametrize(("name", "argument"), ROWS)
def test_hint(name, argument):
    hint = HINTS[name][argument]
    message = f"^{name}: `{argument}` is not an argument of `{name}`. .*{hint}"
    with pytest.raises(TypeError, match=message):
        getattr(jaxrnn, name)(*FUNCTIONS[name], **{argument: None})


def test_the_hint_of_raw_rnn_resets_rows():
    """It has the same outputs as `dynamic_rnn` with the same resets."""
    resets = np.random.default_rng(0).random((4, 5)) < 0.4
    x = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)

    def loop_fn(time, output, cell_state, loop_state):
        if output is None:
            cell_state = GRU.zero_state(4, jnp.float32)
        t = np.minimum(time, 4)
        state = jnp.where(resets[:, t, None], 0, cell_state)
        return time >= 5, x[:, t], state, output, None

    emit_ta, _, _ = jaxrnn.raw_rnn(GRU, loop_fn)
    want, _ = jaxrnn.dynamic_rnn(GRU, x, dtype=jnp.float32, resets=resets)
    got = jnp.swapaxes(emit_ta.stack(), 0, 1)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
