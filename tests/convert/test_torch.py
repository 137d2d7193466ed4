"""Weights of PyTorch, against what it made of them, `golden/convert/torch.npz`."""

import functools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, with_prefix

import jaxrnn
from jaxrnn import BasicRNNCell, LSTMCell, MultiRNNCell
from jaxrnn.convert import torch as convert

FILE = np.load(pathlib.Path(__file__).parents[1] / "golden" / "convert" / "torch.npz")
CASES = list(dict.fromkeys(key.split("/")[0] for key in FILE))
PREFIX = "rnn."
TOLERANCE = 1e-12
AfterGRUCell = jaxrnn.CudnnCompatibleGRUCell


def load(case, weights):
    """One cell, or the pair of both directions' cells."""
    activation = "relu" if "relu" in case else "tanh"
    return convert.load(weights, PREFIX, activation, bidirectional="both" in case)


def save(cells):
    if isinstance(cells, tuple):
        return convert.save(cells, PREFIX, bidirectional=True)
    return convert.save(cells, PREFIX)


def run(cells, x, golden):
    """The results of PyTorch's module: outputs, and the states of all layers."""
    state = (golden["h0"], golden["c0"]) if "c0" in golden else golden["h0"]
    if isinstance(cells, tuple):
        states = convert.load_state(state, bidirectional=True)
        outputs, *finals = jaxrnn.stack_bidirectional_dynamic_rnn(*cells, x, *states)
        final = convert.save_state(finals, bidirectional=True)
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


def test_both_directions_there_and_back():
    depths = (3, 4)  # Of the lower layer both directions, projected to 2.
    cell = LSTMCell(5, num_proj=2, forget_bias=0.0)
    cells = [
        tuple(bound(cell, depth, seed=seed + depth) for depth in depths)
        for seed in (0, 10)
    ]
    again = load("both", save(tuple(cells)))
    chex.assert_trees_all_equal(again, tuple(cells))


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


def test_states_under_jit_and_in_a_module():
    h, c = (jnp.arange(24.0).reshape(4, 2, 3) + i for i in range(2))
    load = functools.partial(convert.load_state, bidirectional=True)
    fw, bw = jax.jit(load)((h, c))
    assert len(fw) == len(bw) == 2
    chex.assert_trees_all_equal(fw[1], jaxrnn.LSTMStateTuple(c[2], h[2]))
    chex.assert_trees_all_equal(
        convert.save_state((fw, bw), bidirectional=True), (h, c)
    )
    layer = convert.save_state(([fw[0]], [bw[0]]), bidirectional=True)
    bare = convert.save_state((fw[0], bw[0]), bidirectional=True)
    chex.assert_trees_all_equal(bare, layer, (h[:2], c[:2]))
    one = convert.load_state(h[:1])
    chex.assert_trees_all_equal(convert.save_state(one), h[:1])
