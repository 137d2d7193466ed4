"""Masks with gaps, against a Python loop that skips masked steps."""

import dataclasses

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import bound, differentiated, eqns
from hypothesis.extra.numpy import arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
import jaxrnn.nnx
from jaxrnn._base.trees import ReadOnly

BATCH, TIME, DEPTH = 5, 7, 3
X = np.random.default_rng(0).normal(size=(BATCH, TIME, DEPTH))
MASK = np.random.default_rng(1).random((BATCH, TIME)) < 0.6
MASK[0], MASK[1] = False, True
PADDED = np.where(MASK[..., None], X, np.nan)
CELL = jaxrnn.LSTMCell(4, use_peepholes=True, num_proj=2)


def close(got, want, tolerance=1e-9):
    chex.assert_trees_all_close(got, want, rtol=tolerance, atol=tolerance)


def state_of(cell, seed=2):
    draw = np.random.default_rng(seed).normal
    zeros = jax.eval_shape(lambda: cell.zero_state(BATCH, jnp.float64))
    return jax.tree.map(lambda s: draw(size=s.shape), zeros)


def loop(cell, x, mask, state, resets=None, reset_state=None):
    """Run the valid steps of each row in a Python loop."""
    outputs, states = np.zeros((BATCH, TIME, cell.output_size)), []
    for b in range(BATCH):
        row = lambda tree, b=b: jax.tree.map(lambda x: x[b : b + 1], tree)
        now, states_of_row = row(state), []
        for t in range(TIME):
            if resets is not None and resets[b, t]:
                now = row(reset_state)
            if mask[b, t]:
                output, now = cell(x[b : b + 1, t], now)
                outputs[b, t] = output[0]
            states_of_row.append(now)
        states.append(jax.tree.map(lambda *s: jnp.concatenate(s), *states_of_row))
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *states)
    return outputs, jax.tree.map(lambda s: s[:, -1], stacked), stacked


@hypothesis.given(arrays(bool, (BATCH, TIME)), arrays(bool, (BATCH, TIME)))
@hypothesis.settings(max_examples=10)
def test_any_mask_and_resets(mask, resets):
    """A reset at a masked step takes effect at the next valid step."""
    cell, state, other = bound(CELL), state_of(CELL), state_of(CELL, 3)
    resets[:, -1] &= mask[:, -1]  # Without a later valid step, a reset has no effect.
    options = {"resets": resets, "reset_state": other}
    want, _, states = loop(cell, X, mask, state, resets, other)
    run = jax.jit(lambda mask: jaxrnn.dynamic_rnn(
        cell, X, mask=mask, initial_state=state, return_states=True, **options
    ))  # fmt: skip
    got, last, got_states = run(mask)
    close(got, want)
    at = lambda s: np.where(mask.any(1)[:, None], s, 0)
    close(jax.tree.map(at, last), jax.tree.map(lambda s: at(s[:, -1]), got_states))
    counts = lambda s: np.where(mask[..., None], s, 0)
    close(jax.tree.map(counts, got_states), jax.tree.map(counts, states))


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("is_known", [False, True])
def test_padding_is_nothing(is_known, time_major):
    """Masked inputs may be NaN, for a traced mask and for a known one."""
    cell, state = bound(CELL), state_of(CELL)
    swap = (lambda x: jnp.swapaxes(x, 0, 1)) if time_major else jnp.asarray

    def run(params, x, state, mask=MASK):
        cell = CELL.bind(params)
        options = {"mask": swap(mask), "time_major": time_major}
        outputs, last = jaxrnn.dynamic_rnn(cell, swap(x), None, state, **options)
        return swap(outputs), last

    def slow(params, x, state):
        outputs = []
        for t in range(TIME):
            alive = MASK[:, t, None]
            output, new = CELL.apply(params, jnp.where(alive, x[:, t], 0), state)
            state = jax.tree.map(lambda n, s: jnp.where(alive, n, s), new, state)  # noqa: B023
            outputs.append(jnp.where(alive, output, 0))
        return jnp.stack(outputs, 1), state

    args = cell.params, PADDED, state
    if is_known:
        close(run(*args), slow(*args))
    close(differentiated(run, *args), differentiated(slow, *args))


def test_a_known_mask_without_gaps_is_lengths():
    cell, state = bound(CELL), state_of(CELL)
    lengths = np.array([0, 7, 3, 1, 2])
    mask = np.arange(TIME) < lengths[:, None]
    run = lambda **kwargs: jaxrnn.dynamic_rnn(cell, X, initial_state=state, **kwargs)
    want, program = run(sequence_length=lengths), lambda f: str(jax.make_jaxpr(f)())
    assert program(lambda: run(mask=mask)) == program(
        lambda: run(sequence_length=lengths)
    )
    for given in (mask, jnp.asarray(mask)):
        chex.assert_trees_all_equal(run(mask=given), want)
    close(jax.jit(lambda mask: run(mask=mask))(mask), want)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(run(mask=MASK), want)


@pytest.mark.parametrize("resets", [None, MASK[::-1]])
def test_both_directions(resets):
    """The backward direction equals a forward run over reversed rows."""
    fw, bw = bound(CELL), bound(CELL, seed=1)
    options = {"dtype": jnp.float64, "return_states": True}
    args = fw, bw, PADDED
    got = jaxrnn.bidirectional_dynamic_rnn(*args, mask=MASK, resets=resets, **options)
    want_fw = jaxrnn.dynamic_rnn(fw, PADDED, mask=MASK, resets=resets, **options)
    ends = None if resets is None else np.pad(resets[:, 1:], ((0, 0), (0, 1)))
    flip = lambda x: None if x is None else x[:, ::-1]
    args = bw, flip(PADDED)
    output, state, states = jaxrnn.dynamic_rnn(
        *args, mask=flip(MASK), resets=flip(ends), **options
    )
    want_bw = flip(output), state, jax.tree.map(flip, states)
    close(got, tuple(zip(want_fw, want_bw, strict=True)))
    outputs, _ = jaxrnn.dynamic_rnn(
        bw, flip(X), mask=flip(MASK), resets=flip(ends), dtype=jnp.float64
    )
    close(got[0][1], flip(outputs))


def test_stacks_of_two_directions():
    layers = (
        [bound(CELL), bound(CELL, 4)],
        [bound(CELL, seed=1), bound(CELL, 4, seed=1)],
    )
    args = *layers, X
    got, *_ = jaxrnn.stack_bidirectional_dynamic_rnn(*args, dtype="float64", mask=MASK)
    for b in range(BATCH):
        row = X[b : b + 1, MASK[b]]
        if not row.size:
            continue
        want, *_ = jaxrnn.stack_bidirectional_dynamic_rnn(*layers, row, dtype="float64")
        close(got[b, MASK[b]], want[0])


def test_vmap_and_little_memory():
    cell = bound(CELL)

    def run(x, mask, swap_memory=False):
        options = {"dtype": jnp.float64, "swap_memory": swap_memory}
        return jaxrnn.dynamic_rnn(cell, x, mask=mask, return_states=True, **options)

    masks = np.stack([MASK, ~MASK, MASK[::-1]])
    got = jax.vmap(run, (None, 0))(X, masks)
    for i, mask in enumerate(masks):
        close(jax.tree.map(lambda x, i=i: x[i], got), run(X, mask))
    want = differentiated(lambda x: run(x, MASK), X)
    close(differentiated(lambda x: run(x, MASK, True), X), want)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh(axis_type):
    cell, rows = bound(CELL), 4
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    run = jax.jit(lambda x, mask: jaxrnn.dynamic_rnn(
        cell, x, mask=mask, dtype=jnp.float64, return_states=True
    ))  # fmt: skip
    want = run(X[:rows], MASK[:rows])
    layout = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh):
        for mask in (jax.device_put(MASK[:rows], layout), MASK[:rows]):
            got = run(jax.device_put(X[:rows], layout), mask)
            close(jax.device_get(got), jax.device_get(want))


@pytest.mark.parametrize("shape", [(0, TIME), (BATCH, 0)])
def test_no_rows_or_no_steps(shape):
    x, mask = np.zeros((*shape, DEPTH)), np.zeros(shape, bool)
    options = {"dtype": jnp.float64, "return_states": True}
    run = jax.jit(lambda mask: jaxrnn.dynamic_rnn(bound(CELL), x, mask=mask, **options))
    outputs, state, states = run(mask)
    assert (outputs.shape, states.c.shape) == ((*shape, 2), (*shape, 4))
    assert not state.c.any()


def test_the_loops_are_those_of_lengths():
    """The loop with a mask has no more selects than the loop with lengths."""
    cell, x = bound(CELL), X.astype(np.float64)
    run = lambda **given: jaxrnn.dynamic_rnn(cell, x, dtype=jnp.float64, **given)
    lengths = jnp.full(BATCH, 3)
    scans = lambda f, *args: [
        e for e in eqns(jax.make_jaxpr(f)(*args)) if e.primitive.name == "scan"
    ]
    masked = scans(lambda mask: run(mask=mask), MASK)
    given = scans(lambda n: run(sequence_length=n), lengths)
    assert [str(e.params["jaxpr"]) for e in masked] == [
        str(e.params["jaxpr"]) for e in given
    ]


X32 = X.astype(np.float32)
REFUSED = [
    (ValueError, "`mask` must be None where `sequence_length`", {
        "mask": MASK, "sequence_length": [3] * BATCH}),
    (ValueError, r"`mask` must be \[batch, time\] like the inputs, \[5, 7\]",
     {"mask": MASK[:, 1:]}),
    (ValueError, "`mask` must be", {"mask": MASK.T}),
    (ValueError, r"be \[time, batch\]", {"mask": MASK.T, "time_major": True}),
    (TypeError, r"`mask` must be booleans.*`mask > 0`", {"mask": MASK.astype("f")}),
    (TypeError, "`mask` must be booleans", {"mask": MASK.astype(np.int32)}),
    (TypeError, "pass lengths as `sequence_length`", {"mask": np.array([3] * BATCH)}),
    (ValueError, r"`mask\.all\(-1\)` is true where", {"mask": X32 > 0}),
    (TypeError, "Pass a mask .* as `mask`, which", {"sequence_length": MASK}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words", "given"), REFUSED)
def test_refusal(error, words, given):
    cell = bound(CELL, dtype="float32")
    with pytest.raises(error, match=words):
        jaxrnn.dynamic_rnn(cell, X32, dtype="float32", **given)
    with pytest.raises(error, match=words):
        jaxrnn.bidirectional_dynamic_rnn(cell, cell, X32, dtype="float32", **given)


@pytest.mark.parametrize("resets", [None, MASK[::-1]])
def test_both_directions_of_a_known_mask_without_gaps(resets):
    """A mask known before tracing has the same results, even past the ends of rows."""
    cell, mask = bound(CELL), np.arange(TIME) < np.array([[0], [7], [3], [1], [2]])
    options = {
        "initial_state_fw": state_of(CELL),
        "initial_state_bw": state_of(CELL, 3),
    }
    run = lambda mask: jaxrnn.bidirectional_dynamic_rnn(
        cell, cell, X, mask=mask, resets=resets, return_states=True, **options
    )
    close(run(mask), jax.jit(run)(mask))
    lengths = mask.sum(1)
    want = jaxrnn.bidirectional_dynamic_rnn(
        cell, cell, X, lengths, resets=resets, **options
    )
    close(run(mask)[:2], want)
    backward = lambda **given: jaxrnn.nnx.RNN(
        CELL, DEPTH, rngs=nnx.Rngs(0), reverse=True, return_carry=True
    )(X.astype(np.float32), resets=resets, **given)
    close(backward(mask=mask)[0], backward(sequence_length=lengths)[0], 1e-6)


def count_up(params, inputs, state, key=None):
    keys, number = state
    noise = jax.vmap(lambda key: jax.random.uniform(key, (), inputs.dtype))(keys)
    output = inputs[:, :1] + noise[:, None]
    return output, (jax.vmap(lambda k: jax.random.fold_in(k, 1))(keys), number + 1)


def test_keys_in_the_state():
    """Masked steps keep the keys in a state, like its numbers."""
    cell = jaxrnn.FunctionCell(count_up, ((), ()), 1).bind({})
    state = jax.random.split(jax.random.key(0), BATCH), np.zeros(BATCH, "f")
    x = X.astype(np.float32)
    _, last, (keys, numbers) = jaxrnn.dynamic_rnn(
        cell, x, mask=MASK, initial_state=state, dtype="float32", return_states=True
    )
    np.testing.assert_array_equal(numbers, np.cumsum(MASK, axis=1))
    for b, t in np.ndindex(MASK.shape):
        want = state[0][b]
        for _ in range(int(numbers[b, t])):
            want = jax.random.fold_in(want, 1)
        data = map(jax.random.key_data, (keys[b, t], want))
        np.testing.assert_array_equal(*data)
    assert (jax.random.key_data(keys[:, -1]) == jax.random.key_data(last[0])).all()


def test_a_list_of_traced_rows():
    run = lambda mask: jaxrnn.dynamic_rnn(bound(CELL), X, mask=mask, dtype="float64")
    close(jax.jit(lambda rows: run(list(rows)))(list(MASK)), run(MASK))


def count_steps(params, inputs, state, key=None):
    total, count = state
    total += inputs[:, :1] * count
    return total, (total, count + 1)


def write_steps(params, inputs, state, key=None):
    total, written = state
    return inputs, (total, written.write(0, inputs))


SHARED = {
    "scalar": (count_steps, 1, (jnp.zeros((BATCH, 1)), jnp.zeros(())), r"float64\[\]"),
    "array": (
        write_steps,
        DEPTH,
        (jnp.zeros((BATCH, 1)), jaxrnn.TensorArray("float64", 1)),
        "TensorArray",
    ),
}
DRIVERS = {
    "dynamic_rnn": lambda cell, state, **options: jaxrnn.dynamic_rnn(
        cell, X, initial_state=state, dtype="float64", **options
    ),
    "backward": lambda cell, state, **options: jaxrnn.bidirectional_dynamic_rnn(
        bound(CELL), cell, X, initial_state_bw=state, dtype="float64", **options
    ),
    "stack": lambda cell, state, **options: jaxrnn.stack_bidirectional_dynamic_rnn(
        [bound(CELL)], [cell], X, None, [state], dtype="float64", **options
    ),
    "nnx": lambda cell, state, **options: jaxrnn.nnx.RNN(
        cell.cell, DEPTH, rngs=nnx.Rngs(0), param_dtype=np.float64
    )(X, initial_state=state, **options),
}


@pytest.mark.parametrize(
    ("kind", "driver"),
    [*(("scalar", driver) for driver in DRIVERS), ("array", "dynamic_rnn")],
)
def test_a_leaf_that_rows_share_is_refused(kind, driver):
    """At one step of the loop, rows are at different steps of their sequences."""
    step, output_size, state, got = SHARED[kind]
    cell = jaxrnn.FunctionCell(step, (1, 1), output_size).bind({})
    run = lambda mask: DRIVERS[driver](cell, state, mask=mask)
    message = rf"with `mask` .* got {got} as `state\[1\]`. .* `sequence_length`"
    for mask in (MASK, np.ones_like(MASK)):  # Values of the mask do not matter.
        with pytest.raises(ValueError, match=message):
            run(mask)
        with pytest.raises(ValueError, match=message):
            jax.jit(run)(mask)


@dataclasses.dataclass(frozen=True, eq=False)
class Reader(jaxrnn.RNNCell):
    """A cell that adds a read-only memory to its inputs."""

    state_size = 1, 1
    output_size = 1

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        total, memory = state
        total += inputs[:, :1] * memory.value
        return total, (total, memory)


def test_read_only_parts_need_no_rows():
    state = np.zeros((BATCH, 1)), ReadOnly(jnp.float64(2))
    run = lambda mask: jaxrnn.dynamic_rnn(
        Reader().bind({}), PADDED, mask=mask, initial_state=state, dtype="float64"
    )
    for _, (total, memory) in (run(MASK), jax.jit(run)(MASK)):
        close(total[:, 0], 2 * np.where(MASK, X[..., 0], 0).sum(1))
        assert memory.value == 2


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"sequence_length": [3, 0]}, [[6, 5, 3, 6, 6], [0] * 5]),
        ({"mask": [[1, 1, 1, 0, 0], [0] * 5]}, [[6, 5, 3, 0, 0], [0] * 5]),
        ({"mask": [[0, 1, 0, 1, 0], [1] * 5]}, [[6, 6, 4, 4, 0], [15, 14, 12, 9, 5]]),
    ],
)
def test_backward_states_at_padding(given, want):
    """Each state is a sum of 1 to 5 in reverse, plus the initial state."""
    add = lambda params, inputs, state, key=None: (inputs, inputs + state)
    cell = jaxrnn.FunctionCell(add, 1, 1).bind({})
    x = np.broadcast_to(np.arange(1.0, 6)[:, None], (2, 5, 1))
    first = np.full((2, 1), 100.0)
    given = {k: np.asarray(v, bool if k == "mask" else int) for k, v in given.items()}
    states = {"initial_state_fw": first, "initial_state_bw": first}
    *_, (_, states) = jaxrnn.bidirectional_dynamic_rnn(
        cell, cell, x, return_states=True, **states, **given
    )
    np.testing.assert_array_equal(states[..., 0] - 100, want)
