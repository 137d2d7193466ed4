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
    messages,
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


RNN, GRU = jaxrnn.BasicRNNCell(4, activation="relu"), jaxrnn.GRUCell(4)
CELLS = {
    "rnn": RNN,
    "lstm": jaxrnn.LSTMCell(4),
    "gru": GRU,
    "stack": jaxrnn.MultiRNNCell([jaxrnn.GRUCell(2) for _ in range(11)]),
}


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


# Refusals.

CONVS = params_of_convs(1)
PARAMS = {case: random_params(case) for case in ("lstm", "gru", "rnn", "mixed")}


def changed(case, module, **weights):
    params = PARAMS[case]
    given = {k: v for k, v in weights.items() if v is not None}
    return lambda: haiku.load(params | {module: given})


ONE = np.ones((2, 2))
VALUES = {
    "`name` must be given unless .* Found: mlp/linear": lambda: haiku.load(
        {"mlp/linear": {"w": ONE, "b": ONE}}
    ),
    "`name` must be given unless all cores are in one module and": lambda: haiku.load(
        PARAMS["mixed"]
    ),
    r"`core` \(of a GRU\) or `core/linear` is missing. Found:": lambda: haiku.load(
        PARAMS["lstm"], "core"
    ),
    "`gru` must hold w_i, w_h, b; missing: w_h": changed("gru", "gru", w_i=ONE, b=ONE),
    "`lstm/linear` must hold w, b; unknown: scale": changed(
        "lstm", "lstm/linear", **PARAMS["lstm"]["lstm/linear"], scale=ONE
    ),
    "`net/vanilla_rnn_1/linear_1` is missing. Found:": lambda: haiku.load(
        {"net/vanilla_rnn_1/linear": {"w": np.ones((7, 16)), "b": np.ones(16)}}
    ),
    "`vanilla_rnn/linear_1` must hold w; unknown: scale": changed(
        "rnn", "vanilla_rnn/linear_1", w=ONE, scale=ONE
    ),
    r"lstm/linear/w` must have shape \[depth \+ units, 4 \* .*\[7, 15\]": changed(
        "lstm", "lstm/linear", w=np.ones((7, 15)), b=np.ones(15)
    ),
    r"`lstm/linear/w` must have shape .* for an LSTM, got float64\[3, 16\]": changed(
        "lstm", "lstm/linear", w=np.ones((3, 16)), b=np.ones(16)
    ),
    r"`lstm/linear/b` must have shape \[16\], got float64\[8\]": changed(
        "lstm", "lstm/linear", w=np.ones((7, 16)), b=np.ones(8)
    ),
    r"`vanilla_rnn/linear_1/w` must have shape \[4, 4\], got float64\[2, 2\]": changed(
        "rnn", "vanilla_rnn/linear_1", w=ONE
    ),
    "`cell` must be one of LSTMCell, GRUCell, BasicRNNCell, whose": lambda: haiku.save(
        bound(jaxrnn.CudnnCompatibleGRUCell(4))
    ),
    "`cell` must have the activation relu, as in Haiku, got tanh": lambda: haiku.save(
        bound(jaxrnn.BasicRNNCell(4))
    ),
    "`cell` must have the activation tanh, as in Haiku, got relu": lambda: haiku.save(
        bound(jaxrnn.GRUCell(4, "relu"))
    ),
    "`name` must hold 11 names, one for each layer, got core": lambda: haiku.save(
        bound(CELLS["stack"]), "core"
    ),
    "`input_shape` must be the sizes of the grid's .* got None": lambda: haiku.load(
        CONVS
    ),
    "`input_shape` must be omitted for cores without a grid": lambda: haiku.load(
        PARAMS["lstm"], input_shape=(4,)
    ),
    r"`conv1_dlstm/input_to_hidden/w` must have shape \[any, any, any, any\]": lambda: (
        haiku.load(CONVS, input_shape=(4, 1))
    ),
    r"`input_shape` must be the sizes of the grid's .* got \(\)": lambda: haiku.load(
        CONVS, input_shape=()
    ),
    r"Conv1DLSTMCell: `input_shape\[0\]` must be": lambda: haiku.load(
        CONVS, input_shape=[-1]
    ),
    "`conv1_dlstm/hidden_to_hidden` is missing. Found:": lambda: haiku.load(
        {k: v for k, v in CONVS.items() if "1/hidden" not in k and "m/hid" not in k},
        input_shape=(4,),
    ),
    "`cell.skip_connection` must be False, since Haiku": lambda: haiku.save(
        conv(skip_connection=True)
    ),
}
TYPES = {
    "`params` must be a dict of weights, got 3": lambda: haiku.load(3),
    r"`gru` must be a dict of weights, got float64\[2, 2\]": lambda: haiku.load(
        {"gru": ONE}
    ),
    "`name` must be the name of a module or a list of names, got": lambda: haiku.load(
        PARAMS["lstm"], []
    ),
    r"`cell.cells\[1\]` must be a convolutional LSTM like the other layers": lambda: (
        haiku.save(
            jaxrnn.MultiRNNCell([conv().cell, jaxrnn.LSTMCell(4)]).bind(
                {"cell_0": conv().params, "cell_1": bound(jaxrnn.LSTMCell(4)).params}
            )
        )
    ),
}
test_messages = messages(VALUES, TYPES)
