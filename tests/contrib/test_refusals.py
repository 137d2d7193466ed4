"""Arguments that contrib's cells refuse, by name; empty batches and divided rows."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from jaxrnn import contrib

KEY = jax.random.key(0)
ARRAY = np.array([1, 2])
WINDOWS = {"feature_size": 3, "frequency_skip": 2}


class AClass:
    """Called, it makes an object; it is no function of arrays."""


def phased(**fields):
    return contrib.PhasedLSTMCell(2, **fields)


def conv(**fields):
    shapes = {"input_shape": [3, 2], "kernel_shape": [2]}
    return contrib.Conv1DLSTMCell(output_channels=2, **shapes | fields)


def grid(**fields):
    blocks = {"num_frequency_blocks": [1]}
    return contrib.GridLSTMCell(2, **WINDOWS | blocks | fields)


def both_ways(**fields):
    blocks = {"num_frequency_blocks": [1]}
    return contrib.BidirectionalGridLSTMCell(2, **WINDOWS | blocks | fields)


def time_freq(**fields):
    return contrib.TimeFreqLSTMCell(2, **WINDOWS, **fields)


def intersection(**fields):
    return contrib.IntersectionRNNCell(2, **fields)


def project_inputs(**fields):
    return contrib.InputProjectionWrapper(jaxrnn.GRUCell(2), 2, **fields)


def project_outputs(**fields):
    return contrib.OutputProjectionWrapper(jaxrnn.GRUCell(2), 2, **fields)


NO_LIST = "must be a list with an entry for each block, got"

# The cell, its argument, the value, the error and what follows the argument's name.
REFUSALS = [
    (phased, "ratio_on", 0.0, ValueError, "must be positive and finite, got 0.0"),
    (phased, "ratio_on", 1.5, ValueError, "must be in [0, 1], got 1.5"),
    (phased, "period_init_min", 0, ValueError, "must be positive and finite, got 0.0"),
    (phased, "period_init_min", math.inf, ValueError, "must be positive and finite"),
    (phased, "period_init_max", math.inf, ValueError, "must be positive and finite"),
    (phased, "period_init_min", 2000, ValueError, "must not exceed `period_init_max`"),
    (conv, "kernel_shape", [0], ValueError, "must be at least 1, got 0"),
    (conv, "kernel_shape", 3, TypeError, "must be a list of integers, got 3"),
    (conv, "kernel_shape", None, TypeError, "must be a list of integers, got None"),
    (conv, "input_shape", [3, 1.5], TypeError, "must be an integer, got 1.5"),
    (conv, "input_shape", [3, None], TypeError, "must be an integer, got None"),
    (conv, "input_shape", [-3, 2], ValueError, "must be at least 0, got -3"),
    (time_freq, "cell_clip", True, TypeError, "must be a number, got True"),
    (time_freq, "cell_clip", -1, ValueError, "must be in [0, inf], got -1.0"),
    (grid, "cell_clip", -1, ValueError, "must be in [0, inf], got -1.0"),
    (grid, "end_freqindex_list", [3, 4], ValueError, "must have an entry for each"),
    (grid, "end_freqindex_list", ARRAY, TypeError, f"{NO_LIST} int64[2]"),
    (grid, "start_freqindex_list", 3, TypeError, f"{NO_LIST} 3"),
    (grid, "start_freqindex_list", ARRAY, TypeError, f"{NO_LIST} int64[2]"),
    (grid, "num_frequency_blocks", ARRAY, TypeError, f"{NO_LIST} int64[2]"),
    (grid, "num_frequency_blocks", True, TypeError, f"{NO_LIST} True"),
    (both_ways, "num_frequency_blocks", 1.0, TypeError, f"{NO_LIST} 1.0"),
    (both_ways, "backward_slice_offset", 1.5, TypeError, "must be an integer, got 1.5"),
    (both_ways, "backward_slice_offset", "x", TypeError, "must be an integer, got 'x'"),
    (both_ways, "backward_slice_offset", math.nan, TypeError, "must be an integer"),
    (intersection, "y_activation", "x", ValueError, "must be one of elu"),
    (intersection, "y_activation", 3, TypeError, "must be None, a name or a function"),
    (intersection, "initializer", AClass, TypeError, "must be a function"),
    (intersection, "y_activation", AClass, TypeError, "must be None, a name or"),
    (project_inputs, "activation", 0, TypeError, "must be None, a name or a function"),
    (project_inputs, "activation", ARRAY, TypeError, "must be None, a name or"),
    (project_outputs, "activation", {}, TypeError, "must be None, a name or"),
    (project_outputs, "activation", "", ValueError, "must be one of elu"),
]


@pytest.mark.parametrize(("make", "name", "value", "error", "words"), REFUSALS)
def test_refusal(make, name, value, error, words):
    message = rf": `{name}(\[\d\])?` {re.escape(words)}"
    with pytest.raises(error, match=message):
        make(**{name: value})


def test_lists_of_a_grid_are_hashable():
    cell = grid(start_freqindex_list=[], end_freqindex_list=[])
    assert isinstance(hash(cell), int)


def test_a_phased_lstm_may_have_no_units():
    inputs = jnp.ones((2, 1)), jnp.ones((2, 3))
    cell = contrib.PhasedLSTMCell(0)
    state = cell.zero_state(2, inputs[1].dtype)
    output, _ = cell.apply(cell.init(KEY, inputs), inputs, state)
    assert output.shape == (2, 0)


@pytest.mark.parametrize("state_is_tuple", [True, False])
def test_attention_over_an_empty_batch(state_is_tuple):
    inner = jaxrnn.GRUCell(2)
    cell = contrib.AttentionCellWrapper(inner, 3, state_is_tuple=state_is_tuple)
    x = jnp.ones((0, 4, 3))
    bound = cell.bind(cell.init(KEY, x[:, 0]))
    outputs, state = jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype)
    assert outputs.shape == (0, 4, 2)
    want = cell.zero_state(0, x.dtype)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, want)


@pytest.mark.slow
def test_windows_of_rows_that_are_divided():
    cell = contrib.TimeFreqLSTMCell(2, num_windows=2, **WINDOWS)
    x = jax.random.normal(KEY, (4, 3, 5))
    params = cell.init(KEY, x[:, 0])
    run = lambda p, x: jaxrnn.dynamic_rnn(cell.bind(p), x, dtype=x.dtype)[0]
    gradient = jax.jit(jax.grad(lambda p, x: jnp.sum(run(p, x) ** 2)))
    want = run(params, x), gradient(params, x)
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Explicit,))
    rows = jax.device_put(x, NamedSharding(mesh, P("rows")))
    with jax.set_mesh(mesh):
        got = jax.jit(run)(params, rows), gradient(params, rows)
    jax.tree.map(np.testing.assert_allclose, got, want)
