"""Weights of PyTorch, against what it made of them, `golden/convert/torch.npz`."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, with_prefix

import jaxrnn
from jaxrnn import BasicLSTMCell, BasicRNNCell, GRUCell, LSTMCell, MultiRNNCell
from jaxrnn.convert import torch as convert

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "convert" / "torch.npz")
CASES = list(dict.fromkeys(key.split("/")[0] for key in FILE))
PREFIX = "rnn."
TOLERANCE = 1e-12
AfterGRUCell = jaxrnn.CudnnCompatibleGRUCell


def load(case, weights):
    """One cell, or the pair of both directions' cells."""
    made = convert.load_bidirectional if "both" in case else convert.load
    return made(weights, PREFIX, "relu" if "relu" in case else "tanh")


def save(cells):
    if isinstance(cells, tuple):
        return convert.save_bidirectional(*cells, PREFIX)
    return convert.save(cells, PREFIX)


def run(cells, x, golden):
    """The results of PyTorch's module: outputs, and the states of all layers."""
    state = (golden["h0"], golden["c0"]) if "c0" in golden else golden["h0"]
    if isinstance(cells, tuple):
        states = convert.load_state_bidirectional(state)
        outputs, *finals = jaxrnn.stack_bidirectional_dynamic_rnn(*cells, x, *states)
        final = convert.save_state_bidirectional(*finals)
    else:
        initial = convert.load_state(state)
        outputs, final = jaxrnn.dynamic_rnn(cells, x, initial_state=initial)
        final = convert.save_state(final)
    if "c0" not in golden:
        return {"outputs": outputs, "h": final}
    return {"outputs": outputs, "h": final[0], "c": final[1]}


def loss(cells, x, golden):
    made = run(cells, x, golden)
    return sum(jnp.sum(leaf**2) for leaf in made.values()), made


def own_rows(case, name, array):
    """The first row of a weight that is not added to another weight."""
    if "bias_hh" not in name:
        return 0
    return 2 * len(array) // 3 if "gru" in case else len(array)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.fast("lstm_no_bias", "lstm_projected_both", "gru", "rnn_relu_both")
@pytest.mark.parametrize("case", CASES)
def test_as_pytorch(case):
    """Outputs, final states, and gradients with respect to inputs and weights."""
    golden = with_prefix(f"{case}/", FILE)
    loss_of = lambda weights, x: loss(load(case, weights), x, golden)
    gradients = jax.jit(jax.grad(loss_of, (0, 1), has_aux=True))
    (slopes, slope), made = gradients(with_prefix("weights/", golden), golden["x"])
    for name, array in {**made, "grads/x": slope}.items():
        close(array, golden[name])
    want = with_prefix("grads/", golden)
    assert want.keys() == {*slopes, "x"}
    for name, array in slopes.items():
        close(array, want[name])


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case):
    """All weights are restored exactly, except two biases that become one."""
    weights = with_prefix("weights/", with_prefix(f"{case}/", FILE))
    cells = load(case, weights)
    back = save(cells)
    for name, weight in weights.items():
        assert back[name].dtype == np.float64
        assert back[name].flags.writeable
        if "bias_ih" not in name:
            at = own_rows(case, name, weight)
            np.testing.assert_array_equal(back[name][at:], weight[at:])
    for name in (name for name in back if "bias_ih" in name):
        other = name.replace("ih", "hh")
        want = weights[name] + weights[other] if name in weights else 0
        np.testing.assert_array_equal(back[name] + back[other], want)
    again = load(case, back)
    chex.assert_trees_all_equal(again, cells)


OWN = {
    "lstm": LSTMCell(4, forget_bias=0.0),
    "lstm_projected": LSTMCell(4, num_proj=2, forget_bias=0.0),
    "gru": AfterGRUCell(4),
    "rnn": BasicRNNCell(4),
    "rnn_relu": BasicRNNCell(4, activation=jax.nn.relu),
    "layers": MultiRNNCell([LSTMCell(4, forget_bias=0.0) for _ in range(3)]),
}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", OWN)
def test_own_weights_there_and_back(name, dtype):
    cell = bound(OWN[name], dtype=jnp.dtype(dtype))
    again = load(name, save(cell))
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(again))
    chex.assert_trees_all_equal(again.params, cell.params)


def test_both_directions_there_and_back():
    depths = (3, 4)  # Of the lower layer both directions, projected to 2.
    cell = LSTMCell(5, num_proj=2, forget_bias=0.0)
    cells = [
        tuple(bound(cell, depth, seed=seed + depth) for depth in depths)
        for seed in (0, 10)
    ]
    again = load("both", save(tuple(cells)))
    chex.assert_trees_all_equal(again, tuple(cells))


@pytest.mark.parametrize("cell", [BasicLSTMCell(4), LSTMCell(4, forget_bias=0.5)])
def test_a_forget_bias_moves_into_the_bias(cell):
    x = np.random.default_rng(1).normal(size=(2, 3, 3))
    cell = bound(cell)
    again = convert.load(convert.save(cell))
    assert again.cell.forget_bias == 0
    want, got = (jaxrnn.dynamic_rnn(c, x, dtype=x.dtype) for c in (cell, again))
    jax.tree.map(close, got, want)


def test_one_cell_at_two_places():
    """Both layers have these weights."""
    cell = AfterGRUCell(3)
    made = convert.save(bound(MultiRNNCell([cell, cell])))
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        np.testing.assert_array_equal(made[f"{name}_l0"], made[f"{name}_l1"])


class Tensor:
    """A tensor with what converters may use of PyTorch's, and its refusals."""

    def __init__(self, array, dtype, on_cpu=False, attached=True):
        self.array, self.dtype = array, f"torch.{dtype}"
        self.on_cpu, self.attached = on_cpu, attached

    def detach(self):
        return Tensor(self.array, self.dtype[6:], self.on_cpu, False)

    def cpu(self):
        return Tensor(self.array, self.dtype[6:], True, self.attached)

    def float(self):
        array = self.array.astype(np.float32)
        return Tensor(array, "float32", self.on_cpu, self.attached)

    def __array__(self, dtype=None, copy=None):
        if self.dtype == "torch.bfloat16" or not self.on_cpu or self.attached:
            raise TypeError("Can't convert")
        return self.array


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors(dtype):
    cell = bound(OWN["gru"], dtype=jnp.dtype(dtype))
    weights = convert.save(cell)
    again = convert.load({k: Tensor(v, dtype) for k, v in weights.items()})
    chex.assert_trees_all_equal(again.params, cell.params)
    assert again.params["gates"]["bias"].dtype == dtype


def test_other_modules_of_a_model_are_passed_over():
    weights = convert.save(bound(OWN["rnn"]), "a.")
    more = {"weight": np.ones(2), "a.out.weight_x": np.ones(2), "b.weight_ih_l0": 1}
    again = convert.load(weights | more, "a.")
    np.testing.assert_array_equal(
        again.params["kernel"], bound(OWN["rnn"]).params["kernel"]
    )


# Refusals.

LSTM = convert.save(bound(OWN["lstm"]))
PROJECTED = convert.save(bound(OWN["lstm_projected"]))
RNN = convert.save(bound(OWN["rnn"]))
LAYERS = convert.save(bound(OWN["layers"]))
ONE = (bound(OWN["lstm"]),)
BOTH = convert.save_bidirectional(ONE, ONE)
OTHER = np.ones((4, 4))


def saving(cell, **options):
    return lambda: convert.save(bound(cell), **options)


def test_states_under_jit_and_in_a_module():
    h, c = (jnp.arange(24.0).reshape(4, 2, 3) + i for i in range(2))
    fw, bw = jax.jit(convert.load_state_bidirectional)((h, c))
    assert len(fw) == len(bw) == 2
    chex.assert_trees_all_equal(fw[1], jaxrnn.LSTMStateTuple(c[2], h[2]))
    chex.assert_trees_all_equal(convert.save_state_bidirectional(fw, bw), (h, c))
    one = convert.load_state(h[:1])
    chex.assert_trees_all_equal(convert.save_state(one), h[:1])


REFUSALS = {
    "three_states": (
        TypeError,
        r"load_state: `state` must be h or \(h, c\), each \[layers, .*, got \(fl",
        lambda: convert.load_state((OTHER, OTHER, OTHER)),
    ),
    "a_state_without_layers": (
        ValueError,
        r"load_state: `state` must be h or .*, got \[float64\[4\]\]",
        lambda: convert.load_state(OTHER[0]),
    ),
    "a_state_of_other_layers": (
        ValueError,
        r"load_state: `state` must be .*, got \[float64\[4, 4\], float64\[3, 4\]\]",
        lambda: convert.load_state((OTHER, OTHER[:3])),
    ),
    "a_state_of_one_direction": (
        ValueError,
        "load_state_bidirectional: `state` must have two entries for each layer, .* 3",
        lambda: convert.load_state_bidirectional(OTHER[:3]),
    ),
    "states_of_unlike_layers": (
        ValueError,
        "all layers must have states of one kind and shape, got",
        lambda: convert.save_state((OTHER[0], OTHER[0, :2])),
    ),
    "states_of_two_directions": (
        TypeError,
        "the state of a layer must be an array or an LSTMStateTuple,",
        lambda: convert.save_state(((OTHER, OTHER), (OTHER, OTHER))),
    ),
    "states_of_other_depths": (
        ValueError,
        "`states_bw` must have the 4 layers of `states_fw`, got 3",
        lambda: convert.save_state_bidirectional(OTHER, OTHER[:3]),
    ),
    "a_forgotten_prefix": (
        ValueError,
        "`weight_ih_l0` is missing. Found: a.rnn.weight_ih_l0,",
        lambda: convert.load(
            {f"{p}{k}": v for p in ("a.rnn.", "b.") for k, v in LSTM.items()}
        ),
    ),
    "no_dict": (
        TypeError,
        r"convert\.torch\.load: `state_dict` must be a dict .*, got list. Pass `module",
        lambda: convert.load([OTHER]),
    ),
    "nothing": (
        ValueError,
        r"`a\.weight_ih_l0` is missing. Found: weight_ih_l0, ",
        lambda: convert.load(LSTM, "a."),
    ),
    "missing": (
        ValueError,
        r"`weight_hh_l1` is missing. Found: weight_ih_l0, ",
        lambda: convert.load({k: LAYERS[k] for k in LAYERS if k != "weight_hh_l1"}),
    ),
    "a_bias_missing": (
        ValueError,
        r"`bias_hh_l0` is missing",
        lambda: convert.load({k: LSTM[k] for k in LSTM if k != "bias_hh_l0"}),
    ),
    "a_projection_missing": (
        ValueError,
        r"`weight_hr_l1` is missing",
        lambda: convert.load(
            PROJECTED | {k.replace("l0", "l1"): PROJECTED[k] for k in LSTM}
        ),
    ),
    "unknown": (
        ValueError,
        "`weight_hh_l0_g` is unknown. A layer has weight_ih,",
        lambda: convert.load(LSTM | {"weight_hh_l0_g": OTHER}),
    ),
    "upper_layers": (
        ValueError,
        "`weight_ih_l0` is missing. Found: weight_ih_l1, weight_hh_l1,",
        lambda: convert.load({k: LAYERS[k] for k in LAYERS if k.endswith("_l1")}),
    ),
    "transposed": (
        ValueError,
        r"`weight_ih_l0` must have shape \[16, any\], got float64\[3, 16\]",
        lambda: convert.load(LSTM | {"weight_ih_l0": LSTM["weight_ih_l0"].T}),
    ),
    "of_a_cell": (
        ValueError,
        r"`weight_ih` is unknown",
        lambda: convert.load({"weight_ih": OTHER, "weight_hh": OTHER}),
    ),
    "no_array": (
        TypeError,
        r"`weight_hh_l0` must be an array, got list",
        lambda: convert.load(RNN | {"weight_hh_l0": [1.0]}),
    ),
    "no_float": (
        TypeError,
        r"`weight_hh_l0` must be floating-point, got int64\[4, 4\]",
        lambda: convert.load(RNN | {"weight_hh_l0": OTHER.astype(int)}),
    ),
    "rank": (
        ValueError,
        r"`weight_hh_l0` must have shape \[any, any\], got float64\[4\]",
        lambda: convert.load(RNN | {"weight_hh_l0": OTHER[0]}),
    ),
    "ratio": (
        ValueError,
        r"`weight_hh_l0` must have 1, 3 or 4 blocks of 4 units, .*float64\[8, 4\]",
        lambda: convert.load(RNN | {"weight_hh_l0": np.ones((8, 4))}),
    ),
    "rows": (
        ValueError,
        r"`weight_ih_l0` must have shape \[16, any\], got float64\[4, 4\]",
        lambda: convert.load(LSTM | {"weight_ih_l0": OTHER}),
    ),
    "depth": (
        ValueError,
        r"`weight_ih_l1` must have shape \[16, 4\], got float64\[16, 3\]",
        lambda: convert.load(LAYERS | {"weight_ih_l1": np.ones((16, 3))}),
    ),
    "projection_of_rnn": (
        ValueError,
        "`weight_hr_l0` is only for an LSTM, got RNN",
        lambda: convert.load(RNN | {"weight_hr_l0": OTHER}),
    ),
    "unlike": (
        ValueError,
        r"all layers must have the same kind, .* got LSTM of 4 units with tanh and RNN "
        r"of 4 units",
        lambda: convert.load(
            LSTM
            | {k.replace("l0", "l1"): RNN[k] for k in RNN}
            | {"weight_ih_l1": OTHER}
        ),
    ),
    "both": (
        ValueError,
        r"`state_dict` must have one direction, got two .* Use `load_bidirectional`",
        lambda: convert.load(BOTH),
    ),
    "one": (
        ValueError,
        r"`state_dict` must have two directions, got one direction. Use `load`",
        lambda: convert.load_bidirectional(LSTM),
    ),
    "nonlinearity": (
        ValueError,
        "`nonlinearity` must be tanh or relu for RNN, got 'sigmoid'",
        lambda: convert.load(RNN, nonlinearity="sigmoid"),
    ),
    "nonlinearity_of_lstm": (
        ValueError,
        "`nonlinearity` must be tanh for LSTM, got 'relu'",
        lambda: convert.load(LSTM, nonlinearity="relu"),
    ),
    "not_bound": (
        TypeError,
        r"`cell` must be a cell with its parameters, .*, got GRUCell",
        lambda: convert.save(GRUCell(4)),
    ),
    "gru": (
        ValueError,
        "`cell` must be one of BasicRNNCell, CudnnCompatibleGRUCell,",
        saving(GRUCell(4)),
    ),
    "gru_within": (
        ValueError,
        r"`cell.cells\[1\]` must be one of BasicRNNCell,",
        saving(MultiRNNCell([AfterGRUCell(4), GRUCell(4)])),
    ),
    "peepholes": (
        ValueError,
        r"`cell` must have no peepholes",
        saving(LSTMCell(4, use_peepholes=True)),
    ),
    "clip": (
        ValueError,
        "`cell` must have no clips",
        saving(LSTMCell(4, cell_clip=3.0)),
    ),
    "lstm_relu": (
        ValueError,
        "`cell` must have the activation tanh, as in PyTorch, got relu",
        saving(LSTMCell(4, activation="relu")),
    ),
    "gru_relu": (
        ValueError,
        "`cell` must have the activation tanh, as in PyTorch, got relu",
        saving(AfterGRUCell(4, activation="relu")),
    ),
    "rnn_softsign": (
        ValueError,
        "`cell` must have the activation tanh or relu, as in PyTorch,",
        saving(BasicRNNCell(4, activation="softsign")),
    ),
    "wide_projection": (
        ValueError,
        r"`cell` must have `num_proj` below `num_units`, .*, got 4 and 4",
        saving(LSTMCell(4, num_proj=4)),
    ),
    "cells_unlike": (
        ValueError,
        r"must have the same kind, sizes and activation to form one module, got LSTM "
        r"of 4 units with tanh and LSTM of 5 units",
        saving(MultiRNNCell([LSTMCell(4), LSTMCell(5)])),
    ),
    "projections_unlike": (
        ValueError,
        r"got LSTM of 4 units projected to 2 with tanh and LSTM of 4 units with tanh",
        saving(MultiRNNCell([LSTMCell(4), LSTMCell(4, num_proj=2)])),
    ),
    "activations_unlike": (
        ValueError,
        r"must have the same kind, sizes and activation .*, got RNN of 4 units with "
        r"relu and RNN of 4 units with tanh",
        saving(MultiRNNCell([BasicRNNCell(4), BasicRNNCell(4, activation="relu")])),
    ),
    "no_list": (
        TypeError,
        "`cells_fw` must be a list of cells, one for each layer, got",
        lambda: convert.save_bidirectional(ONE[0].cell, ONE[0].cell),
    ),
    "no_cells": (
        ValueError,
        "`cells_fw` must be a list of cells, one for each layer, got",
        lambda: convert.save_bidirectional((), ()),
    ),
    "counts": (
        ValueError,
        "`cells_bw` must have one cell for each of the 1 cells in",
        lambda: convert.save_bidirectional(ONE, ONE * 2),
    ),
    "deep": (
        ValueError,
        r"`cells_bw\[0\]` must be one layer, got 3. Pass a separate cell",
        lambda: convert.save_bidirectional(ONE, [bound(OWN["layers"])]),
    ),
    "gru_backward": (
        ValueError,
        r"`cells_bw\[0\]` must be one of BasicRNNCell,",
        lambda: convert.save_bidirectional(
            [bound(AfterGRUCell(4))], [bound(GRUCell(4))]
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name):
    kind, message, call = REFUSALS[name]
    with pytest.raises(kind, match=message):
        call()
