"""What the goldens and the laws do not say of contrib's larger cells."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import contrib

KEY = jax.random.key(0)
GRID = {"feature_size": 3, "frequency_skip": 2, "num_frequency_blocks": [2]}
CONV = {"input_shape": [3, 2], "output_channels": 2, "kernel_shape": [2]}


def test_a_skip_connection_widens_the_output_but_not_the_state():
    x = jax.random.normal(KEY, (2, 4, 3, 2))
    plain, skip = (
        contrib.Conv1DLSTMCell(**CONV, skip_connection=s) for s in (False, True)
    )
    params = plain.init(KEY, x[:, 0])
    want, want_state = jaxrnn.dynamic_rnn(plain.bind(params), x, dtype=x.dtype)
    got, state = jaxrnn.dynamic_rnn(skip.bind(params), x, dtype=x.dtype)
    np.testing.assert_array_equal(got, jnp.concatenate([want, x], -1))
    np.testing.assert_array_equal(state.h, want_state.h)


def test_each_block_reads_its_own_states_in_one_array():
    lists = {"start_freqindex_list": [0, 1], "end_freqindex_list": [3, 4]}
    fields = GRID | lists | {"num_frequency_blocks": [1, 1]}
    nested, joined = (
        contrib.GridLSTMCell(2, **fields, state_is_tuple=t) for t in (True, False)
    )
    x, flat = jax.random.normal(KEY, (2, 5)), jax.random.normal(KEY, (2, 8))
    params = nested.init(KEY, x)
    state = nested.state_tuple_type(*jnp.split(flat, 4, axis=-1))
    want, _ = nested.apply(params, x, state)
    np.testing.assert_array_equal(joined.apply(params, x, flat)[0], want)


def test_states_of_equal_grids_are_of_one_class_and_survive_pickling():
    first, second = (contrib.GridLSTMCell(2, **GRID) for _ in range(2))
    state = first.zero_state(1, np.float32)
    assert isinstance(state, second.state_tuple_type)
    again = pickle.loads(pickle.dumps(first.state_size))
    assert again == first.state_size
    assert isinstance(again, first.state_tuple_type)


@pytest.mark.slow
def test_a_fixed_ratio_has_no_gradient():
    inputs = jnp.full((2, 1), 0.3), jnp.ones((2, 3))

    def slope(trainable):
        cell = contrib.PhasedLSTMCell(4, ratio_on=0.9, trainable_ratio_on=trainable)
        params = cell.init(KEY, inputs)
        state = cell.zero_state(2, inputs[1].dtype)
        loss = lambda p: jnp.sum(cell.apply(p, inputs, state)[0] ** 2)
        return jnp.any(jax.grad(loss)(params)["ratio_on"] != 0)

    assert slope(True)
    assert not slope(False)


@pytest.mark.slow
def test_a_packed_sequence_starts_with_the_first_memory():
    cell = contrib.NTMCell(jaxrnn.GRUCell(3), 4, 2, 1, 1, output_dim=2)
    x, lengths = jax.random.normal(KEY, (2, 3, 2)), jnp.array([3, 2])
    bound = cell.bind(cell.init(KEY, x[:, 0]))
    want, _ = jaxrnn.dynamic_rnn(bound, x, lengths, dtype=x.dtype)
    packed = jaxrnn.pack_sequences(x, lengths, row_length=5)
    outputs, _ = jaxrnn.packed_rnn(bound, packed, dtype=x.dtype)
    np.testing.assert_allclose(packed.unpack(outputs), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: contrib.ConvLSTMCell(2, [3, 2], 1, [1, 1]), "`input_shape` must have"),
        (
            lambda: contrib.Conv1DLSTMCell(**CONV | {"kernel_shape": [1, 1]}),
            r"`kernel_shape` must have 1 entries, got 2\.$",
        ),
        (lambda: contrib.TimeFreqLSTMCell(2), "`feature_size` must be given"),
        (lambda: contrib.GridLSTMCell(2, feature_size=1), "`frequency_skip` must be"),
        (
            lambda: contrib.GridLSTMCell(2, feature_size=1, frequency_skip=1),
            "`num_frequency_blocks` must be a nonempty list",
        ),
        (
            lambda: contrib.GridLSTMCell(2, **GRID).init(KEY, jnp.ones((1, 4))),
            r"`num_frequency_blocks\[0\]` must be 1",
        ),
        (
            lambda: contrib.TimeFreqLSTMCell(2, feature_size=2).init(
                KEY, jnp.ones((1, 4))
            ),
            r"`num_windows` must be 3 \(the number of windows in inputs of depth 4\)",
        ),
        (lambda: contrib.PhasedLSTMCell(2, leak=2.0), r"`leak` must be in \[0, 1\]"),
        (
            lambda: contrib.PhasedLSTMCell(2).init(KEY, jnp.ones((1, 4))),
            "`inputs` must be a pair",
        ),
        (
            lambda: contrib.NTMCell(jaxrnn.GRUCell(2), 4, 2, 1, 1),
            "`output_dim` must be given",
        ),
        (
            lambda: contrib.NTMCell(jaxrnn.GRUCell(2), 2, 2, 1, 1, output_dim=1),
            "`memory_size` must be at least 3",
        ),
    ],
)
def test_a_bad_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_refuses_a_number_of_blocks():
    with pytest.raises(TypeError, match=r"`num_frequency_blocks` must be a list .* 2"):
        contrib.GridLSTMCell(2, **GRID | {"num_frequency_blocks": 2})


def test_a_controllers_state_is_not_that_of_the_machine():
    cell = contrib.NTMCell(jaxrnn.GRUCell(3), 4, 2, 1, 1, output_dim=2)
    params, x = cell.init(KEY, jnp.ones((1, 2))), jnp.ones((1, 2))
    with pytest.raises(TypeError, match="`state` must be an NTMControllerState"):
        cell.apply(params, x, cell.controller.zero_state(1, x.dtype))
