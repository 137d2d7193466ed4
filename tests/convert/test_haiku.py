"""Parameters of Haiku's cores give the cells that Haiku runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert_checks import (
    BATCH,
    X,
    bound,
    hold_to,
    one_way,
    random_like,
    same_cell,
)
from helpers import assert_same, usual_promotion

import jaxrnn
from jaxrnn.convert import haiku

hk = pytest.importorskip("haiku")


def deep(*cores):
    return hk.DeepRNN(list(cores))


BUILD = {
    "lstm": lambda: hk.LSTM(4),
    "gru": lambda: hk.GRU(4),
    "rnn": lambda: hk.VanillaRNN(4),
    "rnn_one_bias": lambda: hk.VanillaRNN(4, double_bias=False),
    "stack": lambda: deep(hk.LSTM(2), hk.LSTM(3)),
    "mixed": lambda: deep(hk.GRU(2), hk.LSTM(4), hk.GRU(3, name="top")),
}
RUN = ("rnn", "rnn_one_bias", "stack", "mixed")  # All kinds are in these.
NAMES = {"mixed": ["gru", "lstm", "top"]}


def transformed(case):
    def run(x):
        core = BUILD[case]()
        zeros = jax.tree.map(lambda s: s.astype(x.dtype), core.initial_state(BATCH))
        return hk.dynamic_unroll(core, x, zeros, time_major=False)

    return hk.without_apply_rng(hk.transform(run))


def random_params(case):
    with usual_promotion():
        shapes = jax.eval_shape(transformed(case).init, jax.random.key(0), X)
    return random_like(shapes)


def in_our_order(states):
    """(hidden, cell) of an LSTM as (c, h)."""
    if isinstance(states, hk.LSTMState):
        return states.cell, states.hidden
    return [in_our_order(s) for s in states] if isinstance(states, tuple) else states


@pytest.mark.fast("mixed")
@pytest.mark.parametrize("case", RUN)
def test_same_as_haiku(case):
    names, apply = NAMES.get(case), transformed(case).apply

    def theirs(params, x):
        outputs, states = apply(params, x)
        return outputs, in_our_order(states)

    load = lambda params: haiku.load(params, names)
    hold_to(theirs, one_way, random_params(case), load)


@pytest.mark.parametrize("case", ["lstm", "gru", "stack", "mixed"])
def test_there_and_back_are_the_same_bits(case):
    params, names = random_params(case), NAMES.get(case)
    assert_same(haiku.save(haiku.load(params, names), names), params)


def test_two_biases_become_one():
    params = random_params("rnn")
    first, second = params["vanilla_rnn/linear"], params["vanilla_rnn/linear_1"]
    saved = haiku.save(haiku.load(params))
    want = {"w": first["w"], "b": first["b"] + second["b"]}
    assert_same(saved["vanilla_rnn/linear"], want)
    assert_same(saved["vanilla_rnn/linear_1"], {"w": second["w"], "b": np.zeros(4)})


def test_names_are_those_that_haiku_gives():
    """Also when kinds are mixed, and within a module."""

    class Net(hk.Module):
        def __call__(self, x):
            cores = hk.LSTM(2), hk.GRU(2), hk.LSTM(2), hk.VanillaRNN(2), hk.GRU(2)
            core = deep(*cores)
            return hk.dynamic_unroll(core, x, core.initial_state(BATCH), False)

    with usual_promotion():
        init = hk.transform(lambda x: Net()(x)).init
        shapes = jax.eval_shape(init, jax.random.key(0), X.astype(np.float32))
    ours = jaxrnn.MultiRNNCell(
        [
            jaxrnn.LSTMCell(2),
            jaxrnn.GRUCell(2),
            jaxrnn.LSTMCell(2),
            jaxrnn.BasicRNNCell(2, "relu"),
            jaxrnn.GRUCell(2),
        ]
    )
    assert {f"net/{k}" for k in haiku.save(bound(ours))} == shapes.keys()
    got = haiku.load(random_like(shapes), ["net/lstm_1", "net/vanilla_rnn"])
    assert got.cell == jaxrnn.MultiRNNCell(ours.cells[2:4])


# Convolutional LSTMs.

GRIDS = {1: (4,), 2: (4, 3), 3: (3, 2, 4)}
WINDOWS = {1: 3, 2: (2, 3), 3: (1, 2, 3)}  # An even size has uneven padding.


def of_convs(axes):
    """Two stacked cores over a grid as pure functions, and inputs of the cores."""

    def run(x):
        make = getattr(hk, f"Conv{axes}DLSTM")
        core = deep(*(make(GRIDS[axes], size, WINDOWS[axes]) for size in (2, 3)))
        zeros = core.initial_state(BATCH)
        outputs, states = hk.dynamic_unroll(core, x, zeros, time_major=False)
        return outputs, in_our_order(states)

    x = random_like(jax.ShapeDtypeStruct((BATCH, 2, *GRIDS[axes], 1), np.float64))
    return hk.without_apply_rng(hk.transform(run)), x


def params_of_convs(axes):
    functions, x = of_convs(axes)
    with usual_promotion():
        return random_like(jax.eval_shape(functions.init, jax.random.key(0), x))


@pytest.mark.fast("1")
@pytest.mark.parametrize("axes", GRIDS)
def test_convolutions_as_in_haiku(axes):
    functions, x = of_convs(axes)
    params = params_of_convs(axes)
    load = lambda params: haiku.load(params, input_shape=GRIDS[axes])
    hold_to(functions.apply, one_way, params, load, x)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float64])
@pytest.mark.parametrize("axes", GRIDS)
def test_convolutions_there_and_back(axes, dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), params_of_convs(axes))
    cell = haiku.load(params, input_shape=GRIDS[axes])
    saved = haiku.save(cell)
    assert saved.keys() == params.keys()
    for module, weights in params.items():
        np.testing.assert_array_equal(saved[module]["w"], weights["w"], strict=True)
    same_cell(haiku.load(saved, input_shape=GRIDS[axes]), cell)
    make = jaxrnn.contrib.ConvLSTMCell  # Only the class differs.
    twins = [
        make(axes, each.input_shape, each.output_channels, each.kernel_shape)
        for each in cell.cell.cells
    ]
    twin = jaxrnn.MultiRNNCell(twins).bind(cell.params)
    names = ["net/~/low", "net/~/high"]
    again = haiku.save(twin, names)
    same_cell(haiku.load(again, names, input_shape=GRIDS[axes]), cell)


def conv(**options):
    options = {"output_channels": 1, "kernel_shape": [2]} | options
    cell = jaxrnn.contrib.Conv1DLSTMCell(input_shape=[4, 2], **options)
    return cell.bind(random_like(cell.param_specs(2)))


def test_a_convolution_without_a_bias_and_a_forget_bias_of_its_own():
    cell = conv(use_bias=False, forget_bias=3.0)
    saved = haiku.save(cell)
    of_inputs = saved["conv1_dlstm/input_to_hidden"]["b"]
    np.testing.assert_array_equal(of_inputs, [0, 0, 2, 0])  # The blocks are i, g, f, o.
    assert not saved["conv1_dlstm/hidden_to_hidden"]["b"].any()
