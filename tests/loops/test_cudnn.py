"""The code around cuDNN's LSTM, with JAX's reference instead of cuDNN.

`tests/loops/test_implementations.py` tests which cells cuDNN declines.
"""

import functools
from types import SimpleNamespace

import helpers
import jax
import jax.numpy as jnp
import native_cases
import pytest
from helpers import eqns, stacked
from jax.experimental import rnn
from native_cases import DEPTH, F32, LENGTHS, TIME, data, everything, run

import jaxrnn
import jaxrnn.linen
from jaxrnn import BasicLSTMCell, LSTMCell
from jaxrnn._cells.affine import cudnn
from jaxrnn.memory import Keep, Offload, Recompute
from jaxrnn.testing._oracle import weighted_sum

assert_near = functools.partial(helpers.assert_near, tolerance=1e-5)
UNITS = 4
SIZES = {"input_size": DEPTH, "hidden_size": UNITS, "num_layers": 1}
SIZES |= {"bidirectional": False}
# The documented arguments of JAX's primitives.
STATIC = SIZES | {"dropout": 0.0, "cudnn_allow_tf32": True}
reference = functools.partial(helpers.lstm_ref, sizes=SIZES)


# The replacement is as strict as cuDNN's documentation: if cuDNN does not support the
# arguments, all results are NaN.


class Reference:
    """A replacement for cuDNN's primitives, which records the shapes of inputs."""

    def __init__(self):
        self.forwards, self.backwards = [], []

    def forward(self, *given, **static):
        x, *_, lengths = given
        self.forwards.append(x.shape)
        assert static == STATIC
        assert {v.dtype for v in given} == {F32, jnp.dtype(jnp.int32)}
        fits = jnp.all((lengths >= 1) & (lengths <= x.shape[1]))
        finite = jnp.stack([jnp.all(jnp.isfinite(v)) for v in given])
        made = poison(fits & jnp.all(finite), reference(*given))
        return *made, packed(given)

    def backward(self, ct_y, ct_h, ct_c, *rest, **static):
        *given, y, reserve, lengths = rest
        self.backwards.append(given[0].shape)
        assert static == STATIC
        (again, *_), pull_back = jax.vjp(lambda *v: reference(*v, lengths), *given)
        steps = jnp.arange(TIME, dtype=jnp.int32)
        after = (steps[None, :] >= lengths[:, None])[..., None]
        is_quiet = jnp.all(jnp.where(after, ct_y, 0) == 0)
        same = jnp.all(packed((*given, lengths)) == reserve)
        # The backward pass does not read a row's last output, so it may differ.
        off_y = jnp.where(after[:, 1:], 0, (y - again)[:, :-1])
        same_y = jnp.all(jnp.abs(off_y) < 1e-5)
        ct_x, *others = pull_back((ct_y, ct_h, ct_c))
        # cuDNN's documentation does not specify the results for padding.
        cotangents = jnp.where(after, jnp.nan, ct_x), *others
        return poison(is_quiet & same & same_y, cotangents)


def packed(given):
    return jnp.concatenate([v.astype(F32).reshape(-1) for v in given])


def poison(is_well, tree):
    return jax.tree.map(lambda v: jnp.where(is_well, v, jnp.nan), tree)


@pytest.fixture
def with_gpu(monkeypatch):
    """Allow this process to trace calls of cuDNN, with empty caches."""
    jax.clear_caches()
    monkeypatch.setattr(cudnn, "why_not_here", lambda: None)
    yield
    jax.clear_caches()


@pytest.fixture
def stand_in(with_gpu, monkeypatch):
    """The replacement for calls of cuDNN."""
    calls = Reference()
    monkeypatch.setattr(rnn, "rnn_fwd_p", SimpleNamespace(bind=calls.forward))
    monkeypatch.setattr(rnn, "rnn_bwd_p", SimpleNamespace(bind=calls.backward))
    return calls


@pytest.fixture
def sized(with_gpu, monkeypatch):
    """JAX's primitives, with constant buffer sizes instead of cuDNN's."""
    name = "compute_rnn_workspace_reserve_space_sizes"
    monkeypatch.setattr(rnn.gpu_rnn, name, lambda *_: (100, 1000), raising=False)


BASIC = BasicLSTMCell(UNITS)
CELLS = {
    "basic": BASIC,
    "joined": BasicLSTMCell(UNITS, forget_bias=0.3, state_is_tuple=False),
    # Without a projection, nothing is clipped.
    "lstm": LSTMCell(UNITS, forget_bias=0.3, proj_clip=0.01),
}


@pytest.mark.fast("basic-False")
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients_are_those_of_the_loop(stand_in, name, time_major):
    cell = CELLS[name]
    params, x, state = data(cell)
    given = params, jnp.swapaxes(x, 0, 1) if time_major else x, state
    options = {"time_major": time_major, "lengths": None if time_major else LENGTHS}
    want = everything(cell, "xla", *given, **options)
    assert_near(everything(cell, "cudnn", *given, **options), want)
    assert set(stand_in.forwards) == set(stand_in.backwards) == {(5, TIME, DEPTH)}


def test_padding_has_no_effect(stand_in):
    native_cases.check_padding(CELLS["lstm"], "cudnn", tolerance=1e-5)


@pytest.mark.slow
def test_mapped_gradients(stand_in):
    def mapped(name):
        loss = lambda *given: weighted_sum(run(BASIC, name, *given))
        step = jax.vmap(jax.value_and_grad(loss, (0, 1, 2)))
        return jax.jit(step)(*stacked(data(BASIC), 1, -1))

    assert_near(mapped("cudnn"), mapped("xla"))
    assert stand_in.forwards


over_devices = functools.partial(native_cases.over_devices, CELLS["lstm"])


@pytest.mark.slow
def test_rows_over_devices(sized, request):
    """JAX's primitives do not say that their results vary, which decides the sums."""

    def program():
        step, params = over_devices("cudnn")
        return [e.primitive.name for e in eqns(jax.make_jaxpr(step)(params).jaxpr)]

    sums = lambda names: sum(name.startswith("psum") for name in names)
    names = program()
    assert {"rnn_fwd", "rnn_bwd"} < set(names)
    request.getfixturevalue("stand_in")
    jax.clear_caches()
    assert sums(names) == sums(program()) > 0
    (step, params), (of_xla, _) = map(over_devices, ("cudnn", "xla"))
    assert_near(jax.jit(step)(params), jax.jit(of_xla)(params))


def loops(step, *given):
    """The equations that call cuDNN or loop, in order."""
    found = eqns(jax.make_jaxpr(step)(*given).jaxpr)
    is_loop = lambda name: name in ("while", "scan") or name.startswith("rnn_")
    return [e for e in found if is_loop(e.primitive.name)]


@pytest.mark.fast("Recompute(3)-2")
@pytest.mark.parametrize(
    ("strategy", "forwards"), [(Offload(Keep(), 3), 1), (Recompute(3), 2)], ids=str
)
def test_what_goes_to_the_host_is_not_computed_again(sized, strategy, forwards):
    step = functools.partial(everything, BASIC, "cudnn", swap_memory=strategy)
    names = [e.primitive.name for e in loops(step, *data(BASIC))]
    called = [name for name in names if name.startswith("rnn_")]
    assert called == ["rnn_fwd"] * forwards + ["rnn_bwd"]


@pytest.mark.parametrize(
    ("named", "is_tf32"), [("bfloat16", True), ("high", True), ("float32", False)]
)
def test_precision_is_that_of_the_call(sized, named, is_tf32):
    """A gradient runs no loop beside the two calls."""

    def loss(*given):
        with jax.default_matmul_precision(named):
            return weighted_sum(run(BASIC, "cudnn", *given))

    there, back = loops(jax.grad(loss), *data(BASIC))
    assert there.params == back.params == STATIC | {"cudnn_allow_tf32": is_tf32}


def test_parameters_are_made_without_a_gpu():
    rnn = jaxrnn.linen.RNN(LSTMCell(UNITS), implementation="cudnn")
    x = jnp.ones((2, TIME, DEPTH), F32)
    made = rnn.init(jax.random.key(0), x)["params"]
    plain = jaxrnn.linen.RNN(LSTMCell(UNITS)).init(jax.random.key(0), x)["params"]
    helpers.assert_same(made, plain)
